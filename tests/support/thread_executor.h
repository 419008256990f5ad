// A device loop with a thread of its own, as the daemon's, for tests with real vCPUs. What is
// posted runs in order; delays are none.
#ifndef ROMULUS_TESTS_SUPPORT_THREAD_EXECUTOR_H_
#define ROMULUS_TESTS_SUPPORT_THREAD_EXECUTOR_H_

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "base/executor.h"

namespace romulus::testing {

class ThreadExecutor final : public base::Executor {
 public:
  ThreadExecutor() : thread_([this] { Main(); }) {}
  ~ThreadExecutor() override {
    Put([this] { ended_ = true; });
    thread_.join();
  }
  void Post(std::function<void()> work) override { Put(std::move(work)); }
  void PostAfter(uint64_t, std::function<void()> work) override { Put(std::move(work)); }

 private:
  void Put(std::function<void()> work) {
    {
      std::lock_guard lock(mutex_);
      work_.push_back(std::move(work));
    }
    changed_.notify_all();
  }
  void Main() {
    while (!ended_) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !work_.empty(); });
      const std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      lock.unlock();
      work();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> work_;
  bool ended_ = false;  // the thread's own
  std::thread thread_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_THREAD_EXECUTOR_H_

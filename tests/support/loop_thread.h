// An executor with a thread of its own, for tests of what posts to one.
#ifndef ROMULUS_TESTS_SUPPORT_LOOP_THREAD_H_
#define ROMULUS_TESTS_SUPPORT_LOOP_THREAD_H_

#include <deque>
#include <functional>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/executor.h"

namespace romulus::testing {

class LoopThread final : public base::Executor {
 public:
  LoopThread() : thread_([this] { Run(); }) {}
  // What is posted and has not begun is dropped.
  ~LoopThread() override {
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
    }
    thread_.join();
  }
  void Post(std::function<void()> work) override {
    absl::MutexLock lock(&mutex_);
    work_.push_back(std::move(work));
  }
  void PostAfter(uint64_t, std::function<void()> work) override { Post(std::move(work)); }
  // Until everything posted before has run.
  void Drain() {
    absl::Notification done;
    Post([&] { done.Notify(); });
    done.WaitForNotification();
  }

 private:
  void Run() {
    absl::MutexLock lock(&mutex_);
    const auto ready = [this] { return stopping_ || !work_.empty(); };
    for (;;) {
      mutex_.Await(absl::Condition(&ready));
      if (stopping_) return;
      std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      mutex_.Unlock();
      work();
      mutex_.Lock();
    }
  }

  absl::Mutex mutex_;
  bool stopping_ = false;
  std::deque<std::function<void()>> work_;
  std::thread thread_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_LOOP_THREAD_H_

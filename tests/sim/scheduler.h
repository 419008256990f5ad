// Simulated time and chance: one heap of things to do, one seeded source of numbers. Whatever
// happens in a schedule happens from here, one thing at a time, so a seed says all of it.
//
// An event may run others while it waits (RunFor), as a thread that blocks lets the others work.
#ifndef ROMULUS_TESTS_SIM_SCHEDULER_H_
#define ROMULUS_TESTS_SIM_SCHEDULER_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "base/clock.h"

namespace romulus::sim {

inline constexpr uint64_t kMicrosecond = 1000;  // in nanoseconds
inline constexpr uint64_t kMillisecond = 1'000'000;

class Scheduler {
 public:
  explicit Scheduler(uint64_t seed) : random_(seed) {}

  uint64_t now_ns() const { return now_ns_; }
  uint64_t Pick(uint64_t below) { return random_() % below; }
  bool Chance(uint64_t one_in) { return Pick(one_in) == 0; }
  uint64_t Between(uint64_t low, uint64_t high) { return low + Pick(high - low + 1); }
  uint64_t Number() { return random_(); }

  void After(uint64_t delay_ns, std::function<void()> what) {
    heap_.push_back({now_ns_ + delay_ns, ++sequence_, std::move(what)});
    std::push_heap(heap_.begin(), heap_.end(), Later);
  }
  // What is due until then, in order; stops early if `stopped` says so after an event.
  void RunUntil(uint64_t until_ns, const std::function<bool()>& stopped) {
    while (!heap_.empty() && heap_.front().at_ns <= until_ns) {
      std::pop_heap(heap_.begin(), heap_.end(), Later);
      Event event = std::move(heap_.back());
      heap_.pop_back();
      now_ns_ = std::max(now_ns_, event.at_ns);
      ++events_;
      event.what();
      if (stopped()) return;
    }
    now_ns_ = std::max(now_ns_, until_ns);
  }
  uint64_t events() const { return events_; }

 private:
  struct Event {
    uint64_t at_ns;
    uint64_t sequence;
    std::function<void()> what;
  };
  static bool Later(const Event& a, const Event& b) {
    return a.at_ns != b.at_ns ? a.at_ns > b.at_ns : a.sequence > b.sequence;
  }

  std::mt19937_64 random_;
  uint64_t now_ns_ = 0;
  uint64_t sequence_ = 0;
  uint64_t events_ = 0;
  std::vector<Event> heap_;
};

// One host's monotonic clock: begins anywhere, runs a little fast or slow.
class HostClock final : public base::Clock {
 public:
  HostClock(const Scheduler* scheduler, uint64_t offset_ns, int64_t drift_ppm)
      : scheduler_(scheduler), offset_ns_(offset_ns), drift_ppm_(drift_ppm) {}
  uint64_t NowNs() const override {
    const int64_t now_ns = static_cast<int64_t>(scheduler_->now_ns());
    return offset_ns_ + static_cast<uint64_t>(now_ns + now_ns / 1'000'000 * drift_ppm_);
  }

 private:
  const Scheduler* scheduler_;
  uint64_t offset_ns_;
  int64_t drift_ppm_;
};

// What a daemon's process shares: whether it still lives, and until when it is stopped (SIGSTOP).
struct Process {
  bool alive = true;
  uint64_t stopped_until_ns = 0;
};

// One thread of a daemon: does what is posted, in order, each a little later. Dies with its
// process.
class Thread {
 public:
  Thread(Scheduler* scheduler, std::shared_ptr<Process> process)
      : scheduler_(scheduler), process_(std::move(process)) {}
  ~Thread() { *gone_ = true; }
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  void Post(std::function<void()> what) {
    queue_.push_back(std::move(what));
    Wake();
  }
  void PostAfter(uint64_t delay_ns, std::function<void()> what) {
    scheduler_->After(delay_ns, [this, gone = gone_, what = std::move(what)]() mutable {
      if (!*gone) Post(std::move(what));
    });
  }
  // It waits for something: nothing else runs on it until Unblock().
  void Block() { ++blocked_; }
  void Unblock() {
    --blocked_;
    Wake();
  }
  bool idle() const { return queue_.empty() && blocked_ == 0; }

 private:
  void Wake() {
    if (awake_ || queue_.empty() || blocked_ > 0) return;
    awake_ = true;
    // Mostly at once; now and then others get far ahead of it.
    const uint64_t delay_ns = scheduler_->Chance(16) ? scheduler_->Pick(8 * kMillisecond)
                                                     : scheduler_->Pick(kMillisecond / 4);
    scheduler_->After(delay_ns, [this, gone = gone_] {
      if (!*gone) Turn(gone);
    });
  }
  void Turn(const std::shared_ptr<bool>& gone) {
    if (!process_->alive) return;
    if (process_->stopped_until_ns > scheduler_->now_ns()) {
      return scheduler_->After(process_->stopped_until_ns - scheduler_->now_ns(), [this, gone] {
        if (!*gone) Turn(gone);
      });
    }
    awake_ = false;
    if (blocked_ > 0 || queue_.empty()) return;
    std::function<void()> what = std::move(queue_.front());
    queue_.pop_front();
    ++blocked_;  // it may run others' events while it waits
    what();
    if (*gone) return;
    --blocked_;
    Wake();
  }

  Scheduler* scheduler_;
  std::shared_ptr<Process> process_;
  std::shared_ptr<bool> gone_ = std::make_shared<bool>(false);
  std::deque<std::function<void()>> queue_;
  bool awake_ = false;
  int blocked_ = 0;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_SCHEDULER_H_

// Waiting for an atomic word: a short spin that gives way to other threads, then a futex. Inside
// the pause a futex wake-up costs as much as stopping a vCPU, so the few microseconds are worth
// spinning for; where vCPUs have all CPUs not for long. Any thread.
#ifndef ROMULUS_BASE_WAIT_H_
#define ROMULUS_BASE_WAIT_H_

#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>

namespace romulus::base {

// Returns the first value seen for which `done(value)` holds.
template <typename Done>
uint32_t WaitFor(const std::atomic<uint32_t>& word, std::chrono::nanoseconds spin, Done done) {
  uint32_t value = word.load(std::memory_order_acquire);
  if (done(value)) return value;
  if (spin.count() > 0) {
    const auto deadline = std::chrono::steady_clock::now() + spin;
    do {
      for (int i = 0; i < 32; ++i) {
        value = word.load(std::memory_order_acquire);
        if (done(value)) return value;
        __builtin_ia32_pause();
      }
      ::sched_yield();
    } while (std::chrono::steady_clock::now() < deadline);
  }
  for (;;) {
    value = word.load(std::memory_order_acquire);
    if (done(value)) return value;
    word.wait(value, std::memory_order_acquire);
  }
}

// Counts down to zero once per pause; whoever brings it to zero wakes the waiters.
class CountdownLatch {
 public:
  void Set(uint32_t count) { count_.store(count, std::memory_order_release); }
  void CountDown() {
    if (count_.fetch_sub(1, std::memory_order_acq_rel) == 1) count_.notify_all();
  }
  void Wait(std::chrono::nanoseconds spin) const {
    WaitFor(count_, spin, [](uint32_t value) { return value == 0; });
  }

 private:
  std::atomic<uint32_t> count_{0};
};

}  // namespace romulus::base

#endif  // ROMULUS_BASE_WAIT_H_

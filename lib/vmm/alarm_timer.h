// A timer that kicks the thread that made it (kick_signal.h): it leaves KVM_RUN when the time has
// come, and nobody on another processor has to wake up and to interrupt it. That thread only.
#ifndef ROMULUS_VMM_ALARM_TIMER_H_
#define ROMULUS_VMM_ALARM_TIMER_H_

#include <time.h>

#include <cstdint>
#include <utility>

#include "absl/status/statusor.h"

namespace romulus::vmm {

class AlarmTimer {
 public:
  // Errors: errno of timer_create.
  static absl::StatusOr<AlarmTimer> Create();
  ~AlarmTimer();
  AlarmTimer(AlarmTimer&& other) noexcept : timer_(std::exchange(other.timer_, nullptr)) {}
  AlarmTimer(const AlarmTimer&) = delete;
  AlarmTimer& operator=(const AlarmTimer&) = delete;
  AlarmTimer& operator=(AlarmTimer&&) = delete;

  // Once, at `at_ns` by the monotonic clock, instead of what was set before. A time that has gone
  // by is now. False if the kernel refuses.
  bool Set(uint64_t at_ns);

 private:
  explicit AlarmTimer(timer_t timer) : timer_(timer) {}

  timer_t timer_;  // null: moved from
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_ALARM_TIMER_H_

#include "vmm/alarm_timer.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/status.h"
#include "vmm/kick_signal.h"

// Not every C library's headers name it.
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace romulus::vmm {

absl::StatusOr<AlarmTimer> AlarmTimer::Create() {
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = KickSignalNumber();
  event.sigev_notify_thread_id = static_cast<pid_t>(::syscall(SYS_gettid));
  timer_t timer = nullptr;
  if (::timer_create(CLOCK_MONOTONIC, &event, &timer) != 0) {
    return base::ErrnoStatus(errno, "timer_create");
  }
  return AlarmTimer(timer);
}

AlarmTimer::~AlarmTimer() {
  if (timer_ != nullptr) ::timer_delete(timer_);
}

bool AlarmTimer::Set(uint64_t at_ns) {
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(at_ns / 1'000'000'000);
  // Zero would mean "never".
  when.it_value.tv_nsec = std::max<int64_t>(1, static_cast<int64_t>(at_ns % 1'000'000'000));
  return ::timer_settime(timer_, TIMER_ABSTIME, &when, nullptr) == 0;
}

}  // namespace romulus::vmm

// A condition variable for absl::Mutex whose timeouts follow the monotonic clock.
//
// absl::CondVar's (20220623) are times of the wall clock: futex(2) with FUTEX_CLOCK_REALTIME. When
// somebody sets the clock back by an hour, every wait under way lasts an hour longer, and a thread
// that sends heartbeats by such waits is taken for dead. Any thread.
#ifndef ROMULUS_BASE_COND_VAR_H_
#define ROMULUS_BASE_COND_VAR_H_

#include <algorithm>
#include <chrono>
#include <condition_variable>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace romulus::base {

class CondVar {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  static Deadline After(absl::Duration timeout) {
    return std::chrono::steady_clock::now() +
           absl::ToChronoNanoseconds(std::min(timeout, absl::Hours(24 * 365)));
  }

  // What is left of it; zero when it is over.
  static absl::Duration Left(Deadline deadline) {
    return std::max(absl::ZeroDuration(),
                    absl::FromChrono(deadline - std::chrono::steady_clock::now()));
  }

  void Wait(absl::Mutex* mutex) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Lockable lockable{mutex};
    condition_.wait(lockable);
  }
  // True if the time is over. Both may also return early.
  bool WaitUntil(absl::Mutex* mutex, Deadline deadline) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Lockable lockable{mutex};
    return condition_.wait_until(lockable, deadline) == std::cv_status::timeout;
  }
  bool WaitWithTimeout(absl::Mutex* mutex, absl::Duration timeout)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    return WaitUntil(mutex, After(timeout));
  }
  // Until `true_now`, asked with `mutex` held, or the end of the time; what it said last.
  template <typename Predicate>
  bool AwaitUntil(absl::Mutex* mutex, Deadline deadline, const Predicate& true_now)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    while (!true_now()) {
      if (WaitUntil(mutex, deadline)) return true_now();
    }
    return true;
  }
  void Signal() { condition_.notify_one(); }
  void SignalAll() { condition_.notify_all(); }

 private:
  // What std::condition_variable_any calls.
  struct Lockable {
    absl::Mutex* mutex;
    void lock() ABSL_NO_THREAD_SAFETY_ANALYSIS { mutex->Lock(); }
    void unlock() ABSL_NO_THREAD_SAFETY_ANALYSIS { mutex->Unlock(); }
  };
  std::condition_variable_any condition_;
};

}  // namespace romulus::base

#endif  // ROMULUS_BASE_COND_VAR_H_

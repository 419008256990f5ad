// What absl::Mutex checks while a process runs.
#ifndef ROMULUS_BASE_MUTEX_CHECKS_H_
#define ROMULUS_BASE_MUTEX_CHECKS_H_

#include "absl/synchronization/mutex.h"

namespace romulus::base {

// No graph of which mutex was taken under which, in release builds. A distribution's abseil may be
// built with its checks on (Debian's is), and each Lock(), of gRPC's also, then takes part in it
// behind one spin lock. Debug builds keep it, sanitized ones, and tests that do not call this.
// Before other threads are started.
inline void SkipMutexChecksInRelease() {
#if defined(NDEBUG) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
}

}  // namespace romulus::base

#endif  // ROMULUS_BASE_MUTEX_CHECKS_H_

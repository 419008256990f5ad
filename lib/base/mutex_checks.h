// What absl::Mutex checks while a process runs.
#ifndef ROMULUS_BASE_MUTEX_CHECKS_H_
#define ROMULUS_BASE_MUTEX_CHECKS_H_

#include "absl/synchronization/mutex.h"

namespace romulus::base {

// No graph of which mutex was taken under which, in release builds. A distribution's abseil may be
// built with its checks on (Debian's is), and each Lock(), of gRPC's also, then takes part in it
// behind one spin lock. Builds for development and their tests keep it. Before other threads are
// started.
inline void SkipMutexChecksInRelease() {
#ifdef NDEBUG
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
#endif
}

}  // namespace romulus::base

#endif  // ROMULUS_BASE_MUTEX_CHECKS_H_

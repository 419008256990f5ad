// Whether spinning takes time from anybody.
#ifndef ROMULUS_BASE_SPARE_CPU_H_
#define ROMULUS_BASE_SPARE_CPU_H_

#include <algorithm>
#include <thread>

namespace romulus::base {

// A thread that waits for a vCPU may spin for long, and without giving way to others, only while a
// CPU is left beside those.
inline bool LeavesACpu(int vcpu_count) {
  return static_cast<unsigned>(vcpu_count) < std::max(1u, std::thread::hardware_concurrency());
}

}  // namespace romulus::base

#endif  // ROMULUS_BASE_SPARE_CPU_H_

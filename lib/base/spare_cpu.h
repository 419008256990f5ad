// Whether spinning takes time from anybody.
#ifndef ROMULUS_BASE_SPARE_CPU_H_
#define ROMULUS_BASE_SPARE_CPU_H_

#include <span>

#include "base/cpu_affinity.h"

namespace romulus::base {

// A thread that waits for a vCPU may spin for long, and without giving way to others, only while a
// CPU is left beside those: of the CPUs that the caller may run on, and the vCPUs on theirs
// (`vcpu_cpus`; empty: on the same). To be asked on a thread that runs where those run that wait.
inline bool LeavesACpu(int vcpu_count, std::span<const int> vcpu_cpus) {
  return vcpu_count < CountCpus(vcpu_cpus);
}

}  // namespace romulus::base

#endif  // ROMULUS_BASE_SPARE_CPU_H_

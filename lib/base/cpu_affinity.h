// Which of the host's CPUs a thread may run on (sched_setaffinity(2)).
#ifndef ROMULUS_BASE_CPU_AFFINITY_H_
#define ROMULUS_BASE_CPU_AFFINITY_H_

#include <sys/types.h>

#include <span>

#include "absl/status/status.h"

namespace romulus::base {

// Threads that `tid` starts later inherit it; 0: the caller. Errors: InvalidArgument for a number
// that no CPU can have; errno, EINVAL if none of `cpus` is this host's or may be used.
absl::Status KeepThreadOn(pid_t tid, std::span<const int> cpus);

// How many CPUs the caller may run on (sched_getaffinity(2): a cpuset counts, a quota of time does
// not), with those of `also` that a thread can be kept on. Where there are more than CPU_SETSIZE:
// how many the host has.
int CountCpus(std::span<const int> also);

}  // namespace romulus::base

#endif  // ROMULUS_BASE_CPU_AFFINITY_H_

#include "base/cpu_affinity.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"

namespace romulus::base {

absl::Status KeepThreadOn(pid_t tid, std::span<const int> cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) {
    if (cpu < 0 || cpu >= CPU_SETSIZE) {
      return absl::InvalidArgumentError(absl::StrCat("there can be no CPU ", cpu));
    }
    CPU_SET(static_cast<size_t>(cpu), &set);
  }
  if (::sched_setaffinity(tid, sizeof(set), &set) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("CPUs ", absl::StrJoin(cpus, ",")));
}

int CountCpus(std::span<const int> also) {
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) != 0) {
    return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  if (also.empty()) return CPU_COUNT(&set);
  // The kernel alone knows which of them there are, and may be used: it leaves out the others.
  std::thread([&set, also] {
    cpu_set_t kept;
    if (!KeepThreadOn(0, also).ok() || ::sched_getaffinity(0, sizeof(kept), &kept) != 0) return;
    CPU_OR(&set, &set, &kept);
  }).join();
  return CPU_COUNT(&set);
}

}  // namespace romulus::base

#include "base/cpu_affinity.h"

#include <sched.h>

#include <cerrno>

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

}  // namespace romulus::base

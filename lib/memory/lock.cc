#include "memory/lock.h"

#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::memory {

absl::Status LockInRam(const GuestMemory& memory) {
  for (const Region& region : memory.layout().regions()) {
    // SAFETY: the region's own mapping, whose bytes are not looked at.
    void* const start = reinterpret_cast<void*>(memory.HostAddress(region));
    if (::mlock2(start, region.size_bytes, MLOCK_ONFAULT) == 0) continue;
    const int error = errno;
    const uint64_t wanted = memory.layout().size_bytes();
    rlimit limit{};
    ::getrlimit(RLIMIT_MEMLOCK, &limit);
    if ((error == ENOMEM || error == EPERM) && limit.rlim_cur < wanted) {
      return absl::ResourceExhaustedError(
          absl::StrCat("lock_memory: ", wanted >> 20, " MiB are to be locked, and ",
                       limit.rlim_cur >> 20, " MiB may be (LimitMEMLOCK=, ulimit -l)"));
    }
    return base::ErrnoStatus(error, "lock_memory: mlock2");
  }
  return absl::OkStatus();
}

}  // namespace romulus::memory

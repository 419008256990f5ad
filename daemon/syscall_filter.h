// Narrows what this process can ask of the kernel, so that whoever gets it to run what it likes (a
// guest, by way of a device) gets no further than a daemon needs to. seccomp(2), by libseccomp.
//
// What is not allowed is answered with EPERM, and the kernel's audit log has it, where there is
// one: ending the process would end the guest for a call that some library learned to make. Only
// clone3(2) does not exist, and nobody is told.
#ifndef ROMULUS_DAEMON_SYSCALL_FILTER_H_
#define ROMULUS_DAEMON_SYSCALL_FILTER_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace romulus::daemon {

enum class SyscallFilter {
  // Only the calls that a daemon makes; no program can be started, no process made.
  kStrict,
  // All calls but those by which a process gets at others, changes its host or hides from it: for a
  // daemon that starts programs (a fence command), which have the same filter until they end.
  kWide,
};
absl::string_view SyscallFilterName(SyscallFilter filter);

// False in a build with sanitizers, which make calls of their own.
bool SyscallFilterIsBuiltIn();

// For all threads of this process, there are or will be, for good; sets no_new_privs. Errors:
// FailedPrecondition if this kernel or build cannot.
absl::Status NarrowSyscalls(SyscallFilter filter);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_SYSCALL_FILTER_H_

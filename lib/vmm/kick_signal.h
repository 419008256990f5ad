// The signal that gets a thread out of KVM_RUN. Its handler does nothing: that KVM_RUN returns
// EINTR is all that is wanted. Process-wide, like every signal; nothing else may use it. Any
// thread.
#ifndef ROMULUS_VMM_KICK_SIGNAL_H_
#define ROMULUS_VMM_KICK_SIGNAL_H_

#include <sys/types.h>

#include "absl/status/status.h"

namespace romulus::vmm {

// Idempotent. Errors: errno of sigaction.
absl::Status InstallKickSignal();
int KickSignalNumber();
// Makes sure that the calling thread does not have it blocked.
void UnblockKickSignal();
// Sends it to thread `tid` of this process. A thread that is gone is not an error.
void Kick(pid_t tid);

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_KICK_SIGNAL_H_

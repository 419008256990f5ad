// The signal that gets a thread out of KVM_RUN, which returns EINTR. Its handler sets the thread's
// immediate_exit, so that one that comes right before KVM_RUN is not lost: KVM_RUN then returns at
// once, and the thread clears it before it looks at what it has to do. Process-wide, like every
// signal; nothing else may use it. Any thread.
#ifndef ROMULUS_VMM_KICK_SIGNAL_H_
#define ROMULUS_VMM_KICK_SIGNAL_H_

#include <sys/types.h>

#include <cstdint>

#include "absl/status/status.h"

namespace romulus::vmm {

// Idempotent. Errors: errno of sigaction.
absl::Status InstallKickSignal();
int KickSignalNumber();
// What the handler sets to 1 on the calling thread: kvm_run's immediate_exit. Null: nothing any
// more.
void SetKickFlag(uint8_t* immediate_exit);
// Makes sure that the calling thread does not have it blocked.
void UnblockKickSignal();
// Sends it to thread `tid` of this process. A thread that is gone is not an error.
void Kick(pid_t tid);

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_KICK_SIGNAL_H_

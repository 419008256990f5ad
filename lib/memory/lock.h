// Keeps guest memory out of swap.
#ifndef ROMULUS_MEMORY_LOCK_H_
#define ROMULUS_MEMORY_LOCK_H_

#include "absl/status/status.h"
#include "memory/guest_memory.h"

namespace romulus::memory {

// What was and will be touched of it stays in RAM until it goes; nothing is touched for it. A page
// that is made zero keeps its memory then. Any thread. Errors: ResourceExhausted that says how much
// may be locked, if that is too little; else errno of mlock2.
absl::Status LockInRam(const GuestMemory& memory);

}  // namespace romulus::memory

#endif  // ROMULUS_MEMORY_LOCK_H_

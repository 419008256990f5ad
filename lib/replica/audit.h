// The secondary's half of the audit: its memory, at exactly one committed epoch, against the hashes
// that the primary took of its own in that epoch (epoch/auditor.h). A value and a function; one
// thread at a time.
#ifndef ROMULUS_REPLICA_AUDIT_H_
#define ROMULUS_REPLICA_AUDIT_H_

#include <cstdint>
#include <vector>

#include "base/types.h"
#include "epoch/staged_epoch.h"
#include "memory/guest_memory.h"

namespace romulus::replica {

struct AuditMismatch {
  EpochId epoch;
  Gfn gfn;
};

// What comparing has found and nobody has been told yet.
struct AuditFindings {
  uint64_t compared = 0;                  // pages
  uint64_t mismatched = 0;                // of them
  std::vector<AuditMismatch> mismatches;  // the first epoch::kMaxAuditPages of these

  void Add(AuditFindings&& more);
};

// Compares all of `runs`, whose pages are in memory, which is at `epoch`.
AuditFindings CompareMemory(const memory::GuestMemory& guest_memory, EpochId epoch,
                            const std::vector<epoch::AuditRun>& runs);

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_AUDIT_H_

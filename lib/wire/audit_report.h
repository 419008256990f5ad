// What a secondary's ack says of the audit, taken from a peer that may lie. Link thread.
#ifndef ROMULUS_WIRE_AUDIT_REPORT_H_
#define ROMULUS_WIRE_AUDIT_REPORT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "memory/guest_memory.h"
#include "memory/memory_layout.h"
#include "romulus/v1/replication.pb.h"
#include "wire/epoch_sender.h"
#include "wire/handshake.h"

namespace romulus::wire {

// What a report can be about.
struct AuditScope {
  uint64_t pages_sent = 0;  // whose hashes were sent on the stream
  uint64_t blocks_sent = 0;
  std::vector<memory::Region> memory;
  std::vector<DiskCopy> disks;
};

// `before`: what was reported last. Errors: InvalidArgument for counts that fall, that exceed what
// was sent or each other, for more pages or blocks than may be named or than are counted, and for
// those outside of memory and disks.
absl::StatusOr<AuditReport> ReadAuditReport(const romulus::v1::Ack& ack, const AuditReport& before,
                                            const AuditScope& scope);

// Puts the pages that the report names right: they are dirty in the next epoch, and travel whole.
// (Blocks: epoch::DiskAuditor.)
void Repair(const AuditReport& report, memory::GuestMemory& guest_memory, EpochSender& sender);

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_AUDIT_REPORT_H_

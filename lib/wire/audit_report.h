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

namespace romulus::wire {

// `before`: what was reported last. Errors: InvalidArgument for counts that fall, that exceed
// `pages_sent` (whose hashes were sent) or each other, for more pages than may be named or than are
// counted, and for pages outside of `memory`.
absl::StatusOr<AuditReport> ReadAuditReport(const romulus::v1::Ack& ack, const AuditReport& before,
                                            uint64_t pages_sent,
                                            const std::vector<memory::Region>& memory);

// Puts what the report names right: the pages are dirty in the next epoch, and travel whole.
void Repair(const AuditReport& report, memory::GuestMemory& guest_memory, EpochSender& sender);

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_AUDIT_REPORT_H_

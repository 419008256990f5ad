// The secondary's half of the audit: its memory, at exactly one committed epoch, against the hashes
// that the primary took of its own in that epoch (epoch/auditor.h), and what DiskFiles needs to do
// the same to its disks. Values and functions; one thread at a time.
#ifndef ROMULUS_REPLICA_AUDIT_H_
#define ROMULUS_REPLICA_AUDIT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/types.h"
#include "codec/audit_records.h"
#include "codec/disk_records.h"
#include "disk/file.h"
#include "epoch/staged_epoch.h"
#include "memory/guest_memory.h"

namespace romulus::replica {

struct AuditMismatch {
  EpochId epoch;
  Gfn gfn;
};

struct DiskAuditMismatch {
  EpochId epoch;
  epoch::DiskBlock block;
};

struct DiskAuditFindings {
  uint64_t compared = 0;                      // blocks
  uint64_t mismatched = 0;                    // of them
  std::vector<DiskAuditMismatch> mismatches;  // the first epoch::kMaxAuditBlocks of these

  void Add(DiskAuditFindings&& more);
};

// What comparing has found and nobody has been told yet.
struct AuditFindings {
  uint64_t compared = 0;                  // pages
  uint64_t mismatched = 0;                // of them
  std::vector<AuditMismatch> mismatches;  // the first epoch::kMaxAuditPages of these
  DiskAuditFindings disks;

  void Add(AuditFindings&& more);
};

struct MemoryComparison {
  AuditFindings findings;
  std::vector<Gfn> suspects;  // ascending: all pages of which one, at least, is not equal
};

// Compares all of `runs`, whose pages are in memory, which is at `epoch`. Of a group that is not
// equal those pages count and are named whose tags are not; if all tags are, every page of it. Of a
// group of which a page cannot be read only the tags are compared, and that page is not.
MemoryComparison CompareMemory(const memory::GuestMemory& guest_memory, EpochId epoch,
                               const std::vector<codec::AuditedPages>& runs);

// The hash of a block of a disk as the file is now; what is a hole is not read. `block` lies in the
// file. Errors: those of File.
absl::StatusOr<codec::DiskHash> HashFileBlock(disk::File& file, uint64_t block);

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_AUDIT_H_

// The body of an EpochAudit frame: hashes of pages, and of blocks of disks, as they are in the
// frame's epoch. At least one run, of pages or blocks that follow each other:
//
//   offset  size   field (little-endian)
//        0     8   first GFN, or first block
//        8     4   pages or blocks in the run, n >= 1
//       12     4   0: of memory; d + 1: of disk d, by its index in the configuration
//       16  16 n   for each its XXH3-128: low half, high half
//
// By the last field first, then by the first one; ascending and without overlap. At most
// epoch::kMaxAuditPages pages and epoch::kMaxAuditBlocks blocks together. Pure; any thread.
#ifndef ROMULUS_CODEC_AUDIT_RECORDS_H_
#define ROMULUS_CODEC_AUDIT_RECORDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "codec/disk_records.h"
#include "epoch/staged_epoch.h"
#include "memory/memory_layout.h"

namespace romulus::codec {

struct AuditHashes {
  std::vector<epoch::AuditRun> pages;
  std::vector<epoch::DiskAuditRun> blocks;
};

// Those of pages first.
void AppendAuditRuns(const std::vector<epoch::AuditRun>& runs, std::string* body);
void AppendAuditRuns(const std::vector<epoch::DiskAuditRun>& runs, std::string* body);

// Errors: InvalidArgument for whatever is not as above, or names a page outside `memory` or a block
// outside `disks`.
absl::StatusOr<AuditHashes> ParseAudit(absl::string_view body, const memory::MemoryLayout& memory,
                                       const DiskLayout& disks);

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_AUDIT_RECORDS_H_

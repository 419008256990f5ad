// The body of an EpochAudit frame: hashes of pages as they are in the frame's epoch. Runs of pages
// that follow each other, ascending and without overlap, at least one:
//
//   offset  size   field (little-endian)
//        0     8   first GFN
//        8     4   pages in the run, n >= 1
//       12     4   reserved, 0
//       16  16 n   for each page its XXH3-128: low half, high half
//
// At most epoch::kMaxAuditPages pages together. Pure; any thread.
#ifndef ROMULUS_CODEC_AUDIT_RECORDS_H_
#define ROMULUS_CODEC_AUDIT_RECORDS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "epoch/staged_epoch.h"
#include "memory/memory_layout.h"

namespace romulus::codec {

void AppendAuditRuns(const std::vector<epoch::AuditRun>& runs, std::string* body);

// Errors: InvalidArgument for whatever is not as above, or names a page outside `layout`.
absl::StatusOr<std::vector<epoch::AuditRun>> ParseAuditRuns(absl::string_view body,
                                                            const memory::MemoryLayout& layout);

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_AUDIT_RECORDS_H_

// The body of an EpochAudit frame: hashes of pages, and of blocks of disks, as they are in the
// frame's epoch. At least one run, of pages or blocks that follow each other:
//
//   offset  size   field (little-endian)
//        0     8   first GFN, or first block
//        8     4   pages or blocks in the run, n >= 1
//       12     4   0: of memory; d + 1: of disk d, by its index in the configuration
//       16  16 m   hashes, XXH3-128: low half, high half
//           2 t  tags, two bytes each
//
// Of disks, and before protocol version kAuditGroupsSince of memory, too, m is n, one for each
// block or page, and t is 0. From that version on the pages of a run are taken in groups of
// kAuditGroupPages, the last of which may be smaller: m is the number of groups, and a hash is that
// of the group's pages' hashes (memory/page_hash.h); t is n, and a tag is two bytes of the page's
// own hash, in each of 8 epochs others. So equal groups are found as surely as equal pages, and
// which page of a group differs is known but for one in 65,536, each time anew (replica/audit.h);
// an epoch of a guest that rests is little more than these bytes.
//
// By the third field first, then by the first one; ascending and without overlap. At most
// epoch::kMaxAuditPages pages and epoch::kMaxAuditBlocks blocks together. Pure; any thread.
#ifndef ROMULUS_CODEC_AUDIT_RECORDS_H_
#define ROMULUS_CODEC_AUDIT_RECORDS_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/types.h"
#include "codec/dialect.h"
#include "codec/disk_records.h"
#include "epoch/staged_epoch.h"
#include "memory/memory_layout.h"
#include "memory/page_hash.h"

namespace romulus::codec {

inline constexpr uint32_t kAuditGroupsSince = 8;
inline constexpr size_t kAuditGroupPages = 64;

// Of pages that follow each other, as above: in groups if there are tags, else each by itself.
struct AuditedPages {
  Gfn first;
  std::vector<memory::PageHash128> hashes;
  std::vector<uint16_t> tags;

  uint64_t page_count() const { return tags.empty() ? hashes.size() : tags.size(); }
  size_t group_pages() const { return tags.empty() ? 1 : kAuditGroupPages; }
};

struct AuditHashes {
  std::vector<AuditedPages> pages;
  std::vector<epoch::DiskAuditRun> blocks;
};

// What is said of `run` with `epoch` in a stream of `dialect`.
AuditedPages ToAuditedPages(const epoch::AuditRun& run, EpochId epoch, const Dialect& dialect);
uint16_t AuditTag(const memory::PageHash128& page, EpochId epoch);

// Those of pages first.
void AppendAuditRuns(const std::vector<AuditedPages>& runs, std::string* body);
void AppendAuditRuns(const std::vector<epoch::DiskAuditRun>& runs, std::string* body);

// Errors: InvalidArgument for whatever is not as above, or names a page outside `memory` or a block
// outside `disks`.
absl::StatusOr<AuditHashes> ParseAudit(absl::string_view body, const Dialect& dialect,
                                       const memory::MemoryLayout& memory, const DiskLayout& disks);

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_AUDIT_RECORDS_H_

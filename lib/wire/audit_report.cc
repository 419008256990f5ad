#include "wire/audit_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "codec/disk_records.h"

namespace romulus::wire {
namespace {

struct Counts {
  uint64_t audited = 0;
  uint64_t mismatched = 0;
  uint64_t named = 0;  // only in what is new
};

// `what`: "pages" or "blocks".
absl::Status CheckCounts(const Counts& now, const Counts& before, uint64_t sent, uint64_t max_named,
                         const char* what) {
  if (now.audited < before.audited || now.audited > sent || now.mismatched < before.mismatched ||
      now.mismatched - before.mismatched > now.audited - before.audited) {
    return absl::InvalidArgumentError(absl::StrCat(
        "audit of ", now.audited, " ", what, ", ", now.mismatched, " of them not equal, after ",
        before.audited, " and ", before.mismatched, "; the hashes of ", sent, " were sent"));
  }
  if (now.named > std::min(max_named, now.mismatched - before.mismatched)) {
    return absl::InvalidArgumentError(absl::StrCat("audit names ", now.named, " ", what));
  }
  return absl::OkStatus();
}

bool Contains(const std::vector<memory::Region>& memory, Gfn gfn) {
  return std::any_of(memory.begin(), memory.end(), [gfn](const auto& region) {
    const Gfn first = GfnOf(region.gpa);
    return gfn >= first && gfn.value() - first.value() < region.size_bytes >> kPageShift;
  });
}

bool Contains(const std::vector<DiskCopy>& disks, const epoch::DiskBlock& block) {
  return std::any_of(disks.begin(), disks.end(), [&block](const DiskCopy& disk) {
    return disk.disk == block.disk && block.block < codec::DiskBlockCount(disk.size_bytes);
  });
}

}  // namespace

absl::StatusOr<AuditReport> ReadAuditReport(const romulus::v1::Ack& ack, const AuditReport& before,
                                            const AuditScope& scope) {
  AuditReport report;
  report.audited_pages = ack.audited_pages();
  report.mismatched_pages = ack.mismatched_pages();
  report.audited_blocks = ack.audited_blocks();
  report.mismatched_blocks = ack.mismatched_blocks();
  ROMULUS_RETURN_IF_ERROR(CheckCounts(
      {report.audited_pages, report.mismatched_pages, static_cast<uint64_t>(ack.mismatches_size())},
      {before.audited_pages, before.mismatched_pages}, scope.pages_sent, epoch::kMaxAuditPages,
      "pages"));
  ROMULUS_RETURN_IF_ERROR(CheckCounts({report.audited_blocks, report.mismatched_blocks,
                                       static_cast<uint64_t>(ack.disk_mismatches_size())},
                                      {before.audited_blocks, before.mismatched_blocks},
                                      scope.blocks_sent, epoch::kMaxAuditBlocks, "blocks"));
  for (const romulus::v1::AuditMismatch& page : ack.mismatches()) {
    const Gfn gfn(page.gfn());
    if (!Contains(scope.memory, gfn)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("audit names page %#x, which is not in memory", gfn.value()));
    }
    report.mismatches.push_back({EpochId(page.epoch()), gfn});
  }
  for (const romulus::v1::DiskAuditMismatch& told : ack.disk_mismatches()) {
    const epoch::DiskBlock block{told.disk(), told.block()};
    if (!Contains(scope.disks, block)) {
      return absl::InvalidArgumentError(absl::StrCat("audit names block ", block.block, " of disk ",
                                                     block.disk, ", which is not replicated"));
    }
    report.block_mismatches.push_back({EpochId(told.epoch()), block});
  }
  return report;
}

void Repair(const AuditReport& report, memory::GuestMemory& guest_memory, EpochSender& sender) {
  std::vector<Gfn> gfns;
  for (const AuditReport::Mismatch& page : report.mismatches) gfns.push_back(page.gfn);
  // In this order: the epoch that has the pages is encoded without their previous versions.
  sender.ForgetPrevious(gfns);
  for (const Gfn gfn : gfns) guest_memory.MarkWritten(GpaOf(gfn), kPageSize).IgnoreError();
}

}  // namespace romulus::wire

#include "wire/audit_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace romulus::wire {

absl::StatusOr<AuditReport> ReadAuditReport(const romulus::v1::Ack& ack, const AuditReport& before,
                                            uint64_t pages_sent,
                                            const std::vector<memory::Region>& memory) {
  AuditReport report;
  report.audited_pages = ack.audited_pages();
  report.mismatched_pages = ack.mismatched_pages();
  if (report.audited_pages < before.audited_pages || report.audited_pages > pages_sent ||
      report.mismatched_pages < before.mismatched_pages ||
      report.mismatched_pages - before.mismatched_pages >
          report.audited_pages - before.audited_pages) {
    return absl::InvalidArgumentError(
        absl::StrCat("audit of ", report.audited_pages, " pages, ", report.mismatched_pages,
                     " of them not equal, after ", before.audited_pages, " and ",
                     before.mismatched_pages, "; the hashes of ", pages_sent, " were sent"));
  }
  const auto named = static_cast<uint64_t>(ack.mismatches_size());
  if (named > std::min<uint64_t>(epoch::kMaxAuditPages,
                                 report.mismatched_pages - before.mismatched_pages)) {
    return absl::InvalidArgumentError(absl::StrCat("audit names ", named, " pages"));
  }
  report.mismatches.reserve(named);
  for (const romulus::v1::AuditMismatch& page : ack.mismatches()) {
    const Gfn gfn(page.gfn());
    const bool known = std::any_of(memory.begin(), memory.end(), [gfn](const auto& region) {
      const Gfn first = GfnOf(region.gpa);
      return gfn >= first && gfn.value() - first.value() < region.size_bytes >> kPageShift;
    });
    if (!known) {
      return absl::InvalidArgumentError(
          absl::StrFormat("audit names page %#x, which is not in memory", gfn.value()));
    }
    report.mismatches.push_back({EpochId(page.epoch()), gfn});
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

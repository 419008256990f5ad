#include "replica/audit.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>

#include "memory/page_hash.h"

namespace romulus::replica {
namespace {

// Read and hashed in one go.
constexpr size_t kSlicePages = 16;

}  // namespace

void AuditFindings::Add(AuditFindings&& more) {
  compared += more.compared;
  mismatched += more.mismatched;
  const size_t room = epoch::kMaxAuditPages - std::min(mismatches.size(), epoch::kMaxAuditPages);
  const size_t taken = std::min(room, more.mismatches.size());
  mismatches.insert(mismatches.end(), more.mismatches.begin(),
                    more.mismatches.begin() + static_cast<ptrdiff_t>(taken));
}

AuditFindings CompareMemory(const memory::GuestMemory& guest_memory, EpochId epoch,
                            const std::vector<epoch::AuditRun>& runs) {
  AuditFindings findings;
  alignas(64) std::byte bytes[kSlicePages * kPageSize];
  for (const epoch::AuditRun& run : runs) {
    for (size_t at = 0; at < run.hashes.size(); at += kSlicePages) {
      const size_t count = std::min(kSlicePages, run.hashes.size() - at);
      const Gfn first(run.first.value() + at);
      // What cannot be read (swapped out to a bad disk) is not compared.
      if (!memory::ReadPages(guest_memory, first, std::span(bytes, count * kPageSize)).ok()) {
        continue;
      }
      for (size_t i = 0; i < count; ++i) {
        const memory::PageBytes page(bytes + i * kPageSize, kPageSize);
        if (memory::HashPage128(page) == run.hashes[at + i]) continue;
        ++findings.mismatched;
        findings.mismatches.push_back({epoch, Gfn(first.value() + i)});
      }
      findings.compared += count;
    }
  }
  return findings;
}

}  // namespace romulus::replica

#include "replica/audit.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>

#include "base/status.h"
#include "memory/page_hash.h"

namespace romulus::replica {
namespace {

// Read and hashed in one go.
constexpr size_t kSlicePages = 16;

template <typename Findings>
void AddTo(Findings& all, const Findings& more, size_t max_named) {
  all.compared += more.compared;
  all.mismatched += more.mismatched;
  const size_t room = max_named - std::min(all.mismatches.size(), max_named);
  const size_t taken = std::min(room, more.mismatches.size());
  all.mismatches.insert(all.mismatches.end(), more.mismatches.begin(),
                        more.mismatches.begin() + static_cast<ptrdiff_t>(taken));
}

}  // namespace

void AuditFindings::Add(AuditFindings&& more) {
  AddTo(*this, more, epoch::kMaxAuditPages);
  disks.Add(std::move(more.disks));
}

void DiskAuditFindings::Add(DiskAuditFindings&& more) {
  AddTo(*this, more, epoch::kMaxAuditBlocks);
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

absl::StatusOr<codec::DiskHash> HashFileBlock(disk::File& file, uint64_t block) {
  const uint64_t begin = block * codec::kDiskBlockBytes;
  const uint64_t size = std::min(codec::kDiskBlockBytes, file.size_bytes() - begin);
  ROMULUS_ASSIGN_OR_RETURN(const disk::Extent data, file.NextData(begin));
  if (data.size_bytes == 0 || data.offset_bytes >= begin + size) {
    return codec::ZeroDiskBlockHash(size);
  }
  std::vector<std::byte> bytes(size);
  ROMULUS_RETURN_IF_ERROR(file.Read(begin, bytes));
  return codec::HashDiskBlock(bytes);
}

}  // namespace romulus::replica

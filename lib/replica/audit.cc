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

// Empty if one of them cannot be read (swapped out to a bad disk): then none is compared.
std::vector<memory::PageHash128> HashPages(const memory::GuestMemory& guest_memory, Gfn first,
                                           size_t count) {
  std::vector<memory::PageHash128> hashes;
  alignas(64) std::byte bytes[kSlicePages * kPageSize];
  while (hashes.size() < count) {
    const size_t some = std::min(kSlicePages, count - hashes.size());
    const Gfn next(first.value() + hashes.size());
    if (!memory::ReadPages(guest_memory, next, std::span(bytes, some * kPageSize)).ok()) return {};
    for (size_t i = 0; i < some; ++i) {
      hashes.push_back(memory::HashPage128(memory::PageBytes(bytes + i * kPageSize, kPageSize)));
    }
  }
  return hashes;
}

// Which of `pages`, the hashes of those of a group of `run`, are not what the primary has.
std::vector<size_t> Wrong(const std::vector<memory::PageHash128>& pages,
                          const codec::AuditedPages& run, size_t group) {
  if (run.tags.empty()) {
    return pages[0] == run.hashes[group] ? std::vector<size_t>{} : std::vector<size_t>{0};
  }
  if (memory::HashOfHashes(pages) == run.hashes[group]) return {};
  std::vector<size_t> wrong;
  std::vector<size_t> all;
  for (size_t i = 0; i < pages.size(); ++i) {
    all.push_back(i);
    const uint8_t tag = run.tags[group * run.group_pages() + i];
    if (codec::AuditTag(pages[i]) != tag) wrong.push_back(i);
  }
  return wrong.empty() ? all : wrong;
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
                            const std::vector<codec::AuditedPages>& runs) {
  AuditFindings findings;
  for (const codec::AuditedPages& run : runs) {
    for (size_t group = 0; group < run.hashes.size(); ++group) {
      const size_t at = group * run.group_pages();
      const size_t count = std::min(run.group_pages(), run.page_count() - at);
      const Gfn first(run.first.value() + at);
      const std::vector<memory::PageHash128> pages = HashPages(guest_memory, first, count);
      if (pages.empty()) continue;
      findings.compared += count;
      for (const size_t i : Wrong(pages, run, group)) {
        ++findings.mismatched;
        findings.mismatches.push_back({epoch, Gfn(first.value() + i)});
      }
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

#include "replica/audit.h"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
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

// Nothing for a page that cannot be read (swapped out to a bad disk).
using PageHashes = std::vector<std::optional<memory::PageHash128>>;

PageHashes HashPages(const memory::GuestMemory& guest_memory, Gfn first, size_t count) {
  PageHashes hashes;
  alignas(64) std::byte bytes[kSlicePages * kPageSize];
  const auto read = [&](size_t some) {
    const Gfn next(first.value() + hashes.size());
    return memory::ReadPages(guest_memory, next, std::span(bytes, some * kPageSize)).ok();
  };
  while (hashes.size() < count) {
    size_t some = std::min(kSlicePages, count - hashes.size());
    if (!read(some)) {
      some = 1;
      if (!read(some)) {
        hashes.push_back(std::nullopt);
        continue;
      }
    }
    for (size_t i = 0; i < some; ++i) {
      hashes.push_back(memory::HashPage128(memory::PageBytes(bytes + i * kPageSize, kPageSize)));
    }
  }
  return hashes;
}

// Nothing if one of them is missing.
std::optional<memory::PageHash128> HashOfGroup(
    std::span<const std::optional<memory::PageHash128>> pages) {
  std::vector<memory::PageHash128> hashes;
  for (const std::optional<memory::PageHash128>& page : pages) {
    if (!page.has_value()) return std::nullopt;
    hashes.push_back(*page);
  }
  return memory::HashOfHashes(hashes);
}

// `pages` are those of a group, from page `at` of `run` on: adds what is found.
void CompareGroup(EpochId epoch, const codec::AuditedPages& run, size_t at,
                  std::span<const std::optional<memory::PageHash128>> pages,
                  MemoryComparison& all) {
  const memory::PageHash128& theirs = run.hashes[at / run.group_pages()];
  const bool grouped = !run.tags.empty();
  const std::optional<memory::PageHash128> ours = grouped ? HashOfGroup(pages) : pages[0];
  AuditFindings& findings = all.findings;
  for (const auto& page : pages) findings.compared += page.has_value() ? 1 : 0;
  if (ours == theirs || (!ours.has_value() && !grouped)) return;
  const auto differs = [&](size_t i) {
    return pages[i].has_value() && codec::AuditTag(*pages[i], epoch) != run.tags[at + i];
  };
  std::vector<size_t> wrong;
  for (size_t i = 0; grouped && i < pages.size(); ++i) {
    if (differs(i)) wrong.push_back(i);
  }
  if (wrong.empty() && !ours.has_value()) return;
  for (size_t i = 0; i < pages.size(); ++i) {
    const Gfn gfn(run.first.value() + at + i);
    all.suspects.push_back(gfn);
    if (!wrong.empty() && !std::binary_search(wrong.begin(), wrong.end(), i)) continue;
    ++findings.mismatched;
    findings.mismatches.push_back({epoch, gfn});
  }
}

}  // namespace

void AuditFindings::Add(AuditFindings&& more) {
  AddTo(*this, more, epoch::kMaxAuditPages);
  disks.Add(std::move(more.disks));
}

void DiskAuditFindings::Add(DiskAuditFindings&& more) {
  AddTo(*this, more, epoch::kMaxAuditBlocks);
}

MemoryComparison CompareMemory(const memory::GuestMemory& guest_memory, EpochId epoch,
                               const std::vector<codec::AuditedPages>& runs) {
  MemoryComparison all;
  for (const codec::AuditedPages& run : runs) {
    // Whole groups, of either kind.
    for (size_t at = 0; at < run.page_count(); at += codec::kAuditGroupPages) {
      const size_t count = std::min(codec::kAuditGroupPages, run.page_count() - at);
      const PageHashes pages = HashPages(guest_memory, Gfn(run.first.value() + at), count);
      for (size_t i = 0; i < count; i += run.group_pages()) {
        const size_t in_group = std::min(run.group_pages(), count - i);
        CompareGroup(epoch, run, at + i, std::span(pages).subspan(i, in_group), all);
      }
    }
  }
  return all;
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

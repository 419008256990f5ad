#include "codec/audit_records.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/bytes.h"
#include "base/status.h"
#include "memory/page_hash.h"

namespace romulus::codec {
namespace {

struct Head {
  uint64_t first = 0;
  uint32_t count = 0;
  uint32_t space = 0;  // 0: memory; else 1 + the disk's index
};
static_assert(sizeof(Head) == 16 && sizeof(memory::PageHash128) == 16 && sizeof(DiskHash) == 16);

template <typename Hash>
void AppendRun(const Head& head, const std::vector<Hash>& hashes, base::ByteWriter& writer) {
  writer.Write(head);
  for (const Hash& hash : hashes) writer.Write(hash);
}

template <typename Value>
std::vector<Value> ReadAll(std::span<const std::byte> bytes) {
  base::ByteReader reader(bytes);
  std::vector<Value> values;
  while (reader.remaining() > 0) values.push_back(reader.Read<Value>());
  return values;
}

absl::Status CheckPages(const Head& head, const memory::MemoryLayout& memory) {
  const Gfn first(head.first);
  if (memory.Contains(first) &&
      memory.Find(GpaOf(first), uint64_t{head.count} * kPageSize) != nullptr) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "audit of %d pages from %#x on, which are not in memory", head.count, head.first));
}

absl::Status CheckBlocks(const Head& head, const DiskLayout& disks) {
  const DiskSize* const disk = FindDisk(disks, head.space - 1);
  const uint64_t blocks = disk == nullptr ? 0 : DiskBlockCount(disk->size_bytes);
  if (head.first < blocks && head.count <= blocks - head.first) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("audit of ", head.count, " blocks from ",
                                                 head.first, " on of disk ", head.space - 1,
                                                 ", which has ", blocks));
}

}  // namespace

uint16_t AuditTag(const memory::PageHash128& page, EpochId epoch) {
  const auto parts = std::bit_cast<std::array<uint16_t, 8>>(page);
  return parts[epoch.value() % parts.size()];
}

AuditedPages ToAuditedPages(const epoch::AuditRun& run, EpochId epoch, const Dialect& dialect) {
  if (dialect.version() < kAuditGroupsSince) return {run.first, run.hashes, {}};
  AuditedPages said{run.first, {}, {}};
  for (std::span<const memory::PageHash128> rest(run.hashes); !rest.empty();) {
    const auto group = rest.first(std::min(kAuditGroupPages, rest.size()));
    said.hashes.push_back(memory::HashOfHashes(group));
    for (const memory::PageHash128& page : group) said.tags.push_back(AuditTag(page, epoch));
    rest = rest.subspan(group.size());
  }
  return said;
}

void AppendAuditRuns(const std::vector<AuditedPages>& runs, std::string* body) {
  base::ByteWriter writer(body);
  for (const AuditedPages& run : runs) {
    AppendRun({run.first.value(), static_cast<uint32_t>(run.page_count()), 0}, run.hashes, writer);
    for (const uint16_t tag : run.tags) writer.Write(tag);
  }
}

void AppendAuditRuns(const std::vector<epoch::DiskAuditRun>& runs, std::string* body) {
  base::ByteWriter writer(body);
  for (const epoch::DiskAuditRun& run : runs) {
    AppendRun({run.first_block, static_cast<uint32_t>(run.hashes.size()), run.disk + 1}, run.hashes,
              writer);
  }
}

absl::StatusOr<AuditHashes> ParseAudit(absl::string_view body, const Dialect& dialect,
                                       const memory::MemoryLayout& memory,
                                       const DiskLayout& disks) {
  if (body.empty()) return absl::InvalidArgumentError("audit without hashes");
  base::ByteReader reader(base::AsBytes(body));
  AuditHashes all;
  uint64_t pages = 0;
  uint64_t blocks = 0;
  std::pair<uint32_t, uint64_t> free_from;  // space and first of what may come
  while (reader.remaining() > 0) {
    const Head head = reader.Read<Head>();
    uint64_t& named = head.space == 0 ? pages : blocks;
    const uint64_t cap = head.space == 0 ? epoch::kMaxAuditPages : epoch::kMaxAuditBlocks;
    if (!reader.ok() || head.count == 0 || head.count > cap - named) {
      return absl::InvalidArgumentError(absl::StrCat(
          "audit of ", head.count, " pages or blocks after ", named, ", or without a whole head"));
    }
    const bool grouped = head.space == 0 && dialect.version() >= kAuditGroupsSince;
    const size_t group = grouped ? kAuditGroupPages : 1;
    const std::span<const std::byte> hashes =
        reader.Take((head.count + group - 1) / group * sizeof(memory::PageHash128));
    const std::span<const std::byte> tags =
        reader.Take(grouped ? size_t{head.count} * sizeof(uint16_t) : 0);
    if (!reader.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("audit of ", head.count, " pages or blocks ends before their hashes do"));
    }
    ROMULUS_RETURN_IF_ERROR(head.space == 0 ? CheckPages(head, memory) : CheckBlocks(head, disks));
    if (std::pair(head.space, head.first) < free_from) {
      return absl::InvalidArgumentError(
          absl::StrFormat("audit names %#x of memory or a disk twice or out of order", head.first));
    }
    free_from = {head.space, head.first + head.count};
    named += head.count;
    if (head.space == 0) {
      all.pages.push_back(
          {Gfn(head.first), ReadAll<memory::PageHash128>(hashes), ReadAll<uint16_t>(tags)});
    } else {
      all.blocks.push_back({head.space - 1, head.first, ReadAll<DiskHash>(hashes)});
    }
  }
  return all;
}

}  // namespace romulus::codec

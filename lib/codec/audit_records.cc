#include "codec/audit_records.h"

#include <cstdint>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/bytes.h"
#include "memory/page_hash.h"

namespace romulus::codec {
namespace {

struct Head {
  uint64_t first_gfn = 0;
  uint32_t count = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(Head) == 16 && sizeof(memory::PageHash128) == 16);

}  // namespace

void AppendAuditRuns(const std::vector<epoch::AuditRun>& runs, std::string* body) {
  base::ByteWriter writer(body);
  for (const epoch::AuditRun& run : runs) {
    Head head;
    head.first_gfn = run.first.value();
    head.count = static_cast<uint32_t>(run.hashes.size());
    writer.Write(head);
    for (const memory::PageHash128& hash : run.hashes) writer.Write(hash);
  }
}

absl::StatusOr<std::vector<epoch::AuditRun>> ParseAuditRuns(absl::string_view body,
                                                            const memory::MemoryLayout& layout) {
  if (body.empty()) return absl::InvalidArgumentError("audit without pages");
  base::ByteReader reader(base::AsBytes(body));
  std::vector<epoch::AuditRun> runs;
  uint64_t pages = 0;
  Gfn free_from;  // the lowest page that may come
  while (reader.remaining() > 0) {
    const Head head = reader.Read<Head>();
    if (!reader.ok() || head.count == 0 || head.reserved != 0 ||
        head.count > epoch::kMaxAuditPages - pages) {
      return absl::InvalidArgumentError(absl::StrCat("audit of ", head.count, " pages after ",
                                                     pages, ", or without a whole head"));
    }
    const Gfn first(head.first_gfn);
    const std::span<const std::byte> hashes =
        reader.Take(size_t{head.count} * sizeof(memory::PageHash128));
    if (!reader.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("audit of ", head.count, " pages ends before their hashes do"));
    }
    if (!layout.Contains(first) ||
        layout.Find(GpaOf(first), uint64_t{head.count} * kPageSize) == nullptr) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "audit of %d pages from %#x on, which are not in memory", head.count, first.value()));
    }
    if (first < free_from) {
      return absl::InvalidArgumentError(
          absl::StrFormat("audit names page %#x twice or out of order", first.value()));
    }
    free_from = Gfn(first.value() + head.count);
    pages += head.count;
    epoch::AuditRun& run = runs.emplace_back();
    run.first = first;
    base::ByteReader each(hashes);
    for (uint32_t i = 0; i < head.count; ++i) {
      run.hashes.push_back(each.Read<memory::PageHash128>());
    }
  }
  return runs;
}

}  // namespace romulus::codec

// First byte even: the rest is a hostile page frame body. Odd: the rest is a page and what it was
// before, which must come back from whatever encoding is chosen.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "codec/page_encoding.h"

namespace romulus::codec {
namespace {

constexpr Dialect kNewest(kNewestProtocol);
using Page = std::array<std::byte, kPageSize>;

void Decode(absl::string_view body, const memory::MemoryLayout& layout) {
  PageRecordReader reader(body, layout, kNewest);
  Page page{};
  while (!reader.done()) {
    const absl::StatusOr<PageRecord> record = reader.Next();
    if (!record.ok()) return;
    if (!layout.Contains(record->gfn) ||
        !layout.Contains(Gfn(record->gfn.value() + record->count - 1))) {
      std::abort();
    }
    DecodePage(*record, page, page);
  }
}

void RoundTrip(absl::string_view data, const memory::MemoryLayout& layout) {
  Page before{}, now{};
  const size_t half = std::min(data.size() / 2, kPageSize);
  std::memcpy(before.data(), data.data(), half);
  std::memcpy(now.data(), data.data() + data.size() - half, half);
  std::string body;
  const PageEncoding encoding = AppendPage(kNewest, Gfn(1), now, before.data(), &body);
  if (body.size() > kMaxRecordBytes) std::abort();
  PageRecordReader reader(body, layout, kNewest);
  const absl::StatusOr<PageRecord> record = reader.Next();
  if (!record.ok() || record->encoding != encoding || !reader.done()) std::abort();
  Page decoded;
  DecodePage(*record, before, decoded);
  if (decoded != now) std::abort();
}

}  // namespace
}  // namespace romulus::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const romulus::memory::MemoryLayout layout = *romulus::memory::MemoryLayout::ForMib(4096);
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    romulus::codec::Decode(rest, layout);
  } else {
    romulus::codec::RoundTrip(rest, layout);
  }
  return 0;
}

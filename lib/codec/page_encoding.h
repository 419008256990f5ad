// How one page travels. A page frame's body is a row of records, each an 8-byte word
// (GFN << 8 | encoding, little-endian) and a payload:
//
//   zero      nothing: the page is all zero
//   raw       4096 bytes
//   delta     u64 mask of changed 64-byte lines (bit n = line n), not 0; per changed line a u8 mask
//             of changed 8-byte words, not 0; then the changed words' new values, in order
//   same      nothing: the page is what it was (written, but with equal bytes)
//   zero_run  u32 count >= 2: pages GFN .. GFN + count - 1 are all zero
//   sparse    (since protocol version 7) u16 size, not 0, of the pieces that follow; each a u16
//             (where it begins in the page, + 4096 * (its bytes - 1), of which it has 1 to 16) and
//             its new bytes; ascending, none in another, none beyond the page
//
// delta, sparse and same refer to what the receiver holds of that page: its last committed version,
// or within a full sync the last version sent. Functions are pure; readers are values, one thread
// at a time.
#ifndef ROMULUS_CODEC_PAGE_ENCODING_H_
#define ROMULUS_CODEC_PAGE_ENCODING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/types.h"
#include "codec/dialect.h"
#include "codec/page_diff.h"
#include "memory/memory_layout.h"

namespace romulus::codec {

using PageBytes = std::span<const std::byte, kPageSize>;
using MutablePageBytes = std::span<std::byte, kPageSize>;

inline constexpr size_t kRecordHeadBytes = 8;
inline constexpr size_t kZeroRunRecordBytes = kRecordHeadBytes + sizeof(uint32_t);
inline constexpr size_t kMaxRecordBytes = kRecordHeadBytes + kPageSize;  // raw: no delta is longer

// Numbers are permanent.
enum class PageEncoding : uint8_t {
  kZero = 1,
  kRaw = 2,
  kDelta = 3,
  kSame = 4,
  kZeroRun = 5,
  kSparse = 6,
};
inline constexpr size_t kPageEncodingEnd = 7;
inline constexpr std::array<absl::string_view, kPageEncodingEnd> kPageEncodingNames = {
    "invalid", "zero", "raw", "delta", "same", "zero_run", "sparse"};
// The first version of the protocol that has sparse records (dialect.h).
inline constexpr uint32_t kSparseSince = 7;
constexpr absl::string_view PageEncodingName(PageEncoding encoding) {
  return kPageEncodingNames[static_cast<size_t>(encoding)];
}

bool IsZeroPage(PageBytes page);

// Appends a record for `now`, the smallest that the dialect has (whether a
// page with many changed words is sparse is guessed from a few). `before` is what the
// receiver holds, or null if that is not known (then: zero or raw).
PageEncoding AppendPage(const Dialect& dialect, Gfn gfn, PageBytes now, const std::byte* before,
                        std::string* body);
// By a given version of the diff, which must be one that CanRun(): for tests and benches.
PageEncoding AppendPage(DiffVersion version, const Dialect& dialect, Gfn gfn, PageBytes now,
                        const std::byte* before, std::string* body);
// Appends a record for `count` zero pages from `gfn` on, count >= 1.
void AppendZeroRun(Gfn gfn, uint32_t count, std::string* body);

struct PageRecord {
  Gfn gfn;
  PageEncoding encoding = PageEncoding::kZero;
  uint32_t count = 1;         // pages; > 1 only for zero_run
  absl::string_view payload;  // into the body; checked: DecodePage() cannot fail
};

// Takes a hostile body apart.
class PageRecordReader {
 public:
  // Body and layout must outlive the reader. An encoding that the dialect does not have is unknown.
  PageRecordReader(absl::string_view body, const memory::MemoryLayout& layout,
                   const Dialect& dialect)
      : rest_(body), layout_(layout), dialect_(dialect) {}

  bool done() const { return rest_.empty(); }
  // The next record; its pages are all in the layout. Errors: InvalidArgument, saying what is
  // wrong.
  absl::StatusOr<PageRecord> Next();

 private:
  absl::string_view rest_;
  const memory::MemoryLayout& layout_;
  const Dialect dialect_;
};

// The new content of the record's page (of each of them, for zero_run). `before` and `into` may be
// the same page.
void DecodePage(const PageRecord& record, PageBytes before, MutablePageBytes into);

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_PAGE_ENCODING_H_

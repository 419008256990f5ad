#include "codec/page_encoding.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"

namespace romulus::codec {
namespace {

// A line as words: copied, so that the compiler may use vectors and nothing is aliased.
struct Line {
  uint64_t words[kWordsPerLine];
};
static_assert(sizeof(Line) == kLineBytes);

Line LoadLine(const std::byte* page, size_t line) {
  Line value;
  std::memcpy(&value, page + line * kLineBytes, kLineBytes);
  return value;
}

constexpr size_t kMaskBytes = sizeof(uint64_t);
// From here on raw is as short.
constexpr size_t kMaxDeltaBytes = kPageSize - 1;

void PutHead(Gfn gfn, PageEncoding encoding, char* to) {
  const uint64_t head = gfn.value() << 8 | static_cast<uint64_t>(encoding);
  std::memcpy(to, &head, kRecordHeadBytes);
}

void AppendHead(Gfn gfn, PageEncoding encoding, std::string* body) {
  char raw[kRecordHeadBytes];
  PutHead(gfn, encoding, raw);
  body->append(raw, sizeof(raw));
}

// Of the delta's record, payload only.
size_t PayloadBytes(const PageDelta& delta) {
  return kMaskBytes + delta.lines + delta.words * sizeof(uint64_t);
}

void AppendDelta(Gfn gfn, const PageDelta& delta, std::string* body) {
  char raw[kRecordHeadBytes + kMaxDeltaBytes];
  PutHead(gfn, PageEncoding::kDelta, raw);
  size_t at = kRecordHeadBytes;
  std::memcpy(raw + at, &delta.line_mask, kMaskBytes);
  at += kMaskBytes;
  std::memcpy(raw + at, delta.word_masks, delta.lines);
  at += delta.lines;
  std::memcpy(raw + at, delta.values, delta.words * sizeof(uint64_t));
  at += delta.words * sizeof(uint64_t);
  body->append(raw, at);
}

// Of a sparse record: neighboring bytes.
struct Piece {
  static constexpr size_t kMaxBytes = 16;

  size_t begin;  // in the page
  size_t bytes;  // 1 to kMaxBytes

  uint16_t Head() const { return static_cast<uint16_t>(begin | (bytes - 1) << kPageShift); }
  static Piece FromHead(uint16_t head) {
    return {head % kPageSize, static_cast<size_t>(head >> kPageShift) + 1};
  }
};
constexpr size_t kSparseSizeBytes = sizeof(uint16_t);
constexpr size_t kPieceHeadBytes = sizeof(uint16_t);
// With more words a sparse record takes longer than it is worth, unless little of each changed.
constexpr size_t kFewWords = 16;

// Which bytes of a word changed, from the first to the last; of a word that did.
struct ChangedBytes {
  ChangedBytes(const std::byte* now, const std::byte* before) {
    uint64_t old;
    std::memcpy(&value, now, sizeof(value));
    std::memcpy(&old, before, sizeof(old));
    // Not 0, whatever is done to the page meanwhile: the sizes below stay sizes.
    const uint64_t changed = value == old ? 1 : value ^ old;
    first = static_cast<size_t>(std::countr_zero(changed)) / 8;
    count = sizeof(old) - first - static_cast<size_t>(std::countl_zero(changed)) / 8;
  }
  uint64_t value;  // of the word
  size_t first;
  size_t count;
};

// By a look at the first line that changed.
bool LooksSparse(const PageDelta& delta, const std::byte* now, const std::byte* before) {
  if (delta.words <= kFewWords) return true;
  const size_t line = static_cast<size_t>(std::countr_zero(delta.line_mask)) * kLineBytes;
  size_t most = 0;
  size_t bytes = 0;
  for (unsigned mask = delta.word_masks[0]; mask != 0; mask &= mask - 1) {
    const size_t word = line + static_cast<size_t>(std::countr_zero(mask)) * sizeof(uint64_t);
    bytes += ChangedBytes(now + word, before + word).count;
    most += sizeof(uint64_t);
  }
  return bytes <= most / 2;
}

// Most of them that so many changed words can be, with the room behind them that PutPieces() wants.
size_t MostPieceBytes(size_t words) {
  return words * (kPieceHeadBytes + sizeof(uint64_t)) + sizeof(uint64_t);
}

// Returns the pieces' end.
char* PutPieces(const PageDelta& delta, const std::byte* now, const std::byte* before, char* to) {
  char* head = to;               // of the last piece
  Piece piece = {kPageSize, 0};  // nothing begins where it ends
  const uint8_t* word_mask = delta.word_masks;
  for (uint64_t lines = delta.line_mask; lines != 0; lines &= lines - 1) {
    const size_t line = static_cast<size_t>(std::countr_zero(lines)) * kLineBytes;
    for (unsigned words = *word_mask++; words != 0; words &= words - 1) {
      const size_t word = line + static_cast<size_t>(std::countr_zero(words)) * sizeof(uint64_t);
      const ChangedBytes changed(now + word, before + word);
      const size_t begin = word + changed.first;
      if (begin == piece.begin + piece.bytes && piece.bytes + changed.count <= Piece::kMaxBytes) {
        piece.bytes += changed.count;
      } else {
        piece = {begin, changed.count};
        head = to;
        to += kPieceHeadBytes;
      }
      const uint16_t piece_head = piece.Head();
      std::memcpy(head, &piece_head, kPieceHeadBytes);
      const uint64_t bytes = changed.value >> 8 * changed.first;
      std::memcpy(to, &bytes, sizeof(bytes));  // those that count, and some more
      to += changed.count;
    }
  }
  return to;
}

// Appends a sparse record, if its payload is less than `most` bytes, which is at most a page; false
// if it is not.
bool AppendSparse(Gfn gfn, const PageDelta& delta, const std::byte* now, const std::byte* before,
                  size_t most, std::string* body) {
  // In place: to copy at once what was just written in small parts makes the processor wait.
  constexpr size_t kBeforePieces = kRecordHeadBytes + kSparseSizeBytes;
  const size_t at = body->size();
  body->resize(at + kBeforePieces + MostPieceBytes(delta.words));
  char* const record = body->data() + at;
  char* const pieces = record + kBeforePieces;
  const auto bytes = static_cast<size_t>(PutPieces(delta, now, before, pieces) - pieces);
  if (kSparseSizeBytes + bytes >= most) {
    body->resize(at);
    return false;
  }
  PutHead(gfn, PageEncoding::kSparse, record);
  const auto size = static_cast<uint16_t>(bytes);
  std::memcpy(record + kRecordHeadBytes, &size, kSparseSizeBytes);
  body->resize(at + kBeforePieces + bytes);
  return true;
}

// The size of the payload that `bytes` begin with.
absl::StatusOr<size_t> SparsePayloadBytes(absl::string_view bytes) {
  const auto truncated = [] {
    return absl::InvalidArgumentError("page record is truncated in its pieces");
  };
  if (bytes.size() < kSparseSizeBytes) return truncated();
  uint16_t size;
  std::memcpy(&size, bytes.data(), kSparseSizeBytes);
  if (size == 0) return absl::InvalidArgumentError("sparse record changes nothing");
  if (bytes.size() - kSparseSizeBytes < size) return truncated();
  absl::string_view rest = bytes.substr(kSparseSizeBytes, size);
  size_t next = 0;  // where the next piece may begin
  while (!rest.empty()) {
    if (rest.size() < kPieceHeadBytes) return truncated();
    uint16_t head;
    std::memcpy(&head, rest.data(), kPieceHeadBytes);
    rest.remove_prefix(kPieceHeadBytes);
    const Piece piece = Piece::FromHead(head);
    if (piece.begin < next || piece.bytes > kPageSize - piece.begin) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "sparse record has a piece of %u bytes at %u: behind another, or the page's end",
          piece.bytes, piece.begin));
    }
    next = piece.begin + piece.bytes;
    if (rest.size() < piece.bytes) return truncated();
    rest.remove_prefix(piece.bytes);
  }
  return kSparseSizeBytes + size;
}

void DecodeSparse(absl::string_view payload, MutablePageBytes into) {
  absl::string_view rest = payload.substr(kSparseSizeBytes);
  while (!rest.empty()) {
    uint16_t head;
    std::memcpy(&head, rest.data(), kPieceHeadBytes);
    const Piece piece = Piece::FromHead(head);
    std::memcpy(into.data() + piece.begin, rest.data() + kPieceHeadBytes, piece.bytes);
    rest.remove_prefix(kPieceHeadBytes + piece.bytes);
  }
}

void DecodeDelta(absl::string_view payload, MutablePageBytes into) {
  uint64_t line_mask;
  std::memcpy(&line_mask, payload.data(), kMaskBytes);
  const char* word_mask = payload.data() + kMaskBytes;
  const char* value = word_mask + std::popcount(line_mask);
  for (; line_mask != 0; line_mask &= line_mask - 1) {
    std::byte* line = into.data() + static_cast<size_t>(std::countr_zero(line_mask)) * kLineBytes;
    for (unsigned mask = static_cast<uint8_t>(*word_mask++); mask != 0; mask &= mask - 1) {
      std::memcpy(line + static_cast<size_t>(std::countr_zero(mask)) * sizeof(uint64_t), value,
                  sizeof(uint64_t));
      value += sizeof(uint64_t);
    }
  }
}

}  // namespace

bool IsZeroPage(PageBytes page) {
  uint64_t first;  // of most pages that are not zero it says so
  std::memcpy(&first, page.data(), sizeof(first));
  if (first != 0) return false;
  for (size_t line = 0; line < kLinesPerPage; ++line) {
    const Line a = LoadLine(page.data(), line);
    uint64_t any = 0;
    for (size_t w = 0; w < kWordsPerLine; ++w) any |= a.words[w];
    if (any != 0) return false;
  }
  return true;
}

PageEncoding AppendPage(const Dialect& dialect, Gfn gfn, PageBytes now, const std::byte* before,
                        std::string* body) {
  return AppendPage(BestDiffVersion(), dialect, gfn, now, before, body);
}

PageEncoding AppendPage(DiffVersion version, const Dialect& dialect, Gfn gfn, PageBytes now,
                        const std::byte* before, std::string* body) {
  if (IsZeroPage(now)) {
    AppendHead(gfn, PageEncoding::kZero, body);
    return PageEncoding::kZero;
  }
  if (before != nullptr) {
    PageDelta delta;
    DiffPage(version, now.data(), before, &delta);
    if (delta.line_mask == 0) {
      AppendHead(gfn, PageEncoding::kSame, body);
      return PageEncoding::kSame;
    }
    const size_t delta_bytes = PayloadBytes(delta);
    if (dialect.version() >= kSparseSince && LooksSparse(delta, now.data(), before) &&
        AppendSparse(gfn, delta, now.data(), before, std::min(delta_bytes, kPageSize), body)) {
      return PageEncoding::kSparse;
    }
    if (delta_bytes <= kMaxDeltaBytes) {
      AppendDelta(gfn, delta, body);
      return PageEncoding::kDelta;
    }
  }
  AppendHead(gfn, PageEncoding::kRaw, body);
  body->append(static_cast<const char*>(static_cast<const void*>(now.data())), kPageSize);
  return PageEncoding::kRaw;
}

void AppendZeroRun(Gfn gfn, uint32_t count, std::string* body) {
  ROMULUS_CHECK(count >= 1);
  if (count == 1) return AppendHead(gfn, PageEncoding::kZero, body);
  AppendHead(gfn, PageEncoding::kZeroRun, body);
  char raw[sizeof(count)];
  std::memcpy(raw, &count, sizeof(count));
  body->append(raw, sizeof(raw));
}

absl::StatusOr<PageRecord> PageRecordReader::Next() {
  const auto truncated = [](absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("page record is truncated in its ", what));
  };
  const auto unknown = [](PageEncoding encoding) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown page encoding ", static_cast<int>(encoding)));
  };
  if (rest_.size() < kRecordHeadBytes) return truncated("head");
  uint64_t head;
  std::memcpy(&head, rest_.data(), sizeof(head));
  rest_.remove_prefix(kRecordHeadBytes);
  PageRecord record;
  record.gfn = Gfn(head >> 8);
  record.encoding = static_cast<PageEncoding>(head & 0xff);
  if (!layout_.Contains(record.gfn)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("page %#x is not in guest memory", record.gfn.value()));
  }
  size_t payload_bytes = 0;
  switch (record.encoding) {
    case PageEncoding::kZero:
    case PageEncoding::kSame:
      break;
    case PageEncoding::kRaw:
      payload_bytes = kPageSize;
      break;
    case PageEncoding::kZeroRun: {
      if (rest_.size() < sizeof(record.count)) return truncated("run length");
      std::memcpy(&record.count, rest_.data(), sizeof(record.count));
      rest_.remove_prefix(sizeof(record.count));
      if (record.count < 2 ||
          layout_.Find(GpaOf(record.gfn), record.count * kPageSize) == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrFormat("run of %u zero pages at page %#x is empty or leaves guest memory",
                            record.count, record.gfn.value()));
      }
      break;
    }
    case PageEncoding::kDelta: {
      if (rest_.size() < kMaskBytes) return truncated("line mask");
      uint64_t line_mask;
      std::memcpy(&line_mask, rest_.data(), kMaskBytes);
      const size_t lines = static_cast<size_t>(std::popcount(line_mask));
      if (lines == 0) return absl::InvalidArgumentError("delta changes no line");
      if (rest_.size() - kMaskBytes < lines) return truncated("word masks");
      size_t words = 0;
      for (size_t i = 0; i < lines; ++i) {
        const uint8_t mask = static_cast<uint8_t>(rest_[kMaskBytes + i]);
        if (mask == 0)
          return absl::InvalidArgumentError("delta names a line without changed words");
        words += static_cast<size_t>(std::popcount(mask));
      }
      payload_bytes = kMaskBytes + lines + words * sizeof(uint64_t);
      break;
    }
    case PageEncoding::kSparse: {
      if (dialect_.version() < kSparseSince) return unknown(record.encoding);
      const absl::StatusOr<size_t> bytes = SparsePayloadBytes(rest_);
      if (!bytes.ok()) return bytes.status();
      payload_bytes = *bytes;
      break;
    }
    default:
      return unknown(record.encoding);
  }
  if (rest_.size() < payload_bytes) return truncated("payload");
  record.payload = rest_.substr(0, payload_bytes);
  rest_.remove_prefix(payload_bytes);
  return record;
}

void DecodePage(const PageRecord& record, PageBytes before, MutablePageBytes into) {
  switch (record.encoding) {
    case PageEncoding::kZero:
    case PageEncoding::kZeroRun:
      std::memset(into.data(), 0, kPageSize);
      return;
    case PageEncoding::kRaw:
      std::memcpy(into.data(), record.payload.data(), kPageSize);
      return;
    case PageEncoding::kSame:
    case PageEncoding::kDelta:
    case PageEncoding::kSparse:
      if (into.data() != before.data()) std::memcpy(into.data(), before.data(), kPageSize);
      break;
  }
  if (record.encoding == PageEncoding::kDelta) DecodeDelta(record.payload, into);
  if (record.encoding == PageEncoding::kSparse) DecodeSparse(record.payload, into);
}

}  // namespace romulus::codec

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

void AppendHead(Gfn gfn, PageEncoding encoding, std::string* body) {
  const uint64_t head = gfn.value() << 8 | static_cast<uint64_t>(encoding);
  char raw[kRecordHeadBytes];
  std::memcpy(raw, &head, sizeof(raw));
  body->append(raw, sizeof(raw));
}

// Of the delta's record, payload only.
size_t PayloadBytes(const PageDelta& delta) {
  return kMaskBytes + delta.lines + delta.words * sizeof(uint64_t);
}

}  // namespace

bool IsZeroPage(PageBytes page) {
  for (size_t line = 0; line < kLinesPerPage; ++line) {
    const Line a = LoadLine(page.data(), line);
    uint64_t any = 0;
    for (size_t w = 0; w < kWordsPerLine; ++w) any |= a.words[w];
    if (any != 0) return false;
  }
  return true;
}

PageEncoding AppendPage(Gfn gfn, PageBytes now, const std::byte* before, std::string* body) {
  return AppendPage(BestDiffVersion(), gfn, now, before, body);
}

PageEncoding AppendPage(DiffVersion version, Gfn gfn, PageBytes now, const std::byte* before,
                        std::string* body) {
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
    if (PayloadBytes(delta) <= kMaxDeltaBytes) {
      char raw[kRecordHeadBytes + kMaxDeltaBytes];
      const uint64_t head = gfn.value() << 8 | static_cast<uint64_t>(PageEncoding::kDelta);
      std::memcpy(raw, &head, kRecordHeadBytes);
      size_t at = kRecordHeadBytes;
      std::memcpy(raw + at, &delta.line_mask, kMaskBytes);
      at += kMaskBytes;
      std::memcpy(raw + at, delta.word_masks, delta.lines);
      at += delta.lines;
      std::memcpy(raw + at, delta.values, delta.words * sizeof(uint64_t));
      at += delta.words * sizeof(uint64_t);
      body->append(raw, at);
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
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("unknown page encoding ", static_cast<int>(record.encoding)));
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
      if (into.data() != before.data()) std::memcpy(into.data(), before.data(), kPageSize);
      break;
  }
  if (record.encoding == PageEncoding::kSame) return;
  uint64_t line_mask;
  std::memcpy(&line_mask, record.payload.data(), kMaskBytes);
  const char* word_mask = record.payload.data() + kMaskBytes;
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

}  // namespace romulus::codec

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "codec/page_encoding.h"
#include "memory/memory_layout.h"

namespace romulus::codec {
namespace {

using Page = std::array<std::byte, kPageSize>;

class PageEncodingTest : public testing::Test {
 protected:
  PageEncodingTest() : layout_(*memory::MemoryLayout::ForMib(4)) {}

  void FillRandom(Page* page) {
    for (std::byte& b : *page) b = static_cast<std::byte>(random_());
  }
  void SetWord(Page* page, size_t word, uint64_t value) {
    std::memcpy(page->data() + word * 8, &value, 8);
  }
  // Encodes, decodes, compares. Returns the encoding; *bytes is the record's size.
  PageEncoding RoundTrip(const Page& now, const Page* before, size_t* bytes) {
    std::string body;
    const PageEncoding encoding =
        AppendPage(Gfn(5), now, before == nullptr ? nullptr : before->data(), &body);
    *bytes = body.size();
    const std::vector<char> exact(body.begin(), body.end());
    PageRecordReader reader(absl::string_view(exact.data(), exact.size()), layout_);
    absl::StatusOr<PageRecord> record = reader.Next();
    EXPECT_TRUE(record.ok()) << record.status();
    if (!record.ok()) return encoding;
    EXPECT_EQ(record->gfn, Gfn(5));
    EXPECT_EQ(record->encoding, encoding);
    EXPECT_TRUE(reader.done());
    Page decoded;
    decoded.fill(std::byte{0xee});
    Page base;
    base.fill(std::byte{0xdd});  // must not matter if `before` is not known
    if (before != nullptr) base = *before;
    DecodePage(*record, base, decoded);
    EXPECT_EQ(std::memcmp(decoded.data(), now.data(), kPageSize), 0);
    DecodePage(*record, base, base);
    EXPECT_EQ(std::memcmp(base.data(), now.data(), kPageSize), 0) << "in place";
    return encoding;
  }
  absl::Status ReadAll(const std::string& body) {
    const std::vector<char> exact(body.begin(), body.end());
    PageRecordReader reader(absl::string_view(exact.data(), exact.size()), layout_);
    while (!reader.done()) {
      absl::StatusOr<PageRecord> record = reader.Next();
      if (!record.ok()) return record.status();
    }
    return absl::OkStatus();
  }

  memory::MemoryLayout layout_;
  std::mt19937_64 random_{20240601};
};

std::string Head(uint64_t gfn, uint64_t encoding) {
  const uint64_t head = gfn << 8 | encoding;
  return std::string(reinterpret_cast<const char*>(&head), 8);
}
std::string Number(uint64_t value, size_t bytes) {
  return std::string(reinterpret_cast<const char*>(&value), bytes);
}

TEST_F(PageEncodingTest, ZeroPage) {
  Page zero{};
  Page before;
  FillRandom(&before);
  size_t bytes;
  EXPECT_EQ(RoundTrip(zero, nullptr, &bytes), PageEncoding::kZero);
  EXPECT_EQ(bytes, kRecordHeadBytes);
  EXPECT_EQ(RoundTrip(zero, &before, &bytes), PageEncoding::kZero);
  for (size_t byte : {0, 1, 63, 64, 4095}) {
    Page page{};
    page[byte] = std::byte{1};
    EXPECT_FALSE(IsZeroPage(page)) << byte;
    EXPECT_EQ(RoundTrip(page, nullptr, &bytes), PageEncoding::kRaw);
    EXPECT_EQ(bytes, kMaxRecordBytes);
  }
}

TEST_F(PageEncodingTest, OneChangedWordCostsFewBytes) {
  Page before;
  FillRandom(&before);
  for (size_t word : {size_t{0}, size_t{7}, size_t{8}, size_t{300}, size_t{511}}) {
    Page now = before;
    now[word * 8 + 3] ^= std::byte{1};
    size_t bytes;
    EXPECT_EQ(RoundTrip(now, &before, &bytes), PageEncoding::kDelta);
    EXPECT_EQ(bytes, kRecordHeadBytes + 8 + 1 + 8);
  }
}

TEST_F(PageEncodingTest, SamePage) {
  Page before;
  FillRandom(&before);
  size_t bytes;
  EXPECT_EQ(RoundTrip(before, &before, &bytes), PageEncoding::kSame);
  EXPECT_EQ(bytes, kRecordHeadBytes);
}

TEST_F(PageEncodingTest, TheSmallestIsChosen) {
  Page before, now;
  FillRandom(&before);
  now = before;
  // All lines, n words each of 8: 8 + 64 + 64 * n * 8 bytes against 4096.
  size_t bytes;
  for (size_t n = 1; n <= 8; ++n) {
    for (size_t line = 0; line < 64; ++line) now[line * 64 + (n - 1) * 8] ^= std::byte{0x55};
    const size_t delta = 8 + 64 + 64 * n * 8;
    EXPECT_EQ(RoundTrip(now, &before, &bytes),
              delta < kPageSize ? PageEncoding::kDelta : PageEncoding::kRaw);
    EXPECT_EQ(bytes, kRecordHeadBytes + std::min(delta, kPageSize));
  }
}

TEST_F(PageEncodingTest, RandomChangesRoundTrip) {
  Page before;
  FillRandom(&before);
  std::array<int, kPageEncodingEnd> seen{};
  for (int i = 0; i < 5000; ++i) {
    Page now = before;
    switch (random_() % 8) {
      case 0:
        now.fill(std::byte{0});
        break;
      case 1:
        FillRandom(&now);
        break;
      case 2: {  // a piece, anywhere, of any length
        const size_t from = random_() % kPageSize;
        const size_t size = random_() % (kPageSize - from + 1);
        for (size_t k = 0; k < size; ++k) now[from + k] = static_cast<std::byte>(random_());
        break;
      }
      default: {
        const size_t words = random_() % (1u << (random_() % 10));
        for (size_t k = 0; k < words; ++k) SetWord(&now, random_() % 512, random_());
      }
    }
    size_t bytes;
    ++seen[static_cast<size_t>(RoundTrip(now, &before, &bytes))];
    ASSERT_LE(bytes, kMaxRecordBytes);
    ASSERT_FALSE(HasFailure()) << "round " << i;
    before = now;
  }
  EXPECT_GT(seen[static_cast<size_t>(PageEncoding::kZero)], 100);
  EXPECT_GT(seen[static_cast<size_t>(PageEncoding::kRaw)], 100);
  EXPECT_GT(seen[static_cast<size_t>(PageEncoding::kDelta)], 100);
  EXPECT_GT(seen[static_cast<size_t>(PageEncoding::kSame)], 10);
}

TEST_F(PageEncodingTest, ZeroRuns) {
  std::string body;
  AppendZeroRun(Gfn(10), 1, &body);
  EXPECT_EQ(body.size(), kRecordHeadBytes);
  AppendZeroRun(Gfn(20), 1004, &body);  // to the last page of 4 MiB
  PageRecordReader reader(body, layout_);
  absl::StatusOr<PageRecord> record = reader.Next();
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(record->encoding, PageEncoding::kZero);
  EXPECT_EQ(record->count, 1u);
  record = reader.Next();
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->encoding, PageEncoding::kZeroRun);
  EXPECT_EQ(record->count, 1004u);
  EXPECT_TRUE(reader.done());
}

TEST_F(PageEncodingTest, HostileRecordsAreRefused) {
  const std::string raw = Head(3, 2) + std::string(kPageSize, 'x');
  EXPECT_TRUE(ReadAll(raw).ok());
  EXPECT_TRUE(ReadAll(Head(3, 1)).ok());
  const std::string delta =
      Head(3, 3) + Number(1ull << 63 | 1, 8) + "\x01\x03" + std::string(3 * 8, 'w');
  EXPECT_TRUE(ReadAll(delta).ok());
  for (const std::string& good : {raw, delta, Head(3, 5) + Number(2, 4)}) {
    for (size_t size = 1; size < good.size(); ++size) {
      ASSERT_FALSE(ReadAll(good.substr(0, size)).ok()) << size;
    }
    EXPECT_FALSE(ReadAll(good + "x").ok()) << "trailing byte";
  }
  EXPECT_FALSE(ReadAll(Head(3, 0)).ok());
  EXPECT_FALSE(ReadAll(Head(3, 6)).ok());
  EXPECT_FALSE(ReadAll(Head(3, 255)).ok());
  EXPECT_FALSE(ReadAll(Head(1024, 1)).ok()) << "one past the end of 4 MiB";
  EXPECT_FALSE(ReadAll(Head((1ull << 56) - 1, 1)).ok());
  EXPECT_FALSE(ReadAll(Head((1ull << 52) + 3, 1)).ok()) << "its address wraps to page 3's";
  EXPECT_FALSE(ReadAll(Head((1ull << 52) + 3, 5) + Number(2, 4)).ok());
  EXPECT_FALSE(ReadAll(Head(3, 3) + Number(0, 8)).ok()) << "no line";
  EXPECT_FALSE(ReadAll(Head(3, 3) + Number(1, 8) + std::string(1, '\0')).ok()) << "no word";
  EXPECT_FALSE(ReadAll(Head(3, 5) + Number(0, 4)).ok());
  EXPECT_FALSE(ReadAll(Head(3, 5) + Number(1, 4)).ok()) << "a run of one is a zero record";
  EXPECT_TRUE(ReadAll(Head(3, 5) + Number(1021, 4)).ok());
  EXPECT_FALSE(ReadAll(Head(3, 5) + Number(1022, 4)).ok()) << "past the end";
  EXPECT_FALSE(ReadAll(Head(3, 5) + Number(0xffffffff, 4)).ok());
}

TEST_F(PageEncodingTest, RunsDoNotCrossTheHole) {
  const absl::StatusOr<memory::MemoryLayout> layout = memory::MemoryLayout::ForMib(4096);
  ASSERT_TRUE(layout.ok());
  const uint64_t last_low = (memory::kHoleStart >> kPageShift) - 1;
  const std::string body = Head(last_low, 5) + Number(2, 4);
  PageRecordReader reader(body, *layout);
  EXPECT_FALSE(reader.Next().ok());
  const std::string hole = Head(last_low + 1, 1);
  PageRecordReader in_hole(hole, *layout);
  EXPECT_FALSE(in_hole.Next().ok());
}

TEST_F(PageEncodingTest, RandomBytesNeverReadPastTheEnd) {
  for (int i = 0; i < 20000; ++i) {
    std::string body(random_() % 200, '\0');
    for (char& c : body) c = static_cast<char>(random_());
    if (body.size() >= 8) {  // let some get further
      const uint64_t head = (random_() % 1030) << 8 | random_() % 7;
      std::memcpy(body.data(), &head, 8);
    }
    ReadAll(body).IgnoreError();
  }
}

}  // namespace
}  // namespace romulus::codec

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "codec/page_encoding.h"
#include "memory/memory_layout.h"

namespace romulus::codec {
namespace {

using testing::HasSubstr;
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
        AppendPage(dialect_, Gfn(5), now, before == nullptr ? nullptr : before->data(), &body);
    *bytes = body.size();
    const std::vector<char> exact(body.begin(), body.end());
    PageRecordReader reader(absl::string_view(exact.data(), exact.size()), layout_, dialect_);
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
    PageRecordReader reader(absl::string_view(exact.data(), exact.size()), layout_, dialect_);
    while (!reader.done()) {
      absl::StatusOr<PageRecord> record = reader.Next();
      if (!record.ok()) return record.status();
    }
    return absl::OkStatus();
  }

  memory::MemoryLayout layout_;
  Dialect dialect_{kNewestProtocol};
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
    dialect_ = Dialect(kSparseSince - 1);
    EXPECT_EQ(RoundTrip(now, &before, &bytes), PageEncoding::kDelta);
    EXPECT_EQ(bytes, kRecordHeadBytes + 8 + 1 + 8);
    dialect_ = Dialect(kSparseSince);
    EXPECT_EQ(RoundTrip(now, &before, &bytes), PageEncoding::kSparse);
    EXPECT_EQ(bytes, kRecordHeadBytes + 2 + 2 + 1);
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
  dialect_ = Dialect(kSparseSince - 1);
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

TEST_F(PageEncodingTest, SparseIsPiecesOfChangedBytes) {
  Page before{};
  Page now{};
  now[3] = std::byte{'a'};
  now[5] = std::byte{'b'};  // of one word: with what is between them
  for (size_t i = 0; i < 20; ++i) now[1004 + i] = std::byte{'c'};  // of three
  now[4095] = std::byte{'d'};
  std::string body;
  EXPECT_EQ(AppendPage(dialect_, Gfn(5), now, before.data(), &body), PageEncoding::kSparse);
  const auto piece = [](uint64_t at, const std::string& bytes) {
    return Number(at + 4096 * (bytes.size() - 1), 2) + bytes;
  };
  const std::string pieces = piece(3, std::string("a\0b", 3)) + piece(1004, std::string(12, 'c')) +
                             piece(1016, std::string(8, 'c')) + piece(4095, "d");
  EXPECT_EQ(body, Head(5, 6) + Number(pieces.size(), 2) + pieces);
  size_t bytes;
  EXPECT_EQ(RoundTrip(now, &before, &bytes), PageEncoding::kSparse);
}

// Of a few words, whatever changed in them; of many, if little did.
TEST_F(PageEncodingTest, SparseIsChosenWhereItIsSmaller) {
  Page before, now;
  FillRandom(&before);
  size_t sparse, delta;
  const auto encode = [&] {
    dialect_ = Dialect(kSparseSince - 1);
    RoundTrip(now, &before, &delta);
    dialect_ = Dialect(kSparseSince);
    return RoundTrip(now, &before, &sparse);
  };
  // Distant words: 2 + 10 a word against 8 + 9 a word.
  for (size_t words = 1; words <= 16; ++words) {
    now = before;
    for (size_t i = 0; i < words; ++i) {
      for (size_t k = 0; k < 8; ++k) now[i * 64 + k] ^= std::byte{1};
    }
    EXPECT_EQ(encode(), words < 6 ? PageEncoding::kSparse : PageEncoding::kDelta) << words;
    EXPECT_EQ(sparse, kRecordHeadBytes + std::min(2 + 10 * words, 8 + 9 * words));
  }
  // A line: pieces of 16 bytes.
  now = before;
  for (size_t k = 0; k < 64; ++k) now[k] ^= std::byte{1};
  EXPECT_EQ(encode(), PageEncoding::kDelta);
  now[0] ^= std::byte{1};
  EXPECT_EQ(encode(), PageEncoding::kDelta) << "as long";
  now[1] ^= std::byte{1};
  EXPECT_EQ(encode(), PageEncoding::kSparse);
  EXPECT_EQ(sparse + 1, delta);
  // Something small in every word, as in a page table.
  now = before;
  for (size_t word = 0; word < kWordsPerPage; ++word) now[word * 8] ^= std::byte{1};
  EXPECT_EQ(encode(), PageEncoding::kSparse);
  EXPECT_EQ(sparse, kRecordHeadBytes + 2 + 3 * kWordsPerPage);
  EXPECT_EQ(delta, kMaxRecordBytes);
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
      case 3:  // bytes here and there
        for (size_t k = random_() % (1u << (random_() % 12)); k > 0; --k) {
          now[random_() % kPageSize] = static_cast<std::byte>(random_());
        }
        break;
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
  EXPECT_GT(seen[static_cast<size_t>(PageEncoding::kSparse)], 100);
}

TEST_F(PageEncodingTest, ZeroRuns) {
  std::string body;
  AppendZeroRun(Gfn(10), 1, &body);
  EXPECT_EQ(body.size(), kRecordHeadBytes);
  AppendZeroRun(Gfn(20), 1004, &body);  // to the last page of 4 MiB
  PageRecordReader reader(body, layout_, dialect_);
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
  const std::string sparse =
      Head(3, 6) + Number(7, 2) + Number(8 + 4096, 2) + "ab" + Number(4095, 2) + "x";
  EXPECT_TRUE(ReadAll(sparse).ok());
  for (const std::string& good : {raw, delta, sparse, Head(3, 5) + Number(2, 4)}) {
    for (size_t size = 1; size < good.size(); ++size) {
      ASSERT_FALSE(ReadAll(good.substr(0, size)).ok()) << size;
    }
    EXPECT_FALSE(ReadAll(good + "x").ok()) << "trailing byte";
  }
  EXPECT_FALSE(ReadAll(Head(3, 0)).ok());
  EXPECT_FALSE(ReadAll(Head(3, 7)).ok());
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

TEST_F(PageEncodingTest, HostileSparseRecordsAreRefused) {
  const auto why = [this](const std::string& pieces, size_t size) {
    const absl::Status status = ReadAll(Head(3, 6) + Number(size, 2) + pieces);
    if (!status.ok()) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    }
    return std::string(status.message());
  };
  const auto piece = [](uint64_t at, size_t bytes) {
    return Number(at + 4096 * (bytes - 1), 2) + std::string(bytes, 'x');
  };
  const auto whole = [&](const std::string& pieces) { return why(pieces, pieces.size()); };
  EXPECT_EQ(whole(piece(0, 16) + piece(16, 1) + piece(4080, 16)), "");
  EXPECT_THAT(whole(""), HasSubstr("changes nothing"));
  EXPECT_THAT(whole(piece(4081, 16)), HasSubstr("page's end"));
  EXPECT_THAT(whole(piece(4095, 2)), HasSubstr("page's end"));
  EXPECT_THAT(whole(piece(8, 2) + piece(9, 1)), HasSubstr("behind another"));
  EXPECT_THAT(whole(piece(8, 2) + piece(8, 2)), HasSubstr("behind another"));
  EXPECT_THAT(whole(piece(8, 2) + piece(0, 1)), HasSubstr("behind another"));
  // The size cuts a piece, or its head, or is more than there is.
  const std::string two = piece(8, 2) + piece(32, 2);
  EXPECT_THAT(whole(two.substr(0, 7)), HasSubstr("truncated in its pieces"));
  EXPECT_THAT(whole(two.substr(0, 5)), HasSubstr("truncated in its pieces"));
  EXPECT_THAT(why(piece(8, 2), 5), HasSubstr("truncated"));
  EXPECT_THAT(why(piece(8, 2), 65535), HasSubstr("truncated"));
  // What is well-formed is nothing that an older stream has.
  dialect_ = Dialect(kSparseSince - 1);
  EXPECT_THAT(whole(piece(0, 1)), HasSubstr("unknown page encoding 6"));
}

TEST_F(PageEncodingTest, RunsDoNotCrossTheHole) {
  const absl::StatusOr<memory::MemoryLayout> layout = memory::MemoryLayout::ForMib(4096);
  ASSERT_TRUE(layout.ok());
  const uint64_t last_low = (memory::kHoleStart >> kPageShift) - 1;
  const std::string body = Head(last_low, 5) + Number(2, 4);
  PageRecordReader reader(body, *layout, dialect_);
  EXPECT_FALSE(reader.Next().ok());
  const std::string hole = Head(last_low + 1, 1);
  PageRecordReader in_hole(hole, *layout, dialect_);
  EXPECT_FALSE(in_hole.Next().ok());
}

TEST_F(PageEncodingTest, RandomBytesNeverReadPastTheEnd) {
  for (int i = 0; i < 20000; ++i) {
    std::string body(random_() % 200, '\0');
    for (char& c : body) c = static_cast<char>(random_());
    if (body.size() >= 8) {  // let some get further
      const uint64_t head = (random_() % 1030) << 8 | random_() % 8;
      std::memcpy(body.data(), &head, 8);
    }
    ReadAll(body).IgnoreError();
  }
}

}  // namespace
}  // namespace romulus::codec

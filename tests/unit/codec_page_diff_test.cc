#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "codec/page_diff.h"

namespace romulus::codec {
namespace {

// What the header says, written down word by word.
struct Plain {
  std::vector<uint8_t> word_masks;
  std::vector<uint64_t> values;
  uint64_t line_mask = 0;
};

Plain PlainDiff(const std::byte* now, const std::byte* before) {
  Plain plain;
  for (size_t line = 0; line < kLinesPerPage; ++line) {
    uint8_t mask = 0;
    for (size_t word = 0; word < kWordsPerLine; ++word) {
      uint64_t a;
      uint64_t b;
      std::memcpy(&a, now + line * kLineBytes + word * 8, 8);
      std::memcpy(&b, before + line * kLineBytes + word * 8, 8);
      if (a == b) continue;
      mask = static_cast<uint8_t>(mask | 1u << word);
      plain.values.push_back(a);
    }
    if (mask == 0) continue;
    plain.line_mask |= 1ull << line;
    plain.word_masks.push_back(mask);
  }
  return plain;
}

class PageDiffTest : public testing::TestWithParam<DiffVersion> {
 protected:
  void Expect(const std::byte* now, const std::byte* before) {
    PageDelta delta;
    std::memset(&delta, 0xee, sizeof(delta));  // whatever was there before does not matter
    DiffPage(GetParam(), now, before, &delta);
    const Plain plain = PlainDiff(now, before);
    EXPECT_EQ(delta.line_mask, plain.line_mask);
    ASSERT_EQ(delta.lines, plain.word_masks.size());
    ASSERT_EQ(delta.words, plain.values.size());
    EXPECT_TRUE(std::equal(plain.word_masks.begin(), plain.word_masks.end(), delta.word_masks));
    EXPECT_TRUE(std::equal(plain.values.begin(), plain.values.end(), delta.values));
  }

  std::mt19937_64 random_{20240601};
};

TEST_P(PageDiffTest, NothingAndEverything) {
  std::vector<std::byte> before(kPageSize, std::byte{0x5a});
  std::vector<std::byte> now = before;
  Expect(now.data(), before.data());
  for (std::byte& b : now) b ^= std::byte{0xff};
  Expect(now.data(), before.data());
}

TEST_P(PageDiffTest, EveryByteAlone) {
  std::vector<std::byte> before(kPageSize, std::byte{0x5a});
  for (size_t at = 0; at < kPageSize; ++at) {
    std::vector<std::byte> now = before;
    now[at] ^= std::byte{1};
    Expect(now.data(), before.data());
  }
}

TEST_P(PageDiffTest, EveryMaskOfALineInEveryLine) {
  std::vector<std::byte> before(kPageSize);
  for (std::byte& b : before) b = static_cast<std::byte>(random_());
  for (unsigned mask = 0; mask < 256; ++mask) {
    std::vector<std::byte> now = before;
    for (size_t line = 0; line < kLinesPerPage; ++line) {
      for (size_t word = 0; word < kWordsPerLine; ++word) {
        if ((mask >> word & 1) != 0) now[line * kLineBytes + word * 8 + line % 8] ^= std::byte{2};
      }
    }
    Expect(now.data(), before.data());
  }
}

TEST_P(PageDiffTest, RandomPagesOfAnyAlignment) {
  // Of exactly their size, so that reading past them is seen by the sanitizers.
  for (int i = 0; i < 2000; ++i) {
    const size_t skip = random_() % 64;
    std::vector<std::byte> before(skip + kPageSize);
    for (std::byte& b : before) b = static_cast<std::byte>(random_());
    std::vector<std::byte> now = before;
    const uint64_t changes = 1ull << random_() % 12;
    for (uint64_t n = 0; n < changes; ++n) now[skip + random_() % kPageSize] ^= std::byte{4};
    Expect(now.data() + skip, before.data() + skip);
  }
}

std::vector<DiffVersion> Runnable() {
  std::vector<DiffVersion> versions(std::begin(kDiffVersions), std::end(kDiffVersions));
  std::erase_if(versions, [](DiffVersion version) { return !CanRun(version); });
  return versions;
}

std::string NameOf(const testing::TestParamInfo<DiffVersion>& tested) {
  constexpr std::array<const char*, 3> kNames = {"Portable", "Avx2", "Avx512"};
  return kNames[static_cast<size_t>(tested.param)];
}

INSTANTIATE_TEST_SUITE_P(Versions, PageDiffTest, testing::ValuesIn(Runnable()), NameOf);

}  // namespace
}  // namespace romulus::codec

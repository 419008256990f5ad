#include <gtest/gtest.h>

#include "tracker/hot_pages.h"

namespace romulus::tracker {
namespace {

TEST(HotPagesTest, APageWrittenInEpochAfterEpochIsHot) {
  HotPages pages;
  uint64_t epoch = 10;
  for (int i = 1; i < HotPages::kWrites; ++i) EXPECT_FALSE(pages.Note(Gfn(7), epoch++));
  EXPECT_TRUE(pages.Note(Gfn(7), epoch));
  EXPECT_TRUE(pages.Note(Gfn(7), epoch + HotPages::kApart));
}

TEST(HotPagesTest, WritesInOneEpochAreOne) {
  HotPages pages;
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(pages.Note(Gfn(7), 1));
  EXPECT_FALSE(pages.Note(Gfn(7), 2));
  EXPECT_TRUE(pages.Note(Gfn(7), 3));
  EXPECT_FALSE(pages.Note(Gfn(7), 3));
}

TEST(HotPagesTest, OneWrittenNowAndThenIsNot) {
  HotPages pages;
  for (uint64_t epoch = 1; epoch < 100; epoch += HotPages::kApart + 1) {
    EXPECT_FALSE(pages.Note(Gfn(7), epoch));
  }
}

TEST(HotPagesTest, OneThatWasHotIsSoAgainByItsNextWriteUnlessThatIsLate) {
  HotPages pages;
  pages.Cool(Gfn(7), 100);
  EXPECT_TRUE(pages.Note(Gfn(7), 101));
  pages.Cool(Gfn(7), 200);
  EXPECT_FALSE(pages.Note(Gfn(7), 200 + HotPages::kApart + 1));
}

TEST(HotPagesTest, PagesThatShareALineOnlyDisturbEachOther) {
  HotPages pages;
  constexpr uint64_t kFar = 1u << 20;
  for (uint64_t epoch = 1; epoch < 50; ++epoch) {
    EXPECT_FALSE(pages.Note(Gfn(7), epoch));
    EXPECT_FALSE(pages.Note(Gfn(7 + kFar), epoch));
  }
}

}  // namespace
}  // namespace romulus::tracker

#include "epoch/log_advice.h"

#include <gtest/gtest.h>

namespace romulus::epoch {
namespace {

constexpr uint64_t kGib = uint64_t{1} << 30;

TEST(LogAdviceTest, ManyDirtyPagesInLittleMemoryWantTheBitmap) {
  EXPECT_EQ(BetterLog({.memory_bytes = kGib, .pages_per_epoch = 20'000}, DirtyLog::kRing),
            DirtyLog::kBitmap);
  EXPECT_EQ(BetterLog({.memory_bytes = kGib, .pages_per_epoch = 20'000}, DirtyLog::kBitmap),
            DirtyLog::kBitmap);
}

TEST(LogAdviceTest, FewOfThemInMuchMemoryWantTheRing) {
  for (const DirtyLog now : {DirtyLog::kRing, DirtyLog::kBitmap}) {
    EXPECT_EQ(BetterLog({.memory_bytes = 64 * kGib, .pages_per_epoch = 100}, now), DirtyLog::kRing);
  }
  EXPECT_EQ(BetterLog({.memory_bytes = kGib, .pages_per_epoch = 0}, DirtyLog::kRing),
            DirtyLog::kRing);
}

TEST(LogAdviceTest, ARingThatStopsItsVcpuIsWorthAKick) {
  LogLoad load{.memory_bytes = kGib / 4, .pages_per_epoch = 500};
  EXPECT_EQ(BetterLog(load, DirtyLog::kRing), DirtyLog::kBitmap);
  load.ring_stops_itself = true;
  EXPECT_EQ(BetterLog(load, DirtyLog::kRing), DirtyLog::kRing);
}

TEST(LogAdviceTest, NearTheCrossingWhatIsUsedStays) {
  for (uint64_t pages = 0; pages < 100'000; pages += 100) {
    const LogLoad load{.memory_bytes = 16 * kGib, .pages_per_epoch = pages};
    EXPECT_FALSE(BetterLog(load, DirtyLog::kRing) == DirtyLog::kBitmap &&
                 BetterLog(load, DirtyLog::kBitmap) == DirtyLog::kRing)
        << pages;
  }
}

}  // namespace
}  // namespace romulus::epoch

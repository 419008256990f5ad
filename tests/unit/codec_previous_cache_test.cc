#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <random>

#include "codec/previous_cache.h"

namespace romulus::codec {
namespace {

void Fill(std::byte* page, int value) { std::memset(page, value, kPageSize); }

TEST(PreviousCacheTest, HoldsWhatWasPut) {
  absl::StatusOr<PreviousCache> cache = PreviousCache::Create(Gfn(100), 3 * kPageSize);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(cache->capacity_pages(), 3u);
  EXPECT_EQ(cache->Find(Gfn(7)), nullptr);
  Fill(cache->Put(Gfn(7)), 1);
  Fill(cache->Put(Gfn(99)), 2);
  EXPECT_EQ(cache->Find(Gfn(7))[4095], std::byte{1});
  EXPECT_EQ(cache->Find(Gfn(99))[0], std::byte{2});
  EXPECT_EQ(cache->Put(Gfn(7)), cache->Find(Gfn(7)));
  EXPECT_EQ(cache->pages(), 2u);
  EXPECT_EQ(cache->Find(Gfn(100)), nullptr);
  EXPECT_EQ(cache->Put(Gfn(100)), nullptr);
}

TEST(PreviousCacheTest, WithoutRoomItHoldsNothing) {
  absl::StatusOr<PreviousCache> cache = PreviousCache::Create(Gfn(100), kPageSize - 1);
  ASSERT_TRUE(cache.ok());
  EXPECT_EQ(cache->capacity_pages(), 0u);
  EXPECT_EQ(cache->Put(Gfn(1)), nullptr);
  EXPECT_EQ(cache->Find(Gfn(1)), nullptr);
  cache->Erase(Gfn(1));
  cache->Clear();
}

TEST(PreviousCacheTest, NeverMoreThanTheCap) {
  absl::StatusOr<PreviousCache> cache = PreviousCache::Create(Gfn(1000), 10 * kPageSize);
  ASSERT_TRUE(cache.ok());
  for (uint64_t gfn = 0; gfn < 1000; ++gfn) {
    ASSERT_NE(cache->Put(Gfn(gfn)), nullptr);
    ASSERT_LE(cache->pages(), 10u);
  }
  EXPECT_EQ(cache->evictions(), 990u);
}

TEST(PreviousCacheTest, PagesInUseOutliveOthers) {
  absl::StatusOr<PreviousCache> cache = PreviousCache::Create(Gfn(1000), 10 * kPageSize);
  ASSERT_TRUE(cache.ok());
  Fill(cache->Put(Gfn(0)), 77);
  for (uint64_t gfn = 1; gfn < 1000; ++gfn) {
    std::byte* hot = cache->Find(Gfn(0));
    ASSERT_NE(hot, nullptr) << "evicted although used before each other page, at " << gfn;
    ASSERT_EQ(hot[100], std::byte{77});
    cache->Put(Gfn(gfn));
  }
}

TEST(PreviousCacheTest, AgreesWithAModel) {
  absl::StatusOr<PreviousCache> cache = PreviousCache::Create(Gfn(64), 16 * kPageSize);
  ASSERT_TRUE(cache.ok());
  std::map<uint64_t, int> model;  // what the page must be if it is cached at all
  std::mt19937 random(1);
  size_t hits = 0;
  for (int i = 0; i < 20000; ++i) {
    const uint64_t gfn = random() % 64;
    const unsigned what = random() % 100;
    if (what == 0) {
      cache->Clear();
      model.clear();
      EXPECT_EQ(cache->pages(), 0u);
    } else if (what < 10) {
      cache->Erase(Gfn(gfn));
      model.erase(gfn);
    } else if (what < 60) {
      const int value = static_cast<int>(random() % 256);
      Fill(cache->Put(Gfn(gfn)), value);
      model[gfn] = value;
    } else if (std::byte* page = cache->Find(Gfn(gfn)); page != nullptr) {
      ASSERT_TRUE(model.contains(gfn)) << "erased, but found";
      ASSERT_EQ(page[gfn], static_cast<std::byte>(model[gfn]));
      ++hits;
    }
    ASSERT_LE(cache->pages(), 16u);
  }
  EXPECT_GT(hits, 500u);
}

}  // namespace
}  // namespace romulus::codec

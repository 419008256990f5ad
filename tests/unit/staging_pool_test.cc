#include "epoch/staging_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "gtest/gtest.h"

namespace romulus::epoch {
namespace {

constexpr uint64_t kCap = 4 * StagingChunk::kBytes;

// Pages of the whole pool that are in memory (mincore(2)).
size_t Resident(StagingPool& pool) {
  std::vector<StagingChunk> chunks;
  size_t resident = 0;
  while (std::optional<StagingChunk> chunk = pool.TryAcquire()) {
    unsigned char pages[StagingChunk::kPages];
    EXPECT_EQ(mincore(chunk->data(), StagingChunk::kBytes, pages), 0);
    resident += std::count_if(pages, pages + StagingChunk::kPages, [](auto p) { return p & 1; });
    chunks.push_back(*std::move(chunk));
  }
  EXPECT_EQ(chunks.size() * StagingChunk::kBytes, pool.cap_bytes());
  return resident;
}

// A promoted guest waits for the pool to be made.
TEST(StagingPoolTest, MakingItTakesNoMemory) {
  auto pool = *StagingPool::Create(kCap);
  EXPECT_EQ(Resident(*pool), 0u);
}

TEST(StagingPoolTest, PopulateGivesItAll) {
  auto pool = *StagingPool::Create(kCap);
  pool->Populate();
  EXPECT_EQ(Resident(*pool), kCap / kPageSize);
}

TEST(StagingPoolTest, PopulateEndsWhenClosed) {
  auto pool = *StagingPool::Create(kCap);
  pool->Close();
  pool->Populate();
  EXPECT_EQ(Resident(*pool), 0u);
}

TEST(StagingPoolTest, RoundsDownToChunksAtLeastTwo) {
  EXPECT_EQ((*StagingPool::Create(kCap + 1))->cap_bytes(), kCap);
  EXPECT_EQ((*StagingPool::Create(1))->cap_bytes(), 2 * StagingChunk::kBytes);
}

}  // namespace
}  // namespace romulus::epoch

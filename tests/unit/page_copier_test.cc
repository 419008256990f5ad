#include "epoch/page_copier.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "base/cpu_affinity.h"

namespace romulus::epoch {
namespace {

constexpr uint64_t kMemoryPages = 4096;
constexpr uint64_t kLeastShared = 700;
constexpr uint64_t kPoolBytes = kMemoryPages * kPageSize;

uint64_t ContentOf(uint64_t gfn, uint64_t round) { return gfn << 32 | (round + 1); }

PageCopierOptions Options(int helpers) {
  return {.helpers = helpers, .least_shared_pages = kLeastShared};
}

class PageCopierTest : public ::testing::TestWithParam<int> {
 protected:
  // Every page's first and last word say which it is, in that round.
  void WriteMemory(uint64_t round) {
    for (uint64_t gfn = 0; gfn < kMemoryPages; ++gfn) {
      const uint64_t word = ContentOf(gfn, round);
      ASSERT_TRUE(memory_->WriteObject(Gpa(gfn * kPageSize), word).ok());
      ASSERT_TRUE(memory_->WriteObject(Gpa((gfn + 1) * kPageSize - sizeof(word)), word).ok());
    }
  }

  // Batches for `pages` pages, spread over memory.
  std::vector<PageBatch> Batches(uint64_t pages) {
    std::vector<PageBatch> batches;
    for (uint64_t i = 0; i < pages; ++i) {
      if (i % StagingChunk::kPages == 0) {
        batches.push_back({{}, *pool_->TryAcquire()});
        std::memset(batches.back().chunk.data(), 0xee, StagingChunk::kBytes);
      }
      batches.back().gfns.push_back(Gfn(i * kMemoryPages / pages));
    }
    return batches;
  }

  static uint64_t WordAt(const PageBatch& batch, size_t page, size_t at) {
    uint64_t word;
    std::memcpy(&word, batch.Page(page).data() + at, sizeof(word));
    return word;
  }

  void ExpectCopied(const std::vector<PageBatch>& batches, uint64_t round) {
    for (const PageBatch& batch : batches) {
      for (size_t i = 0; i < batch.gfns.size(); ++i) {
        const uint64_t word = ContentOf(batch.gfns[i].value(), round);
        ASSERT_EQ(WordAt(batch, i, 0), word) << "page " << batch.gfns[i].value();
        ASSERT_EQ(WordAt(batch, i, kPageSize - sizeof(word)), word);
      }
    }
    // What no page was meant for stays.
    const PageBatch& last = batches.back();
    for (size_t i = last.gfns.size(); i < StagingChunk::kPages; ++i) {
      ASSERT_EQ(WordAt(last, i, 0), 0xeeeeeeeeeeeeeeee);
    }
  }

  std::unique_ptr<memory::GuestMemory> memory_ =
      *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(kMemoryPages * kPageSize >> 20));
  std::unique_ptr<StagingPool> pool_ = *StagingPool::Create(kPoolBytes);
};

TEST_P(PageCopierTest, CopiesWhatTheBatchesName) {
  PageCopier copier(memory_.get(), Options(GetParam()));
  copier.Copy({});
  uint64_t round = 0;
  for (const uint64_t pages :
       {uint64_t{1}, uint64_t{31}, uint64_t{64}, uint64_t{65}, kLeastShared - 1, kLeastShared,
        kLeastShared + 1, uint64_t{33}, kMemoryPages - 31, kMemoryPages}) {
    WriteMemory(round);
    std::vector<PageBatch> batches = Batches(pages);
    copier.Copy(batches);
    ExpectCopied(batches, round++);
    if (HasFatalFailure()) return;
  }
}

// Right behind it the guest goes on writing. The last pieces are those that a helper may have:
// these pages change first.
TEST_P(PageCopierTest, NobodyIsAtAPageWhenItReturns) {
  PageCopier copier(memory_.get(), Options(GetParam()));
  std::vector<PageBatch> batches = Batches(kMemoryPages);
  for (uint64_t round = 0; round < 100; ++round) {
    WriteMemory(round);
    copier.Copy(batches);
    for (uint64_t gfn = kMemoryPages; gfn > kMemoryPages - 4 * StagingChunk::kPages; --gfn) {
      std::memset(memory_->WritableSpan(Gpa((gfn - 1) * kPageSize), kPageSize)->data(), 0xdd,
                  kPageSize);
    }
    ExpectCopied(batches, round);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Helpers, PageCopierTest, ::testing::Values(0, 1, 3));

// Which pages a helper gets is the scheduler's to say: but in the end it gets some.
TEST_F(PageCopierTest, HelpersCopyLargeEpochs) {
  PageCopier copier(memory_.get(), Options(2));
  std::vector<PageBatch> batches = Batches(kMemoryPages);
  constexpr int kMostRounds = 10'000;
  int rounds = 0;
  while (copier.helped_pages() == 0 && rounds < kMostRounds) {
    copier.Copy(batches);
    ++rounds;
  }
  EXPECT_GT(copier.helped_pages(), 0u);
  EXPECT_LE(copier.helped_pages(), static_cast<uint64_t>(rounds) * kMemoryPages);
}

TEST_F(PageCopierTest, NobodyHelpsWithAFew) {
  PageCopier copier(memory_.get(), Options(2));
  std::vector<PageBatch> batches = Batches(kLeastShared - 1);
  for (int i = 0; i < 100; ++i) copier.Copy(batches);
  EXPECT_EQ(copier.helped_pages(), 0u);
}

TEST(CopyHelpersTest, AreAsManyAsHaveACpuBesideTheCheckpoint) {
  cpu_set_t own;
  ASSERT_EQ(::sched_getaffinity(0, sizeof(own), &own), 0);
  std::vector<int> cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(static_cast<size_t>(cpu), &own)) cpus.push_back(cpu);
  }
  const auto two = std::span(cpus).first(std::min<size_t>(cpus.size(), 2));
  std::thread([&] {
    ASSERT_TRUE(base::KeepThreadOn(0, two).ok());
    EXPECT_EQ(CopyHelpers({}), static_cast<int>(two.size()) - 1);
    ASSERT_TRUE(base::KeepThreadOn(0, two.first(1)).ok());
    EXPECT_EQ(CopyHelpers({}), 0);
    if (cpus.size() < 2) return;
    // vCPUs make the checkpoints elsewhere, wherever; helpers are here.
    EXPECT_EQ(CopyHelpers(std::span(cpus).subspan(1)), 1);
  }).join();
}

}  // namespace
}  // namespace romulus::epoch

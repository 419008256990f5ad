// What the ring source says of several vCPUs' rings without stopping them.
#include <gtest/gtest.h>

#include <span>
#include <vector>

#include "tracker/ring_source.h"

namespace romulus::tracker {
namespace {

constexpr uint32_t kEntries = 64;

class RingSourceTest : public ::testing::Test {
 protected:
  struct Ring {
    std::vector<kvm_dirty_gfn> entries{kEntries};
    kvm::DirtyRing ring{std::as_writable_bytes(std::span(entries)), kEntries, kEntries};
    // As KVM: Documentation/virt/kvm/api.rst, KVM_CAP_DIRTY_LOG_RING.
    void Fill(uint32_t count) {
      for (uint32_t i = 0; i < count; ++i) entries[i].flags = KVM_DIRTY_GFN_F_DIRTY;
    }
  };

  Ring first_, second_;
  RingSource source_{nullptr, {&first_.ring, &second_.ring}, *memory::MemoryLayout::ForMib(4)};
};

TEST_F(RingSourceTest, CountsWhatAllRingsHold) {
  EXPECT_EQ(source_.LikelyCount(100), 0u);
  EXPECT_TRUE(source_.LikelyNone());
  first_.Fill(50);
  second_.Fill(3);
  EXPECT_EQ(source_.LikelyCount(100), 53u);
  EXPECT_EQ(source_.LikelyCount(20), 20u) << "no more than was asked for";
  EXPECT_FALSE(source_.LikelyNone());
}

// Else whoever waits for the budget would look again and again, and not be told.
TEST_F(RingSourceTest, TheBudgetIsReachedWhenTheCountSaysSo) {
  first_.Fill(50);
  second_.Fill(3);
  for (uint64_t pages = 0; pages <= 60; ++pages) {
    EXPECT_EQ(source_.LikelyAtLeast(pages), source_.LikelyCount(pages) >= pages) << pages;
    EXPECT_EQ(source_.LikelyAtLeast(pages), pages <= 53) << pages;
  }
}

}  // namespace
}  // namespace romulus::tracker

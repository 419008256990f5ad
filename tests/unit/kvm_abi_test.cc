// What of lib/kvm needs no /dev/kvm: kernel structs as C has them, and the ring's protocol on plain
// memory.
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kvm/abi.h"
#include "kvm/dirty_ring.h"
#include "kvm/exit.h"
#include "kvm/system.h"

namespace romulus::kvm {
namespace {

// The numbers are what a C compiler makes of <linux/kvm.h>.
TEST(Abi, IoctlNumbersAreThoseOfC) {
  EXPECT_EQ(kGetSupportedCpuid, 0xc008ae05ul);
  EXPECT_EQ(kGetMsrIndexList, 0xc004ae02ul);
  EXPECT_EQ(kGetMsrs, 0xc008ae88ul);
  EXPECT_EQ(kSetMsrs, 0x4008ae89ul);
  EXPECT_EQ(kSetCpuid2, 0x4008ae90ul);
  EXPECT_EQ(kGetXsave, 0x9000aea4ul);
  EXPECT_EQ(kSetXsave, 0x5000aea5ul);
  EXPECT_EQ(kGetXsave2, 0x9000aecful);
  // And the trap is there: if this fails, the wrappers can go.
  EXPECT_NE(sizeof(kvm_cpuid2), sizeof(CpuidHeader));
}

TEST(Abi, EntriesFollowTheHeaderAtOnce) {
  MsrsStruct msrs(3);
  EXPECT_EQ(reinterpret_cast<std::byte*>(msrs.entries().data()),
            static_cast<std::byte*>(msrs.data()) + 8);
  EXPECT_EQ(msrs.entries().size(), 3u);
  CpuidStruct cpuid(2);
  EXPECT_EQ(reinterpret_cast<std::byte*>(cpuid.entries().data()),
            static_cast<std::byte*>(cpuid.data()) + 8);
  MsrListStruct list(5);
  EXPECT_EQ(reinterpret_cast<std::byte*>(list.entries().data()),
            static_cast<std::byte*>(list.data()) + 4);
  // The last entry is inside the memory (asan watches).
  msrs.entries()[2].data = 1;
  cpuid.entries()[1].padding[2] = 1;
  list.entries()[4] = 1;
}

TEST(Exit, EveryKindHasAName) {
  EXPECT_EQ(kExitNames[Exit(ExitInterrupted{}).index()], "interrupted");
  EXPECT_EQ(kExitNames[Exit(ExitIo{}).index()], "io");
  EXPECT_EQ(kExitNames[Exit(ExitDirtyRingFull{}).index()], "dirty_ring_full");
  EXPECT_EQ(kExitNames[Exit(ExitUnknown{}).index()], "unknown");
}

TEST(Capabilities, RingBoundsFollowWhatKvmReserves) {
  Capabilities c;
  c.pml = false;
  EXPECT_EQ(c.reserved_ring_entries(), 64u);
  EXPECT_EQ(c.min_ring_entries(), 256u);  // a page
  c.pml = true;
  EXPECT_EQ(c.reserved_ring_entries(), 576u);
  EXPECT_EQ(c.min_ring_entries(), 1024u);
}

TEST(System, SaysWhatToDoWithoutADevice) {
  const absl::Status missing = System::Open("/nowhere/kvm").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), ::testing::HasSubstr("modprobe"));
  // A device that is no KVM.
  EXPECT_EQ(System::Open("/dev/null").status().code(), absl::StatusCode::kFailedPrecondition);
}

class RingTest : public ::testing::Test {
 protected:
  static constexpr uint32_t kEntries = 8;

  void KernelPushes(uint32_t slot, uint64_t offset) {
    kvm_dirty_gfn& entry = entries_[pushed_++ % kEntries];
    ASSERT_EQ(entry.flags, 0u) << "the kernel would have stopped the vCPU before";
    entry.slot = slot;
    entry.offset = offset;
    entry.flags = KVM_DIRTY_GFN_F_DIRTY;
  }
  void KernelResets() {
    for (kvm_dirty_gfn& entry : entries_) {
      if ((entry.flags & KVM_DIRTY_GFN_F_RESET) != 0) entry.flags = 0;
    }
  }
  std::vector<std::pair<uint32_t, uint64_t>> Harvest() {
    std::vector<std::pair<uint32_t, uint64_t>> got;
    const uint32_t count =
        ring_.Harvest([&](uint32_t slot, uint64_t offset) { got.emplace_back(slot, offset); });
    EXPECT_EQ(count, got.size());
    return got;
  }
  std::vector<std::pair<uint32_t, uint64_t>> HarvestAndGiveBack() {
    const auto got = Harvest();
    for (const auto& [slot, offset] : got) ring_.GiveBack(slot, offset);
    return got;
  }

  std::vector<kvm_dirty_gfn> entries_{kEntries};
  uint32_t pushed_ = 0;
  DirtyRing ring_{std::as_writable_bytes(std::span(entries_)), kEntries, 6};
};

using Pairs = std::vector<std::pair<uint32_t, uint64_t>>;

TEST_F(RingTest, HarvestsInOrderOnce) {
  EXPECT_TRUE(Harvest().empty());
  KernelPushes(0, 7);
  KernelPushes(1, 3);
  EXPECT_EQ(Harvest(), (Pairs{{0, 7}, {1, 3}}));
  EXPECT_TRUE(Harvest().empty()) << "not twice";
  KernelPushes(0, 9);
  EXPECT_EQ(Harvest(), (Pairs{{0, 9}})) << "a harvest may come between two resets";
  EXPECT_EQ(ring_.outstanding(), 3u);
}

TEST_F(RingTest, TheOldestEntryCarriesTheOrderForAnyPage) {
  for (uint64_t i = 0; i < 3; ++i) KernelPushes(0, i);
  Harvest();
  EXPECT_EQ(entries_[0].flags, uint32_t{KVM_DIRTY_GFN_F_DIRTY}) << "harvested, not given back";
  ring_.GiveBack(1, 77);
  ring_.GiveBackUnused();
  EXPECT_EQ(entries_[0].flags, uint32_t{KVM_DIRTY_GFN_F_RESET});
  EXPECT_EQ(entries_[0].slot, 1u);
  EXPECT_EQ(entries_[0].offset, 77u);
  EXPECT_GE(entries_[1].slot & 0xffff, 32764u) << "KVM_USER_MEM_SLOTS";
  EXPECT_EQ(entries_[2].flags, uint32_t{KVM_DIRTY_GFN_F_DIRTY});
  EXPECT_EQ(ring_.outstanding(), 1u);
}

// An outstanding entry is as dirty as a waiting one: once around the ring it must not be taken for
// one.
TEST_F(RingTest, OutstandingEntriesAreNotHarvestedAgain) {
  for (uint64_t round = 0; round < 20; ++round) {
    for (uint64_t i = 0; ring_.outstanding() + i < 6; ++i) KernelPushes(0, round);
    for (const auto& [slot, offset] : Harvest()) EXPECT_EQ(offset, round);
    EXPECT_EQ(ring_.LikelyCount(), 0u);
    for (uint64_t i = 0; i < 1 + round % 3; ++i) ring_.GiveBackUnused();
    KernelResets();
    EXPECT_EQ(ring_.outstanding(), 6 - (1 + round % 3));
  }
}

TEST_F(RingTest, WrapsAround) {
  for (uint64_t round = 0; round < 5; ++round) {
    Pairs pushed;
    for (uint64_t i = 0; i < 6; ++i) {
      KernelPushes(0, round * 10 + i);
      pushed.emplace_back(0, round * 10 + i);
    }
    EXPECT_EQ(HarvestAndGiveBack(), pushed);
    KernelResets();
  }
}

TEST_F(RingTest, StopsAfterOneRoundWhenFull) {
  for (uint64_t i = 0; i < kEntries; ++i) KernelPushes(0, i);
  EXPECT_EQ(Harvest().size(), kEntries);
  EXPECT_TRUE(Harvest().empty());
}

TEST_F(RingTest, EntryDirtyEstimatesTheNumberWaiting) {
  for (uint64_t i = 0; i < 6; ++i) KernelPushes(0, i);
  HarvestAndGiveBack();
  KernelResets();
  EXPECT_FALSE(ring_.EntryDirty(0));
  for (uint64_t i = 0; i < 3; ++i) KernelPushes(0, i);  // wraps
  EXPECT_TRUE(ring_.EntryDirty(0));
  EXPECT_TRUE(ring_.EntryDirty(2));
  EXPECT_FALSE(ring_.EntryDirty(3));
  EXPECT_FALSE(ring_.EntryDirty(kEntries)) << "beyond the ring";
  EXPECT_EQ(ring_.soft_limit(), 6u);
}

TEST_F(RingTest, LikelyCountIsTheNumberWaiting) {
  for (uint32_t filled = 0; filled <= kEntries; ++filled) {
    EXPECT_EQ(ring_.LikelyCount(), 0u);
    for (uint32_t i = 0; i < filled; ++i) {
      EXPECT_EQ(ring_.LikelyCount(), i);
      KernelPushes(0, i);
    }
    EXPECT_EQ(ring_.LikelyCount(), filled);
    HarvestAndGiveBack();  // the next round begins elsewhere in the ring
    KernelResets();
  }
}

}  // namespace
}  // namespace romulus::kvm

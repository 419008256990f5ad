// Drivers that break the rules: each is counted by name, the device asks for a reset, nothing
// crashes, and after the reset the device works.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/virtio_rig.h"

namespace romulus::devices {
namespace {

using testing::HoldingDevice;
using testing::HoldingRig;
using testing::kAllRingFeatures;
using testing::kBuffers;
using testing::kDescIndirect;
using testing::kDescNext;
using testing::kDescWrite;
using testing::kRings;
using testing::RawDescriptor;
using testing::UsedEntry;
namespace mmio = testing::mmio;

constexpr uint16_t kSize = HoldingDevice::kSize;
constexpr uint64_t kTable = 0x180000;
constexpr uint64_t kMemoryEnd = 4u << 20;

// The device wants a reset, says so, has stopped working, and recovers by one.
void ExpectBroken(HoldingRig& rig, VirtioFault fault) {
  EXPECT_EQ(rig.transport.faults().count(fault), 1u) << VirtioFaultName(fault);
  EXPECT_EQ(rig.transport.faults().total(), 1u);
  EXPECT_TRUE(rig.NeedsReset());
  EXPECT_EQ(rig.port.Read(mmio::kInterruptStatus) & 2, 2u) << "the driver is told";
  EXPECT_TRUE(rig.irq.high);
  // It touches nothing any more.
  const size_t held = rig.device().held.size();
  rig.WrittenPages();
  rig.queues[1].OfferChain(0, {{kBuffers, 8, kDescWrite, 0}});
  rig.Notify(0);
  rig.Notify(1);
  for (size_t i = 0; i < held; ++i) rig.Complete(i, "late");
  EXPECT_EQ(rig.device().held.size(), held);
  EXPECT_THAT(rig.WrittenPages(), ::testing::IsEmpty());
  // Until it is reset.
  rig.BringUp();
  EXPECT_FALSE(rig.NeedsReset());
  rig.device().held.clear();
  rig.queues[0].OfferChain(0, {{kBuffers, 8, kDescWrite, 0}});
  rig.Notify(0);
  ASSERT_EQ(rig.device().held.size(), 1u);
  rig.Complete(0, "x");
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 1}));
  EXPECT_EQ(rig.transport.faults().total(), 1u);
}

struct HostileQueue {
  const char* name;
  VirtioFault fault;
  std::function<void(HoldingRig&)> attack;
  uint64_t features = kAllRingFeatures;
  uint64_t memory_mib = 4;
};
void PrintTo(const HostileQueue& hostile, std::ostream* os) { *os << hostile.name; }

HostileQueue Descriptors(const char* name, VirtioFault fault, std::vector<RawDescriptor> chain) {
  return {name, fault, [chain](HoldingRig& rig) { rig.queues[0].OfferChain(0, chain); }};
}
// A table's raw descriptors, and the one that refers to it.
HostileQueue Indirect(const char* name, VirtioFault fault, std::vector<RawDescriptor> table,
                      RawDescriptor head) {
  return {name, fault, [table, head](HoldingRig& rig) {
            for (size_t i = 0; i < table.size(); ++i) rig.cpu.Put(kTable + 16 * i, table[i]);
            rig.queues[0].PutDescriptor(0, head);
            rig.queues[0].Offer(0);
          }};
}

std::vector<HostileQueue> HostileQueues() {
  using F = VirtioFault;
  const auto self_loop = [](HoldingRig& rig) {
    rig.queues[0].PutDescriptor(3, {kBuffers, 1, kDescNext, 3});
    rig.queues[0].Offer(3);
  };
  const auto long_loop = [](HoldingRig& rig) {
    for (uint16_t i = 0; i < kSize; ++i) {
      rig.queues[0].PutDescriptor(i,
                                  {kBuffers, 1, kDescNext, static_cast<uint16_t>((i + 1) % kSize)});
    }
    rig.queues[0].Offer(5);
  };
  const auto head_twice = [](HoldingRig& rig) {
    rig.queues[0].OfferChain(2, {{kBuffers, 8, kDescWrite, 0}});
    rig.queues[0].Offer(2);
  };
  const auto too_many_with_held = [](HoldingRig& rig) {
    rig.queues[0].OfferChain(1, {{kBuffers, 8, kDescWrite, 0}});
    rig.Notify(0);
    rig.queues[0].SetAvailIndex(kSize + 1);
  };
  // One that holds a whole table of a 4 GiB buffer each: beyond 2^32 bytes.
  const auto too_many_bytes = [](HoldingRig& rig) {
    for (uint16_t i = 0; i < 3; ++i) {
      rig.queues[0].PutDescriptor(
          i, {0, 0x60000000u, i < 2 ? kDescNext : uint16_t{0}, static_cast<uint16_t>(i + 1)});
    }
    rig.queues[0].Offer(0);
  };
  return {
      {"AvailIndexJumps", F::kAvailIndex,
       [](HoldingRig& rig) { rig.queues[0].SetAvailIndex(kSize + 1); }},
      {"AvailIndexGoesBack", F::kAvailIndex,
       [](HoldingRig& rig) { rig.queues[0].SetAvailIndex(0xffff); }},
      {"AvailIndexBeyondWhatIsHeld", F::kAvailIndex, too_many_with_held},
      {"HeadBeyondTable", F::kHeadIndex, [](HoldingRig& rig) { rig.queues[0].Offer(kSize); }},
      {"HeadFarBeyondTable", F::kHeadIndex, [](HoldingRig& rig) { rig.queues[0].Offer(0xffff); }},
      {"HeadInUse", F::kHeadInUse, head_twice},
      Descriptors("NextBeyondTable", F::kDescriptorIndex, {{kBuffers, 1, kDescNext, kSize}}),
      Descriptors("NextFarBeyondTable", F::kDescriptorIndex, {{kBuffers, 1, kDescNext, 0xffff}}),
      {"LoopToItself", F::kChainTooLong, self_loop},
      {"LoopThroughAll", F::kChainTooLong, long_loop},
      Descriptors("ZeroLength", F::kZeroLength, {{kBuffers, 0, 0, 0}}),
      Descriptors("ZeroLengthLast", F::kZeroLength,
                  {{kBuffers, 1, 0, 0}, {kBuffers, 0, kDescWrite, 0}}),
      Descriptors("AddressWraps", F::kBufferAddress, {{~uint64_t{0} - 3, 8, kDescWrite, 0}}),
      Descriptors("AddressAtTheTop", F::kBufferAddress, {{~uint64_t{0}, 1, 0, 0}}),
      Descriptors("AddressWrapsToMemory", F::kBufferAddress,
                  {{uint64_t{0} - 0x1000, 0x2000, kDescWrite, 0}}),
      Descriptors("BeyondMemory", F::kBufferAddress, {{kMemoryEnd, 1, 0, 0}}),
      Descriptors("PartlyBeyondMemory", F::kBufferAddress, {{kMemoryEnd - 1, 2, 0, 0}}),
      Descriptors("LargestLength", F::kBufferAddress, {{kBuffers, ~0u, kDescWrite, 0}}),
      {"IntoTheHole", F::kBufferAddress,
       [](HoldingRig& rig) {
         rig.queues[0].OfferChain(0, {{(uint64_t{3} << 30) - 8, 16, kDescWrite, 0}});
       },
       kAllRingFeatures, 4096},
      {"AcrossTheHole", F::kBufferAddress,
       [](HoldingRig& rig) {
         rig.queues[0].OfferChain(0, {{(uint64_t{3} << 30) - 8, 0x40000010u, 0, 0}});
       },
       kAllRingFeatures, 4096},
      {"TooManyBytes", F::kChainBytes, too_many_bytes, kAllRingFeatures, 4096},
      Descriptors("ReadableAfterWritable", F::kReadableAfterWritable,
                  {{kBuffers, 1, kDescWrite, 0}, {kBuffers, 1, 0, 0}}),
      {"IndirectNotOffered", F::kIndirectNotOffered,
       [](HoldingRig& rig) {
         rig.queues[0].OfferIndirect(0, kTable, {{kBuffers, 1, 0, 0}});
       },
       virtio::kFeatureVersion1},
      Indirect("IndirectNested", F::kIndirectNested, {{kTable, 16, kDescIndirect, 0}},
               {kTable, 16, kDescIndirect, 0}),
      Indirect("IndirectWithNext", F::kIndirectWithNext, {{kBuffers, 1, 0, 0}},
               {kTable, 16, kDescIndirect | kDescNext, 1}),
      Indirect("IndirectOddLength", F::kIndirectTable, {{kBuffers, 1, 0, 0}},
               {kTable, 17, kDescIndirect, 0}),
      Indirect("IndirectEmpty", F::kIndirectTable, {}, {kTable, 0, kDescIndirect, 0}),
      Indirect("IndirectBeyondMemory", F::kIndirectTable, {},
               {kMemoryEnd - 16, 32, kDescIndirect, 0}),
      Indirect("IndirectWraps", F::kIndirectTable, {}, {~uint64_t{0} - 15, 32, kDescIndirect, 0}),
      Indirect("IndirectNextBeyondTable", F::kDescriptorIndex, {{kBuffers, 1, kDescNext, 1}},
               {kTable, 16, kDescIndirect, 0}),
      Indirect("IndirectLoop", F::kChainTooLong,
               {{kBuffers, 1, kDescNext, 1}, {kBuffers, 1, kDescNext, 0}},
               {kTable, 32, kDescIndirect, 0}),
      {"IndirectTooLong", F::kChainTooLong,
       [](HoldingRig& rig) {
         rig.queues[0].OfferIndirect(
             0, kTable, std::vector<RawDescriptor>(VirtQueue::kMaxChain + 1, {kBuffers, 1, 0, 0}));
       }},
      // A table as large as memory, that loops: no more steps than a chain may have.
      Indirect("IndirectHugeLoop", F::kChainTooLong, {{kBuffers, 1, kDescNext, 0}},
               {kTable, 0x100000, kDescIndirect, 0}),
  };
}

class HostileQueueTest : public ::testing::TestWithParam<HostileQueue> {};
INSTANTIATE_TEST_SUITE_P(All, HostileQueueTest, ::testing::ValuesIn(HostileQueues()),
                         [](const auto& which) { return which.param.name; });

TEST_P(HostileQueueTest, IsCountedAndNeedsReset) {
  HoldingRig rig(GetParam().memory_mib);
  rig.BringUp(GetParam().features);
  GetParam().attack(rig);
  rig.Notify(0);
  ExpectBroken(rig, GetParam().fault);
}

struct HostileSetup {
  const char* name;
  VirtioFault fault;
  uint32_t size = 8;
  uint64_t descriptors = kRings;
  uint64_t avail = kRings + 0x1000;
  uint64_t used = kRings + 0x2000;
};
void PrintTo(const HostileSetup& hostile, std::ostream* os) { *os << hostile.name; }

class HostileSetupTest : public ::testing::TestWithParam<HostileSetup> {};
INSTANTIATE_TEST_SUITE_P(
    All, HostileSetupTest,
    ::testing::Values(
        HostileSetup{"SizeZero", VirtioFault::kQueueSize, 0},
        HostileSetup{"SizeNoPowerOfTwo", VirtioFault::kQueueSize, 6},
        HostileSetup{"SizeBeyondMax", VirtioFault::kQueueSize, 2 * kSize},
        HostileSetup{"SizeHuge", VirtioFault::kQueueSize, 0x80000000u},
        HostileSetup{"SizeHugeModulo16Bits", VirtioFault::kQueueSize, 0x10000u},
        HostileSetup{"DescriptorsMisaligned", VirtioFault::kQueueAddress, 8, kRings + 8},
        HostileSetup{"AvailMisaligned", VirtioFault::kQueueAddress, 8, kRings, kRings + 0x1001},
        HostileSetup{"UsedMisaligned", VirtioFault::kQueueAddress, 8, kRings, kRings + 0x1000,
                     kRings + 0x2002},
        HostileSetup{"DescriptorsBeyondMemory", VirtioFault::kQueueAddress, 8, kMemoryEnd - 112},
        HostileSetup{"AvailBeyondMemory", VirtioFault::kQueueAddress, 8, kRings, kMemoryEnd - 20},
        HostileSetup{"UsedBeyondMemory", VirtioFault::kQueueAddress, 8, kRings, kRings + 0x1000,
                     kMemoryEnd - 68},
        HostileSetup{"DescriptorsWrap", VirtioFault::kQueueAddress, 8, ~uint64_t{15}},
        HostileSetup{"UsedAtTheTop", VirtioFault::kQueueAddress, 8, kRings, kRings + 0x1000,
                     ~uint64_t{3}}),
    [](const auto& which) { return which.param.name; });

TEST_P(HostileSetupTest, IsCountedAndNeedsReset) {
  HoldingRig rig;
  ASSERT_TRUE(rig.port.Negotiate(kAllRingFeatures));
  const HostileSetup& s = GetParam();
  rig.port.PutQueue(0, s.size, s.descriptors, s.avail, s.used);
  EXPECT_EQ(rig.port.Read(mmio::kQueueReady), 0u);
  EXPECT_EQ(rig.transport.faults().count(s.fault), 1u);
  EXPECT_TRUE(rig.NeedsReset());
  EXPECT_FALSE(rig.irq.high) << "before DRIVER_OK it is not interrupted (2.1.2)";
  rig.port.AddStatus(virtio::kDriverOk);
  rig.Notify(0);
  EXPECT_EQ(rig.device().turns, 0);
  rig.BringUp();
  EXPECT_FALSE(rig.NeedsReset());
}

TEST(SetupLimitsTest, TheLastBytesOfMemoryAreFine) {
  HoldingRig rig;
  ASSERT_TRUE(rig.port.Negotiate(kAllRingFeatures));
  rig.port.PutQueue(0, 8, kMemoryEnd - 128, kRings, kRings + 0x1000);
  EXPECT_EQ(rig.port.Read(mmio::kQueueReady), 1u);
  rig.port.PutQueue(1, 8, kRings, kMemoryEnd - 22, kMemoryEnd - 72);
  EXPECT_EQ(rig.port.Read(mmio::kQueueReady), 1u);
}

struct HostileAccess {
  const char* name;
  VirtioFault fault;
  std::function<void(HoldingRig&)> attack;
};
void PrintTo(const HostileAccess& hostile, std::ostream* os) { *os << hostile.name; }

class HostileAccessTest : public ::testing::TestWithParam<HostileAccess> {};
INSTANTIATE_TEST_SUITE_P(
    All, HostileAccessTest,
    ::testing::Values(
        HostileAccess{"Read1", VirtioFault::kRegisterWidth,
                      [](HoldingRig& rig) { rig.port.Read<uint8_t>(mmio::kStatus); }},
        HostileAccess{"Read8", VirtioFault::kRegisterWidth,
                      [](HoldingRig& rig) { rig.port.Read<uint64_t>(mmio::kMagic); }},
        HostileAccess{"Read8AcrossConfig", VirtioFault::kRegisterWidth,
                      [](HoldingRig& rig) { rig.port.Read<uint64_t>(mmio::kConfig - 4); }},
        HostileAccess{"ReadMisaligned", VirtioFault::kRegisterWidth,
                      [](HoldingRig& rig) { rig.port.Read<uint32_t>(mmio::kStatus + 2); }},
        HostileAccess{"Write2", VirtioFault::kRegisterWidth,
                      [](HoldingRig& rig) { rig.port.Write<uint16_t>(mmio::kQueueNotify, 0); }},
        HostileAccess{"Write8", VirtioFault::kRegisterWidth,
                      [](HoldingRig& rig) { rig.port.Write<uint64_t>(mmio::kDescLow, 0); }},
        HostileAccess{"WriteMisaligned", VirtioFault::kRegisterWidth,
                      [](HoldingRig& rig) { rig.port.Write<uint32_t>(mmio::kStatus + 1, 0); }},
        HostileAccess{"NotifyNoQueue", VirtioFault::kQueueIndex,
                      [](HoldingRig& rig) { rig.port.Notify(2); }},
        HostileAccess{"NotifyNegative", VirtioFault::kQueueIndex,
                      [](HoldingRig& rig) { rig.port.Notify(~0u); }},
        HostileAccess{"SetUpNoQueue", VirtioFault::kQueueIndex,
                      [](HoldingRig& rig) {
                        rig.port.Write(mmio::kQueueSel, 2u);
                        rig.port.Write(mmio::kQueueReady, 1u);
                      }},
        HostileAccess{"SizeOfALiveQueue", VirtioFault::kQueueLive,
                      [](HoldingRig& rig) {
                        rig.port.Write(mmio::kQueueSel, 0u);
                        rig.port.Write(mmio::kQueueNum, 4u);
                      }},
        HostileAccess{"AddressOfALiveQueue", VirtioFault::kQueueLive,
                      [](HoldingRig& rig) {
                        rig.port.Write(mmio::kQueueSel, 1u);
                        rig.port.Write(mmio::kDeviceLow + 4, 0xffffffffu);
                      }},
        HostileAccess{"ClearsAStatusBit", VirtioFault::kStatus,
                      [](HoldingRig& rig) { rig.port.Write(mmio::kStatus, 0x7u); }},
        HostileAccess{"UnknownStatusBit", VirtioFault::kStatus,
                      [](HoldingRig& rig) { rig.port.Write(mmio::kStatus, 0x2fu); }},
        HostileAccess{"FeaturesAfterAgreement", VirtioFault::kFeatures,
                      [](HoldingRig& rig) { rig.port.Write(mmio::kDriverFeatures, 0u); }}),
    [](const auto& which) { return which.param.name; });

TEST_P(HostileAccessTest, IsCountedAndNeedsReset) {
  HoldingRig rig;
  rig.BringUp();
  rig.queues[1].OfferChain(7, {{kBuffers, 8, kDescWrite, 0}});
  rig.Notify(1);
  ASSERT_EQ(rig.device().held.size(), 1u);
  GetParam().attack(rig);
  ExpectBroken(rig, GetParam().fault);
}

TEST(HostileRegisterTest, DriverOkWithoutFeatures) {
  HoldingRig rig;
  rig.port.AddStatus(virtio::kAcknowledge);
  rig.port.AddStatus(virtio::kDriver);
  rig.port.AddStatus(virtio::kDriverOk);
  EXPECT_TRUE(rig.NeedsReset());
  EXPECT_EQ(rig.transport.faults().count(VirtioFault::kStatus), 1u);
  EXPECT_EQ(rig.device().agreed, 0u);
}

TEST(HostileRegisterTest, AQueueBeforeFeatures) {
  HoldingRig rig;
  rig.port.AddStatus(virtio::kAcknowledge);
  rig.port.PutQueue(0, 8, kRings, kRings + 0x1000, kRings + 0x2000);
  EXPECT_EQ(rig.port.Read(mmio::kQueueReady), 0u);
  EXPECT_TRUE(rig.NeedsReset());
}

// Somebody looks for devices, with a debugger's habits: nobody is there whom a reset could help.
TEST(HostileRegisterTest, ProbingWithoutADriverOnlyCounts) {
  HoldingRig rig;
  for (uint64_t offset = 0; offset < 0x200; ++offset) {
    rig.port.Read<uint8_t>(offset);
    rig.port.Read<uint64_t>(offset);
  }
  EXPECT_GT(rig.transport.faults().count(VirtioFault::kRegisterWidth), 0u);
  EXPECT_EQ(rig.port.status(), 0u);
}

TEST(HostileRegisterTest, WritesOfReadOnlyRegistersAreIgnored) {
  HoldingRig rig;
  rig.BringUp();
  for (const uint64_t offset : {mmio::kMagic, mmio::kDeviceId, mmio::kDeviceFeatures,
                                mmio::kQueueNumMax, mmio::kInterruptStatus, uint64_t{0x28}}) {
    rig.port.Write(offset, 0x5a5a5a5au);
  }
  EXPECT_EQ(rig.transport.faults().count(VirtioFault::kRegister), 6u);
  EXPECT_EQ(rig.port.Read(mmio::kMagic), 0x74726976u);
  EXPECT_FALSE(rig.NeedsReset());
}

TEST(HostileRegisterTest, ResetWithinARequest) {
  HoldingRig rig;
  rig.BringUp();
  rig.queues[0].OfferChain(0, {{kBuffers, 8, kDescWrite, 0}});
  rig.port.Notify(0);  // the turn is posted
  rig.port.Write(mmio::kStatus, 0u);
  rig.executor.Run();
  EXPECT_TRUE(rig.device().held.empty());
  EXPECT_EQ(rig.transport.faults().total(), 0u);
  rig.BringUp();
  EXPECT_EQ(rig.transport.faults().total(), 0u);
}

// A driver that changes what it offered after the device has read it gains nothing.
TEST(HostileMemoryTest, DescriptorsChangedAfterPopDoNotMatter) {
  HoldingRig rig;
  rig.BringUp();
  rig.queues[0].OfferChain(0, {{kBuffers, 8, kDescWrite, 0}});
  rig.Notify(0);
  rig.queues[0].PutDescriptor(0, {~uint64_t{0}, ~0u, 0xffff, 0xffff});
  rig.Complete(0, "checked");
  EXPECT_EQ(rig.cpu.Text(kBuffers, 7), "checked");
  EXPECT_EQ(rig.transport.faults().total(), 0u);
}

// Rings over each other and over buffers: the device sees garbage, and no more.
TEST(HostileMemoryTest, OverlappingRings) {
  HoldingRig rig;
  ASSERT_TRUE(rig.port.Negotiate(virtio::kFeatureVersion1));
  rig.port.PutQueue(0, 16, kRings, kRings, kRings);
  rig.port.PutQueue(1, 16, kRings, kRings + 2, kRings + 4);
  rig.port.AddStatus(virtio::kDriverOk);
  for (uint32_t seed = 1; seed < 2000; ++seed) {
    const uint32_t value = seed * 2654435761u;
    rig.cpu.Put(kRings + (value >> 8) % 256, value);
    rig.Notify(seed % 2);
    for (size_t i = 0; i < rig.device().held.size(); ++i) rig.Complete(i, "garbage");
    rig.device().held.clear();
    if (rig.NeedsReset()) {
      ASSERT_TRUE(rig.port.Negotiate(virtio::kFeatureVersion1));
      rig.port.PutQueue(0, 16, kRings, kRings, kRings);
      rig.port.PutQueue(1, 16, kRings, kRings + 2, kRings + 4);
      rig.port.AddStatus(virtio::kDriverOk);
    }
  }
}

}  // namespace
}  // namespace romulus::devices

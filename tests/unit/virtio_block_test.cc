// The block device, with a disk whose requests are done when the test says so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/virtio/block.h"
#include "support/virtio_disk.h"
#include "support/virtio_rig.h"

namespace romulus::devices {
namespace {

using ::testing::IsEmpty;
using testing::kAllRingFeatures;
using testing::kBuffers;
using testing::kDescWrite;
using testing::MemoryDisk;
using testing::RawDescriptor;
using testing::UsedEntry;
using testing::VirtioRig;
namespace mmio = testing::mmio;

constexpr uint8_t kOk = 0, kIoError = 1, kUnsupported = 2, kNone = 0xee;
constexpr uint32_t kIn = 0, kOut = 1, kFlush = 4, kGetId = 8, kDiscard = 11, kWriteZeroes = 13;
constexpr size_t kDiskBytes = 64 * 512;
constexpr uint16_t kSize = 128;
constexpr uint64_t kFeatures = kAllRingFeatures | virtio::kBlockFlush | virtio::kBlockDiscard |
                               virtio::kBlockWriteZeroes | virtio::kBlockSegMax;

// Slot i's request: header, status and data each have their place.
constexpr uint64_t HeaderAt(uint16_t slot) { return kBuffers + 0x40u * slot; }
constexpr uint64_t StatusAt(uint16_t slot) { return kBuffers + 0x40u * slot + 0x20; }
constexpr uint64_t DataAt(uint16_t slot) { return kBuffers + 0x10000 + 0x1000u * slot; }

struct BlockRig : VirtioRig {
  explicit BlockRig(MemoryDisk& disk, uint64_t features = kFeatures)
      : VirtioRig(std::make_unique<VirtioBlock>(disk, "disk-serial")) {
    BringUp(features, 1, kSize);
  }
  BlockRig(MemoryDisk& disk, memory::GuestMemory& shared)
      : VirtioRig(std::make_unique<VirtioBlock>(disk, "disk-serial"), shared) {}

  void Header(uint16_t slot, uint32_t type, uint64_t sector) {
    cpu.Put(HeaderAt(slot), type);
    cpu.Put<uint32_t>(HeaderAt(slot) + 4, 0);
    cpu.Put(HeaderAt(slot) + 8, sector);
    cpu.Put(StatusAt(slot), kNone);
  }
  void Submit(uint16_t slot, uint32_t type, uint64_t sector, std::vector<RawDescriptor> data) {
    Header(slot, type, sector);
    data.insert(data.begin(), {HeaderAt(slot), 16, 0, 0});
    data.push_back({StatusAt(slot), 1, kDescWrite, 0});
    if (queues[0].OfferChain(static_cast<uint16_t>(4 * slot), data)) port.Notify(0);
  }
  void Read(uint16_t slot, uint64_t sector, uint32_t size) {
    Submit(slot, kIn, sector, {{DataAt(slot), size, kDescWrite, 0}});
  }
  void Write(uint16_t slot, uint64_t sector, const std::string& text) {
    cpu.Write(DataAt(slot), text.data(), text.size());
    Submit(slot, kOut, sector, {{DataAt(slot), static_cast<uint32_t>(text.size()), 0, 0}});
  }
  void Range(uint16_t slot, uint32_t type, uint64_t sector, uint32_t sectors, uint32_t flags,
             uint32_t size = 16) {
    cpu.Put(DataAt(slot), sector);
    cpu.Put(DataAt(slot) + 8, sectors);
    cpu.Put(DataAt(slot) + 12, flags);
    Submit(slot, type, 0, {{DataAt(slot), size, 0, 0}});
  }
  uint8_t Status(uint16_t slot) { return cpu.Get<uint8_t>(StatusAt(slot)); }
  // Runs everything to its end; the slot's status.
  uint8_t Run(MemoryDisk& disk, uint16_t slot) {
    for (executor.Run(); !disk.pending.empty(); executor.Run()) disk.DoAll();
    return Status(slot);
  }
};

std::string Sector(char c) { return std::string(512, c); }

TEST(VirtioBlockTest, SaysWhatItIs) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  EXPECT_EQ(rig.port.Read(mmio::kDeviceId), 2u);
  EXPECT_EQ(rig.port.Read(mmio::kConfig), 64u);
  EXPECT_EQ(rig.port.Read(mmio::kConfig + 8), VirtioBlock::kMaxSegmentBytes);
  EXPECT_EQ(rig.port.Read(mmio::kConfig + 12), VirtioBlock::kMaxSegments);
  EXPECT_EQ(rig.port.Read(mmio::kConfig + 20), 512u);
  EXPECT_EQ(rig.port.DeviceFeatures() & virtio::kBlockReadOnly, 0u);
  MemoryDisk locked(kDiskBytes, true);
  BlockRig other(locked);
  EXPECT_NE(other.port.DeviceFeatures() & virtio::kBlockReadOnly, 0u);
}

TEST(VirtioBlockTest, WritesAndReads) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  rig.Write(0, 3, Sector('a') + Sector('b'));
  rig.executor.Run();
  EXPECT_EQ(rig.Status(0), kNone) << "not before the disk is done";
  EXPECT_EQ(rig.queues[0].UsedIndex(), 0);
  EXPECT_EQ(rig.Run(disk, 0), kOk);
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 1}));
  EXPECT_EQ(disk.bytes.substr(3 * 512, 1024), Sector('a') + Sector('b'));
  EXPECT_TRUE(rig.irq.high);
  const std::string before = rig.Snapshot();
  rig.WrittenPages();
  rig.Read(1, 4, 512);
  EXPECT_EQ(rig.Run(disk, 1), kOk);
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{4, 513}));
  EXPECT_EQ(rig.cpu.Text(DataAt(1), 512), Sector('b'));
  EXPECT_TRUE(rig.WrittenPages().contains(DataAt(1) >> kPageShift));
}

// 2.7.4.1: no assumption about how a request is cut into descriptors.
TEST(VirtioBlockTest, FramingDoesNotMatter) {
  MemoryDisk disk(kDiskBytes);
  disk.bytes.replace(0, 512, Sector('r'));
  BlockRig rig(disk);
  rig.Header(0, kIn, 0);
  std::vector<RawDescriptor> chain;
  for (uint64_t i = 0; i < 16; ++i) chain.push_back({HeaderAt(0) + i, 1, 0, 0});
  chain.push_back({DataAt(0), 200, kDescWrite, 0});
  chain.push_back({DataAt(0) + 200, 313, kDescWrite, 0});  // the status in the same buffer
  rig.queues[0].OfferIndirect(0, DataAt(5), chain);
  rig.port.Notify(0);
  rig.Run(disk, 0);
  EXPECT_EQ(rig.cpu.Text(DataAt(0), 512), Sector('r'));
  EXPECT_EQ(rig.cpu.Get<uint8_t>(DataAt(0) + 512), kOk);
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 513}));
}

TEST(VirtioBlockTest, FlushAndSerial) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  rig.Submit(0, kFlush, 0, {});
  EXPECT_EQ(rig.Run(disk, 0), kOk);
  EXPECT_EQ(disk.flushes, 1);
  rig.cpu.Write(DataAt(1), std::string(21, '?').data(), 21);
  rig.Submit(1, kGetId, 0, {{DataAt(1), 20, kDescWrite, 0}});
  EXPECT_EQ(rig.Run(disk, 1), kOk);
  EXPECT_EQ(rig.cpu.Text(DataAt(1), 21), std::string("disk-serial\0\0\0\0\0\0\0\0\0?", 21));
}

TEST(VirtioBlockTest, WithoutFlushEveryWriteIsDurable) {
  MemoryDisk disk(kDiskBytes);
  BlockRig with(disk);
  with.Write(0, 0, Sector('x'));
  with.executor.Run();
  EXPECT_FALSE(disk.pending.at(0).request.durable);
  disk.pending.clear();
  BlockRig without(disk, kAllRingFeatures);
  without.Write(0, 0, Sector('x'));
  without.executor.Run();
  EXPECT_TRUE(disk.pending.at(0).request.durable);
}

TEST(VirtioBlockTest, DiscardAndWriteZeroes) {
  MemoryDisk disk(kDiskBytes);
  std::fill(disk.bytes.begin(), disk.bytes.end(), 'x');
  BlockRig rig(disk);
  rig.Range(0, kDiscard, 2, 3, 0);
  EXPECT_EQ(rig.Run(disk, 0), kOk);
  rig.Range(1, kWriteZeroes, 60, 4, 1);
  rig.executor.Run();
  ASSERT_EQ(disk.pending.size(), 1u);
  EXPECT_TRUE(disk.pending[0].request.may_unmap);
  EXPECT_EQ(rig.Run(disk, 1), kOk);
  const std::string zeros = Sector('\0');
  EXPECT_EQ(disk.bytes.substr(512, 512 * 5), Sector('x') + zeros + zeros + zeros + Sector('x'));
  EXPECT_EQ(disk.bytes.substr(60 * 512, 512), zeros);
  rig.Range(2, kDiscard, 0, 1, 1);
  EXPECT_EQ(rig.Run(disk, 2), kUnsupported) << "unmap means nothing here (5.2.6.2)";
  rig.Range(3, kWriteZeroes, 0, 1, 2);
  EXPECT_EQ(rig.Run(disk, 3), kUnsupported) << "unknown flag";
  rig.Range(4, kDiscard, 63, 2, 0);
  EXPECT_EQ(rig.Run(disk, 4), kIoError) << "beyond the end";
  rig.Range(5, kDiscard, ~uint64_t{0}, 1, 0);
  EXPECT_EQ(rig.Run(disk, 5), kIoError);
  rig.Range(6, kWriteZeroes, 0, 0, 0);
  EXPECT_EQ(rig.Run(disk, 6), kIoError) << "nothing";
  rig.Range(7, kDiscard, 0, 1, 0, 32);
  EXPECT_EQ(rig.Run(disk, 7), kIoError) << "two segments";
  EXPECT_EQ(disk.submitted, 2);
  BlockRig plain(disk, kAllRingFeatures);
  plain.Range(0, kDiscard, 0, 1, 0);
  EXPECT_EQ(plain.Run(disk, 0), kUnsupported) << "not negotiated";
}

TEST(VirtioBlockTest, BadRequestsAreAnsweredNotSubmitted) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  rig.Read(0, 64, 512);
  EXPECT_EQ(rig.Run(disk, 0), kIoError) << "beyond the end";
  rig.Read(1, 63, 1024);
  EXPECT_EQ(rig.Run(disk, 1), kIoError) << "across the end";
  rig.Read(2, ~uint64_t{0}, 512);
  EXPECT_EQ(rig.Run(disk, 2), kIoError);
  rig.Read(3, uint64_t{1} << 55, 512);
  EXPECT_EQ(rig.Run(disk, 3), kIoError) << "wraps in bytes";
  rig.Read(4, 0, 511);
  EXPECT_EQ(rig.Run(disk, 4), kIoError) << "no whole sectors";
  rig.Submit(5, kIn, 0, {});
  EXPECT_EQ(rig.Run(disk, 5), kIoError) << "no data";
  rig.Submit(6, kOut, 0, {});
  EXPECT_EQ(rig.Run(disk, 6), kIoError) << "no data";
  rig.Submit(7, 99, 0, {});
  EXPECT_EQ(rig.Run(disk, 7), kUnsupported);
  EXPECT_EQ(disk.submitted, 0);
  EXPECT_FALSE(rig.NeedsReset());
  for (uint16_t i = 0; i < 8; ++i) ASSERT_TRUE(rig.queues[0].PollUsed()) << i;
}

TEST(VirtioBlockTest, ARequestTooLargeIsRefused) {
  MemoryDisk disk(16u << 20);
  VirtioRig rig(std::make_unique<VirtioBlock>(disk, ""), 16);
  rig.BringUp(kFeatures, 1, kSize);
  rig.cpu.Put(HeaderAt(0), uint64_t{kIn});
  rig.cpu.Put<uint64_t>(HeaderAt(0) + 8, 0);
  rig.cpu.Put(StatusAt(0), kNone);
  rig.queues[0].OfferChain(
      0, {{HeaderAt(0), 16, 0, 0},
          {0x200000, static_cast<uint32_t>(VirtioBlock::kMaxRequestBytes + 512), kDescWrite, 0},
          {StatusAt(0), 1, kDescWrite, 0}});
  rig.Notify(0);
  EXPECT_EQ(rig.cpu.Get<uint8_t>(StatusAt(0)), kIoError);
  EXPECT_EQ(disk.submitted, 0);
}

TEST(VirtioBlockTest, AChainWithoutHeaderOrStatusIsAFault) {
  for (const auto& chain :
       {std::vector<RawDescriptor>{{HeaderAt(0), 16, 0, 0}},
        std::vector<RawDescriptor>{{HeaderAt(0), 15, 0, 0}, {StatusAt(0), 1, kDescWrite, 0}},
        std::vector<RawDescriptor>{{StatusAt(0), 1, kDescWrite, 0}}}) {
    MemoryDisk disk(kDiskBytes);
    BlockRig rig(disk);
    rig.queues[0].OfferChain(0, chain);
    rig.Notify(0);
    EXPECT_TRUE(rig.NeedsReset());
    EXPECT_EQ(rig.transport.faults().count(VirtioFault::kRequest), 1u);
    EXPECT_EQ(rig.queues[0].UsedIndex(), 0);
  }
}

TEST(VirtioBlockTest, AReadOnlyDiskIsNotWritten) {
  MemoryDisk disk(kDiskBytes, true);
  BlockRig rig(disk);
  rig.Write(0, 0, Sector('x'));
  EXPECT_EQ(rig.Run(disk, 0), kIoError);
  rig.Range(1, kDiscard, 0, 1, 0);
  EXPECT_EQ(rig.Run(disk, 1), kIoError);
  rig.Read(2, 0, 512);
  EXPECT_EQ(rig.Run(disk, 2), kOk);
}

TEST(VirtioBlockTest, TheDisksErrorReachesTheGuest) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  rig.Read(0, 0, 512);
  rig.executor.Run();
  disk.Do(0, absl::DataLossError("medium"));
  EXPECT_EQ(rig.Status(0), kIoError);
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 0})) << "no byte can be relied on";
}

// What the guest writes is what it was when the device took it.
TEST(VirtioBlockTest, DataChangedAfterwardsDoesNotMatter) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  rig.Write(0, 0, Sector('a'));
  rig.executor.Run();
  rig.cpu.Write(DataAt(0), Sector('b').data(), 512);
  disk.DoAll();
  EXPECT_EQ(disk.bytes.substr(0, 512), Sector('a'));
}

TEST(VirtioBlockTest, RequestsUnderWayAreBounded) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  const auto flush = [&](uint16_t i) {
    rig.Header(i, kFlush, 0);
    rig.queues[0].OfferIndirect(i, DataAt(i),
                                {{HeaderAt(i), 16, 0, 0}, {StatusAt(i), 1, kDescWrite, 0}});
  };
  for (uint16_t i = 0; i < 100; ++i) flush(i);
  rig.Notify(0);
  EXPECT_EQ(disk.pending.size(), size_t{VirtioBlock::kMaxInFlight});
  EXPECT_EQ(rig.executor.waiting(), 0u) << "no busy waiting";
  disk.Do(7);
  rig.executor.Run();
  EXPECT_EQ(disk.pending.size(), size_t{VirtioBlock::kMaxInFlight});
  for (; !disk.pending.empty(); rig.executor.Run()) disk.DoAll();
  EXPECT_EQ(disk.flushes, 100);
  EXPECT_EQ(rig.queues[0].UsedIndex(), 100);
}

TEST(VirtioBlockTest, BytesUnderWayAreBounded) {
  MemoryDisk disk(64u << 20);
  VirtioRig rig(std::make_unique<VirtioBlock>(disk, ""), 64);
  rig.BringUp(kFeatures, 1, kSize);
  for (uint16_t i = 0; i < 10; ++i) {
    rig.cpu.Put(HeaderAt(i), uint64_t{kIn});
    rig.cpu.Put<uint64_t>(HeaderAt(i) + 8, 0);
    // The chain's other bytes count, too: a little less than the largest request.
    rig.queues[0].OfferChain(
        static_cast<uint16_t>(4 * i),
        {{HeaderAt(i), 16, 0, 0},
         {0x400000, static_cast<uint32_t>(VirtioBlock::kMaxRequestBytes - 512), kDescWrite, 0},
         {StatusAt(i), 1, kDescWrite, 0}});
  }
  rig.Notify(0);
  EXPECT_EQ(disk.pending.size(), 4u);
  disk.Do(0);
  rig.executor.Run();
  EXPECT_EQ(disk.pending.size(), 4u);
  for (; !disk.pending.empty(); rig.executor.Run()) disk.DoAll();
  EXPECT_EQ(disk.submitted, 10);
}

TEST(VirtioBlockTest, P6_AFullBackendGetsNoRequestsAndTheGuestWaits) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  disk.full = true;
  for (uint16_t i = 0; i < 3; ++i) rig.Write(i, i, Sector('w'));
  rig.executor.Run();
  rig.Notify(0);
  EXPECT_EQ(disk.submitted, 0);
  EXPECT_EQ(rig.executor.waiting(), 0u) << "no busy waiting";
  EXPECT_EQ(disk.waiting_for_room.size(), 1u) << "asked once";
  disk.MakeRoom();
  rig.executor.Run();
  EXPECT_EQ(disk.submitted, 3);
  disk.full = true;
  disk.DoAll();  // what is under way ends, and brings nothing new
  rig.Write(3, 3, Sector('w'));
  rig.executor.Run();
  EXPECT_EQ(disk.submitted, 3);
  EXPECT_EQ(rig.Status(2), kOk);
  // In a pause, too, room may come; the queue is looked at after it.
  ASSERT_TRUE(rig.transport.Quiesce().ok());
  disk.MakeRoom();
  rig.executor.Run();
  EXPECT_EQ(disk.submitted, 3);
  rig.transport.Resume();
  rig.executor.Run();
  EXPECT_EQ(disk.submitted, 4);
}

TEST(VirtioBlockTest, AfterAResetOldWritesLandFirst) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  rig.Write(0, 0, Sector('o'));
  rig.executor.Run();
  rig.BringUp(kFeatures, 1, kSize);
  rig.Write(0, 0, Sector('n'));
  rig.executor.Run();
  EXPECT_EQ(disk.pending.size(), 1u) << "the new one waits";
  EXPECT_EQ(rig.executor.waiting(), 0u);
  disk.Do(0);
  EXPECT_EQ(rig.Status(0), kNone) << "nobody is told of the old one";
  EXPECT_EQ(rig.Run(disk, 0), kOk);
  EXPECT_EQ(disk.bytes.substr(0, 512), Sector('n'));
  EXPECT_EQ(rig.queues[0].UsedIndex(), 1);
}

TEST(VirtioBlockTest, ABrokenDriversBuffersAreNotTouched) {
  MemoryDisk disk(kDiskBytes);
  disk.bytes.replace(0, 512, Sector('r'));
  BlockRig rig(disk);
  rig.Read(0, 0, 512);
  rig.executor.Run();
  rig.port.Read<uint8_t>(mmio::kStatus);
  ASSERT_TRUE(rig.NeedsReset());
  rig.WrittenPages();
  disk.DoAll();
  EXPECT_THAT(rig.WrittenPages(), IsEmpty());
  EXPECT_EQ(rig.Status(0), kNone);
}

TEST(VirtioBlockTest, APauseDoesNotWaitForTheDisk) {
  MemoryDisk disk(kDiskBytes);
  disk.bytes.replace(0, 512, Sector('r'));
  BlockRig rig(disk);
  rig.Read(0, 0, 512);
  rig.executor.Run();
  ASSERT_TRUE(rig.transport.Quiesce().ok());
  const std::string before = rig.Snapshot();
  rig.WrittenPages();
  disk.DoAll();
  EXPECT_THAT(rig.PagesChangedSince(before), IsEmpty());
  EXPECT_THAT(rig.WrittenPages(), IsEmpty());
  rig.transport.Resume();
  rig.executor.Run();
  EXPECT_EQ(rig.Status(0), kOk);
  EXPECT_EQ(rig.cpu.Text(DataAt(0), 512), Sector('r'));
}

TEST(VirtioBlockTest, ARestoredDeviceIssuesAgainWhatWasInFlight) {
  MemoryDisk disk(kDiskBytes);
  BlockRig rig(disk);
  rig.Write(0, 0, Sector('0'));
  rig.Write(1, 1, Sector('1'));
  rig.Write(2, 2, Sector('2'));
  rig.executor.Run();
  disk.Do(1);
  ASSERT_TRUE(rig.transport.Quiesce().ok());
  state::MachineState saved = rig.Save();
  const state::MachineState expected = saved;

  MemoryDisk other_disk(kDiskBytes);
  BlockRig other(other_disk, rig.memory);
  other.queues = rig.queues;
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  EXPECT_EQ(other.Save(), expected);
  EXPECT_EQ(other_disk.submitted, 0);
  other.transport.Resume();
  other.executor.Run();
  ASSERT_EQ(other_disk.pending.size(), 2u);
  EXPECT_EQ(other_disk.pending[0].request.offset_bytes, 0u);
  EXPECT_EQ(other_disk.pending[1].request.offset_bytes, 1024u);
  EXPECT_FALSE(other_disk.pending[0].request.durable) << "the driver can flush, as it agreed";
  EXPECT_EQ(other.Run(other_disk, 0), kOk);
  EXPECT_EQ(other.Status(2), kOk);
  EXPECT_EQ(other_disk.bytes.substr(0, 1536), Sector('0') + Sector('\0') + Sector('2'));
  other.Read(3, 2, 512);
  EXPECT_EQ(other.Run(other_disk, 3), kOk);
  EXPECT_EQ(other.cpu.Text(DataAt(3), 512), Sector('2'));

  MemoryDisk larger(2 * kDiskBytes);
  BlockRig wrong(larger, rig.memory);
  saved = expected;
  const absl::Status status = wrong.transport.Restore(saved);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("65536"));
}

TEST(VirtioBlockTest, TheDiskMayOutliveTheDevice) {
  MemoryDisk disk(kDiskBytes);
  {
    BlockRig rig(disk);
    rig.Read(0, 0, 512);
    rig.executor.Run();
  }
  disk.DoAll();
}

}  // namespace
}  // namespace romulus::devices

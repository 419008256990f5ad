// The network card: transmission, reception, what a driver may not do, and restoring.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/virtio/net.h"
#include "support/virtio_nic.h"

namespace romulus::devices {
namespace {

using ::testing::ElementsAre;
using testing::HeaderOf;
using ::testing::IsEmpty;
using testing::kAllNetFeatures;
using testing::kAllRingFeatures;
using testing::kBuffers;
using testing::kCardMac;
using testing::kDescWrite;
using testing::kNetHeaderBytes;
using testing::MemoryNetwork;
using testing::NetRig;
using testing::TestFrame;
using testing::UsedEntry;
using testing::WithHeader;
namespace mmio = testing::mmio;

constexpr NetHeader kChecksum{
    .flags = NetHeader::kNeedsChecksum, .checksum_start = 34, .checksum_offset = 16};
constexpr NetHeader kSegments{.flags = NetHeader::kNeedsChecksum,
                              .gso_type = NetHeader::kGsoTcp4,
                              .header_bytes = 54,
                              .gso_bytes = 1460,
                              .checksum_start = 34,
                              .checksum_offset = 16};

NetHeader With(NetHeader header, uint16_t buffers) {
  header.buffers = buffers;
  return header;
}

// --- what the driver sees ------------------------------------------------------------------------

TEST(VirtioNetTest, ShowsItsMacLinkAndMtu) {
  MemoryNetwork network;
  NetRig rig(network);
  EXPECT_EQ(rig.port.Read(mmio::kDeviceId), 1u);
  for (size_t i = 0; i < kCardMac.size(); ++i) {
    EXPECT_EQ(rig.port.Read<uint8_t>(mmio::kConfig + i), kCardMac[i]);
  }
  EXPECT_EQ(rig.port.Read<uint16_t>(mmio::kConfig + 6), 1) << "the link is up";
  EXPECT_EQ(rig.port.Read<uint16_t>(mmio::kConfig + 10), 1500);
  EXPECT_EQ(rig.port.DeviceFeatures(), kAllNetFeatures);
}

TEST(VirtioNetTest, OffersWhatItsHostCan) {
  MemoryNetwork network;
  network.host = {};
  NetRig rig(network, virtio::kFeatureVersion1);
  EXPECT_EQ(rig.port.DeviceFeatures() & ~kAllRingFeatures,
            virtio::kNetMac | virtio::kNetMtu | virtio::kNetStatus | virtio::kNetMergeBuffers);
}

TEST(VirtioNetTest, TellsTheHostWhatTheGuestCanDo) {
  MemoryNetwork network;
  NetRig rig(network, virtio::kFeatureVersion1 | virtio::kNetGuestChecksum | virtio::kNetGuestTso6);
  EXPECT_EQ(network.guest, (NetOffloads{.checksum = true, .tso6 = true}));
  rig.port.Write(mmio::kStatus, 0u);
  EXPECT_EQ(network.guest, NetOffloads{});
  rig.BringUp(virtio::kFeatureVersion1 | virtio::kNetGuestTso4 | virtio::kNetGuestEcn, 2, 16);
  EXPECT_EQ(network.guest, NetOffloads{}) << "nothing can be cut without checksums";
}

// --- transmission --------------------------------------------------------------------------------

TEST(VirtioNetTest, TransmitsInOrderAndGivesBuffersBack) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.OfferFrame(0, WithHeader({}, TestFrame(60, 1)));
  rig.OfferFrame(1, WithHeader({}, TestFrame(1514, 2)));
  rig.Notify(VirtioNet::kTransmitQueue);
  EXPECT_THAT(network.sent,
              ElementsAre(WithHeader({}, TestFrame(60, 1)), WithHeader({}, TestFrame(1514, 2))));
  EXPECT_EQ(rig.tx().PollUsed(), (UsedEntry{0, 0}));
  EXPECT_EQ(rig.tx().PollUsed(), (UsedEntry{1, 0}));
  EXPECT_TRUE(rig.irq.high);
}

TEST(VirtioNetTest, AFrameMayLieInManyBuffersCutAnywhere) {
  MemoryNetwork network;
  NetRig rig(network);
  const std::string bytes = WithHeader(kChecksum, TestFrame(200));
  rig.cpu.Write(kBuffers, bytes.data(), bytes.size());
  rig.tx().OfferIndirect(3, kBuffers + 0x1000,
                         {{kBuffers, 5, 0, 0},
                          {kBuffers + 5, 20, 0, 0},
                          {kBuffers + 25, static_cast<uint32_t>(bytes.size() - 25), 0, 0}});
  rig.Notify(VirtioNet::kTransmitQueue);
  EXPECT_THAT(network.sent, ElementsAre(bytes));
}

TEST(VirtioNetTest, PassesOnWhatTheHostIsAskedToDo) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.Send(0, WithHeader(kChecksum, TestFrame(100)));
  rig.Send(1, WithHeader(kSegments, TestFrame(60'000)));
  NetHeader six = kSegments;
  six.gso_type = NetHeader::kGsoTcp6 | NetHeader::kGsoEcn;
  rig.Send(2, WithHeader(six, TestFrame(60'000)));
  ASSERT_EQ(network.sent.size(), 3u);
  EXPECT_EQ(HeaderOf(network.sent[0]), kChecksum);
  EXPECT_EQ(HeaderOf(network.sent[1]), kSegments);
  EXPECT_EQ(HeaderOf(network.sent[2]), six);
}

TEST(VirtioNetTest, ClearsWhatTheHostMustNotUse) {
  MemoryNetwork network;
  NetRig rig(network);
  // Flags that it does not know are ignored, fields without their flag not used (5.1.6.2.2).
  rig.Send(0, WithHeader({.flags = 0xfe,
                          .header_bytes = 0xffff,
                          .gso_bytes = 7,
                          .checksum_start = 0xffff,
                          .checksum_offset = 0xffff,
                          .buffers = 9},
                         TestFrame(100)));
  ASSERT_EQ(network.sent.size(), 1u);
  EXPECT_EQ(HeaderOf(network.sent[0]), NetHeader{.header_bytes = 100});
}

TEST(VirtioNetTest, P6_AFrameThatTheSinkRefusesWaitsAndSoDoTheOthers) {
  MemoryNetwork network;
  NetRig rig(network);
  network.room = 1;
  for (uint16_t head = 0; head < 3; ++head) {
    rig.OfferFrame(head, WithHeader({}, TestFrame(60, static_cast<uint8_t>(head))));
  }
  rig.Notify(VirtioNet::kTransmitQueue);
  EXPECT_EQ(network.sent.size(), 1u);
  EXPECT_EQ(network.offers, 2);
  EXPECT_EQ(rig.tx().UsedIndex(), 1);
  // The frame was copied when it was taken: the guest cannot change it any more.
  rig.cpu.Put<uint64_t>(NetRig::kOut + 0x10000 + 40, ~0ull);
  rig.executor.Run();
  EXPECT_EQ(network.offers, 2) << "nobody asks again by himself";
  network.room = SIZE_MAX;
  network.plug->OnSinkReady();
  rig.executor.Run();
  EXPECT_THAT(network.sent,
              ElementsAre(WithHeader({}, TestFrame(60, 0)), WithHeader({}, TestFrame(60, 1)),
                          WithHeader({}, TestFrame(60, 2))));
  EXPECT_EQ(rig.tx().UsedIndex(), 3);
}

TEST(VirtioNetTest, AResetDropsARefusedFrame) {
  MemoryNetwork network;
  NetRig rig(network);
  network.room = 0;
  rig.Send(0, WithHeader({}, TestFrame(60, 1)));
  rig.BringUp(kAllNetFeatures, 2, NetRig::kSize);
  network.room = SIZE_MAX;
  rig.Send(0, WithHeader({}, TestFrame(60, 2)));
  EXPECT_THAT(network.sent, ElementsAre(WithHeader({}, TestFrame(60, 2))));
}

TEST(VirtioNetTest, OneTurnIsBounded) {
  MemoryNetwork network;
  NetRig rig(network);
  const std::string big = WithHeader(kSegments, TestFrame(60'000));
  for (uint16_t head = 0; head < 15; ++head) rig.OfferFrame(head, big);
  rig.port.Notify(VirtioNet::kTransmitQueue);
  rig.executor.Run(1);
  EXPECT_LT(network.sent.size(), 15u);
  rig.executor.Run();
  EXPECT_EQ(network.sent.size(), 15u);
}

// --- bad frames: counted and dropped -------------------------------------------------------------

struct BadFrame {
  const char* name;
  NetHeader header;
  size_t frame_bytes;
  uint64_t without = 0;  // features
};

class VirtioNetBadFrameTest : public ::testing::TestWithParam<BadFrame> {};

TEST_P(VirtioNetBadFrameTest, P7_IsDroppedAndCountedAndNothingElse) {
  MemoryNetwork network;
  NetRig rig(network, kAllNetFeatures & ~GetParam().without);
  rig.Send(0, WithHeader(GetParam().header, TestFrame(GetParam().frame_bytes)));
  EXPECT_THAT(network.sent, IsEmpty());
  EXPECT_EQ(network.offers, 0);
  EXPECT_EQ(network.counters.bad_out, 1u);
  EXPECT_EQ(rig.tx().PollUsed(), (UsedEntry{0, 0})) << "the guest has its buffer back";
  EXPECT_FALSE(rig.NeedsReset());
  rig.Send(1, WithHeader({}, TestFrame(60)));
  EXPECT_EQ(network.sent.size(), 1u) << "and goes on";
}

NetHeader Checksum(uint16_t start, uint16_t offset) {
  return {.flags = NetHeader::kNeedsChecksum, .checksum_start = start, .checksum_offset = offset};
}
NetHeader Segments(uint8_t type, uint16_t size, uint8_t flags = NetHeader::kNeedsChecksum) {
  NetHeader header = kSegments;
  header.gso_type = type;
  header.gso_bytes = size;
  header.flags = flags;
  return header;
}

INSTANTIATE_TEST_SUITE_P(
    All, VirtioNetBadFrameTest,
    ::testing::Values(
        BadFrame{"Empty", {}, 0}, BadFrame{"NoEthernetHeader", {}, 13},
        BadFrame{"BeyondTheMtu", {}, 1515},
        BadFrame{"BeyondAnyFrame", kSegments, kMaxFrameBytes + 1},
        BadFrame{"ChecksumBeyondTheFrame", Checksum(34, 65), 100},
        BadFrame{"ChecksumWraps", Checksum(0xffff, 3), 100},
        BadFrame{"ChecksumNotAgreed", kChecksum, 100, virtio::kNetChecksum},
        BadFrame{"SegmentsOfNothing", Segments(NetHeader::kGsoTcp4, 0), 1000},
        BadFrame{"SegmentsWithoutChecksum", Segments(NetHeader::kGsoTcp4, 1000, 0), 1000},
        BadFrame{"Tso4NotAgreed", kSegments, 1000, virtio::kNetHostTso4},
        BadFrame{"Tso6NotAgreed", Segments(NetHeader::kGsoTcp6, 1000), 1000, virtio::kNetHostTso6},
        BadFrame{"EcnNotAgreed", Segments(NetHeader::kGsoTcp4 | NetHeader::kGsoEcn, 1000), 1000,
                 virtio::kNetHostEcn},
        BadFrame{"EcnOfNothing", Segments(NetHeader::kGsoEcn, 1000), 1000},
        BadFrame{"UdpFragments", Segments(3, 1000), 1000},
        BadFrame{"UnknownKind", Segments(0x7f, 1000), 1000}),
    [](const auto& param) { return param.param.name; });

TEST(VirtioNetTest, TheMtuIsOfWhatFollowsTheTag) {
  MemoryNetwork network;
  NetRig rig(network);
  std::string tagged = TestFrame(1518);
  tagged[12] = static_cast<char>(0x81);
  rig.Send(0, WithHeader({}, tagged));
  EXPECT_EQ(network.sent.size(), 1u);
  rig.Send(1, WithHeader({}, tagged + "x"));
  EXPECT_EQ(network.sent.size(), 1u);
}

TEST(VirtioNetTest, WithoutTheMtuFeatureTheDriverHasNoLimit) {
  MemoryNetwork network;
  NetRig rig(network, kAllNetFeatures & ~virtio::kNetMtu);
  rig.Send(0, WithHeader({}, TestFrame(9014)));
  EXPECT_EQ(network.sent.size(), 1u);
}

// --- broken rules: the card wants a reset --------------------------------------------------------

TEST(VirtioNetTest, P7_AChainWithoutAWholeHeaderIsAFault) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.tx().OfferChain(0, {{kBuffers, 11, 0, 0}});
  rig.Notify(VirtioNet::kTransmitQueue);
  EXPECT_TRUE(rig.NeedsReset());
  EXPECT_EQ(rig.transport.faults().count(VirtioFault::kRequest), 1u);
}

TEST(VirtioNetTest, P7_AWritableBufferToTransmitIsAFault) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.tx().OfferChain(0, {{kBuffers, 80, 0, 0}, {kBuffers, 80, kDescWrite, 0}});
  rig.Notify(VirtioNet::kTransmitQueue);
  EXPECT_TRUE(rig.NeedsReset());
  EXPECT_THAT(network.sent, IsEmpty());
}

TEST(VirtioNetTest, P7_AReadableReceiveBufferIsAFault) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.rx().OfferChain(0, {{kBuffers, 2000, 0, 0}, {kBuffers, 2000, kDescWrite, 0}});
  rig.Arrive(WithHeader({}, TestFrame(60)));
  EXPECT_TRUE(rig.NeedsReset());
}

TEST(VirtioNetTest, P7_AReceiveBufferWithoutRoomForAHeaderIsAFault) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.OfferBuffer(0, 11);
  rig.Arrive(WithHeader({}, TestFrame(60)));
  EXPECT_TRUE(rig.NeedsReset());
  rig.BringUp(kAllNetFeatures, 2, NetRig::kSize);
  rig.OfferBuffer(0, 2000);
  rig.Arrive(WithHeader({}, TestFrame(60, 9)));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{0, 72})) << "works again after a reset";
}

// --- reception -----------------------------------------------------------------------------------

TEST(VirtioNetTest, P4_ReceivesAndMarksWhatItWrites) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.rx().OfferChain(
      0, {{kBuffers + 0xff0, 100, kDescWrite, 0}, {kBuffers + 0x5000, 2000, kDescWrite, 0}});
  const std::string before = rig.Snapshot();
  rig.Arrive(WithHeader({}, TestFrame(300)));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{0, 312}));
  EXPECT_EQ(rig.cpu.Text(kBuffers + 0xff0, 100) + rig.cpu.Text(kBuffers + 0x5000, 212),
            WithHeader(With({}, 1), TestFrame(300)));
  EXPECT_TRUE(rig.irq.high);
  const auto changed = rig.PagesChangedSince(before);
  EXPECT_EQ(changed.size(), 4u) << "two, one, and the used ring";
  EXPECT_THAT(rig.WrittenPages(), ::testing::IsSupersetOf(changed));
  EXPECT_EQ(network.counters.frames_in, 1u);
  EXPECT_EQ(network.counters.bytes_in, 300u);
}

TEST(VirtioNetTest, NothingIsReadWhileTheGuestHasNoBuffers) {
  MemoryNetwork network;
  NetRig rig(network);
  for (uint8_t i = 0; i < 5; ++i) rig.Arrive(WithHeader({}, TestFrame(60, i)));
  EXPECT_EQ(network.waiting.size(), 4u) << "one is at hand, the others wait at the host";
  const int reads = network.reads;
  network.plug->OnFramesReady();
  rig.executor.Run();
  EXPECT_EQ(network.reads, reads);
  for (uint16_t head = 0; head < 5; ++head) rig.OfferBuffer(head, 1600);
  rig.Notify(VirtioNet::kReceiveQueue);
  for (uint16_t head = 0; head < 5; ++head) {
    EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{head, 72}));
    EXPECT_EQ(rig.BufferText(head, 72),
              WithHeader(With({}, 1), TestFrame(60, static_cast<uint8_t>(head))));
  }
  EXPECT_EQ(network.counters.dropped_in, 0u);
}

TEST(VirtioNetTest, SpreadsAFrameOverBuffersThatTheDriverSeesTogether) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.OfferBuffer(0, 1000);
  rig.OfferBuffer(1, 1000);
  rig.Notify(VirtioNet::kReceiveQueue);
  const std::string frame = TestFrame(2500);
  rig.Arrive(WithHeader(kSegments, frame));
  EXPECT_EQ(rig.rx().UsedIndex(), 0) << "not before all of it fits";
  EXPECT_FALSE(rig.irq.high);
  rig.OfferBuffer(2, 1000);
  rig.OfferBuffer(3, 1000);
  rig.Notify(VirtioNet::kReceiveQueue);
  EXPECT_EQ(rig.rx().UsedIndex(), 3);
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{0, 1000}));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{1, 1000}));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{2, 512}));
  EXPECT_EQ(rig.BufferText(0, 1000) + rig.BufferText(1, 1000) + rig.BufferText(2, 512),
            WithHeader(With(kSegments, 3), frame));
  rig.Arrive(WithHeader({}, TestFrame(60)));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{3, 72})) << "what was not needed is the next frame's";
}

// A driver that polls reads `buffers` from the first and expects the others at once (5.1.6.4.1).
TEST(VirtioNetTest, APollingDriverNeverSeesAPartOfAFrame) {
  MemoryNetwork network;
  NetRig rig(network);
  std::atomic<bool> stop{false};
  std::atomic<int> parts{0}, changes{0};
  std::thread driver([&] {
    for (uint16_t last = 0; !stop;) {
      const uint16_t index = rig.rx().UsedIndex();
      parts += index % 8 != 0 ? 1 : 0;
      changes += std::exchange(last, index) != index ? 1 : 0;
    }
  });
  const std::string frame = WithHeader(kSegments, TestFrame(8000 - kNetHeaderBytes));
  while (changes < 500) {
    for (uint16_t head = 0; head < 8; ++head) rig.OfferBuffer(head, 1000);
    rig.Arrive(frame);
  }
  stop = true;
  driver.join();
  EXPECT_EQ(parts, 0);
}

TEST(VirtioNetTest, WithoutMergingAFrameThatDoesNotFitIsDropped) {
  MemoryNetwork network;
  NetRig rig(network, kAllNetFeatures & ~virtio::kNetMergeBuffers);
  rig.OfferBuffer(0, 100);
  rig.OfferBuffer(1, 1600);
  rig.Arrive(WithHeader({}, TestFrame(1000)));
  EXPECT_EQ(rig.rx().UsedIndex(), 0);
  EXPECT_EQ(network.counters.dropped_in, 1u);
  rig.Arrive(WithHeader({}, TestFrame(60)));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{0, 72}));
  EXPECT_EQ(HeaderOf(rig.BufferText(0, 12)).buffers, 1);
}

TEST(VirtioNetTest, AFrameThatAllBuffersTogetherCannotHoldIsDropped) {
  MemoryNetwork network;
  NetRig rig(network);
  for (uint16_t head = 0; head < NetRig::kSize; ++head) rig.OfferBuffer(head, 100);
  rig.Arrive(WithHeader(kSegments, TestFrame(60'000)));
  EXPECT_EQ(network.counters.dropped_in, 1u);
  EXPECT_EQ(rig.rx().UsedIndex(), 0);
  rig.Arrive(WithHeader({}, TestFrame(60)));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{0, 72})) << "the queue is not stuck";
}

TEST(VirtioNetTest, GivesTheGuestOnlyWhatItAgreedTo) {
  MemoryNetwork network;
  NetRig rig(network, kAllRingFeatures | virtio::kNetMergeBuffers | virtio::kNetMtu);
  for (uint16_t head = 0; head < 4; ++head) rig.OfferBuffer(head, 2000);
  rig.Arrive(WithHeader(kChecksum, TestFrame(100)));
  rig.Arrive(WithHeader(kSegments, TestFrame(1000)));
  rig.Arrive(WithHeader({}, TestFrame(1515)));
  EXPECT_EQ(rig.rx().UsedIndex(), 0);
  EXPECT_EQ(network.counters.dropped_in, 3u);
  rig.Arrive(WithHeader({.flags = NetHeader::kDataValid}, TestFrame(100)));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{0, 112}));
  EXPECT_EQ(HeaderOf(rig.BufferText(0, 12)), With({}, 1)) << "flags are zero (5.1.6.4.1)";
}

TEST(VirtioNetTest, AFloodOfBadFramesDoesNotHoldUpTheDeviceThread) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.OfferBuffer(0, 2000);
  network.waiting.assign(100'000, std::string(20, 'x'));
  network.plug->OnFramesReady();
  rig.executor.Run(1);
  EXPECT_GT(network.waiting.size(), 50'000u);
  rig.executor.Run();
  EXPECT_EQ(network.counters.dropped_in, 100'000u);
}

TEST(VirtioNetTest, AFrameShorterThanItsHeaderIsDropped) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.OfferBuffer(0, 2000);
  rig.Arrive(std::string(5, 'x'));
  rig.Arrive(WithHeader({}, TestFrame(60)));
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{0, 72}));
  EXPECT_EQ(network.counters.dropped_in, 1u);
}

TEST(VirtioNetTest, StoppingTheReceiveQueueGivesUpItsBuffers) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.OfferBuffer(0, 100);
  rig.Arrive(WithHeader({}, TestFrame(1000)));  // holds the buffer, waits for more
  rig.port.Write(mmio::kQueueSel, 0u);
  rig.port.Write(mmio::kQueueReady, 0u);
  rig.WrittenPages();
  const std::string before = rig.BufferText(0, 100);
  rig.Arrive(WithHeader({}, TestFrame(60)));
  EXPECT_THAT(rig.WrittenPages(), IsEmpty());
  // On again, from the start of its rings: the first buffer is the driver's until it says
  // otherwise.
  rig.cpu.Put<uint32_t>(rig.rx().avail(), 0);
  rig.cpu.Put<uint32_t>(rig.rx().used(), 0);
  rig.queues[0] = testing::DriverQueue(rig.cpu, testing::kRings, NetRig::kSize, true);
  ASSERT_TRUE(rig.port.SetUpQueue(0, rig.queues[0]));
  rig.OfferBuffer(1, 2000);
  rig.Notify(VirtioNet::kReceiveQueue);
  EXPECT_EQ(rig.BufferText(0, 100), before);
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{1, 1012}));
}

// --- a plug that is pulled -----------------------------------------------------------------------

TEST(VirtioNetTest, PullsItsPlugWhenItGoes) {
  MemoryNetwork network;
  {
    NetRig rig(network);
    EXPECT_NE(network.plug, nullptr);
  }
  EXPECT_EQ(network.plug, nullptr);
}

// --- restoring -----------------------------------------------------------------------------------

TEST(VirtioNetRestoreTest, BeginsAgainTheFrameThatNoSinkHadTaken) {
  MemoryNetwork network;
  NetRig rig(network);
  network.room = 1;
  for (uint16_t head = 0; head < 3; ++head) {
    rig.OfferFrame(head, WithHeader({}, TestFrame(60, static_cast<uint8_t>(head))));
  }
  rig.Notify(VirtioNet::kTransmitQueue);
  ASSERT_TRUE(rig.transport.Quiesce().ok());
  state::MachineState saved = rig.Save();

  MemoryNetwork elsewhere;
  NetRig other(elsewhere, rig.memory);
  other.queues = rig.queues;
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  EXPECT_EQ(elsewhere.guest, network.guest) << "the new tap is told as the old one was";
  other.executor.Run();
  EXPECT_THAT(elsewhere.sent, IsEmpty());
  other.transport.Resume();
  other.executor.Run();
  EXPECT_THAT(elsewhere.sent,
              ElementsAre(WithHeader({}, TestFrame(60, 1)), WithHeader({}, TestFrame(60, 2))));
  EXPECT_EQ(other.tx().UsedIndex(), 3);
}

TEST(VirtioNetRestoreTest, BuffersOfAFrameThatWasLostServeTheNext) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.OfferBuffer(0, 500);
  rig.OfferBuffer(1, 500);
  rig.Arrive(WithHeader({}, TestFrame(1400)));  // both are held, more is needed
  ASSERT_TRUE(rig.transport.Quiesce().ok());
  state::MachineState saved = rig.Save();

  MemoryNetwork elsewhere;
  NetRig other(elsewhere, rig.memory);
  other.queues = rig.queues;
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  other.transport.Resume();
  other.executor.Run();
  EXPECT_EQ(other.rx().UsedIndex(), 0) << "the frame died with its host";
  other.Arrive(WithHeader({}, TestFrame(600)));
  EXPECT_EQ(other.rx().PollUsed(), (UsedEntry{0, 500}));
  EXPECT_EQ(other.rx().PollUsed(), (UsedEntry{1, 112}));
}

TEST(VirtioNetRestoreTest, RefusesAnotherCardsState) {
  MemoryNetwork network;
  NetRig rig(network);
  MemoryNetwork elsewhere;
  state::MachineState saved = rig.Save();
  NetRig other_mtu(elsewhere, rig.memory, 9000);
  EXPECT_TRUE(absl::IsFailedPrecondition(other_mtu.transport.Restore(saved)));
  saved = rig.Save();
  NetRig other_mac(elsewhere, rig.memory, 1500, {2, 0, 0, 0, 0, 1});
  const absl::Status refused = other_mac.transport.Restore(saved);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused));
  EXPECT_THAT(refused.message(), ::testing::HasSubstr("52:54:00:12:34:56"));
}

TEST(VirtioNetRestoreTest, RefusesFeaturesThatThisHostDoesNotHave) {
  MemoryNetwork network;
  NetRig rig(network);
  state::MachineState saved = rig.Save();
  MemoryNetwork elsewhere;
  elsewhere.host = {};
  NetRig other(elsewhere, rig.memory);
  EXPECT_FALSE(other.transport.Restore(saved).ok());
}

TEST(VirtioNetRestoreTest, NothingIsReceivedInAPause) {
  MemoryNetwork network;
  NetRig rig(network);
  rig.OfferBuffer(0, 2000);
  rig.Notify(VirtioNet::kReceiveQueue);
  ASSERT_TRUE(rig.transport.Quiesce().ok());
  const std::string before = rig.Snapshot();
  rig.Arrive(WithHeader({}, TestFrame(60)));
  EXPECT_THAT(rig.PagesChangedSince(before), IsEmpty());
  EXPECT_EQ(network.waiting.size(), 1u);
  rig.transport.Resume();
  rig.executor.Run();
  EXPECT_EQ(rig.rx().PollUsed(), (UsedEntry{0, 72}));
}

}  // namespace
}  // namespace romulus::devices

// Pause, save and restore of the transport and its queues, with requests in flight.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/virtio_rig.h"

namespace romulus::devices {
namespace {

using testing::HoldingDevice;
using testing::HoldingRig;
using ::testing::IsEmpty;
using testing::kAllRingFeatures;
using testing::kBuffers;
using testing::kDescWrite;
using testing::UsedEntry;
namespace mmio = testing::mmio;

// Three chains held by the device, of which one is done; one more offered in the pause.
struct MidFlight {
  MidFlight() {
    rig.BringUp();
    for (uint16_t head = 0; head < 3; ++head) Offer(head);
    rig.Notify(0);
    rig.Complete(1, "early");
  }
  void Offer(uint16_t head) {
    rig.queues[0].OfferChain(head, {{kBuffers + 64u * head, 64, kDescWrite, 0}});
  }
  HoldingRig rig;
};

TEST(VirtioPauseTest, NothingTouchesMemoryInAPause) {
  MidFlight flight;
  HoldingRig& rig = flight.rig;
  ASSERT_TRUE(rig.transport.Quiesce().ok());
  rig.WrittenPages();
  const std::string before = rig.Snapshot();
  rig.Complete(0, "completion in the pause");
  rig.Notify(0);
  EXPECT_THAT(rig.PagesChangedSince(before), IsEmpty());
  EXPECT_THAT(rig.WrittenPages(), IsEmpty());
  rig.transport.Resume();
  EXPECT_THAT(rig.PagesChangedSince(before), IsEmpty()) << "not on this thread";
  rig.executor.Run();
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{1, 5}));
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 23})) << "nothing was lost";
}

TEST(VirtioPauseTest, APauseByItselfWritesNothing) {
  MidFlight flight;
  flight.rig.WrittenPages();
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(flight.rig.transport.Quiesce().ok());
    flight.rig.transport.Resume();
    flight.rig.executor.Run();
  }
  EXPECT_THAT(flight.rig.WrittenPages(), IsEmpty());
}

TEST(VirtioPauseTest, NotificationsInAPauseAreServedAfter) {
  MidFlight flight;
  ASSERT_TRUE(flight.rig.transport.Quiesce().ok());
  flight.Offer(5);
  flight.rig.Notify(0);
  EXPECT_EQ(flight.rig.device().held.size(), 3u);
  flight.rig.transport.Resume();
  flight.rig.executor.Run();
  EXPECT_EQ(flight.rig.device().held.size(), 4u);
}

TEST(VirtioRestoreTest, ARestoredDeviceBeginsAgainWhatWasInFlight) {
  MidFlight flight;
  ASSERT_TRUE(flight.rig.transport.Quiesce().ok());
  state::MachineState saved = flight.rig.Save();
  const state::MachineState expected = saved;

  HoldingRig other(flight.rig.memory);
  other.queues = flight.rig.queues;  // the guest is the same
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  EXPECT_TRUE(saved.ExpectEmpty().ok());
  EXPECT_EQ(other.Save(), expected);
  EXPECT_TRUE(other.irq.high) << "the level is told anew";
  EXPECT_EQ(other.port.Read(mmio::kInterruptStatus), 1u);
  EXPECT_EQ(other.port.status(), 0xfu);
  other.Notify(0);
  EXPECT_EQ(other.device().turns, 0) << "quiet until Resume()";
  other.transport.Resume();
  other.executor.Run();
  ASSERT_EQ(other.device().held.size(), 2u);
  EXPECT_EQ(other.device().held[0].second.head, 0);
  EXPECT_EQ(other.device().held[1].second.head, 2);
  other.port.Write(mmio::kInterruptAck, 1u);
  other.Complete(0, "zero");
  other.Complete(1, "two");
  EXPECT_EQ(other.queues[0].PollUsed(), (UsedEntry{1, 5})) << "before the pause";
  EXPECT_EQ(other.queues[0].PollUsed(), (UsedEntry{0, 4}));
  EXPECT_EQ(other.queues[0].PollUsed(), (UsedEntry{2, 3}));
  // And goes on.
  other.queues[0].OfferChain(9, {{kBuffers, 64, kDescWrite, 0}});
  other.Notify(0);
  ASSERT_EQ(other.device().held.size(), 3u);
  EXPECT_EQ(other.transport.faults().total(), 0u);
}

TEST(VirtioRestoreTest, APauseBeforeTheFirstTurnLosesNothing) {
  MidFlight flight;
  ASSERT_TRUE(flight.rig.transport.Quiesce().ok());
  const state::MachineState expected = flight.rig.Save();
  state::MachineState saved = expected;
  HoldingRig other(flight.rig.memory);
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  other.transport.Resume();
  ASSERT_TRUE(other.transport.Quiesce().ok());
  EXPECT_EQ(other.Save(), expected);
}

TEST(VirtioRestoreTest, HalfwayNegotiationContinues) {
  HoldingRig rig;
  ASSERT_TRUE(rig.port.Negotiate(kAllRingFeatures));
  rig.queues.emplace_back(rig.cpu, testing::kRings, 8, true);
  rig.port.Write(mmio::kQueueSel, 1u);
  rig.port.Write(mmio::kQueueNum, 8u);
  state::MachineState saved = rig.Save();
  HoldingRig other(rig.memory);
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  other.transport.Resume();
  const std::pair<uint64_t, uint64_t> areas[] = {{mmio::kDescLow, rig.queues[0].descriptors()},
                                                 {mmio::kDriverLow, rig.queues[0].avail()},
                                                 {mmio::kDeviceLow, rig.queues[0].used()}};
  for (const auto& [reg, address] : areas) other.port.Write(reg, static_cast<uint32_t>(address));
  other.port.Write(mmio::kQueueReady, 1u);
  EXPECT_EQ(other.port.Read(mmio::kQueueReady), 1u);
  other.port.AddStatus(virtio::kDriverOk);
  rig.queues[0].OfferChain(0, {{kBuffers, 1, 0, 0}});
  other.Notify(1);
  EXPECT_EQ(other.device().held.size(), 1u);
}

TEST(VirtioRestoreTest, ABrokenDeviceStaysBroken) {
  HoldingRig rig;
  rig.BringUp();
  rig.queues[0].Offer(0xffff);
  rig.Notify(0);
  ASSERT_TRUE(rig.NeedsReset());
  state::MachineState saved = rig.Save();
  HoldingRig other(rig.memory);
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  other.transport.Resume();
  EXPECT_TRUE(other.NeedsReset());
  other.Notify(0);
  EXPECT_EQ(other.device().turns, 0);
  EXPECT_EQ(other.transport.faults().total(), 0u);
}

// The memory that comes with the state may say anything, too.
TEST(VirtioRestoreTest, AHostileDescriptorInFlightIsAFault) {
  MidFlight flight;
  state::MachineState saved = flight.rig.Save();
  flight.rig.queues[0].PutDescriptor(0, {~uint64_t{0}, 8, kDescWrite, 0});
  HoldingRig other(flight.rig.memory);
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  other.transport.Resume();
  other.executor.Run();
  EXPECT_TRUE(other.NeedsReset());
  EXPECT_EQ(other.transport.faults().count(VirtioFault::kBufferAddress), 1u);
}

class HostileStateTest : public ::testing::Test {
 protected:
  HostileStateTest() : good_(flight_.rig.Save().sections().front().payload) {}
  absl::Status Restore(std::string payload) {
    state::MachineState in;
    in.Put("virtio.test", 0, 1, std::move(payload));
    HoldingRig other(flight_.rig.memory);
    const absl::Status status = other.transport.Restore(in);
    // Whatever was accepted runs, and ends in order or with a fault.
    other.transport.Resume();
    other.executor.Run(1000);
    return status;
  }
  template <typename T>
  absl::Status RestoreWith(size_t at, T value) {
    std::string bad = good_;
    std::memcpy(bad.data() + at, &value, sizeof(value));
    return Restore(std::move(bad));
  }
  MidFlight flight_;
  std::string good_;
};

TEST_F(HostileStateTest, IsRefused) {
  constexpr absl::StatusCode kRefused = absl::StatusCode::kInvalidArgument;
  ASSERT_TRUE(Restore(good_).ok());
  for (size_t size = 0; size < good_.size(); ++size) {
    ASSERT_EQ(Restore(good_.substr(0, size)).code(), kRefused) << size;
  }
  EXPECT_EQ(Restore(good_ + "x").code(), kRefused);
  constexpr size_t kQueue = 40 + 32;  // the first queue's own state
  EXPECT_EQ(RestoreWith<uint64_t>(0, 1).code(), kRefused) << "features without version 1";
  EXPECT_EQ(RestoreWith<uint64_t>(0, ~0ull).code(), kRefused) << "features nobody offers";
  EXPECT_EQ(RestoreWith<uint32_t>(8, 43).code(), kRefused) << "another device";
  EXPECT_EQ(RestoreWith<uint32_t>(12, 3).code(), kRefused) << "other queues";
  EXPECT_EQ(RestoreWith<uint32_t>(12, ~0u).code(), kRefused);
  EXPECT_EQ(RestoreWith<uint32_t>(16, 0x10).code(), kRefused) << "status bit";
  EXPECT_EQ(RestoreWith<uint32_t>(16, 7).code(), kRefused) << "ready without features";
  EXPECT_EQ(RestoreWith<uint32_t>(16, 3).code(), kRefused) << "live queue without features";
  EXPECT_EQ(RestoreWith<uint32_t>(20, 4).code(), kRefused) << "interrupt bit";
  EXPECT_EQ(RestoreWith<uint64_t>(40, 0).code(), kRefused) << "registers and queue differ";
  EXPECT_EQ(RestoreWith<uint64_t>(64, ~0ull).code(), kRefused) << "size register";
  for (const size_t area : {0, 8, 16}) {
    EXPECT_EQ(RestoreWith<uint64_t>(kQueue + area, ~uint64_t{15}).code(), kRefused) << area;
    EXPECT_EQ(RestoreWith<uint64_t>(kQueue + area, 1).code(), kRefused) << area;
  }
  EXPECT_EQ(RestoreWith<uint32_t>(kQueue + 24, 3).code(), kRefused) << "size";
  EXPECT_EQ(RestoreWith<uint32_t>(kQueue + 24, 256).code(), kRefused) << "size";
  EXPECT_EQ(RestoreWith<uint16_t>(kQueue + 28, 9).code(), kRefused) << "next_avail";
  EXPECT_EQ(RestoreWith<uint16_t>(kQueue + 30, 9).code(), kRefused) << "next_used";
  EXPECT_EQ(RestoreWith<uint16_t>(kQueue + 34, 1).code(), kRefused) << "in flight";
  EXPECT_EQ(RestoreWith<uint16_t>(kQueue + 34, 0xffff).code(), kRefused) << "in flight";
  EXPECT_EQ(RestoreWith<uint32_t>(kQueue + 36, 2).code(), kRefused) << "ready";
  EXPECT_EQ(RestoreWith<uint32_t>(kQueue + 36, 0).code(), kRefused) << "state without queue";
  EXPECT_EQ(RestoreWith<uint16_t>(kQueue + 40, HoldingDevice::kSize).code(), kRefused) << "head";
  EXPECT_EQ(RestoreWith<uint16_t>(kQueue + 40, 2).code(), kRefused) << "the same head twice";
}

TEST_F(HostileStateTest, AnyBentByteIsRefusedOrHarmless) {
  for (size_t at = 0; at < good_.size(); ++at) {
    for (const uint8_t value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      (void)RestoreWith<uint8_t>(at, value);
    }
  }
}

}  // namespace
}  // namespace romulus::devices

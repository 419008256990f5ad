// The MMIO transport with a driver that keeps the rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "support/virtio_rig.h"

namespace romulus::devices {
namespace {

using ::testing::ElementsAre;
using testing::HoldingDevice;
using testing::HoldingRig;
using ::testing::IsEmpty;
using testing::kAllRingFeatures;
using testing::kBuffers;
using testing::kDescWrite;
using testing::UsedEntry;
namespace mmio = testing::mmio;

TEST(VirtioMmioTest, SaysWhatItIs) {
  HoldingRig rig;
  EXPECT_EQ(rig.port.Read(mmio::kMagic), 0x74726976u);
  EXPECT_EQ(rig.port.Read(mmio::kVersion), 2u);
  EXPECT_EQ(rig.port.Read(mmio::kDeviceId), 42u);
  EXPECT_EQ(rig.port.DeviceFeatures(), kAllRingFeatures);
  rig.port.Write(mmio::kDeviceFeaturesSel, 2u);
  EXPECT_EQ(rig.port.Read(mmio::kDeviceFeatures), 0u);
  rig.port.Write(mmio::kQueueSel, 1u);
  EXPECT_EQ(rig.port.Read(mmio::kQueueNumMax), HoldingDevice::kSize);
  rig.port.Write(mmio::kQueueSel, 2u);
  EXPECT_EQ(rig.port.Read(mmio::kQueueNumMax), 0u);
  EXPECT_EQ(rig.port.Read(mmio::kQueueReady), 0u);
  rig.port.Write(0xacu, 0u);
  EXPECT_EQ(rig.port.Read(0xb0), ~0u) << "no shared memory";
  EXPECT_EQ(rig.transport.faults().total(), 0u);
}

TEST(VirtioMmioTest, NegotiatesOnlyWhatItOffers) {
  HoldingRig rig;
  EXPECT_FALSE(rig.port.Negotiate(0)) << "without VIRTIO_F_VERSION_1";
  EXPECT_FALSE(rig.port.Negotiate(virtio::kFeatureVersion1 | 1));
  EXPECT_FALSE(rig.port.Negotiate(virtio::kFeatureVersion1 | uint64_t{1} << 33));
  EXPECT_FALSE(rig.NeedsReset()) << "saying no is no fault";
  EXPECT_TRUE(rig.port.Negotiate(virtio::kFeatureVersion1));
  EXPECT_TRUE(rig.port.Negotiate(kAllRingFeatures));
  EXPECT_EQ(rig.transport.faults().total(), 0u);
}

TEST(VirtioMmioTest, WorksOnlyAfterDriverOk) {
  HoldingRig rig;
  ASSERT_TRUE(rig.port.Negotiate(kAllRingFeatures));
  rig.queues.emplace_back(rig.cpu, testing::kRings, 8, true);
  ASSERT_TRUE(rig.port.SetUpQueue(0, rig.queues[0]));
  rig.queues[0].OfferChain(0, {{kBuffers, 1, 0, 0}});
  rig.Notify(0);
  EXPECT_THAT(rig.device().held, IsEmpty());
  rig.port.AddStatus(virtio::kDriverOk);
  EXPECT_THAT(rig.device().held, IsEmpty()) << "not on the vCPU thread";
  rig.executor.Run();
  EXPECT_EQ(rig.device().held.size(), 1u);
  EXPECT_EQ(rig.device().agreed, kAllRingFeatures);
  EXPECT_EQ(rig.port.status(), 0xfu);
}

TEST(VirtioMmioTest, UsedBuffersInterruptUntilAcknowledged) {
  HoldingRig rig;
  rig.BringUp();
  rig.queues[1].OfferChain(5, {{kBuffers, 100, kDescWrite, 0}});
  rig.Notify(1);
  ASSERT_EQ(rig.device().held.size(), 1u);
  EXPECT_FALSE(rig.irq.high);
  rig.Complete(0, "done");
  EXPECT_TRUE(rig.irq.high);
  EXPECT_EQ(rig.port.Read(mmio::kInterruptStatus), 1u);
  EXPECT_EQ(rig.queues[1].PollUsed(), (UsedEntry{5, 4}));
  EXPECT_EQ(rig.cpu.Text(kBuffers, 4), "done");
  rig.port.Write(mmio::kInterruptAck, 2u);
  EXPECT_TRUE(rig.irq.high) << "another bit";
  rig.port.Write(mmio::kInterruptAck, 1u);
  EXPECT_FALSE(rig.irq.high);
  EXPECT_EQ(rig.port.Read(mmio::kInterruptStatus), 0u);
}

TEST(VirtioMmioTest, EveryWriteIsMarked) {
  HoldingRig rig;
  rig.BringUp();
  rig.queues[0].SetUsedEvent(0);
  rig.queues[0].OfferChain(
      0, {{kBuffers + 0xff0, 0x20, kDescWrite, 0}, {kBuffers + 0x5000, 0x3000, kDescWrite, 0}});
  const std::string before = rig.Snapshot();
  rig.Notify(0);
  rig.Complete(0, std::string(0x1020, 'x'));
  const std::set<uint64_t> changed = rig.PagesChangedSince(before);
  EXPECT_EQ(changed.size(), 4u) << "used ring, two pages, one of three";
  EXPECT_THAT(rig.WrittenPages(), ::testing::IsSupersetOf(changed));
}

TEST(VirtioMmioTest, ATurnIsBounded) {
  HoldingRig rig;
  rig.BringUp();
  static_assert(HoldingDevice::kSize == 2 * VirtioMmio::kChainsPerTurn);
  for (uint16_t head = 0; head < HoldingDevice::kSize; ++head) {
    rig.queues[0].OfferChain(head, {{kBuffers, 1, kDescWrite, 0}});
  }
  rig.port.Notify(0);
  EXPECT_EQ(rig.executor.Run(1), 1);
  EXPECT_EQ(rig.device().held.size(), size_t{VirtioMmio::kChainsPerTurn});
  rig.executor.Run();
  EXPECT_EQ(rig.device().held.size(), HoldingDevice::kSize) << "the rest without a notification";
}

TEST(VirtioMmioTest, NotificationsBeforeATurnAreOneTurn) {
  HoldingRig rig;
  rig.BringUp();
  for (int i = 0; i < 1000; ++i) rig.port.Notify(0);
  EXPECT_EQ(rig.executor.waiting(), 1u);
}

TEST(VirtioMmioTest, ConfigurationSpaceTakesAnyWidth) {
  HoldingRig rig;
  EXPECT_EQ(rig.port.Read<uint8_t>(mmio::kConfig + 1), 2);
  EXPECT_EQ(rig.port.Read<uint16_t>(mmio::kConfig + 2), 0x0403);
  EXPECT_EQ(rig.port.Read<uint32_t>(mmio::kConfig + 4), 0x08070605u);
  EXPECT_EQ(rig.port.Read<uint32_t>(mmio::kConfig + 6), 0x00000807u) << "zeros beyond the end";
  EXPECT_EQ(rig.port.Read<uint32_t>(mmio::kConfig + 0xe00), 0u);
  rig.port.Write<uint16_t>(mmio::kConfig + 6, 1);
  EXPECT_THAT(rig.device().config_writes, ElementsAre(std::pair<uint64_t, size_t>(6, 2)));
  EXPECT_EQ(rig.transport.faults().total(), 0u);
}

TEST(VirtioMmioTest, ConfigurationChangesHaveAGenerationAndInterrupt) {
  HoldingRig rig;
  rig.BringUp();
  const uint32_t before = rig.port.Read(mmio::kConfigGeneration);
  rig.device().seen_host().Bind([&] { rig.device().seen_host().ConfigChanged(); })();
  EXPECT_NE(rig.port.Read(mmio::kConfigGeneration), before);
  EXPECT_EQ(rig.port.Read(mmio::kInterruptStatus), 2u);
  EXPECT_TRUE(rig.irq.high);
}

TEST(VirtioMmioTest, ResetIsAsNew) {
  HoldingRig rig;
  rig.BringUp();
  rig.queues[0].OfferChain(0, {{kBuffers, 4, kDescWrite, 0}});
  rig.queues[0].OfferChain(1, {{kBuffers, 4, kDescWrite, 0}});
  rig.Notify(0);
  rig.Complete(0);
  ASSERT_TRUE(rig.irq.high);
  const int resets = rig.device().resets;
  rig.port.Write(mmio::kStatus, 0u);
  EXPECT_EQ(rig.device().resets, resets + 1);
  EXPECT_FALSE(rig.irq.high);
  EXPECT_EQ(rig.port.Read(mmio::kInterruptStatus), 0u);
  EXPECT_EQ(rig.port.status(), 0u);
  for (const uint32_t queue : {0u, 1u}) {
    rig.port.Write(mmio::kQueueSel, queue);
    EXPECT_EQ(rig.port.Read(mmio::kQueueReady), 0u);
  }
  // What was in flight ends now, and must change nothing.
  rig.WrittenPages();
  rig.Complete(1, "late");
  EXPECT_THAT(rig.WrittenPages(), IsEmpty());
  EXPECT_EQ(rig.cpu.Text(kBuffers, 4), std::string(4, '\0'));
  // And it works again.
  rig.BringUp();
  rig.Complete(1, "late");
  EXPECT_EQ(rig.queues[0].UsedIndex(), 0);
  rig.device().held.clear();
  rig.queues[0].OfferChain(0, {{kBuffers, 4, kDescWrite, 0}});
  rig.Notify(0);
  rig.Complete(0, "new!");
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 4}));
}

TEST(VirtioMmioTest, AStoppedQueueIsNotTouched) {
  HoldingRig rig;
  rig.BringUp();
  rig.queues[0].OfferChain(0, {{kBuffers, 4, kDescWrite, 0}});
  rig.Notify(0);
  rig.port.Write(mmio::kQueueSel, 0u);
  rig.port.Write(mmio::kQueueReady, 0u);
  EXPECT_EQ(rig.port.Read(mmio::kQueueReady), 0u);
  EXPECT_EQ(rig.device().stops, 1);
  rig.WrittenPages();
  rig.Complete(0, "late");
  rig.Notify(0);
  EXPECT_THAT(rig.WrittenPages(), IsEmpty());
  EXPECT_FALSE(rig.NeedsReset());
}

TEST(VirtioMmioTest, WorkPostedBeforeDestructionDoesNothing) {
  testing::ManualExecutor executor;
  testing::LevelIrq irq;
  auto memory = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4));
  auto transport = std::make_unique<VirtioMmio>("virtio.test", std::make_unique<HoldingDevice>(),
                                                *memory, irq, executor);
  transport->Notify(0);
  bool ran = false;
  std::function<void()> bound =
      static_cast<HoldingDevice&>(transport->device()).seen_host().Bind([&] { ran = true; });
  transport.reset();
  EXPECT_EQ(executor.Run(), 1);
  bound();
  EXPECT_FALSE(ran);
}

// Under TSan: a driver on one thread, the device on another, pauses from a third.
TEST(VirtioMmioTest, DriverDeviceAndPauseAtOnce) {
  class ThreadExecutor final : public base::Executor {
   public:
    void Post(std::function<void()> work) override {
      absl::MutexLock lock(&mutex_);
      work_.push_back(std::move(work));
    }
    void PostAfter(uint64_t, std::function<void()> work) override { Post(std::move(work)); }
    void Run() {
      for (;;) {
        std::function<void()> work;
        {
          absl::MutexLock lock(&mutex_);
          mutex_.Await(absl::Condition(
              +[](ThreadExecutor* e) { return e->stop_ || !e->work_.empty(); }, this));
          if (work_.empty()) return;
          work = std::move(work_.front());
          work_.pop_front();
        }
        work();
      }
    }
    void Stop() {
      absl::MutexLock lock(&mutex_);
      stop_ = true;
    }

   private:
    absl::Mutex mutex_;
    std::deque<std::function<void()>> work_;
    bool stop_ = false;
  };
  class EchoDevice final : public VirtioDevice {
   public:
    uint32_t device_id() const override { return 42; }
    uint64_t features() const override { return 0; }
    std::vector<uint16_t> queue_sizes() const override { return {16}; }
    void Reset() override {}
    Progress Process(int queue) override {
      while (std::optional<Chain> chain = host().Pop(queue)) {
        uint64_t value = 0;
        auto bytes = std::as_writable_bytes(std::span<uint64_t, 1>(&value, 1));
        (void)Gather(host().memory(), chain->readable, 0, bytes);
        value = ~value;
        (void)Scatter(host().memory(), chain->writable, 0, bytes);
        host().Push(queue, *chain, sizeof(value));
      }
      return Progress::kDrained;
    }
  };
  ThreadExecutor executor;
  testing::LevelIrq irq;
  auto memory = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4));
  VirtioMmio transport("virtio.test", std::make_unique<EchoDevice>(), *memory, irq, executor);
  std::thread device([&] { executor.Run(); });
  testing::GuestCpu cpu(*memory);
  testing::DriverQueue queue(cpu, testing::kRings, 16, true);
  testing::DriverPort port(transport);
  ASSERT_TRUE(port.Negotiate(kAllRingFeatures));
  ASSERT_TRUE(port.SetUpQueue(0, queue));
  port.AddStatus(virtio::kDriverOk);
  std::atomic<bool> done{false};
  std::atomic<uint64_t> offered{0};
  std::thread pauser([&] {
    while (!done) {
      const uint64_t before = offered;
      ASSERT_TRUE(transport.Quiesce().ok());
      state::MachineState state;
      ASSERT_TRUE(transport.Save(state).ok());
      transport.Resume();
      // Nothing but pauses would starve the device on few processors.
      while (!done && offered == before) std::this_thread::yield();
    }
  });
  for (uint64_t i = 0; i < 5000; ++i) {
    const uint16_t slot = static_cast<uint16_t>(i % 8 * 2);
    cpu.Put<uint64_t>(kBuffers + 64 * slot, i);
    const bool notify = queue.OfferChain(
        slot, {{kBuffers + 64 * slot, 8, 0, 0}, {kBuffers + 64 * slot + 8, 8, kDescWrite, 0}});
    if (notify) port.Notify(0);
    ++offered;
    std::optional<UsedEntry> used;
    while (!(used = queue.PollUsed())) std::this_thread::yield();
    ASSERT_EQ(*used, (UsedEntry{slot, 8}));
    ASSERT_EQ(cpu.Get<uint64_t>(kBuffers + 64 * slot + 8), ~i);
    if (irq.high) port.Write(mmio::kInterruptAck, port.Read(mmio::kInterruptStatus));
  }
  done = true;
  pauser.join();
  executor.Stop();
  device.join();
  EXPECT_EQ(transport.faults().total(), 0u);
}

}  // namespace
}  // namespace romulus::devices

// The entropy device and the console.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/virtio/console.h"
#include "devices/virtio/rng.h"
#include "support/virtio_rig.h"

namespace romulus::devices {
namespace {

using ::testing::Each;
using ::testing::IsEmpty;
using testing::kAllRingFeatures;
using testing::kBuffers;
using testing::kDescWrite;
using testing::UsedEntry;
using testing::VirtioRig;
namespace mmio = testing::mmio;

class CountingEntropy final : public EntropySource {
 public:
  absl::Status Fill(std::span<std::byte> into) override {
    if (fail) return absl::UnavailableError("no entropy");
    for (std::byte& byte : into) byte = static_cast<std::byte>(++next);
    bytes += into.size();
    return absl::OkStatus();
  }
  bool fail = false;
  uint8_t next = 0;
  size_t bytes = 0;
};

struct RngRig : VirtioRig {
  explicit RngRig(CountingEntropy& source) : VirtioRig(std::make_unique<VirtioRng>(source)) {
    BringUp(kAllRingFeatures, 1, 16);
  }
};

TEST(VirtioRngTest, FillsBuffersAndMarksThem) {
  CountingEntropy source;
  RngRig rig(source);
  EXPECT_EQ(rig.port.Read(mmio::kDeviceId), 4u);
  rig.queues[0].OfferChain(
      0, {{kBuffers + 0xffe, 4, kDescWrite, 0}, {kBuffers + 0x4000, 2, kDescWrite, 0}});
  const std::string before = rig.Snapshot();
  rig.Notify(0);
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 6}));
  EXPECT_EQ(rig.cpu.Text(kBuffers + 0xffe, 4), "\1\2\3\4");
  EXPECT_EQ(rig.cpu.Text(kBuffers + 0x4000, 2), "\5\6");
  EXPECT_TRUE(rig.irq.high);
  const auto changed = rig.PagesChangedSince(before);
  EXPECT_EQ(changed.size(), 4u);
  EXPECT_THAT(rig.WrittenPages(), ::testing::IsSupersetOf(changed));
}

TEST(VirtioRngTest, ABufferOfAMebibyteIsNotFilledInOneTurn) {
  CountingEntropy source;
  RngRig rig(source);
  rig.queues[0].OfferChain(0, {{kBuffers, 1u << 20, kDescWrite, 0}});
  rig.Notify(0);
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, VirtioRng::kMaxBytes}));
  EXPECT_EQ(source.bytes, VirtioRng::kMaxBytes);
}

TEST(VirtioRngTest, AFailingSourceGivesNoBytes) {
  CountingEntropy source;
  RngRig rig(source);
  source.fail = true;
  rig.queues[0].OfferChain(0, {{kBuffers, 8, kDescWrite, 0}});
  rig.Notify(0);
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 0}));
  EXPECT_FALSE(rig.NeedsReset());
}

TEST(VirtioRngTest, AReadableBufferIsAFault) {
  CountingEntropy source;
  RngRig rig(source);
  rig.queues[0].OfferChain(0, {{kBuffers, 8, 0, 0}, {kBuffers, 8, kDescWrite, 0}});
  rig.Notify(0);
  EXPECT_TRUE(rig.NeedsReset());
  EXPECT_EQ(rig.transport.faults().count(VirtioFault::kRequest), 1u);
  EXPECT_EQ(rig.queues[0].UsedIndex(), 0);
}

TEST(VirtioRngTest, TheHostHasEntropy) {
  HostEntropy source;
  std::array<std::byte, 64> bytes{};
  ASSERT_TRUE(source.Fill(bytes).ok());
  EXPECT_THAT(bytes, ::testing::Not(Each(std::byte{0})));
}

class FakeConsoleSink final : public VirtioConsoleSink {
 public:
  size_t TakeConsole(std::span<const std::byte> bytes) override {
    const size_t taken = std::min(bytes.size(), room);
    room -= taken;
    text.append(reinterpret_cast<const char*>(bytes.data()), taken);
    return taken;
  }
  std::string text;
  size_t room = SIZE_MAX;
};

struct ConsoleRig : VirtioRig {
  explicit ConsoleRig(FakeConsoleSink& sink)
      : VirtioRig(std::make_unique<VirtioConsole>(sink, 80, 25)) {
    BringUp(kAllRingFeatures, 2, 16);
  }
  ConsoleRig(FakeConsoleSink& sink, memory::GuestMemory& shared)
      : VirtioRig(std::make_unique<VirtioConsole>(sink, 80, 25), shared) {}
  VirtioConsole& console() { return static_cast<VirtioConsole&>(transport.device()); }
  size_t Receive(const std::string& text) {
    return console().Receive(base::AsBytes({text.data(), text.size()}));
  }
  bool OfferText(uint16_t head, uint64_t gpa, const std::string& text) {
    cpu.Write(gpa, text.data(), text.size());
    return queues[1].OfferChain(head, {{gpa, static_cast<uint32_t>(text.size()), 0, 0}});
  }
};

std::string Letters(size_t size) {
  std::string text(size, '\0');
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + (i * 7 + i / 251) % 26);
  return text;
}

TEST(VirtioConsoleTest, Transmits) {
  FakeConsoleSink sink;
  ConsoleRig rig(sink);
  EXPECT_EQ(rig.port.Read(mmio::kDeviceId), 3u);
  EXPECT_EQ(rig.port.Read<uint16_t>(mmio::kConfig), 80);
  EXPECT_EQ(rig.port.Read<uint16_t>(mmio::kConfig + 2), 25);
  EXPECT_TRUE(rig.OfferText(0, kBuffers, "hello "));
  rig.OfferText(1, kBuffers + 100, "world\n");
  rig.Notify(1);
  EXPECT_EQ(sink.text, "hello world\n");
  EXPECT_EQ(rig.queues[1].PollUsed(), (UsedEntry{0, 0}));
  EXPECT_EQ(rig.queues[1].PollUsed(), (UsedEntry{1, 0}));
}

TEST(VirtioConsoleTest, AnEndlessChainTakesTurns) {
  FakeConsoleSink sink;
  ConsoleRig rig(sink);
  const std::string text = Letters(1u << 20);
  rig.OfferText(0, kBuffers, text);
  rig.port.Notify(1);
  EXPECT_EQ(rig.executor.Run(1), 1);
  EXPECT_EQ(sink.text.size(), VirtioConsole::kTransmitBytesPerTurn);
  EXPECT_GE(rig.executor.Run(), 15);
  EXPECT_EQ(sink.text, text);
}

TEST(VirtioConsoleTest, AFullSinkMakesTheGuestWait) {
  FakeConsoleSink sink;
  sink.room = 3;
  ConsoleRig rig(sink);
  rig.OfferText(0, kBuffers, "hello");
  rig.OfferText(1, kBuffers + 100, "world");
  rig.Notify(1);
  EXPECT_EQ(sink.text, "hel");
  EXPECT_EQ(rig.executor.waiting(), 0u) << "no busy waiting";
  EXPECT_FALSE(rig.queues[1].PollUsed());
  sink.room = SIZE_MAX;
  rig.console().OnSinkReady();
  rig.executor.Run();
  EXPECT_EQ(sink.text, "helloworld");
}

TEST(VirtioConsoleTest, WhatWasSaidIsNotSaidAgainAfterARestore) {
  FakeConsoleSink sink;
  sink.room = 7;
  ConsoleRig rig(sink);
  rig.OfferText(0, kBuffers, "hello");
  rig.OfferText(1, kBuffers + 100, "world");
  rig.Notify(1);
  rig.Receive("typed");
  ASSERT_TRUE(rig.transport.Quiesce().ok());
  state::MachineState saved = rig.Save();
  const state::MachineState expected = saved;

  FakeConsoleSink other_sink;
  ConsoleRig other(other_sink, rig.memory);
  other.queues = rig.queues;
  ASSERT_TRUE(other.transport.Restore(saved).ok());
  EXPECT_EQ(other.Save(), expected);
  other.transport.Resume();
  other.executor.Run();
  EXPECT_EQ(sink.text + other_sink.text, "helloworld");
  EXPECT_EQ(other.queues[1].PollUsed(), (UsedEntry{0, 0}));
  EXPECT_EQ(other.queues[1].PollUsed(), (UsedEntry{1, 0}));
  other.queues[0].OfferChain(0, {{kBuffers, 64, kDescWrite, 0}});
  other.Notify(0);
  EXPECT_EQ(other.cpu.Text(kBuffers, 5), "typed");
}

TEST(VirtioConsoleTest, ReceivesIntoWhatTheDriverOffers) {
  FakeConsoleSink sink;
  ConsoleRig rig(sink);
  EXPECT_EQ(rig.Receive("abcdef"), 6u);
  rig.executor.Run();
  EXPECT_FALSE(rig.irq.high);
  EXPECT_TRUE(rig.queues[0].OfferChain(0, {{kBuffers, 4, kDescWrite, 0}})) << "wants to know";
  rig.queues[0].OfferChain(1, {{kBuffers + 64, 4, kDescWrite, 0}});
  rig.WrittenPages();
  rig.Notify(0);
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{0, 4}));
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{1, 2}));
  EXPECT_EQ(rig.cpu.Text(kBuffers, 4), "abcd");
  EXPECT_EQ(rig.cpu.Text(kBuffers + 64, 2), "ef");
  EXPECT_TRUE(rig.irq.high);
  EXPECT_THAT(rig.WrittenPages(), ::testing::Contains(kBuffers >> kPageShift));
  // Buffers that wait for input are found when it comes.
  rig.queues[0].OfferChain(2, {{kBuffers + 128, 4, kDescWrite, 0}});
  rig.Notify(0);
  EXPECT_FALSE(rig.queues[0].PollUsed());
  rig.Receive("g");
  rig.executor.Run();
  EXPECT_EQ(rig.queues[0].PollUsed(), (UsedEntry{2, 1}));
}

TEST(VirtioConsoleTest, InputIsBounded) {
  FakeConsoleSink sink;
  ConsoleRig rig(sink);
  EXPECT_EQ(rig.Receive(std::string(VirtioConsole::kReceiveCapacity + 10, 'x')),
            VirtioConsole::kReceiveCapacity);
  EXPECT_EQ(rig.Receive("y"), 0u);
}

TEST(VirtioConsoleTest, BuffersOfTheWrongDirectionAreFaults) {
  for (const int queue : {0, 1}) {
    FakeConsoleSink sink;
    ConsoleRig rig(sink);
    rig.Receive("x");
    rig.queues[static_cast<size_t>(queue)].OfferChain(
        0, {{kBuffers, 8, 0, 0}, {kBuffers, 8, kDescWrite, 0}});
    rig.Notify(static_cast<uint32_t>(queue));
    EXPECT_TRUE(rig.NeedsReset());
    EXPECT_EQ(rig.transport.faults().count(VirtioFault::kRequest), 1u);
    EXPECT_EQ(sink.text, "");
  }
}

TEST(VirtioConsoleTest, AStoppedQueueForgetsWhatItTransmitted) {
  FakeConsoleSink sink;
  sink.room = 2;
  ConsoleRig rig(sink);
  rig.OfferText(0, kBuffers, "abcd");
  rig.Notify(1);
  rig.port.Write(mmio::kQueueSel, 1u);
  rig.port.Write(mmio::kQueueReady, 0u);
  sink.room = SIZE_MAX;
  rig.console().OnSinkReady();
  rig.executor.Run();
  EXPECT_EQ(sink.text, "ab");
  rig.BringUp(kAllRingFeatures, 2, 16);
  rig.OfferText(0, kBuffers, "xyz");
  rig.Notify(1);
  EXPECT_EQ(sink.text, "abxyz");
}

TEST(VirtioConsoleTest, HostileStateIsRefusedOrHarmless) {
  FakeConsoleSink sink;
  sink.room = 3;
  ConsoleRig rig(sink);
  rig.OfferText(0, kBuffers, "hello");
  rig.Notify(1);
  rig.Receive("in");
  const std::string good = rig.Save().sections().front().payload;
  const auto restore = [&](const std::string& payload) {
    state::MachineState in;
    in.Put("virtio.test", 0, 1, payload);
    FakeConsoleSink other_sink;
    ConsoleRig other(other_sink, rig.memory);
    const absl::Status status = other.transport.Restore(in);
    other.transport.Resume();
    other.executor.Run(1000);
    return std::pair(status, other.NeedsReset());
  };
  EXPECT_TRUE(restore(good).first.ok());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(restore(good.substr(0, size)).first.ok());
  }
  EXPECT_FALSE(restore(good + "x").first.ok());
  // More was transmitted than the chain has: found when the chain is seen.
  std::string bad = good;
  bad[good.size() - 18] = 100;
  EXPECT_EQ(restore(bad), std::pair(absl::OkStatus(), true));
}

}  // namespace
}  // namespace romulus::devices

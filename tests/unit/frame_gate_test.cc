#include "epoch/frame_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/bytes.h"
#include "epoch/checkpoint_loop.h"
#include "support/epoch_rig.h"

namespace romulus::epoch {
namespace {

using ::romulus::testing::EpochRig;
using ::romulus::testing::RecordingSink;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

class FrameGateTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kCap = 1000;

  bool Send(absl::string_view frame) { return gate_.TakeFrame(base::AsBytes(frame)); }
  // What may leave now leaves.
  std::vector<std::string> Emitted(int max_frames = 100) {
    std::vector<std::string> frames;
    more_ = gate_.Emit(max_frames, [&](std::span<const std::byte> frame) {
      frames.emplace_back(reinterpret_cast<const char*>(frame.data()), frame.size());
      return true;
    });
    return frames;
  }
  FrameGate gate_{{.cap_bytes = kCap}};
  bool more_ = false;
};

TEST_F(FrameGateTest, AnOpenGateLetsFramesLeaveAtOnce) {
  int told = 0;
  gate_.SetReleased([&] { ++told; });
  EXPECT_TRUE(Send("a"));
  EXPECT_TRUE(Send("b"));
  EXPECT_EQ(told, 2);
  EXPECT_EQ(gate_.held_bytes(), 0u);
  EXPECT_EQ(gate_.totals().queued_bytes, 2u);
  EXPECT_THAT(Emitted(), ElementsAre("a", "b"));
  EXPECT_EQ(gate_.totals().cap_bytes_used, 0u);
}

TEST_F(FrameGateTest, P1_NoFrameLeavesBeforeItsEpochIsAcked) {
  int told = 0;
  gate_.SetReleased([&] { ++told; });
  EXPECT_FALSE(gate_.CutAt(EpochId(1))) << "nothing in it";
  Send("a");
  Send("b");
  EXPECT_TRUE(gate_.CutAt(EpochId(2)));
  Send("c");
  EXPECT_THAT(Emitted(), IsEmpty());
  gate_.Release(EpochId(1));
  EXPECT_THAT(Emitted(), IsEmpty());
  EXPECT_EQ(told, 0);
  gate_.Release(EpochId(2));
  EXPECT_EQ(told, 1);
  EXPECT_EQ(gate_.totals().held_frames, 1u);
  EXPECT_THAT(Emitted(), ElementsAre("a", "b"));
  gate_.CutAt(EpochId(3));
  gate_.Release(EpochId(3));
  EXPECT_THAT(Emitted(), ElementsAre("c"));
}

TEST_F(FrameGateTest, P1_WhatWasSaidAfterHoldWaits) {
  Send("solo");
  gate_.Hold();
  Send("held");
  EXPECT_THAT(Emitted(), ElementsAre("solo"));
  gate_.Open();
  EXPECT_THAT(Emitted(), ElementsAre("held"));
}

TEST_F(FrameGateTest, AnAckCoversAllEpochsBeforeAndIsHeardOnce) {
  gate_.CutAt(EpochId(1));
  Send("x");
  gate_.CutAt(EpochId(2));
  Send("y");
  gate_.CutAt(EpochId(3));
  Send("z");
  gate_.Release(EpochId(3));
  gate_.Release(EpochId(3));
  gate_.Release(EpochId(2));
  EXPECT_THAT(Emitted(), ElementsAre("x", "y"));
}

TEST_F(FrameGateTest, P1_AnUndoneCutGivesItsFramesToTheNextEpoch) {
  gate_.CutAt(EpochId(1));
  Send("a");
  gate_.CutAt(EpochId(2));
  Send("b");
  gate_.UndoCut(EpochId(2));
  gate_.UndoCut(EpochId(7));  // not the newest: nothing
  gate_.Release(EpochId(1));
  EXPECT_THAT(Emitted(), IsEmpty());
  gate_.CutAt(EpochId(2));
  gate_.Release(EpochId(2));
  EXPECT_THAT(Emitted(), ElementsAre("a", "b"));
}

TEST_F(FrameGateTest, P1_AnOldStreamsAckReleasesNothingOfTheNew) {
  gate_.CutAt(EpochId(1));
  Send("a");
  gate_.CutAt(EpochId(2));
  Send("b");
  gate_.BeginStream();
  gate_.Release(EpochId(2));  // late
  EXPECT_THAT(Emitted(), IsEmpty());
  EXPECT_EQ(gate_.totals().held_frames, 2u);
  gate_.CutAt(EpochId(3));
  gate_.Release(EpochId(3));
  EXPECT_THAT(Emitted(), ElementsAre("a", "b"));
}

TEST_F(FrameGateTest, P3_ALoserLetsNothingOut) {
  gate_.CutAt(EpochId(1));
  Send("acked");
  gate_.CutAt(EpochId(2));
  Send("late");
  gate_.Release(EpochId(2));
  gate_.Discard();
  Send("later");
  gate_.Release(EpochId(9));
  EXPECT_THAT(Emitted(), IsEmpty());
  EXPECT_EQ(gate_.mode(), FrameGate::Mode::kDiscarded);
  EXPECT_EQ(gate_.totals().held_frames, 1u);
}

TEST_F(FrameGateTest, P3_DiscardWaitsForAFrameThatIsLeaving) {
  for (int i = 0; i < 5; ++i) Send("frame");
  absl::Notification writing;
  std::atomic<bool> leaving{false}, discarded{false};
  std::thread device([&] {
    gate_.Emit(100, [&](std::span<const std::byte>) {
      EXPECT_FALSE(discarded) << "a frame left after Discard()";
      leaving = true;
      if (!writing.HasBeenNotified()) writing.Notify();
      for (int i = 0; i < 1000; ++i) std::this_thread::yield();
      leaving = false;
      return true;
    });
  });
  writing.WaitForNotification();
  gate_.Discard();
  discarded = true;
  EXPECT_FALSE(leaving);
  device.join();
  EXPECT_THAT(Emitted(), IsEmpty());
}

TEST_F(FrameGateTest, P3_ALosersHostIsSilentToo) {
  int said = 0;
  gate_.Hold();
  EXPECT_TRUE(gate_.EmitOwn([&] { ++said; }));
  gate_.Discard();
  gate_.Hold();
  EXPECT_FALSE(gate_.EmitOwn([&] { ++said; }));
  EXPECT_EQ(said, 1);
}

TEST_F(FrameGateTest, SoloReleasesEverythingInOrder) {
  gate_.CutAt(EpochId(1));
  Send("a");
  gate_.CutAt(EpochId(2));
  Send("b");
  gate_.Open();
  Send("c");
  EXPECT_THAT(Emitted(), ElementsAre("a", "b", "c"));
}

TEST_F(FrameGateTest, AFrameThatTheTapRefusesComesFirstTheNextTime) {
  for (const char* frame : {"a", "b", "c"}) Send(frame);
  int offered = 0;
  EXPECT_TRUE(gate_.Emit(100, [&](std::span<const std::byte>) { return ++offered == 1; }));
  EXPECT_EQ(offered, 2);
  EXPECT_EQ(gate_.totals().queued_bytes, 2u);
  EXPECT_THAT(Emitted(1), ElementsAre("b"));
  EXPECT_TRUE(more_);
  EXPECT_THAT(Emitted(1), ElementsAre("c"));
  EXPECT_FALSE(more_);
}

TEST_F(FrameGateTest, P6_AtTheCapTheFrameStaysTheGuests) {
  int rooms = 0;
  gate_.SetRoom([&] { ++rooms; });
  gate_.CutAt(EpochId(1));
  const std::string frame(100, 'x');
  int taken = 0;
  while (Send(frame)) ++taken;
  EXPECT_EQ(taken, static_cast<int>(kCap / (100 + FrameGate::kFrameOverheadBytes)));
  EXPECT_LE(gate_.totals().cap_bytes_used, kCap);
  gate_.CutAt(EpochId(2));
  EXPECT_FALSE(Send("")) << "even an empty frame costs something";
  gate_.Release(EpochId(2));
  EXPECT_FALSE(Send(frame)) << "acked, but has not left";
  EXPECT_EQ(rooms, 0);
  EXPECT_EQ(Emitted().size(), static_cast<size_t>(taken)) << "nothing was dropped";
  EXPECT_EQ(rooms, 1);
  EXPECT_TRUE(Send(frame));
}

TEST_F(FrameGateTest, P6_WhoeverWasRefusedHearsOfEveryRoom) {
  int rooms = 0;
  gate_.SetRoom([&] { ++rooms; });
  Send(std::string(kCap / 2, 'x'));
  EXPECT_FALSE(Send(std::string(kCap / 2, 'y')));
  Send("z");
  EXPECT_EQ(Emitted(1).size(), 1u);
  EXPECT_EQ(rooms, 1);
  Emitted();
  EXPECT_EQ(rooms, 1) << "nobody was refused since";
}

TEST_F(FrameGateTest, AFrameBeyondTheCapIsTakenWhenItIsAlone) {
  EXPECT_TRUE(Send(std::string(2 * kCap, 'x')));
  EXPECT_FALSE(Send("y"));
  EXPECT_EQ(Emitted().size(), 1u);
  EXPECT_TRUE(Send("y"));
}

TEST_F(FrameGateTest, DiscardMakesRoom) {
  int rooms = 0;
  gate_.SetRoom([&] { ++rooms; });
  gate_.CutAt(EpochId(1));
  while (Send(std::string(100, 'x'))) {
  }
  gate_.Discard();
  EXPECT_EQ(rooms, 1);
}

TEST_F(FrameGateTest, SaysOncePerCutThatOutputWaits) {
  int waiting = 0;
  gate_.SetOutputWaiting([&] { ++waiting; });
  Send("solo");
  EXPECT_EQ(waiting, 0);
  gate_.CutAt(EpochId(1));
  Send("a");
  Send("b");
  EXPECT_EQ(waiting, 1);
  gate_.CutAt(EpochId(2));
  EXPECT_EQ(waiting, 1);
  Send("c");
  EXPECT_EQ(waiting, 2);
}

// --- plugged into checkpoints --------------------------------------------------------------------

struct FrameRig : EpochRig {
  CheckpointParts Parts() {
    CheckpointParts parts = EpochRig::Parts();
    parts.outputs = {&first, &second};
    return parts;
  }
  static size_t Emitted(FrameGate& gate) {
    size_t frames = 0;
    gate.Emit(100, [&](std::span<const std::byte>) { return ++frames != 0; });
    return frames;
  }
  FrameGate first{FrameGate::Options{}};
  FrameGate second{FrameGate::Options{}};
  RecordingSink sink;
};

absl::Status Always() { return absl::OkStatus(); }

TEST(FrameCheckpointTest, P1_ACheckpointCutsAllOutputs) {
  FrameRig rig;
  Checkpoint checkpoint(rig.Parts());
  ASSERT_TRUE(checkpoint.Run(Term(1), EpochId(1), CutReason::kSync, &rig.sink, Always).ok());
  rig.first.TakeFrame(base::AsBytes("one"));
  rig.second.TakeFrame(base::AsBytes("two"));
  ASSERT_TRUE(checkpoint.Run(Term(1), EpochId(2), CutReason::kOutput, &rig.sink, Always).ok());
  rig.first.TakeFrame(base::AsBytes("three"));
  for (FrameGate* const gate : {&rig.first, &rig.second}) {
    gate->Release(EpochId(1));
    EXPECT_EQ(FrameRig::Emitted(*gate), 0u);
    gate->Release(EpochId(2));
    EXPECT_EQ(FrameRig::Emitted(*gate), 1u);
  }
}

TEST(FrameCheckpointTest, P1_AFailedCheckpointUndoesTheCutOfAllOutputs) {
  FrameRig rig;
  Checkpoint checkpoint(rig.Parts());
  ASSERT_TRUE(checkpoint.Run(Term(1), EpochId(1), CutReason::kSync, &rig.sink, Always).ok());
  rig.second.TakeFrame(base::AsBytes("frame"));
  rig.failpoints.Arm("checkpoint.cut");
  ASSERT_FALSE(checkpoint.Run(Term(1), EpochId(2), CutReason::kOutput, &rig.sink, Always).ok());
  rig.second.Release(EpochId(2));
  EXPECT_EQ(FrameRig::Emitted(rig.second), 0u);
  ASSERT_TRUE(checkpoint.Run(Term(1), EpochId(2), CutReason::kOutput, &rig.sink, Always).ok());
  rig.second.Release(EpochId(2));
  EXPECT_EQ(FrameRig::Emitted(rig.second), 1u);
}

TEST(FrameCheckpointTest, P1_TheLoopReleasesAtTheAckAndCutsEarlyForAFrame) {
  class Listener final : public CheckpointListener {
   public:
    void OnCheckpointFailed(EpochId, CutReason, const absl::Status&) override {}
    void OnGaveUp(const absl::Status&) override {}
  } listener;
  FrameRig rig;
  CheckpointLoop loop(rig.Parts(),
                      CheckpointLoopOptions{.governor = {.max_dirty_pages = 1000,
                                                         .max_interval_ns = 3'600'000'000'000,
                                                         .min_interval_ns = 0}},
                      &listener);
  rig.second.SetOutputWaiting([&] { loop.OnOutputWaiting(); });
  loop.Start();
  rig.second.Hold();
  rig.second.TakeFrame(base::AsBytes("before the stream"));
  rig.second.CutAt(EpochId(41));  // of a stream that ended
  ASSERT_TRUE(loop.BeginSync().ok());
  ASSERT_TRUE(
      loop.BeginCutting(Term(1), memory::PageSet(rig.memory->layout().gfn_end()), &rig.sink).ok());
  rig.sink.AwaitSubmitted(1);
  EXPECT_EQ(FrameRig::Emitted(rig.second), 0u);
  loop.OnAcked(EpochId(1));
  EXPECT_EQ(FrameRig::Emitted(rig.second), 1u) << "the new stream's first epoch carried it";
  rig.second.TakeFrame(base::AsBytes("frame"));
  rig.sink.AwaitSubmitted(2);
  EXPECT_EQ(rig.sink.TakeSubmitted()[1].reason, CutReason::kOutput);
  EXPECT_EQ(FrameRig::Emitted(rig.second), 0u);
  loop.OnAcked(EpochId(2));
  EXPECT_EQ(FrameRig::Emitted(rig.second), 1u);
  loop.Stop();
}

}  // namespace
}  // namespace romulus::epoch

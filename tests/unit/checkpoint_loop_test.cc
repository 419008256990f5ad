#include "epoch/checkpoint_loop.h"

#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "support/epoch_rig.h"
#include "support/hand_clock.h"

namespace romulus::epoch {
namespace {

using ::romulus::testing::EpochRig;
using ::romulus::testing::HandClock;
using ::romulus::testing::Pages;
using ::romulus::testing::RecordingSink;

class Listener final : public CheckpointListener {
 public:
  void OnCheckpointFailed(EpochId, CutReason, const absl::Status&) override { ++failed; }
  void OnGaveUp(const absl::Status&) override { gave_up.Notify(); }
  std::atomic<int> failed{0};
  absl::Notification gave_up;
};

// An hour: nothing in these tests may depend on an interval running out. Nor may a budget be
// reached where a test says itself when a ring is full: the loop's thread may look at any time.
constexpr uint64_t kNever = 3'600'000'000'000;

class CheckpointLoopTest : public ::testing::Test {
 protected:
  void Build(uint64_t budget, uint64_t max_unacked, bool cut_on_vcpu = false) {
    loop_ = std::make_unique<CheckpointLoop>(
        rig_.Parts(),
        CheckpointLoopOptions{.governor = {.max_dirty_pages = budget,
                                           .max_interval_ns = kNever,
                                           .min_interval_ns = 0},
                              .max_unacked_epochs = max_unacked,
                              .max_failures = 3,
                              .cut_on_vcpu = cut_on_vcpu},
        &listener_);
    rig_.gate->SetOutputWaiting([this] { loop_->OnOutputWaiting(); });
    loop_->SetObserver([this](const StagedEpoch& epoch) {
      if (in_pause_) in_pause_(epoch);
    });
    loop_->Start();
  }
  void Protect() {
    ASSERT_TRUE(loop_->BeginSync().ok());
    ASSERT_TRUE(
        loop_->BeginCutting(Term(1), memory::PageSet(rig_.memory->layout().gfn_end()), &sink_)
            .ok());
    sink_.AwaitSubmitted(1);
    sink_.TakeSubmitted();
    loop_->OnAcked(EpochId(1));
    // Until its thread has nothing to do any more.
    for (const uint64_t before = loop_->Progress(); loop_->Progress() == before;) {
      std::this_thread::yield();
    }
  }
  EpochRig rig_;
  RecordingSink sink_;
  Listener listener_;
  PausedObserver in_pause_;
  std::unique_ptr<CheckpointLoop> loop_;
};

TEST_F(CheckpointLoopTest, TheFirstEpochCarriesTheRemainderOfTheSync) {
  Build(1000, 4);
  ASSERT_TRUE(loop_->BeginSync().ok());
  rig_.guest->Touch(Gfn(1), std::byte{1});
  auto dirty = loop_->TakeDirty();
  ASSERT_TRUE(dirty.ok());
  EXPECT_EQ(dirty->size(), 1u);
  rig_.guest->Touch(Gfn(2), std::byte{1});
  loop_->OnDirtyRingFull();  // emptied into the sync's set, without an epoch
  while (rig_.source->harvests() < 2) std::this_thread::yield();
  rig_.guest->Touch(Gfn(3), std::byte{1});
  ASSERT_TRUE(loop_->BeginCutting(Term(1), *std::move(dirty), &sink_).ok());
  sink_.AwaitSubmitted(1);
  auto epochs = sink_.TakeSubmitted();
  EXPECT_EQ(epochs[0].epoch, EpochId(1));
  EXPECT_EQ(Pages(epochs[0]), (std::vector<uint64_t>{1, 2, 3}));
}

TEST_F(CheckpointLoopTest, OutputIsReleasedByTheAckOfItsEpoch) {
  Build(1000, 4);
  Protect();
  rig_.Say("hello");
  sink_.AwaitSubmitted(1);
  auto epochs = sink_.TakeSubmitted();
  EXPECT_EQ(epochs[0].reason, CutReason::kOutput);
  EXPECT_EQ(rig_.released.text(), "");
  loop_->OnAcked(epochs[0].epoch);
  EXPECT_EQ(rig_.released.text(), "hello");
}

TEST_F(CheckpointLoopTest, P6_TheGuestWaitsPausedWhenTooManyEpochsAreUnacked) {
  Build(/*budget=*/1000, /*max_unacked=*/2);
  Protect();
  rig_.guest->Touch(Gfn(1), std::byte{1});
  loop_->OnDirtyRingFull();
  sink_.AwaitSubmitted(1);
  rig_.guest->Touch(Gfn(2), std::byte{1});
  loop_->OnDirtyRingFull();
  sink_.AwaitSubmitted(2);
  std::thread writer([this] {
    rig_.guest->Touch(Gfn(3), std::byte{1});
    loop_->OnDirtyRingFull();
  });
  writer.join();
  while (!rig_.guest->paused()) std::this_thread::yield();
  EXPECT_EQ(sink_.submitted(), 2u);
  EXPECT_TRUE(rig_.guest->paused());
  loop_->OnAcked(EpochId(2));
  sink_.AwaitSubmitted(3);
  EXPECT_EQ(Pages(sink_.TakeSubmitted()[2]), std::vector<uint64_t>{3});
}

TEST_F(CheckpointLoopTest, ProgressStandsStillOnlyInACheckpointThatHangs) {
  absl::Notification begun, go_on;
  in_pause_ = [&](const StagedEpoch& epoch) {
    if (epoch.epoch != EpochId(2)) return;
    begun.Notify();
    go_on.WaitForNotification();
  };
  Build(/*budget=*/1000, /*max_unacked=*/2);
  Protect();
  const auto moves = [this] {
    const uint64_t before = loop_->Progress();
    return loop_->Progress() != before;
  };
  while (!moves()) std::this_thread::yield();  // once there is nothing to do
  rig_.guest->Touch(Gfn(1), std::byte{1});
  loop_->OnDirtyRingFull();
  begun.WaitForNotification();
  const uint64_t hung = loop_->Progress();
  EXPECT_FALSE(moves());
  go_on.Notify();
  sink_.AwaitSubmitted(1);
  EXPECT_NE(loop_->Progress(), hung);
  // Waiting for the secondary, with the guest paused: another's fault.
  rig_.guest->Touch(Gfn(2), std::byte{1});
  loop_->OnDirtyRingFull();
  sink_.AwaitSubmitted(2);
  rig_.guest->Touch(Gfn(3), std::byte{1});
  loop_->OnDirtyRingFull();
  while (!rig_.guest->paused()) std::this_thread::yield();
  EXPECT_TRUE(moves());
  loop_->OnAcked(EpochId(3));
  sink_.AwaitSubmitted(3);
}

TEST_F(CheckpointLoopTest, HaltEndsAWaitForASlotAndResumesTheGuest) {
  Build(/*budget=*/1000, /*max_unacked=*/1);
  Protect();
  rig_.guest->Touch(Gfn(1), std::byte{1});
  loop_->OnDirtyRingFull();
  sink_.AwaitSubmitted(1);
  rig_.guest->Touch(Gfn(2), std::byte{1});
  loop_->OnDirtyRingFull();
  while (!rig_.guest->paused()) std::this_thread::yield();
  loop_->Halt();
  EXPECT_FALSE(rig_.guest->paused());
  EXPECT_EQ(sink_.submitted(), 1u);
  EXPECT_EQ(listener_.failed, 0);
}

TEST_F(CheckpointLoopTest, FlushWaitsForItsAck) {
  Build(1000, 4);
  Protect();
  std::thread acker([this] {
    sink_.AwaitSubmitted(1);
    loop_->OnAcked(sink_.TakeSubmitted()[0].epoch);
  });
  auto flushed = loop_->Flush(absl::Seconds(30));
  acker.join();
  ASSERT_TRUE(flushed.ok()) << flushed.status();
  EXPECT_EQ(*flushed, EpochId(2));
}

TEST_F(CheckpointLoopTest, NothingIsCutAfterTheLastFlush) {
  Build(1000, 4);
  Protect();
  std::thread acker([this] {
    sink_.AwaitSubmitted(1);
    loop_->OnAcked(sink_.TakeSubmitted()[0].epoch);
  });
  auto last = loop_->FlushLast(absl::Seconds(30));
  acker.join();
  ASSERT_TRUE(last.ok()) << last.status();
  loop_->OnDirtyRingFull();
  rig_.Say("too late");
  EXPECT_TRUE(absl::IsDeadlineExceeded(loop_->Flush(absl::Milliseconds(50)).status()));
  EXPECT_EQ(sink_.submitted(), 0u);
  EXPECT_EQ(loop_->last_cut(), *last);
  EXPECT_EQ(loop_->last_acked(), *last);
}

TEST_F(CheckpointLoopTest, TheLastFlushNeedNotHaveBeenTheLast) {
  Build(1000, 4);
  Protect();
  EXPECT_TRUE(absl::IsDeadlineExceeded(loop_->FlushLast(absl::Milliseconds(1)).status()));
  sink_.AwaitSubmitted(1);
  loop_->OnAcked(sink_.TakeSubmitted()[0].epoch);
  loop_->GoOn();
  loop_->Request();
  sink_.AwaitSubmitted(1);
  EXPECT_EQ(sink_.TakeSubmitted()[0].epoch, EpochId(3));
}

TEST_F(CheckpointLoopTest, FailuresAreToldAndEndProtectionWhenTheyGoOn) {
  Build(1000, 4);
  Protect();
  rig_.guest->fail_pause = true;
  loop_->Request();
  listener_.gave_up.WaitForNotification();
  EXPECT_EQ(listener_.failed, 3);
  EXPECT_FALSE(loop_->Flush(absl::Seconds(1)).ok());
}

TEST_F(CheckpointLoopTest, AVcpuThatStopsItselfCutsTheEpochOnItsOwnThread) {
  rig_.source->stops_itself = true;
  Build(/*budget=*/2, /*max_unacked=*/4, /*cut_on_vcpu=*/true);
  Protect();
  std::thread::id cut_by;
  in_pause_ = [&](const StagedEpoch&) { cut_by = std::this_thread::get_id(); };
  rig_.guest->Touch(Gfn(1), std::byte{1});
  rig_.guest->Touch(Gfn(2), std::byte{1});
  loop_->OnDirtyRingFull();
  ASSERT_EQ(sink_.submitted(), 1u) << "before the vCPU goes on";
  EXPECT_EQ(cut_by, std::this_thread::get_id());
  auto epochs = sink_.TakeSubmitted();
  EXPECT_EQ(epochs[0].reason, CutReason::kBudget);
  EXPECT_EQ(Pages(epochs[0]), (std::vector<uint64_t>{1, 2}));
  // The loop's own thread is still there for everything else.
  loop_->OnAcked(epochs[0].epoch);
  loop_->Request();
  sink_.AwaitSubmitted(1);
  EXPECT_NE(cut_by, std::this_thread::get_id());
}

// Whoever pauses the guest waits for that very vCPU's thread.
TEST_F(CheckpointLoopTest, AVcpuThatStopsItselfWaitsForNobodyElsesPause) {
  rig_.source->stops_itself = true;
  Build(/*budget=*/2, /*max_unacked=*/4, /*cut_on_vcpu=*/true);
  Protect();
  rig_.guest->Touch(Gfn(1), std::byte{1});
  {
    auto other = rig_.guest->Pause({});
    ASSERT_TRUE(other.ok());
    loop_->OnDirtyRingFull();
    EXPECT_EQ(sink_.submitted(), 0u);
  }
  sink_.AwaitSubmitted(1);  // by the loop's thread, when the guest is free
  EXPECT_EQ(Pages(sink_.TakeSubmitted()[0]), (std::vector<uint64_t>{1}));
  EXPECT_EQ(listener_.failed, 0);
}

TEST_F(CheckpointLoopTest, P6_AVcpuThatStopsItselfWaitsForASlot) {
  rig_.source->stops_itself = true;
  Build(/*budget=*/2, /*max_unacked=*/1, /*cut_on_vcpu=*/true);
  Protect();
  rig_.guest->Touch(Gfn(1), std::byte{1});
  loop_->OnDirtyRingFull();
  EXPECT_EQ(sink_.submitted(), 1u);
  loop_->OnDirtyRingFull();  // no slot: the loop's thread pauses the guest, and waits
  while (!rig_.guest->paused()) std::this_thread::yield();
  EXPECT_EQ(sink_.submitted(), 1u);
  loop_->OnAcked(EpochId(2));
  sink_.AwaitSubmitted(2);
}

TEST_F(CheckpointLoopTest, AFullRingWhileIdleIsEmptied) {
  Build(1000, 4);
  rig_.guest->Touch(Gfn(1), std::byte{1});
  loop_->OnDirtyRingFull();
  while (rig_.source->harvests() < 1) std::this_thread::yield();
  EXPECT_FALSE(loop_->TakeDirty().ok());
}

TEST(CheckpointLoopTurnTest, DrivenByHandItWaitsForNobody) {
  EpochRig rig;
  RecordingSink sink;
  Listener listener;
  CheckpointLoop loop(
      rig.Parts(),
      {.governor = {.max_dirty_pages = 1000, .max_interval_ns = kNever, .min_interval_ns = 0},
       .max_unacked_epochs = 1},
      &listener);
  EXPECT_FALSE(loop.Turn());
  ASSERT_TRUE(loop.BeginSync().ok());
  rig.guest->Touch(Gfn(1), std::byte{1});
  const absl::StatusOr<memory::PageSet> dirty = loop.TakeDirty();
  ASSERT_TRUE(dirty.ok());
  EXPECT_TRUE(dirty->Contains(Gfn(1)));
  rig.guest->Touch(Gfn(2), std::byte{1});
  ASSERT_TRUE(
      loop.BeginCutting(Term(1), memory::PageSet(rig.memory->layout().gfn_end()), &sink).ok());
  EXPECT_TRUE(loop.Turn());
  std::vector<StagedEpoch> cut = sink.TakeSubmitted();
  ASSERT_EQ(cut.size(), 1u);
  EXPECT_EQ(Pages(cut[0]), std::vector<uint64_t>{2});
  // The guest would wait for a slot, paused; whoever drives it comes again after the ack.
  loop.Request();
  EXPECT_FALSE(loop.Turn());
  loop.OnAcked(EpochId(1));
  EXPECT_TRUE(loop.Turn());
  EXPECT_EQ(loop.last_cut(), EpochId(2));
  loop.Halt();
  EXPECT_FALSE(loop.Turn());
}

// One turn after another, by a clock that is set.
class HandClockLoopTest : public ::testing::Test {
 protected:
  static constexpr uint64_t kInterval = 1'000'000;
  // Protected, with the first epoch cut.
  void Build(const CheckpointLoopOptions& options) {
    CheckpointParts parts = rig_.Parts();
    parts.clock = &clock_;
    loop_ = std::make_unique<CheckpointLoop>(parts, options, &listener_);
    ASSERT_TRUE(loop_->BeginSync().ok());
    ASSERT_TRUE(
        loop_->BeginCutting(Term(1), memory::PageSet(rig_.memory->layout().gfn_end()), &sink_)
            .ok());
    ASSERT_TRUE(loop_->Turn());
  }
  EpochRig rig_;
  HandClock clock_;
  RecordingSink sink_;
  Listener listener_;
  std::unique_ptr<CheckpointLoop> loop_;
};

// Whose reader may be made to hang: the loop reads it with its lock held.
class HangingClock final : public base::Clock {
 public:
  uint64_t NowNs() const override {
    if (hangs) {
      hanging.Notify();
      go_on.WaitForNotification();
    }
    return 1'000'000;
  }
  std::atomic<bool> hangs{false};
  mutable absl::Notification hanging;
  absl::Notification go_on;
};

TEST(HungLoopTest, WhoWatchesItDoesNotHangWithIt) {
  EpochRig rig;
  HangingClock clock;
  Listener listener;
  CheckpointParts parts = rig.Parts();
  parts.clock = &clock;
  CheckpointLoop loop(parts, {.governor = {}, .cut_on_vcpu = true}, &listener);
  const uint64_t before = loop.Progress();
  EXPECT_NE(loop.Progress(), before);
  clock.hangs = true;
  std::thread vcpu([&loop] { loop.OnAlarm(); });
  clock.hanging.WaitForNotification();
  const uint64_t hung = loop.Progress();
  EXPECT_EQ(loop.Progress(), hung);
  clock.hangs = false;
  clock.go_on.Notify();
  vcpu.join();
  EXPECT_NE(loop.Progress(), hung);
}

class IdleLoopTest : public HandClockLoopTest {
 protected:
  static constexpr uint64_t kLongest = 10'000'000;
  void SetUp() override {
    Build({.governor = {.max_dirty_pages = 1000,
                        .max_interval_ns = kInterval,
                        .min_interval_ns = 0,
                        .idle_interval_ns = kLongest},
           .cut_on_vcpu = true});
    loop_->OnAcked(EpochId(1));
  }
};

TEST_F(IdleLoopTest, AnEpochWithoutAWriteLastsLonger) {
  clock_.now_ns += kLongest - 1;
  EXPECT_FALSE(loop_->Turn());
  clock_.now_ns += 1;
  EXPECT_TRUE(loop_->Turn());
}

TEST_F(IdleLoopTest, AWriteOfTheGuestEndsIt) {
  clock_.now_ns += 2'000'000;
  ASSERT_FALSE(loop_->Turn());
  rig_.guest->Touch(Gfn(7), std::byte{1});
  EXPECT_TRUE(loop_->Turn());
  EXPECT_EQ(Pages(sink_.TakeSubmitted().back()), std::vector<uint64_t>{7});
}

// The vCPU would stop at the end of each interval, for nothing.
TEST_F(IdleLoopTest, TheVcpuHasAnAlarmOnlyWhileWritesAreExpected) {
  EXPECT_EQ(loop_->NextAlarmNs(), 0u);
  rig_.guest->Touch(Gfn(7), std::byte{1});
  clock_.now_ns += kInterval;
  ASSERT_TRUE(loop_->Turn());
  EXPECT_EQ(loop_->NextAlarmNs(), clock_.now_ns + kInterval);
  clock_.now_ns += kLongest;
  ASSERT_TRUE(loop_->Turn());  // an epoch without pages
  EXPECT_EQ(loop_->NextAlarmNs(), 0u);
  GovernorOptions options = loop_->governor_options();
  options.idle_interval_ns = 0;
  loop_->SetGovernorOptions(options);
  EXPECT_EQ(loop_->NextAlarmNs(), clock_.now_ns + kInterval);
}

// What an epoch larger than the staging pool waits for the secondary is no work of its checkpoint:
// the next one, with output, need not be late for it.
TEST_F(HandClockLoopTest, AWaitForTheSecondaryDoesNotMakeTheNextEpochLonger) {
  Build({.governor = {
             .max_dirty_pages = 100'000, .max_interval_ns = kInterval, .min_interval_ns = 0}});
  sink_.on_stage = [this] { clock_.now_ns += 1'000 * kInterval; };
  for (uint64_t page = 0; page < rig_.staging->cap_bytes() / kPageSize + 1; ++page) {
    rig_.guest->Touch(Gfn(page), std::byte{1});
  }
  clock_.now_ns += kInterval;
  ASSERT_TRUE(loop_->Turn());
  ASSERT_GT(sink_.staged_pages(), 0u);
  EXPECT_GE(sink_.TakeSubmitted().back().phases.waited_ns, 1'000 * kInterval);
  rig_.guest->Touch(Gfn(7), std::byte{1});
  clock_.now_ns += kInterval;
  EXPECT_TRUE(loop_->Turn());
}

// vCPUs that look at the budget themselves, at what the epochs before suggest.
class LookingVcpusTest : public HandClockLoopTest {
 protected:
  static constexpr uint64_t kPageNs = 32'000;
  static constexpr uint64_t kLookNs = 60'000;  // 64 us less a sixteenth
  void SetUp() override { BuildLooking(true); }
  // The second epoch has two pages in 64 us.
  void BuildLooking(bool look_on_vcpu) {
    Build({.governor = {.max_dirty_pages = 2, .max_interval_ns = kInterval, .min_interval_ns = 0},
           .cut_on_vcpu = true,
           .look_on_vcpu = look_on_vcpu});
    Touch(1);
    Touch(2);
    clock_.now_ns += 2 * kPageNs;
    ASSERT_TRUE(loop_->Turn());
    sink_.TakeSubmitted();
  }
  void Touch(uint64_t page) { rig_.guest->Touch(Gfn(page), std::byte{1}); }
};

TEST_F(LookingVcpusTest, AllStopTogetherWhenTheBudgetIsLikelyReached) {
  const uint64_t began_ns = clock_.now_ns;
  const uint64_t alarm_ns = loop_->NextAlarmNs();
  EXPECT_EQ(alarm_ns, began_ns + kLookNs);
  clock_.now_ns += 1000;
  EXPECT_EQ(loop_->NextAlarmNs(), alarm_ns) << "another vCPU, a little later";
  Touch(3);
  Touch(4);
  clock_.now_ns = alarm_ns;
  loop_->OnAlarm();
  loop_->OnAlarm();  // the other's
  std::vector<StagedEpoch> cut = sink_.TakeSubmitted();
  ASSERT_EQ(cut.size(), 1u);
  EXPECT_EQ(cut[0].reason, CutReason::kBudget);
  EXPECT_EQ(Pages(cut[0]), (std::vector<uint64_t>{3, 4}));
}

TEST_F(LookingVcpusTest, OneThatLooksInVainLooksAgainAndTheOthersWithIt) {
  const uint64_t began_ns = clock_.now_ns;
  Touch(3);
  clock_.now_ns = loop_->NextAlarmNs();
  loop_->OnAlarm();
  EXPECT_EQ(sink_.submitted(), 0u);
  const uint64_t again_ns = loop_->NextAlarmNs();
  EXPECT_GT(again_ns, clock_.now_ns);
  EXPECT_LT(again_ns, began_ns + kInterval) << "long before the interval's end";
  clock_.now_ns += 1000;
  loop_->OnAlarm();  // the other's first one, later: it takes nothing away
  EXPECT_EQ(loop_->NextAlarmNs(), again_ns);
  Touch(4);
  clock_.now_ns = again_ns;
  loop_->OnAlarm();
  EXPECT_EQ(sink_.submitted(), 1u);
}

// The vCPU that makes the checkpoint lets the others go on before it has noted when that was.
TEST_F(LookingVcpusTest, OneThatGoesOnFirstHasAnAlarmOfTheNewEpoch) {
  uint64_t alarm_ns = 0;
  rig_.guest->on_resume = [&] { alarm_ns = loop_->NextAlarmNs(); };
  Touch(3);
  Touch(4);
  clock_.now_ns += kPageNs;  // twice as fast: half of that is believed
  loop_->OnAlarm();
  ASSERT_EQ(sink_.submitted(), 1u);
  EXPECT_EQ(alarm_ns, clock_.now_ns + kLookNs * 3 / 4);
  rig_.guest->on_resume = nullptr;
  EXPECT_EQ(loop_->NextAlarmNs(), alarm_ns);
}

TEST_F(LookingVcpusTest, AnEpochThatEndsSoonerTakesTheAlarmWithIt) {
  const uint64_t alarm_ns = loop_->NextAlarmNs();
  clock_.now_ns += 1000;
  loop_->Request();
  ASSERT_TRUE(loop_->Turn());
  EXPECT_GT(loop_->NextAlarmNs(), alarm_ns);
}

// The loop's thread pauses the guest then, and waits; until it does they have no reason to stop.
TEST_F(LookingVcpusTest, P6_WithoutASlotTheyDoNotStopAgainAndAgain) {
  for (uint64_t page = 3; loop_->last_cut() < EpochId(16); ++page) {
    Touch(page);
    loop_->Request();
    ASSERT_TRUE(loop_->Turn());
    sink_.TakeSubmitted();
  }
  Touch(100);
  Touch(101);
  clock_.now_ns += kInterval;
  loop_->OnAlarm();
  EXPECT_EQ(loop_->last_cut(), EpochId(16));
  EXPECT_GE(loop_->NextAlarmNs(), clock_.now_ns + 200'000);
}

// A watchdog that looks into the middle of one checkpoint after the other.
TEST_F(LookingVcpusTest, P7_CheckpointsOfAVcpuAreProgress) {
  loop_->OnAcked(loop_->last_cut());
  std::vector<uint64_t> seen;
  loop_->SetObserver([&](const StagedEpoch&) { seen.push_back(loop_->Progress()); });
  for (uint64_t page = 3; page < 13; page += 2) {
    Touch(page);
    Touch(page + 1);
    clock_.now_ns += 2 * kPageNs;
    loop_->OnAlarm();
    loop_->OnAcked(loop_->last_cut());
    sink_.TakeSubmitted();
  }
  ASSERT_EQ(seen.size(), 5u);
  for (size_t i = 1; i < seen.size(); ++i) EXPECT_NE(seen[i], seen[i - 1]) << i;
}

TEST_F(LookingVcpusTest, WhereNothingIsToldTheyStopAtTheIntervalsEndOnly) {
  rig_.source->tells = false;
  EXPECT_EQ(loop_->NextAlarmNs(), clock_.now_ns + kInterval);
}

TEST_F(LookingVcpusTest, WithoutThatAnAlarmIsForTheIntervalOnly) {
  BuildLooking(false);
  EXPECT_EQ(loop_->NextAlarmNs(), clock_.now_ns + kInterval);
}

TEST_F(IdleLoopTest, AWriteOfADeviceEndsIt) {
  clock_.now_ns += 2'000'000;
  ASSERT_FALSE(loop_->Turn());
  ASSERT_TRUE(rig_.memory->Fill(GpaOf(Gfn(9)), std::byte{1}, 8).ok());
  EXPECT_TRUE(loop_->Turn());
  EXPECT_EQ(Pages(sink_.TakeSubmitted().back()), std::vector<uint64_t>{9});
}

}  // namespace
}  // namespace romulus::epoch

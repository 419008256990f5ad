#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "romulus/v1/replication.pb.h"
#include "support/hand_clock.h"
#include "unit/wire_support.h"
#include "wire/epoch_sender.h"
#include "wire/frame_sender.h"

namespace romulus::wire {
namespace {

using codec::FrameKind;

constexpr Term kTerm(32);

class EpochSenderTest : public ::testing::Test {
 protected:
  EpochSenderTest() {
    frames_ = *FrameSender::Create(Gfn(1024), {}, &clock_);
    frames_->Start(&link_);
    frames_->StartPages(codec::kDefaultMaxBodyBytes, codec::Dialect(codec::kNewestProtocol));
    Make({.term = kTerm, .max_unacked_epochs = 4});
  }
  ~EpochSenderTest() override { link_.Close(absl::OkStatus()); }
  void Make(const EpochSenderOptions& options) {
    sender_.reset();
    sender_ = std::make_unique<EpochSender>(options, frames_.get(), &clock_, &acks_);
  }

  romulus::testing::HandClock clock_;
  FakeLink link_;
  RecordingAcks acks_;
  std::unique_ptr<epoch::StagingPool> pool_ = *epoch::StagingPool::Create(4 << 20);
  std::unique_ptr<FrameSender> frames_;
  std::unique_ptr<EpochSender> sender_;
};

TEST_F(EpochSenderTest, SendsEpochsInOrderAndGivesStagingBack) {
  for (uint64_t n = 1; n <= 3; ++n) {
    epoch::StagedEpoch epoch = Epoch(kTerm, n, 2);
    epoch.batches.push_back(Batch(*pool_, {Gfn(1), Gfn(n + 1)}, static_cast<int>(n)));
    sender_->Submit(std::move(epoch));
  }
  const std::vector<EpochSent> sent = acks_.AwaitSent(3);
  EXPECT_EQ(sent[0].page_count, 2u);
  EXPECT_EQ(sent[0].encoded.pages[static_cast<size_t>(codec::PageEncoding::kRaw)], 2u);
  // Page 1 was sent before: its change travels as words.
  EXPECT_EQ(sent[1].encoded.pages[static_cast<size_t>(codec::PageEncoding::kRaw)] +
                sent[1].encoded.pages[static_cast<size_t>(codec::PageEncoding::kDelta)],
            2u);
  EXPECT_EQ(pool_->used_bytes(), 0u);
  uint64_t next = 1;
  for (const SeenFrame& frame : link_.Frames()) {
    if (frame.kind != FrameKind::kEpochCommit) continue;
    EXPECT_EQ(frame.epoch, EpochId(next));
    EXPECT_EQ(frame.term, kTerm);
    v1::EpochCommit commit;
    ASSERT_TRUE(commit.ParseFromString(frame.body));
    EXPECT_EQ(commit.page_count(), 2u);
    ++next;
  }
  EXPECT_EQ(next, 4u);
}

TEST_F(EpochSenderTest, APageThatIsToBeForgottenTravelsWholeInTheNextEpoch) {
  const auto submit = [&](uint64_t n) {
    epoch::StagedEpoch epoch = Epoch(kTerm, n, 1);
    epoch.batches.push_back(Batch(*pool_, {Gfn(1)}, 'x'));
    sender_->Submit(std::move(epoch));
    return acks_.AwaitSent(n).back().encoded.pages;
  };
  EXPECT_EQ(submit(1)[static_cast<size_t>(codec::PageEncoding::kRaw)], 1u);
  EXPECT_EQ(submit(2)[static_cast<size_t>(codec::PageEncoding::kSame)], 1u);
  sender_->ForgetPrevious({Gfn(1)});
  EXPECT_EQ(submit(3)[static_cast<size_t>(codec::PageEncoding::kRaw)], 1u);
  EXPECT_EQ(submit(4)[static_cast<size_t>(codec::PageEncoding::kSame)], 1u);
}

// An epoch that is given up while a page is to be forgotten is given up whole.
TEST_F(EpochSenderTest, ForgettingDoesNotComeBetweenThePartsOfAnEpoch) {
  link_.Block(true);
  sender_->StagePages(kTerm, EpochId(1), Batch(*pool_, {Gfn(1)}, 1));
  link_.AwaitBlockedSender();
  sender_->StagePages(kTerm, EpochId(1), Batch(*pool_, {Gfn(2)}, 1));
  sender_->ForgetPrevious({Gfn(2)});
  sender_->StagePages(kTerm, EpochId(1), Batch(*pool_, {Gfn(3)}, 1));
  sender_->Abort(kTerm, EpochId(1));
  link_.Block(false);
  sender_->Submit(Epoch(kTerm, 1, 0));
  acks_.AwaitSent(1);
  std::vector<FrameKind> kinds;
  for (const SeenFrame& frame : link_.Frames()) kinds.push_back(frame.kind);
  EXPECT_EQ(kinds, (std::vector<FrameKind>{FrameKind::kEpochPages, FrameKind::kEpochAbort,
                                           FrameKind::kEpochCommit}));
}

TEST_F(EpochSenderTest, AuditsAreCountedAsTheyLeave) {
  epoch::StagedEpoch epoch = Epoch(kTerm, 1, 0);
  epoch.audit = {{Gfn(1), {{1, 2}, {3, 4}}}, {Gfn(9), {{5, 6}}}};
  sender_->Submit(std::move(epoch));
  acks_.AwaitSent(1);
  EXPECT_EQ(sender_->audit_pages_sent(), 3u);
  EXPECT_EQ(link_.Frames()[0].kind, FrameKind::kEpochAudit);
  EXPECT_EQ(link_.Frames()[1].kind, FrameKind::kEpochCommit);
  EXPECT_EQ(link_.messages(), 1u);
}

TEST_F(EpochSenderTest, AcksAreToldOncePerEpochInOrder) {
  for (uint64_t n = 1; n <= 3; ++n) sender_->Submit(Epoch(kTerm, n, 0));
  acks_.AwaitSent(3);
  EXPECT_EQ(sender_->unacked_epochs(), 3u);
  clock_.now_ns += 7;
  ASSERT_TRUE(sender_->OnAck(kTerm, EpochId(2), 77).ok());
  ASSERT_TRUE(sender_->OnAck(kTerm, EpochId(2), 77).ok());  // said again: nothing new
  ASSERT_TRUE(sender_->OnAck(kTerm, EpochId(3), 88).ok());
  const std::vector<EpochAck> acks = acks_.acks();
  ASSERT_EQ(acks.size(), 3u);
  for (uint64_t n = 1; n <= 3; ++n) EXPECT_EQ(acks[n - 1].epoch, EpochId(n));
  EXPECT_EQ(acks[0].replica_staged_bytes, 77u);
  EXPECT_EQ(acks[0].submit_to_ack_ns, 7u);
  EXPECT_EQ(acks[0].send_to_ack_ns, 7u);
  EXPECT_EQ(sender_->unacked_epochs(), 0u);
  EXPECT_EQ(sender_->acked(), EpochId(3));
  EXPECT_TRUE(sender_->AwaitAllAcked(absl::ZeroDuration()).ok());
}

TEST_F(EpochSenderTest, ALyingPeerIsRefused) {
  sender_->Submit(Epoch(kTerm, 1, 0));
  acks_.AwaitSent(1);
  EXPECT_EQ(sender_->OnAck(kTerm, EpochId(2), 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(sender_->OnAck(Term(33), EpochId(1), 0).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(acks_.acks().empty());
}

TEST_F(EpochSenderTest, RoomIsBoundedByUnackedEpochs) {
  for (uint64_t n = 1; n <= 4; ++n) {
    EXPECT_TRUE(sender_->AwaitRoom(absl::ZeroDuration()).ok());
    sender_->Submit(Epoch(kTerm, n, 0));
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(sender_->AwaitRoom(absl::ZeroDuration())));
  acks_.AwaitSent(4);
  std::thread acker([this] { ASSERT_TRUE(sender_->OnAck(kTerm, EpochId(1), 0).ok()); });
  EXPECT_TRUE(sender_->AwaitRoom(kPatience).ok());
  acker.join();
}

TEST_F(EpochSenderTest, SubmitNeverBlocksWhileTheLinkDoes) {
  link_.Block(true);
  sender_->Submit(Epoch(kTerm, 1, 0));
  link_.AwaitBlockedSender();
  for (uint64_t n = 2; n <= 10; ++n) sender_->Submit(Epoch(kTerm, n, 0));
  EXPECT_EQ(link_.messages(), 0u);
  link_.Block(false);
  acks_.AwaitSent(10);
  // Those that waited went together.
  EXPECT_LT(link_.messages(), 10u);
}

// A pace so long that what leaves in the test leaves for another reason.
class PacedSenderTest : public EpochSenderTest {
 protected:
  static constexpr uint64_t kPaceNs = 3'600'000'000'000;

  void SubmitSmall(uint64_t n, bool holds_output = false) {
    epoch::StagedEpoch epoch = Epoch(kTerm, n, 0);
    epoch.reason = epoch::CutReason::kInterval;
    epoch.holds_output = holds_output;
    sender_->Submit(std::move(epoch));
  }
};

TEST_F(PacedSenderTest, SmallEpochsWaitForOneThatHoldsOutput) {
  Make({.term = kTerm, .max_unacked_epochs = 64, .pace_ns = kPaceNs});
  SubmitSmall(1);
  acks_.AwaitSent(1);  // the first finds nobody waiting
  for (uint64_t n = 2; n <= 4; ++n) SubmitSmall(n);
  EXPECT_EQ(link_.messages(), 1u);
  SubmitSmall(5, /*holds_output=*/true);
  acks_.AwaitSent(5);
  EXPECT_EQ(link_.messages(), 2u);
}

TEST_F(PacedSenderTest, EpochsThatComeFarApartWaitForNoOthers) {
  Make({.term = kTerm, .max_unacked_epochs = 64, .pace_ns = kPaceNs});
  clock_.now_ns += 4 * kPaceNs;
  SubmitSmall(1);
  acks_.AwaitSent(1);
  SubmitSmall(2);  // the second one soon: the third waits
  acks_.AwaitSent(2);
  SubmitSmall(3);
  SubmitSmall(4, /*holds_output=*/true);
  acks_.AwaitSent(4);
  EXPECT_EQ(link_.messages(), 3u);
}

TEST_F(PacedSenderTest, WhatSomebodyAskedForOrIsLargeDoesNotWait) {
  Make({.term = kTerm, .max_unacked_epochs = 64, .pace_ns = kPaceNs});
  SubmitSmall(1);
  sender_->Submit(Epoch(kTerm, 2, 0));  // as Flush() cuts it
  acks_.AwaitSent(2);
  SubmitSmall(3);
  std::vector<Gfn> pages;
  for (uint64_t gfn = 1; gfn <= 64; ++gfn) pages.push_back(Gfn(gfn));
  epoch::StagedEpoch large = Epoch(kTerm, 4, pages.size());
  large.batches.push_back(Batch(*pool_, pages, 1));
  large.reason = epoch::CutReason::kBudget;
  sender_->Submit(std::move(large));
  acks_.AwaitSent(4);
  SubmitSmall(5);
  sender_->StagePages(kTerm, EpochId(6), Batch(*pool_, {Gfn(5)}, 1));
  acks_.AwaitSent(5);
}

TEST_F(PacedSenderTest, P6_NoneWaitsOnceHalfOfTheSlotsAreTaken) {
  Make({.term = kTerm, .max_unacked_epochs = 4, .pace_ns = kPaceNs});
  SubmitSmall(1);
  SubmitSmall(2);
  acks_.AwaitSent(2);
  SubmitSmall(3);
  acks_.AwaitSent(3);
}

TEST_F(PacedSenderTest, ClosingEndsTheWait) {
  Make({.term = kTerm, .max_unacked_epochs = 64, .pace_ns = kPaceNs});
  SubmitSmall(1);
  acks_.AwaitSent(1);
  SubmitSmall(2);
  sender_->Close(absl::CancelledError("over"));
  sender_->Join();
}

TEST_F(EpochSenderTest, PagesStagedAheadBelongToTheirEpoch) {
  sender_->StagePages(kTerm, EpochId(1), Batch(*pool_, {Gfn(5)}, 1));
  sender_->StagePages(kTerm, EpochId(1), Batch(*pool_, {Gfn(6)}, 2));
  epoch::StagedEpoch rest = Epoch(kTerm, 1, 3);
  rest.batches.push_back(Batch(*pool_, {Gfn(7)}, 3));
  sender_->Submit(std::move(rest));
  const std::vector<EpochSent> sent = acks_.AwaitSent(1);
  EXPECT_EQ(sent[0].encoded.pages[static_cast<size_t>(codec::PageEncoding::kRaw)], 3u);
  EXPECT_EQ(pool_->used_bytes(), 0u);
}

TEST_F(EpochSenderTest, AnAbortedEpochIsForgottenOverThereOnlyIfItWasBegun) {
  // Begun: its pages are on their way.
  sender_->StagePages(kTerm, EpochId(1), Batch(*pool_, {Gfn(5)}, 1));
  link_.AwaitFrames(FrameKind::kEpochPages, 1);
  sender_->Abort(kTerm, EpochId(1));
  link_.AwaitFrames(FrameKind::kEpochAbort, 1);
  // Not begun: the pages still wait here.
  link_.Block(true);
  sender_->Submit(Epoch(kTerm, 1, 0));
  link_.AwaitBlockedSender();
  sender_->StagePages(kTerm, EpochId(2), Batch(*pool_, {Gfn(5)}, 1));
  sender_->Abort(kTerm, EpochId(2));
  EXPECT_EQ(pool_->used_bytes(), 0u);
  link_.Block(false);
  sender_->Submit(Epoch(kTerm, 2, 0));
  acks_.AwaitSent(2);
  size_t aborts = 0;
  for (const SeenFrame& frame : link_.Frames()) aborts += frame.kind == FrameKind::kEpochAbort;
  EXPECT_EQ(aborts, 1u);
}

TEST_F(EpochSenderTest, HeartbeatsEchoAndCarryTheConsoleOffset) {
  Make({.term = kTerm, .heartbeat_interval_ns = 1'000'000});
  sender_->OnPeerHeartbeat(4711);
  sender_->SetConsoleReleased(99);
  sender_->StartHeartbeats();
  for (size_t n = 1; n <= 3; ++n) {
    link_.AwaitFrames(FrameKind::kHeartbeat, n);
    clock_.now_ns += 1'000'000;
  }
  uint64_t sequence = 0;
  for (const SeenFrame& frame : link_.AwaitFrames(FrameKind::kHeartbeat, 3)) {
    v1::Heartbeat heartbeat;
    ASSERT_TRUE(heartbeat.ParseFromString(frame.body));
    EXPECT_EQ(heartbeat.sequence(), ++sequence);
    EXPECT_EQ(heartbeat.echo_monotonic_ns(), 4711u);
    EXPECT_EQ(heartbeat.console_released(), 99u);
    EXPECT_GT(heartbeat.sent_monotonic_ns(), 0u);
  }
}

size_t CountHeartbeats(const std::vector<SeenFrame>& frames) {
  return static_cast<size_t>(
      std::count_if(frames.begin(), frames.end(),
                    [](const SeenFrame& frame) { return frame.kind == FrameKind::kHeartbeat; }));
}

TEST_F(EpochSenderTest, AnEpochAtRestStandsForAHeartbeatButNotForEver) {
  constexpr uint64_t kTenth = 3'600'000'000'000;
  Make({.term = kTerm, .heartbeat_interval_ns = 10 * kTenth, .pace_ns = 0});
  uint64_t epochs = 0;
  const auto submit = [&](uint64_t after_tenths, uint64_t pages) {
    clock_.now_ns += after_tenths * kTenth;
    epoch::StagedEpoch epoch = Epoch(kTerm, ++epochs, pages);
    if (pages > 0) epoch.batches.push_back(Batch(*pool_, {Gfn(1)}, 1));
    sender_->Submit(std::move(epoch));
    acks_.AwaitSent(epochs);
  };
  sender_->StartHeartbeats();
  link_.AwaitFrames(FrameKind::kHeartbeat, 1);
  submit(9, 0);
  submit(2, 0);  // one would be due
  for (int i = 0; i < 3; ++i) submit(9, 0);
  EXPECT_EQ(CountHeartbeats(link_.Frames()), 1u);
  // The fourth interval is over: one leaves, before this epoch or behind it.
  submit(3, 0);
  EXPECT_EQ(CountHeartbeats(link_.AwaitFrames(FrameKind::kHeartbeat, 2)), 2u);
  submit(9, 1);
  EXPECT_EQ(CountHeartbeats(link_.Frames()), 2u) << "none is due";
  submit(2, 1);  // those pages stood for none
  link_.AwaitFrames(FrameKind::kHeartbeat, 3);
}

TEST_F(EpochSenderTest, CloseWakesEverybodyAndTellsOnce) {
  for (uint64_t n = 1; n <= 4; ++n) sender_->Submit(Epoch(kTerm, n, 0));
  acks_.AwaitSent(4);
  absl::Status room;
  std::thread waiter([&] { room = sender_->AwaitRoom(kPatience); });
  sender_->Close(absl::UnavailableError("cable"));
  sender_->Close(absl::UnavailableError("again"));
  waiter.join();
  EXPECT_EQ(room.message(), "cable");
  EXPECT_EQ(acks_.AwaitClosed().message(), "cable");
  EXPECT_FALSE(sender_->OnAck(kTerm, EpochId(4), 0).ok());
  EXPECT_TRUE(acks_.acks().empty());
  sender_->Submit(Epoch(kTerm, 5, 0));
  sender_.reset();
  EXPECT_EQ(acks_.closed(), 1);
}

TEST_F(EpochSenderTest, ADeadLinkClosesItAndDropsTheQueue) {
  link_.Block(true);
  sender_->Submit(Epoch(kTerm, 1, 0));
  link_.AwaitBlockedSender();
  epoch::StagedEpoch waiting = Epoch(kTerm, 2, 1);
  waiting.batches.push_back(Batch(*pool_, {Gfn(5)}, 1));
  sender_->Submit(std::move(waiting));
  link_.Close(absl::OkStatus());
  EXPECT_EQ(acks_.AwaitClosed().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(pool_->used_bytes(), 0u);
}

TEST_F(EpochSenderTest, ControlFramesFitBetweenAnEpochsPages) {
  sender_->StagePages(kTerm, EpochId(1), Batch(*pool_, {Gfn(5)}, 1));
  link_.AwaitFrames(FrameKind::kEpochPages, 1);
  ASSERT_TRUE(
      frames_->SendControl(kPatience, FrameKind::kGoodbye, kTerm, EpochId(), v1::Goodbye()).ok());
  sender_->Submit(Epoch(kTerm, 1, 1));
  acks_.AwaitSent(1);
  const std::vector<SeenFrame> frames = link_.Frames();  // numbering is checked by the reader
  ASSERT_EQ(frames.size(), 3u);
  EXPECT_EQ(frames[1].kind, FrameKind::kGoodbye);
}

TEST_F(EpochSenderTest, AControlFrameThatGaveUpLeavesNoGap) {
  link_.Block(true);
  EXPECT_TRUE(absl::IsDeadlineExceeded(frames_->SendControl(
      absl::Milliseconds(1), FrameKind::kGoodbye, kTerm, EpochId(), v1::Goodbye())));
  link_.Block(false);
  sender_->Submit(Epoch(kTerm, 1, 0));
  acks_.AwaitSent(1);
  EXPECT_EQ(link_.Frames().size(), 1u);
}

}  // namespace
}  // namespace romulus::wire

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "replica/fault.h"
#include "replica/session.h"
#include "unit/replica_rig.h"
#include "unit/replica_session_rig.h"

namespace romulus::replica {
namespace {

using codec::FrameKind;
using testing::HasSubstr;

constexpr Term kTerm(3);

void Protect(ModelPrimary* primary, SessionRig* rig) {
  rig->Feed(primary->StartStream(kTerm));
  rig->Feed(primary->FullSync(kTerm));
  rig->Feed(primary->RandomEpoch(kTerm, EpochId(1), 30));
  ASSERT_EQ(rig->LastAck(), EpochId(1)) << rig->listener.why;
}

TEST(SessionTest, AnswersHelloAndAcksEpochs) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  const std::vector<Reply> replies = rig.Replies();
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].kind, FrameKind::kHelloReply);
  v1::HelloReply hello;
  ASSERT_TRUE(hello.ParseFromString(replies[0].body));
  EXPECT_TRUE(hello.accepted());
  EXPECT_EQ(hello.term(), kTerm.value());
  EXPECT_EQ(hello.max_frame_bytes(), codec::kDefaultMaxBodyBytes);
  EXPECT_EQ(replies[1].kind, FrameKind::kAck);
  EXPECT_EQ(replies[1].term, kTerm);
  v1::Ack ack;
  ASSERT_TRUE(ack.ParseFromString(replies[1].body));
  EXPECT_EQ(ack.echo_monotonic_ns(), 1001u);
  EXPECT_TRUE(rig.listener.sync_complete);
  EXPECT_EQ(rig.listener.sync_done, 1024u);
  EXPECT_GT(rig.listener.traffic, 3);
  EXPECT_EQ(rig.counters.pages_committed, 30u);
  EXPECT_EQ(rig.counters.streams_opened, 1u);
}

TEST(SessionTest, SeveralCommitsInOneMessageGetOneAck) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  std::string message;
  for (uint64_t epoch = 2; epoch < 7; ++epoch) {
    message += Join(primary.RandomEpoch(kTerm, EpochId(epoch), 5));
  }
  rig.Feed({message});
  EXPECT_EQ(rig.LastAck(), EpochId(6));
  EXPECT_EQ(rig.counters.acks_sent, 2u);
  EXPECT_EQ(rig.counters.epochs_committed, 6u);
  EXPECT_EQ(rig.listener.committed.back(), (EpochKey{kTerm, EpochId(6)}));
  EXPECT_EQ(primary.Difference(*rig.memory), "");
}

TEST(SessionTest, WhatCameBeforeABadFrameIsAcked) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.Feed({Join(primary.RandomEpoch(kTerm, EpochId(2), 5)) + "garbage"});
  EXPECT_EQ(rig.LastAck(), EpochId(2));
  EXPECT_EQ(primary.Difference(*rig.memory), "");
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL);
  EXPECT_THAT(rig.SentGoodbye().detail(), HasSubstr("truncated"));
  EXPECT_TRUE(rig.link->closed());
  EXPECT_EQ(rig.listener.closed, 1);
  EXPECT_EQ(rig.counters.frame_faults[static_cast<size_t>(codec::FrameFault::kTruncated)], 1u);
  const int traffic = rig.listener.traffic;
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(3), 5));
  EXPECT_EQ(rig.store.status().newest.epoch, EpochId(2));
  EXPECT_EQ(rig.listener.traffic, traffic) << "garbage is no sign of life";
}

TEST(SessionTest, HelloComesFirstAndOnce) {
  ModelPrimary primary;
  {
    SessionRig rig;
    primary.StartStream(kTerm);
    primary.writer().Reset();
    rig.Feed(primary.FullSync(kTerm));
    EXPECT_EQ(rig.FaultCount(Fault::kUnexpected), 1u);
    EXPECT_EQ(rig.store.status().state, ReplicaState::kEmpty);
  }
  {
    SessionRig rig;
    rig.Feed(primary.StartStream(kTerm));
    rig.Feed({primary.Control(FrameKind::kHello, kTerm, EpochId(), v1::Hello())});
    EXPECT_EQ(rig.FaultCount(Fault::kUnexpected), 1u);
  }
  for (const FrameKind kind : {FrameKind::kHelloReply, FrameKind::kAck}) {
    SessionRig rig;
    rig.Feed(primary.StartStream(kTerm));
    rig.Feed({primary.Control(kind, kTerm, EpochId(), v1::Ack())});
    EXPECT_EQ(rig.FaultCount(Fault::kUnexpected), 1u);
  }
  {
    SessionRig rig;
    rig.Feed({""});
    EXPECT_EQ(rig.FaultCount(Fault::kFraming), 1u);
  }
}

TEST(SessionTest, FramesOutOfPlaceAreRefused) {
  v1::SyncEnd end;
  v1::EpochCommit commit;
  commit.set_machine_digest(codec::HashBytes(""));
  ModelPrimary primary;
  for (const bool is_end : {true, false}) {
    SessionRig rig;
    rig.Feed(primary.StartStream(kTerm));
    rig.Feed({is_end ? primary.Control(FrameKind::kSyncEnd, kTerm, EpochId(), end)
                     : primary.Control(FrameKind::kEpochCommit, kTerm, EpochId(1), commit)});
    EXPECT_EQ(rig.FaultCount(Fault::kUnexpected), 1u);
    EXPECT_TRUE(rig.link->closed());
    EXPECT_EQ(rig.LastAck(), EpochId());
  }
}

TEST(SessionTest, ARefusedHelloIsAnsweredAndClosed) {
  ModelPrimary primary;
  SessionRig rig;
  v1::Hello hello;
  hello.set_vm_name("another");
  rig.Feed({primary.Control(FrameKind::kHello, kTerm, EpochId(), hello)});
  ASSERT_EQ(rig.Replies().size(), 1u);
  v1::HelloReply reply;
  ASSERT_TRUE(reply.ParseFromString(rig.Replies()[0].body));
  EXPECT_FALSE(reply.accepted());
  EXPECT_EQ(reply.reason(), v1::REFUSAL_REASON_VM);
  EXPECT_TRUE(rig.link->closed());
  EXPECT_THAT(std::string(rig.listener.why.message()), HasSubstr("another"));
  EXPECT_FALSE(rig.session->SendHeartbeat().ok());
}

TEST(SessionTest, OlderTermsAreRefusedAndTold) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.store.NoteTerm(Term(5));
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(2), 5));
  // Which is no promotion: the primary may come again.
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL);
  EXPECT_EQ(rig.SentGoodbye().term(), 5u);
  EXPECT_EQ(rig.store.status().newest.epoch, EpochId(1));
  EXPECT_EQ(rig.LastAck(), EpochId(1));
  rig.Connect();
  rig.Feed(primary.StartStream(kTerm));
  EXPECT_FALSE(rig.listener.hello.accepted());
  EXPECT_EQ(rig.listener.hello.reason(), v1::REFUSAL_REASON_TERM);
  EXPECT_EQ(rig.listener.hello.term(), 5u);
  rig.Connect();
  rig.Feed(primary.StartStream(Term(5)));
  EXPECT_TRUE(rig.listener.hello.accepted());
}

// Another store has taken its place: an epoch acked here would be promoted by nobody.
TEST(SessionTest, ARetiredReplicaAcksNothingMore) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.store.Retire();
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(2), 5));
  EXPECT_EQ(rig.LastAck(), EpochId(1));
  EXPECT_TRUE(rig.link->closed());
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL);
  // A stream that connected before it did is sent away, but its term is not over.
  rig.Connect();
  rig.Feed(primary.StartStream(kTerm));
  EXPECT_FALSE(rig.listener.hello.accepted());
  EXPECT_EQ(rig.listener.hello.reason(), v1::REFUSAL_REASON_BUSY);
}

TEST(SessionTest, HeartbeatsOfOlderTermsAreRefused) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.store.NoteTerm(Term(5));
  rig.Feed({primary.Control(FrameKind::kHeartbeat, kTerm, EpochId(), v1::Heartbeat())});
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL);
}

uint64_t HeartbeatsOf(const SessionRig& rig) {
  const std::vector<Reply> replies = rig.Replies();
  return static_cast<uint64_t>(
      std::count_if(replies.begin(), replies.end(),
                    [](const Reply& reply) { return reply.kind == FrameKind::kHeartbeat; }));
}

TEST(SessionTest, AHeartbeatIsAnsweredAtOnceWithItsTime) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  for (uint64_t i = 1; i <= 3; ++i) {
    v1::Heartbeat heartbeat;
    heartbeat.set_sent_monotonic_ns(4710 + i);
    rig.Feed({primary.Control(FrameKind::kHeartbeat, kTerm, EpochId(), heartbeat)});
    const Reply reply = rig.Replies().back();
    ASSERT_EQ(reply.kind, FrameKind::kHeartbeat);
    v1::Heartbeat sent;
    ASSERT_TRUE(sent.ParseFromString(reply.body));
    EXPECT_EQ(sent.echo_monotonic_ns(), 4710 + i);
    EXPECT_EQ(sent.sequence(), i);
    EXPECT_GT(sent.sent_monotonic_ns(), 0u);
  }
  EXPECT_EQ(HeartbeatsOf(rig), 3u);
}

TEST(SessionTest, ItBeatsByItselfOnlyWhereThePrimaryIsSilent) {
  constexpr uint64_t kLong = uint64_t{1} << 60;
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  EXPECT_EQ(HeartbeatsOf(rig), 0u);
  EXPECT_EQ(rig.session->KeepBeating(2), 3u);
  EXPECT_EQ(HeartbeatsOf(rig), 1u) << "none before";
  const uint64_t wait_ns = rig.session->KeepBeating(kLong);
  EXPECT_EQ(HeartbeatsOf(rig), 1u) << "one just now";
  EXPECT_LT(wait_ns, kLong / 2 * 3);
  EXPECT_GT(wait_ns, kLong);
  rig.session->KeepBeating(2);
  EXPECT_EQ(HeartbeatsOf(rig), 2u) << "long ago, by that interval";
  rig.Feed({primary.Control(FrameKind::kHeartbeat, kTerm, EpochId(), v1::Heartbeat())});
  EXPECT_EQ(HeartbeatsOf(rig), 3u);
  rig.session->KeepBeating(kLong);
  EXPECT_EQ(HeartbeatsOf(rig), 3u) << "an answer counts";
}

// As its epoch stands for the primary's.
TEST(SessionTest, AnAckStandsForAHeartbeatOnlyWhereTheGuestRests) {
  for (const bool rests : {false, true}) {
    ModelPrimary primary;
    SessionRig rig;
    Protect(&primary, &rig);  // with an ack of pages
    if (rests) rig.Feed(primary.RandomEpoch(kTerm, EpochId(2), 0));
    // By an interval of a third of all the time that there has been.
    rig.session->KeepBeating(base::MonotonicClock().NowNs() / 3);
    EXPECT_EQ(HeartbeatsOf(rig), rests ? 0u : 1u);
  }
}

TEST(SessionTest, PromotionIsToldOnceAndFramesAfterItChangeNothing) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  const std::vector<std::byte> committed = primary.memory();
  ASSERT_TRUE(rig.store.TakeForPromotion(Term(4)).ok());
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(2), 5));
  EXPECT_EQ(rig.LastAck(), EpochId(1));
  EXPECT_EQ(ModelPrimary::DifferenceFrom(committed, *rig.memory), "");
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROMOTED);
  EXPECT_EQ(rig.SentGoodbye().term(), 4u);
  EXPECT_EQ(rig.counters.frames_after_seal, 1u);
  const size_t replies = rig.Replies().size();
  rig.session->SayGoodbye(v1::Goodbye::REASON_PROMOTED, Term(4), "promoted");
  EXPECT_EQ(rig.Replies().size(), replies);
  // Nor does anyone get in again.
  rig.Connect();
  rig.Feed(primary.StartStream(kTerm));
  EXPECT_FALSE(rig.listener.hello.accepted());
}

TEST(SessionTest, SayGoodbyeReachesThePrimary) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  ASSERT_TRUE(rig.store.TakeForPromotion(Term(4)).ok());
  rig.session->SayGoodbye(v1::Goodbye::REASON_PROMOTED, Term(4), "promoted");
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROMOTED);
  EXPECT_EQ(rig.SentGoodbye().term(), 4u);
  EXPECT_TRUE(rig.link->closed());
  EXPECT_EQ(rig.listener.closed, 1);
}

// A link whose peer reads nothing: everything but the bounded goodbye waits until the link is
// closed.
class StuckLink final : public wire::Link {
 public:
  absl::Status Send(std::string) override {
    std::unique_lock<std::mutex> lock(mutex_);
    ++waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return closed_; });
    return absl::UnavailableError("closed");
  }
  absl::Status SendWithin(absl::Duration, std::string) override {
    return absl::DeadlineExceededError("stuck");
  }
  void Close(const absl::Status&) override {
    std::unique_lock<std::mutex> lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  void AwaitWaiting() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return waiting_ > 0; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  bool closed_ = false;
};

TEST(SessionTest, AStuckLinkDelaysNeitherPromotionNorGoodbye) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  const auto stuck = std::make_shared<StuckLink>();
  rig.session->Attach(stuck);
  std::thread reader([&] {
    rig.Feed(primary.RandomEpoch(kTerm, EpochId(2), 5));
    rig.session->OnClosed(absl::CancelledError("closed"));
  });
  stuck->AwaitWaiting();  // in the ack of epoch 2
  absl::StatusOr<PromotableEpoch> taken = rig.store.TakeForPromotion(Term(4));
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->key.epoch, EpochId(2)) << "the ack may be on its way: it counts";
  EXPECT_EQ(primary.Difference(*taken->memory), "");
  rig.session->SayGoodbye(v1::Goodbye::REASON_PROMOTED, Term(4), "promoted", absl::Milliseconds(1));
  reader.join();
  EXPECT_EQ(rig.listener.closed, 1);
}

// The primary opens its output at the answer: what was promotable must not be any more.
TEST(SessionTest, UnprotectIsAnsweredWhenTheReplicaIsGivenUp) {
  v1::Goodbye unprotect;
  unprotect.set_reason(v1::Goodbye::REASON_UNPROTECT);
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.Feed({primary.Control(FrameKind::kGoodbye, kTerm, EpochId(), unprotect)});
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_UNPROTECT);
  EXPECT_TRUE(rig.link->closed());
  EXPECT_FALSE(rig.store.TakeForPromotion(Term(4)).ok());

  ModelPrimary late_primary;
  SessionRig late;
  Protect(&late_primary, &late);
  ASSERT_TRUE(late.store.TakeForPromotion(Term(4)).ok());
  late.Feed({late_primary.Control(FrameKind::kGoodbye, kTerm, EpochId(), unprotect)});
  EXPECT_EQ(late.SentGoodbye().reason(), v1::Goodbye::REASON_PROMOTED);
  EXPECT_EQ(late.SentGoodbye().term(), 4u);

  // Any other goodbye leaves the epoch to whoever promotes.
  ModelPrimary stopped_primary;
  SessionRig stopped;
  Protect(&stopped_primary, &stopped);
  v1::Goodbye shutdown;
  shutdown.set_reason(v1::Goodbye::REASON_SHUTDOWN);
  stopped.Feed({stopped_primary.Control(FrameKind::kGoodbye, kTerm, EpochId(), shutdown)});
  EXPECT_EQ(stopped.SentGoodbye().reason(), v1::Goodbye::REASON_UNSPECIFIED);
  EXPECT_TRUE(stopped.store.TakeForPromotion(Term(4)).ok());
}

TEST(SessionTest, AHandOverIsOfTheNewestEpochAndEndsTheConsolesTail) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  const uint64_t end = rig.store.status().console_end;
  v1::HandOver hand_over;
  hand_over.set_console_released(end);
  hand_over.set_stood_still_ns(77);
  rig.Feed({primary.Control(FrameKind::kHandOver, kTerm, EpochId(1), hand_over)});
  ASSERT_EQ(rig.listener.handed_over.size(), 1u) << rig.listener.why;
  EXPECT_EQ(rig.listener.handed_over[0], (EpochKey{kTerm, EpochId(1)}));
  EXPECT_EQ(rig.listener.hand_over.stood_still_ns(), 77u);
  const absl::StatusOr<PromotableEpoch> taken = rig.store.TakeForPromotion(Term(4));
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(taken->console_tail, "");
  EXPECT_EQ(taken->console_offset, end);
  // The replica is sealed, the guest may not run yet: a heartbeat is no reason to say that it does.
  rig.Feed({primary.Control(FrameKind::kHeartbeat, kTerm, EpochId(), v1::Heartbeat())});
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_UNSPECIFIED);
  EXPECT_FALSE(rig.link->closed());
  EXPECT_EQ(HeartbeatsOf(rig), 1u) << "answered";
  rig.session->SayGoodbye(v1::Goodbye::REASON_PROMOTED, Term(4), "it runs");
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROMOTED);
  EXPECT_FALSE(rig.session->SendHeartbeat().ok()) << "behind the goodbye";
  EXPECT_EQ(HeartbeatsOf(rig), 1u);
}

TEST(SessionTest, AfterAHandOverOnlyHeartbeatsAndAGoodbyeMayFollow) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.Feed({primary.Control(FrameKind::kHandOver, kTerm, EpochId(1), v1::HandOver())});
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(2), 3));
  EXPECT_EQ(rig.FaultCount(Fault::kUnexpected), 1u);
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL);
  EXPECT_EQ(rig.store.status().newest.epoch, EpochId(1));
}

TEST(SessionTest, ARefusedHandOverLeavesTheStreamAsItWas) {
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.Feed({primary.Control(FrameKind::kHandOver, kTerm, EpochId(1), v1::HandOver())});
  rig.session->RefuseHandOver("not now");
  v1::HandOverRefusal refusal;
  ASSERT_EQ(rig.Replies().back().kind, FrameKind::kHandOverRefusal);
  ASSERT_TRUE(refusal.ParseFromString(rig.Replies().back().body));
  EXPECT_EQ(refusal.detail(), "not now");
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(2), 3));
  EXPECT_EQ(rig.LastAck(), EpochId(2)) << rig.listener.why;
}

TEST(SessionTest, AHandOverOfAnyOtherEpochIsRefused) {
  for (const auto& [term, epoch] : {std::pair(kTerm, EpochId(2)), std::pair(kTerm, EpochId(0)),
                                    std::pair(kTerm.Next(), EpochId(1))}) {
    ModelPrimary primary;
    SessionRig rig;
    Protect(&primary, &rig);
    rig.Feed({primary.Control(FrameKind::kHandOver, term, epoch, v1::HandOver())});
    EXPECT_TRUE(rig.listener.handed_over.empty());
    EXPECT_EQ(rig.FaultCount(Fault::kUnexpected), 1u);
    EXPECT_TRUE(rig.link->closed());
    EXPECT_TRUE(rig.store.TakeForPromotion(Term(9)).ok());
  }
  // Nor before there is one, nor from a secondary.
  ModelPrimary primary;
  SessionRig rig;
  rig.Feed(primary.StartStream(kTerm));
  rig.Feed({primary.Control(FrameKind::kHandOver, kTerm, EpochId(0), v1::HandOver())});
  EXPECT_EQ(rig.FaultCount(Fault::kUnexpected), 1u);
  ModelPrimary other;
  SessionRig lied_to;
  Protect(&other, &lied_to);
  lied_to.Feed({other.Control(FrameKind::kHandOverRefusal, kTerm, EpochId(), v1::Goodbye())});
  EXPECT_EQ(lied_to.FaultCount(Fault::kUnexpected), 1u);
}

TEST(SessionTest, TermsOutOfRangeAreRefusedAndCounted) {
  constexpr uint64_t kBeyond = UINT64_MAX - 3;
  const std::vector<std::function<void(v1::Hello&)>> changes = {
      [](v1::Hello& hello) { hello.set_term(kBeyond); },
      [](v1::Hello& hello) { hello.set_current_term(kBeyond); },
      [](v1::Hello& hello) { hello.mutable_lineage()->set_promoted_term(kBeyond); },
      [](v1::Hello& hello) { hello.mutable_lineage()->set_covers_term(kBeyond); },
      [](v1::Hello& hello) { hello.mutable_lineage()->set_shared_term(kBeyond); }};
  for (const auto& change : changes) {
    v1::Hello hello;
    hello.set_vm_name("model");
    hello.set_term(kTerm.value());
    change(hello);
    ModelPrimary primary;
    SessionRig rig;
    rig.Feed({primary.Control(FrameKind::kHello, kTerm, EpochId(), hello)});
    EXPECT_EQ(rig.FaultCount(Fault::kBody), 1u);
    EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL);
    EXPECT_TRUE(rig.link->closed());
    EXPECT_EQ(rig.store.known_term(), Term());
    EXPECT_FALSE(rig.listener.hello.accepted());
  }
  {
    ModelPrimary primary;
    SessionRig rig;
    Protect(&primary, &rig);
    v1::Goodbye goodbye;
    goodbye.set_reason(v1::Goodbye::REASON_PROMOTED);
    goodbye.set_term(UINT64_MAX);
    rig.Feed({primary.Control(FrameKind::kGoodbye, kTerm, EpochId(), goodbye)});
    EXPECT_EQ(rig.FaultCount(Fault::kBody), 1u);
    EXPECT_EQ(rig.listener.goodbye.term(), 0u);
  }
  // In a frame's header, which any kind has.
  ModelPrimary primary;
  SessionRig rig;
  Protect(&primary, &rig);
  rig.Feed({primary.Control(FrameKind::kHeartbeat, Term(UINT64_MAX), EpochId(), v1::Heartbeat())});
  EXPECT_EQ(rig.counters.frame_faults[static_cast<size_t>(codec::FrameFault::kTermRange)], 1u);
  EXPECT_EQ(rig.store.known_term(), kTerm);
  EXPECT_TRUE(rig.store.TakeForPromotion(Term(4)).ok());
}

TEST(SessionTest, BodiesThatDoNotParseAreCounted) {
  for (const FrameKind kind :
       {FrameKind::kHeartbeat, FrameKind::kSyncBegin, FrameKind::kSyncEnd, FrameKind::kEpochAbort,
        FrameKind::kEpochCommit, FrameKind::kHandOver, FrameKind::kGoodbye}) {
    ModelPrimary primary;
    SessionRig rig;
    Protect(&primary, &rig);
    std::string message;
    primary.writer().Append(kind, kTerm, EpochId(2), absl::string_view("\xff\xff\xff"), &message);
    rig.Feed({message});
    EXPECT_EQ(rig.FaultCount(Fault::kBody), 1u) << codec::FrameKindName(kind);
    EXPECT_TRUE(rig.store.TakeForPromotion(Term(4)).ok());
  }
}

}  // namespace
}  // namespace romulus::replica

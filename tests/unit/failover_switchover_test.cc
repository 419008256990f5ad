// The switchover in both role machines, event by event. How they meet: failover_two_nodes_test.
#include <vector>

#include "unit/failover_role_driver.h"

namespace romulus::failover {
namespace {

using testing::Contains;
using testing::Not;

Policy Record(uint64_t index = 0) {
  return {.on_secondary_lost = OnSecondaryLost::kHold,
          .arbiter = true,
          .arbiter_keeps_record = true,
          .node_index = index};
}
Policy Fencing(uint64_t index = 0) {
  return {.on_secondary_lost = OnSecondaryLost::kHold, .arbiter = true, .node_index = index};
}

// A primary that has told its secondary to go on.
void Offer(Driver& node) {
  if (node.machine().policy().arbiter_keeps_record) {
    node.Primary();
    node.On(K::kArbiterYes, node.state().claim->wanted);
    node.On(K::kPeerConnected, node.machine().ProposedTerm());
    node.On(K::kArbiterYes, node.state().claim->wanted);
    node.On(K::kSyncDone, node.state().term);
    node.On(K::kEpochCommitted, node.state().term, EpochId(1));
  } else {
    node.Protected();
  }
  EXPECT_THAT(node.On(K::kOpSwitchover), ElementsAre(A::kCutLast));
  EXPECT_THAT(node.On(K::kFinalEpoch, node.state().term, EpochId(9)),
              ElementsAre(A::kOfferHandOver));
  EXPECT_EQ(node.state().hand_over, HandOver::kOffered);
  EXPECT_EQ(node.mode(), Mode::kProtected);
}

TEST(SwitchoverTest, AnsweredByAPromotionTheDaemonBeginsAnew) {
  for (const Policy& policy : {Manual(), Record(), Fencing()}) {
    Driver node(policy);
    Offer(node);
    EXPECT_EQ(node.state().committed_epoch, EpochId(9));
    const auto actions = node.Goodbye(GoodbyeReason::kPromoted, Term(129));
    EXPECT_THAT(actions, ElementsAre(A::kDiscardOutput, A::kStopGuest, A::kStopEpochs,
                                     A::kStopConnecting, A::kCloseLink, A::kBeginAnew));
    EXPECT_EQ(node.mode(), Mode::kFenced);
    EXPECT_EQ(node.state().newest_term, Term(129));
    EXPECT_EQ(node.state().hand_over, HandOver::kNone);
    EXPECT_THAT(node.state().reason, HasSubstr("handed over"));
    EXPECT_FALSE(RunsGuest(node.state()));
  }
}

TEST(SwitchoverTest, RefusedItIsAsIfNothingHadBeen) {
  Driver node(Manual());
  Offer(node);
  EXPECT_THAT(node.On(K::kHandOverRefused), ElementsAre(A::kResumeEpochs, A::kResumeGuest));
  EXPECT_EQ(node.mode(), Mode::kProtected);
  EXPECT_TRUE(node.state().peer_connected);
  EXPECT_EQ(node.state().hand_over, HandOver::kNone);
  EXPECT_THAT(node.On(K::kOpSwitchover), ElementsAre(A::kCutLast));  // again
}

TEST(SwitchoverTest, WithoutTheLastEpochTheGuestGoesOn) {
  Driver node(Manual());
  node.Protected();
  node.On(K::kOpSwitchover);
  EXPECT_THAT(node.On(K::kFinalEpochFailed), ElementsAre(A::kResumeEpochs, A::kResumeGuest));
  EXPECT_EQ(node.mode(), Mode::kProtected);
  // Too late.
  EXPECT_THAT(node.On(K::kFinalEpoch, node.state().term, EpochId(9)), IsEmpty());
  EXPECT_EQ(node.state().hand_over, HandOver::kNone);
}

TEST(SwitchoverTest, BeforeTheOfferALostSecondaryIsLostAsEver) {
  Driver node(Manual());
  node.Protected();
  node.On(K::kOpSwitchover);
  EXPECT_THAT(node.On(K::kLinkClosed), Contains(A::kResumeGuest));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_EQ(node.state().hand_over, HandOver::kNone);
}

TEST(SwitchoverTest, WhatIsNotProtectedIsNotHandedOver) {
  Driver solo(Manual());
  solo.Primary();
  EXPECT_THAT(solo.On(K::kOpSwitchover), ElementsAre(A::kRefuse));
  EXPECT_THAT(solo.action(A::kRefuse).status.message(), HasSubstr("no secondary yet"));
  Driver paused(Manual());
  paused.Protected();
  paused.On(K::kOpPause);
  EXPECT_THAT(paused.On(K::kOpSwitchover), ElementsAre(A::kRefuse));
  Driver secondary(Manual());
  secondary.Holding();
  EXPECT_THAT(secondary.On(K::kOpSwitchover), ElementsAre(A::kRefuse));
}

TEST(SwitchoverTest, MeanwhileOperatorsWait) {
  Driver node(Manual());
  Offer(node);
  for (const EventKind asked : {K::kOpPause, K::kOpResume, K::kOpSwitchover, K::kOpUnprotect}) {
    EXPECT_THAT(node.On(asked), ElementsAre(A::kRefuse)) << EventName(asked);
  }
}

// The stream ends, and the other node may run the guest or not: whatever the policy says of a lost
// secondary, this guest stands still and says nothing.
TEST(SwitchoverTest, UnansweredThePrimaryHolds) {
  for (const EventKind end : {K::kLinkClosed, K::kPeerSilent, K::kStreamBroken, K::kGoodbye}) {
    for (const Policy& policy : {Manual(), Fencing()}) {
      Driver node(policy);
      Offer(node);
      const auto actions =
          end == K::kGoodbye ? node.Goodbye(GoodbyeReason::kShutdown) : node.On(end);
      EXPECT_THAT(actions, Contains(A::kHoldOutput)) << EventName(end);
      EXPECT_THAT(actions, Contains(A::kConnect)) << EventName(end);
      EXPECT_THAT(actions, Not(Contains(A::kResumeGuest))) << EventName(end);
      EXPECT_THAT(actions, Not(Contains(A::kClaim))) << EventName(end);
      EXPECT_EQ(node.mode(), Mode::kDegraded);
      EXPECT_EQ(node.state().hand_over, HandOver::kUnsure);
      EXPECT_THAT(node.state().reason, HasSubstr("stands still"));
      EXPECT_THAT(node.On(K::kOpResume), ElementsAre(A::kRefuse));
    }
  }
}

TEST(SwitchoverTest, AnUnsurePrimaryEndsWhenItHearsOfThePromotion) {
  Driver node(Manual());
  Offer(node);
  const Term term = node.state().term;
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.OtherPrimary(Term(129), {Term(129), term, term}), Contains(A::kBeginAnew));
  EXPECT_EQ(node.mode(), Mode::kFenced);
}

TEST(SwitchoverTest, AnUnsurePrimaryGoesOnWithTheNewStreamsFirstAck) {
  Driver node(Manual());
  Offer(node);
  node.On(K::kLinkClosed);
  const Term again = node.machine().ProposedTerm();
  EXPECT_THAT(node.On(K::kPeerConnected, again), ElementsAre(A::kStartSync));
  node.On(K::kSyncDone, again);
  EXPECT_EQ(node.state().hand_over, HandOver::kUnsure);
  EXPECT_THAT(node.On(K::kEpochCommitted, again, EpochId(1)), ElementsAre(A::kResumeGuest));
  EXPECT_EQ(node.mode(), Mode::kProtected);
}

// It may have been accepted by a node that was being promoted, and hears nothing again.
TEST(SwitchoverTest, AnUnsurePrimaryThatLosesTheNewStreamHoldsOn) {
  for (const EventKind end : {K::kLinkClosed, K::kPeerSilent, K::kStreamBroken, K::kGoodbye}) {
    Driver node(Manual());
    Offer(node);
    node.On(K::kLinkClosed);
    node.On(K::kPeerConnected, node.machine().ProposedTerm());
    node.On(K::kSyncDone, node.state().term);
    end == K::kGoodbye ? node.Goodbye(GoodbyeReason::kShutdown) : node.On(end);
    EXPECT_EQ(node.mode(), Mode::kDegraded) << EventName(end);
    EXPECT_FALSE(node.state().output_open);
    EXPECT_EQ(node.state().hand_over, HandOver::kUnsure);
  }
}

TEST(SwitchoverTest, AnUnsurePrimaryGoesOnIfNothingIsThereOrByForce) {
  Driver refused(Manual());
  Offer(refused);
  refused.On(K::kLinkClosed);
  EXPECT_THAT(refused.Refused(PeerHolds::kReplica), IsEmpty());
  EXPECT_THAT(refused.Refused(PeerHolds::kNothing), Contains(A::kResumeGuest));
  EXPECT_EQ(refused.mode(), Mode::kSolo);
  Driver forced(Manual());
  Offer(forced);
  forced.On(K::kLinkClosed);
  Event unprotect{};
  unprotect.kind = K::kOpUnprotect;
  EXPECT_THAT(forced.On(unprotect), ElementsAre(A::kRefuse));
  unprotect.force = true;
  EXPECT_THAT(forced.On(unprotect), Contains(A::kResumeGuest));
  EXPECT_TRUE(forced.state().output_open);
}

// What it did before it died it does not know.
TEST(SwitchoverTest, ADaemonThatWasStartedAgainProvesNothing) {
  Driver node(Manual());
  Offer(node);
  node.On(K::kLinkClosed);
  Event met{};
  met.started_again = true;
  met.kind = K::kPeerConnected;
  met.term = node.machine().ProposedTerm();
  EXPECT_THAT(node.On(met), ElementsAre(A::kCloseLink, A::kConnect));
  EXPECT_TRUE(node.action(A::kConnect).later);
  met.kind = K::kPeerRefused;
  met.holds = PeerHolds::kNothing;
  EXPECT_THAT(node.On(met), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_EQ(node.state().hand_over, HandOver::kUnsure);
  EXPECT_THAT(node.state().reason, HasSubstr("unprotect --force"));
}

TEST(SwitchoverTest, WhereARecordDecidesAnUnsurePrimaryAsks) {
  for (const EventKind end : {K::kLinkClosed, K::kHandOverLate}) {
    for (const bool yes : {true, false}) {
      Driver node(Record());
      Offer(node);
      EXPECT_THAT(node.On(end), Contains(A::kClaim)) << EventName(end);
      ASSERT_TRUE(node.state().claim.has_value());
      EXPECT_EQ(node.state().claim->action, ClaimAction::kSolo);
      EXPECT_EQ(node.state().hand_over, HandOver::kUnsure);
      Event answer{};
      answer.kind = yes ? K::kArbiterYes : K::kArbiterNo;
      answer.term = node.state().claim->wanted;
      answer.record = {.term = Term(129), .holder = "b", .promoted_term = Term(129), .build = ""};
      EXPECT_THAT(node.On(answer), Contains(yes ? A::kResumeGuest : A::kConnect));
      EXPECT_EQ(node.mode(), yes ? Mode::kSolo : Mode::kDegraded);
    }
  }
}

// A primary whose offer was not answered, and to whom the arbiter says no: the other node has the
// record, and may have died before it ran anything.
void OfferedAndOverruled(Driver& node) {
  Offer(node);
  node.On(K::kLinkClosed);
  const auto actions = node.Answer(K::kArbiterNo, Term(129));
  EXPECT_THAT(actions, ElementsAre(A::kConnect));
  EXPECT_TRUE(node.action(A::kConnect).later);
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_EQ(node.state().hand_over, HandOver::kUnsure);
  EXPECT_TRUE(RunsGuest(node.state()));
  EXPECT_FALSE(node.state().output_open);
  EXPECT_THAT(node.state().reason, HasSubstr("unprotect --force"));
}

TEST(SwitchoverTest, OverruledItEndsWhenThePromotedGuestIsMet) {
  for (const bool refused : {true, false}) {
    Driver node(Record());
    OfferedAndOverruled(node);
    const Lineage over{Term(129), node.state().term, node.state().term};
    const auto actions = refused ? node.Refused(PeerHolds::kGuest, over, Term(129))
                                 : node.OtherPrimary(Term(129), over);
    EXPECT_THAT(actions, Contains(A::kStopGuest));
    EXPECT_THAT(actions, Contains(A::kBeginAnew));
    EXPECT_EQ(node.mode(), Mode::kFenced);
  }
}

// Whoever has the record, and was started again, has lost what was promoted.
TEST(SwitchoverTest, OverruledItEndsWhenTheOtherHasBootedAnew) {
  for (const bool refused : {true, false}) {
    Driver node(Record());
    OfferedAndOverruled(node);
    // One of before the record moved says nothing of it.
    EXPECT_THAT(node.OtherPrimary(Term(128), Lineage{}), Contains(A::kClaim));
    node.Answer(K::kArbiterNo, Term(129));
    EXPECT_EQ(node.mode(), Mode::kDegraded);
    const auto actions = refused ? node.Refused(PeerHolds::kGuest, Lineage{}, Term(145))
                                 : node.OtherPrimary(Term(145), Lineage{});
    EXPECT_THAT(actions, Contains(A::kBeginAnew));
    EXPECT_EQ(node.mode(), Mode::kFenced);
    EXPECT_THAT(node.state().reason, HasSubstr("booted anew"));
  }
}

// The daemon looks at the record while the offer stands: it has moved, and the guest need not run.
TEST(SwitchoverTest, ARecordThatMovedEndsNothingWhileTheOfferStands) {
  Driver node(Record());
  Offer(node);
  Event moved{};
  moved.kind = K::kOtherPrimary;
  moved.term = moved.record.term = Term(1024);
  EXPECT_THAT(node.On(moved), IsEmpty());
  EXPECT_EQ(node.state().hand_over, HandOver::kOffered);
  EXPECT_TRUE(node.state().peer_connected);
}

// It gives the record back when it has nothing to run.
TEST(SwitchoverTest, OverruledItAsksAgainWhenNoGuestIsThere) {
  for (const EventKind met : {K::kPeerConnected, K::kPeerRefused}) {
    Driver node(Record());
    OfferedAndOverruled(node);
    const auto actions = met == K::kPeerConnected ? node.On(met, node.machine().ProposedTerm())
                                                  : node.Refused(PeerHolds::kNothing);
    EXPECT_THAT(actions, Contains(A::kClaim)) << EventName(met);
    EXPECT_THAT(actions, Not(Contains(A::kStartSync)));
    EXPECT_FALSE(node.state().peer_connected);
    EXPECT_THAT(node.Answer(K::kArbiterNo, Term(129)), ElementsAre(A::kConnect));
    EXPECT_EQ(node.mode(), Mode::kDegraded);
    node.On(met, node.machine().ProposedTerm());
    node.Answer(K::kArbiterNo, Term(129), /*ours=*/true);  // given back
    EXPECT_EQ(node.state().claim->expected, Term(129));
    EXPECT_THAT(node.Answer(K::kArbiterYes), Contains(A::kResumeGuest));
    EXPECT_EQ(node.mode(), Mode::kSolo);
    EXPECT_EQ(node.state().overruled, Term());
  }
}

TEST(SwitchoverTest, OverruledAnOperatorsForceGoesOn) {
  Driver node(Record());
  OfferedAndOverruled(node);
  EXPECT_THAT(node.On(K::kOpUnprotect), ElementsAre(A::kRefuse));
  EXPECT_THAT(node.On(K::kOpResume), ElementsAre(A::kRefuse));
  Event force{};
  force.kind = K::kOpUnprotect;
  force.force = true;
  const auto actions = node.On(force);
  EXPECT_THAT(actions, Contains(A::kResumeGuest));
  EXPECT_THAT(actions, Contains(A::kClaim));
  EXPECT_EQ(node.state().claim->expected, Term(129));  // so that the other hears that it is over
  EXPECT_GT(node.state().claim->wanted, Term(129));
  EXPECT_TRUE(node.state().output_open);
}

TEST(SwitchoverTest, WithoutARecordALateAnswerIsWaitedFor) {
  Driver node(Manual());
  Offer(node);
  EXPECT_THAT(node.On(K::kHandOverLate), IsEmpty());
  EXPECT_EQ(node.state().hand_over, HandOver::kOffered);
  EXPECT_THAT(node.Goodbye(GoodbyeReason::kPromoted, Term(129)), Contains(A::kBeginAnew));
}

TEST(SwitchoverTest, WhatFailedOverThereGoesOnHere) {
  Driver node(Manual());
  Offer(node);
  const auto actions = node.Goodbye(GoodbyeReason::kHandOverFailed, Term(129));
  EXPECT_THAT(actions, Contains(A::kOpenOutput));
  EXPECT_THAT(actions, Contains(A::kResumeGuest));
  EXPECT_THAT(actions, Contains(A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  // The record has moved: it is claimed from where it is now.
  Driver asks(Record());
  Offer(asks);
  EXPECT_THAT(asks.Goodbye(GoodbyeReason::kHandOverFailed, Term(129)), Contains(A::kClaim));
  EXPECT_EQ(asks.state().claim->expected, Term(129));
  EXPECT_THAT(asks.On(K::kArbiterYes, asks.state().claim->wanted), Contains(A::kResumeGuest));
}

TEST(SwitchoverTest, TheSecondaryPromotesThatEpochAndSaysSoWhenItRuns) {
  for (const Policy& policy : {Automatic(), Fencing(1), Record(1)}) {
    Driver node(policy);
    node.Holding(Term(32));
    auto actions = node.On(K::kHandOver, Term(32), EpochId(7));
    if (policy.arbiter_keeps_record) {
      EXPECT_THAT(actions, ElementsAre(A::kClaim));
      EXPECT_EQ(node.state().claim->expected, Term(32));
      actions = node.On(K::kArbiterYes, node.state().claim->wanted);
    }
    EXPECT_THAT(actions, ElementsAre(A::kPromote));  // and no goodbye yet
    EXPECT_EQ(node.mode(), Mode::kPromoting);
    EXPECT_TRUE(node.state().peer_connected);
    actions = node.On(K::kPromotionDone, Term(32));
    EXPECT_THAT(actions, ElementsAre(A::kOpenOutput, A::kCloseLink, A::kConnect));
    EXPECT_TRUE(node.action(A::kCloseLink).say_goodbye);
    EXPECT_EQ(node.action(A::kCloseLink).goodbye, GoodbyeReason::kPromoted);
    EXPECT_EQ(node.state().lineage, (Lineage{node.state().term, Term(32), Term(32)}));
    EXPECT_EQ(node.state().hand_over, HandOver::kNone);
  }
}

TEST(SwitchoverTest, TheSecondaryRefusesAnyOtherEpoch) {
  Driver other(Manual());
  other.Holding(Term(32));
  EXPECT_THAT(other.On(K::kHandOver, Term(32), EpochId(8)), ElementsAre(A::kRefuseHandOver));
  EXPECT_EQ(other.mode(), Mode::kProtected);
  Driver syncing(Manual());
  syncing.Receiving(Term(32));
  EXPECT_THAT(syncing.On(K::kHandOver, Term(32), EpochId(1)), ElementsAre(A::kRefuseHandOver));
  Driver alone(Manual());
  alone.Secondary();
  EXPECT_THAT(alone.On(K::kHandOver, Term(32), EpochId(1)), IsEmpty());
}

TEST(SwitchoverTest, APromotionThatFailsGivesTheGuestBack) {
  Event failed{};
  failed.kind = K::kPromotionFailed;
  failed.intact = true;
  Driver intact(Manual());
  intact.Holding(Term(32));
  intact.On(K::kHandOver, Term(32), EpochId(7));
  EXPECT_THAT(intact.On(failed), ElementsAre(A::kRefuseHandOver));
  EXPECT_EQ(intact.mode(), Mode::kProtected);
  EXPECT_EQ(intact.state().newest_term, Term(32));
  for (const bool record : {false, true}) {
    Driver node(record ? Record(1) : Manual());
    node.Holding(Term(32));
    node.On(K::kHandOver, Term(32), EpochId(7));
    if (record) node.On(K::kArbiterYes, node.state().claim->wanted);
    const Term told = node.state().promotion_term;
    failed.intact = record;  // the record was moved: no going back to the stream's term
    const auto done = node.On(failed);
    if (record) {
      EXPECT_THAT(done, ElementsAre(A::kDropReplica, A::kGiveBack, A::kCloseLink));
    } else {
      EXPECT_THAT(done, ElementsAre(A::kDropReplica, A::kCloseLink));
    }
    EXPECT_EQ(node.action(A::kCloseLink).goodbye, GoodbyeReason::kHandOverFailed);
    EXPECT_EQ(node.mode(), Mode::kStandby);
    EXPECT_EQ(node.state().newest_term, record ? told : Term(32));
    EXPECT_EQ(node.state().hand_over, HandOver::kNone);
  }
}

TEST(SwitchoverTest, AHandOverOutlivesItsStream) {
  Driver node(Record(1));
  node.Holding(Term(32));
  node.On(K::kHandOver, Term(32), EpochId(7));
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.On(K::kArbiterYes, node.state().claim->wanted), ElementsAre(A::kPromote));
  EXPECT_THAT(node.On(K::kPromotionDone, Term(32)), ElementsAre(A::kOpenOutput, A::kConnect));
}

TEST(SwitchoverTest, TheArbitersNoEndsTheStream) {
  Driver node(Record(1));
  node.Holding(Term(32));
  node.On(K::kHandOver, Term(32), EpochId(7));
  Event no{};
  no.kind = K::kArbiterNo;
  no.term = node.state().claim->wanted;
  no.record = {.term = Term(48), .holder = "a", .promoted_term = Term(), .build = ""};
  EXPECT_THAT(node.On(no), ElementsAre(A::kCloseLink));  // the replica may be all that is left
  EXPECT_EQ(node.state().hand_over, HandOver::kNone);
}

TEST(SwitchoverTest, AShutdownEndsIt) {
  Driver node(Manual());
  Offer(node);
  EXPECT_THAT(node.On(K::kShutdown), Not(Contains(A::kResumeGuest)));
  EXPECT_EQ(node.mode(), Mode::kFinished);
  EXPECT_EQ(node.state().hand_over, HandOver::kNone);
}

}  // namespace
}  // namespace romulus::failover

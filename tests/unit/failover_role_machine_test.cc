#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "failover/role_machine.h"
#include "unit/failover_role_driver.h"

namespace romulus::failover {
namespace {

// --- terms

TEST(TermTest, NodesTakeTermsOfTheirOwn) {
  for (uint64_t above = 0; above < 100; ++above) {
    for (uint64_t node = 0; node < 3; ++node) {
      const Policy policy{.node_index = node};
      const Term next = NextTerm(policy, Term(above));
      EXPECT_GT(next, Term(above));
      EXPECT_LE(next.value(), above + kTermStride);
      EXPECT_EQ(next.value() % kTermStride, node);
    }
  }
}

TEST(TermTest, APromotionWinsOverAPrimaryThatWentSolo) {
  for (uint64_t known = 1; known < 100; ++known) {
    const Term solo = NextTerm({.node_index = 15}, Term(known));
    EXPECT_GT(PromotionTerm({.node_index = 0}, Term(known)), solo);
  }
}

TEST(PolicyTest, ContradictionIsNamed) {
  EXPECT_TRUE(Validate(Manual()).ok());
  EXPECT_TRUE(Validate(Automatic()).ok());
  Policy both = Automatic();
  both.on_secondary_lost = OnSecondaryLost::kSolo;
  EXPECT_THAT(std::string(Validate(both).message()), HasSubstr("on_secondary_lost"));
  both.arbiter = true;  // decides instead
  EXPECT_TRUE(Validate(both).ok());
  EXPECT_EQ(DefaultOnSecondaryLost(true), OnSecondaryLost::kHold);
  EXPECT_EQ(DefaultOnSecondaryLost(false), OnSecondaryLost::kSolo);
}

// --- primary: the way to protection

TEST(PrimaryTest, StartsAloneWithOutputOpenAndLooksForTheSecondary) {
  Driver node(Manual());
  EXPECT_THAT(node.On(K::kStartPrimary), ElementsAre(A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_TRUE(node.state().output_open);
  EXPECT_TRUE(RunsGuest(node.state()));
  EXPECT_GT(node.state().term, Term(0));
}

TEST(PrimaryTest, SyncsThenIsProtectedByTheFirstAck) {
  Driver node(Manual());
  node.Primary();
  const Term proposed = node.machine().ProposedTerm();
  EXPECT_THAT(node.On(K::kPeerConnected, proposed), ElementsAre(A::kStartSync));
  EXPECT_EQ(node.actions()[0].term, proposed);
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  EXPECT_TRUE(node.state().output_open);
  EXPECT_THAT(node.On(K::kSyncDone, proposed), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  EXPECT_FALSE(node.state().output_open);
  EXPECT_THAT(node.On(K::kEpochCommitted, proposed, EpochId(1)), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kProtected);
  EXPECT_EQ(node.state().committed_epoch, EpochId(1));
  // Still true thousands of epochs later (P8).
  EXPECT_EQ(node.state().reason, "in step with the secondary");
}

TEST(PrimaryTest, AnAckBeforeTheSyncsEndOrOfAnotherTermProtectsNobody) {
  Driver early(Manual());
  early.Syncing();
  early.On(K::kEpochCommitted, early.state().term, EpochId(1));
  EXPECT_EQ(early.mode(), Mode::kSyncing);
  Driver old(Manual());
  old.SyncDone();
  old.On(K::kEpochCommitted, Term(1), EpochId(1));
  EXPECT_EQ(old.mode(), Mode::kSyncing);
}

TEST(PrimaryTest, AStreamOfAnOldAgreementIsClosed) {
  Driver node(Manual());
  node.Primary();
  EXPECT_THAT(node.On(K::kPeerConnected, node.state().term),
              ElementsAre(A::kCloseLink, A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kSolo);
}

// --- primary: losing the secondary

TEST(PrimaryTest, LosingItDuringFullSyncIsAlwaysSolo) {
  for (const Policy& policy : {Manual(), Automatic()}) {
    Driver node(policy);
    node.Syncing();
    EXPECT_THAT(node.On(K::kLinkClosed), ElementsAre(A::kStopEpochs, A::kOpenOutput, A::kConnect));
    EXPECT_EQ(node.mode(), Mode::kSolo);
  }
}

TEST(PrimaryTest, OnceEpochsWereCutThePolicyDecides) {
  for (bool acked : {false, true}) {
    Driver solo(Manual());
    acked ? solo.Protected() : solo.SyncDone();
    const Term before = solo.state().term;
    EXPECT_THAT(solo.On(K::kLinkClosed), ElementsAre(A::kStopEpochs, A::kOpenOutput, A::kConnect));
    EXPECT_EQ(solo.mode(), Mode::kSolo);
    EXPECT_GT(solo.state().term, before);

    Driver hold(Automatic());
    acked ? hold.Protected() : hold.SyncDone();
    EXPECT_THAT(hold.On(K::kLinkClosed), ElementsAre(A::kHoldOutput, A::kStopEpochs, A::kConnect));
    EXPECT_EQ(hold.mode(), Mode::kDegraded);
    EXPECT_FALSE(hold.state().output_open);
    EXPECT_TRUE(hold.state().guest_running);
    EXPECT_THAT(hold.state().reason, HasSubstr("output is held"));
  }
}

TEST(PrimaryTest, ASilentSecondaryIsAsLostAsAClosedStream) {
  Driver node(Automatic());
  node.Protected();
  EXPECT_THAT(node.On(K::kPeerSilent),
              ElementsAre(A::kCloseLink, A::kHoldOutput, A::kStopEpochs, A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
}

// The secondary held an epoch before; until the new stream's first ack it may promote that.
TEST(PrimaryTest, HeldOutputStaysHeldWhenTheResyncFailsToo) {
  Driver node(Automatic());
  node.Protected();
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.On(K::kPeerConnected, node.machine().ProposedTerm()),
              ElementsAre(A::kStartSync));
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  EXPECT_FALSE(node.state().output_open);
  EXPECT_THAT(node.On(K::kLinkClosed), ElementsAre(A::kHoldOutput, A::kStopEpochs, A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kDegraded);
}

TEST(PrimaryTest, ASecondaryThatShutsDownTakesItsReplicaAlong) {
  Driver node(Automatic());
  node.Protected();
  EXPECT_THAT(node.Goodbye(GoodbyeReason::kShutdown),
              ElementsAre(A::kCloseLink, A::kStopEpochs, A::kOpenOutput, A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kSolo);
}

TEST(PrimaryTest, BrokenStreamsStartOver) {
  for (EventKind kind : {K::kStreamBroken, K::kProtectionFailed}) {
    Driver node(Manual());
    node.Protected();
    EXPECT_THAT(node.On(kind),
                ElementsAre(A::kCloseLink, A::kStopEpochs, A::kOpenOutput, A::kConnect));
    EXPECT_TRUE(node.actions()[0].say_goodbye);
    EXPECT_EQ(node.actions()[0].goodbye, GoodbyeReason::kProtocol);
    EXPECT_EQ(node.mode(), Mode::kSolo);
  }
}

TEST(PrimaryTest, AfterABadAuditTheGoodbyeSaysSo) {
  Driver node(Manual());
  node.Protected();
  Event event{};
  event.kind = K::kStreamBroken;
  event.goodbye = GoodbyeReason::kReplicaWrong;
  node.On(event);
  EXPECT_TRUE(node.actions()[0].say_goodbye);
  EXPECT_EQ(node.actions()[0].goodbye, GoodbyeReason::kReplicaWrong);
}

// --- primary: refused

TEST(PrimaryTest, ARefusalForAnotherReasonIsOnlyTold) {
  Driver node(Manual());
  node.Primary();
  Event refused{};
  refused.kind = K::kPeerRefused;
  refused.detail = "cpu: lacks avx512f";
  EXPECT_THAT(node.On(refused), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_THAT(node.state().reason, HasSubstr("avx512f"));
}

// --- primary: operators, ends

TEST(PrimaryTest, PauseAndResume) {
  Driver node(Manual());
  node.Primary();
  EXPECT_THAT(node.On(K::kOpResume), ElementsAre(A::kRefuse));
  EXPECT_THAT(node.On(K::kOpPause), ElementsAre(A::kPauseGuest));
  EXPECT_THAT(node.On(K::kOpPause), ElementsAre(A::kRefuse));
  EXPECT_THAT(node.On(K::kOpResume), ElementsAre(A::kResumeGuest));
}

TEST(PrimaryTest, UnprotectAndProtect) {
  Driver node(Automatic());
  node.Protected();
  EXPECT_THAT(node.On(K::kOpUnprotect), ElementsAre(A::kAskUnprotect));
  EXPECT_EQ(node.mode(), Mode::kProtected);
  EXPECT_THAT(node.On(K::kOpUnprotect), ElementsAre(A::kRefuse));
  EXPECT_THAT(node.Goodbye(GoodbyeReason::kUnprotect),
              ElementsAre(A::kStopConnecting, A::kCloseLink, A::kStopEpochs, A::kOpenOutput));
  EXPECT_EQ(node.action(A::kCloseLink).goodbye, GoodbyeReason::kUnprotect);
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_FALSE(node.state().unprotecting);
  EXPECT_THAT(node.On(K::kOpUnprotect), ElementsAre(A::kRefuse));
  // A handshake that was under way comes too late.
  EXPECT_THAT(node.On(K::kPeerConnected, node.machine().ProposedTerm()),
              ElementsAre(A::kCloseLink));
  EXPECT_THAT(node.On(K::kOpProtect), ElementsAre(A::kConnect));
}

// P1: the secondary may be about to promote what it holds.
TEST(PrimaryTest, UnprotectOpensNothingWithoutTheSecondarysWord) {
  Driver late(Automatic());
  late.Protected();
  late.On(K::kOpUnprotect);
  EXPECT_THAT(late.On(K::kUnprotectUnanswered), IsEmpty());
  EXPECT_EQ(late.mode(), Mode::kProtected);
  EXPECT_FALSE(late.state().unprotecting);
  // Its word, unasked, is none.
  EXPECT_THAT(late.Goodbye(GoodbyeReason::kUnprotect),
              ElementsAre(A::kCloseLink, A::kHoldOutput, A::kStopEpochs, A::kConnect));

  Driver lost(Automatic());
  lost.Protected();
  lost.On(K::kOpUnprotect);
  EXPECT_THAT(lost.On(K::kLinkClosed), ElementsAre(A::kHoldOutput, A::kStopEpochs, A::kConnect));
  EXPECT_EQ(lost.mode(), Mode::kDegraded);
  EXPECT_FALSE(lost.state().unprotecting);
  EXPECT_TRUE(lost.state().protect_wanted);

  Driver promoted(Automatic());
  promoted.Protected();
  promoted.On(K::kOpUnprotect);
  promoted.Goodbye(GoodbyeReason::kPromoted, Term(999));
  EXPECT_EQ(promoted.mode(), Mode::kFenced);
}

TEST(PrimaryTest, UnprotectBeforeTheFirstEpochAsksNobody) {
  Driver node(Automatic());
  node.Syncing();
  EXPECT_THAT(node.On(K::kOpUnprotect),
              ElementsAre(A::kStopConnecting, A::kCloseLink, A::kStopEpochs, A::kOpenOutput));
  EXPECT_EQ(node.mode(), Mode::kSolo);
}

TEST(PrimaryTest, UnprotectByForceEndsAHold) {
  const auto force = [](Driver& node) {
    Event event{};
    event.kind = K::kOpUnprotect;
    event.force = true;
    return node.On(event);
  };
  Driver node(Automatic());
  node.Protected();
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.On(K::kOpUnprotect), ElementsAre(A::kRefuse));
  EXPECT_THAT(std::string(node.actions()[0].status.message()), HasSubstr("--force"));
  EXPECT_THAT(force(node), ElementsAre(A::kStopConnecting, A::kStopEpochs, A::kOpenOutput));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_TRUE(node.state().output_open);
  // Also over a question that is still open.
  Driver asked(Automatic());
  asked.Protected();
  asked.On(K::kOpUnprotect);
  EXPECT_THAT(force(asked),
              ElementsAre(A::kStopConnecting, A::kCloseLink, A::kStopEpochs, A::kOpenOutput));
  EXPECT_FALSE(asked.state().protect_wanted);
}

// P1: what the last ack did not release is not said, however the guest ended.
TEST(PrimaryTest, TheGuestsEndIsToldAndNothingUnackedLeaves) {
  Driver node(Automatic());
  node.Protected();
  EXPECT_THAT(node.On(K::kGuestStopped), ElementsAre(A::kStopConnecting, A::kStopEpochs,
                                                     A::kCloseLink, A::kDiscardOutput, A::kExit));
  EXPECT_EQ(node.action(A::kCloseLink).goodbye, GoodbyeReason::kGuestFinished);
  EXPECT_EQ(node.mode(), Mode::kFinished);
}

TEST(PrimaryTest, AGuestThatEndsWhileOutputIsHeldLeavesNothing) {
  Driver node(Automatic());
  node.Protected();
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.On(K::kGuestStopped),
              ElementsAre(A::kStopConnecting, A::kStopEpochs, A::kDiscardOutput, A::kExit));
}

// Whatever the policy: who gave its replica up cannot promote it.
TEST(PrimaryTest, GoesOnAloneWhenTheSecondarysDiskIsFull) {
  for (const bool is_protected : {true, false}) {
    Driver node(Automatic());
    is_protected ? node.Protected() : node.Syncing();
    const Term term = node.state().term;
    Event goodbye{};
    goodbye.kind = K::kGoodbye;
    goodbye.goodbye = GoodbyeReason::kDisk;
    goodbye.detail = "/images/root.journal: no space left on device";
    EXPECT_THAT(node.On(goodbye),
                ElementsAre(A::kCloseLink, A::kStopEpochs, A::kOpenOutput, A::kConnect));
    EXPECT_TRUE(node.action(A::kConnect).later);
    EXPECT_EQ(node.mode(), Mode::kSolo);
    EXPECT_GT(node.state().term, term);
    EXPECT_TRUE(node.state().output_open);
    EXPECT_THAT(node.state().reason, HasSubstr("/images/root.journal"));
    EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
  }
}

// Output that was held for the lost replica's sake is let out: the secondary has a new one, and
// lost that too.
TEST(PrimaryTest, ADegradedGuestGoesOnAloneWhenTheSecondaryHasNothingAnyMore) {
  Driver node(Automatic());
  node.Protected().On(K::kLinkClosed);
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  node.On(K::kPeerConnected, node.machine().ProposedTerm());
  EXPECT_FALSE(node.state().output_open);
  node.Goodbye(GoodbyeReason::kDisk);
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_TRUE(node.state().output_open);
}

TEST(PrimaryTest, Shutdown) {
  Driver node(Manual());
  node.Protected();
  EXPECT_THAT(node.On(K::kShutdown),
              ElementsAre(A::kStopConnecting, A::kStopEpochs, A::kDiscardOutput, A::kStopGuest,
                          A::kCloseLink, A::kExit));
  EXPECT_EQ(node.action(A::kCloseLink).goodbye, GoodbyeReason::kShutdown);
  EXPECT_FALSE(RunsGuest(node.state()));
}

TEST(PrimaryTest, FailoverIsAskedOfTheOther) {
  Driver node(Manual());
  node.Protected();
  EXPECT_THAT(node.Failover(true), ElementsAre(A::kRefuse));
  EXPECT_THAT(std::string(node.actions()[0].status.message()), HasSubstr("secondary"));
}

}  // namespace
}  // namespace romulus::failover

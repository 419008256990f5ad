// With an arbiter: nobody is heard without its yes (P3).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "failover/role_machine.h"
#include "unit/failover_role_driver.h"

namespace romulus::failover {
namespace {

Policy Arbitrated(uint64_t index = 0) {
  return {.auto_failover = true,
          .on_secondary_lost = OnSecondaryLost::kHold,
          .arbiter = true,
          .arbiter_keeps_record = true,
          .node_index = index};
}

class ArbiterDriver : public Driver {
 public:
  using Driver::Driver;

  const ArbiterClaim& claim() const { return action(A::kClaim).claim; }
  std::vector<ActionKind> Answer(EventKind kind, Term to, ArbiterRecord record = {},
                                 bool ours = false) {
    Event event{};
    event.kind = kind;
    event.term = to;
    event.record = record;
    event.ours = ours;
    return On(event);
  }
  std::vector<ActionKind> Yes() { return Answer(K::kArbiterYes, state().claim->wanted); }
  std::vector<ActionKind> No(Term term = Term(901)) {
    return Answer(K::kArbiterNo, state().claim->wanted, {term, "other", term, ""});
  }
  std::vector<ActionKind> Silent() { return Answer(K::kArbiterSilent, state().claim->wanted); }

  ArbiterDriver& Solo() {
    On(K::kStartPrimary);
    Yes();
    return *this;
  }
  ArbiterDriver& InStep() {
    Solo();
    On(K::kPeerConnected, machine().ProposedTerm());
    Yes();
    On(K::kSyncDone, state().term);
    On(K::kEpochCommitted, state().term, EpochId(1));
    EXPECT_EQ(mode(), Mode::kProtected);
    return *this;
  }
};

// --- primary

TEST(ArbiterPrimaryTest, P3_AStartIsNotHeardBeforeTheYes) {
  ArbiterDriver node(Arbitrated());
  Event start{};
  start.kind = K::kStartPrimary;
  start.record = {Term(32), "this", Term(), ""};
  EXPECT_THAT(node.On(start), ElementsAre(A::kHoldOutput, A::kStopConnecting, A::kClaim));
  EXPECT_EQ(node.claim().action, ClaimAction::kSolo);
  EXPECT_EQ(node.claim().expected, Term(32));
  EXPECT_EQ(node.claim().wanted, Term(48));
  EXPECT_FALSE(node.state().output_open);
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.state().reason, HasSubstr("asks the arbiter"));
  EXPECT_THAT(node.Yes(), ElementsAre(A::kStopEpochs, A::kOpenOutput, A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_EQ(node.state().term, Term(48));
}

TEST(ArbiterPrimaryTest, P3_AStartThatIsRefusedIsFenced) {
  ArbiterDriver node(Arbitrated());
  node.Primary();
  node.No(Term(33));
  EXPECT_EQ(node.mode(), Mode::kFenced);
  EXPECT_FALSE(RunsGuest(node.state()));
  EXPECT_FALSE(node.state().output_open);
}

TEST(ArbiterPrimaryTest, TheTermIsClaimedBeforeAnythingIsSent) {
  ArbiterDriver node(Arbitrated());
  node.Solo();
  const Term confirmed = node.state().term;
  const Term proposed = node.machine().ProposedTerm();
  EXPECT_THAT(node.On(K::kPeerConnected, proposed), ElementsAre(A::kStopConnecting, A::kClaim));
  EXPECT_EQ(node.claim().action, ClaimAction::kProtect);
  EXPECT_EQ(node.claim().expected, confirmed);
  EXPECT_EQ(node.claim().wanted, proposed);
  EXPECT_TRUE(node.state().output_open);
  EXPECT_THAT(node.Yes(), ElementsAre(A::kStartSync));
  EXPECT_EQ(node.actions()[0].term, proposed);
}

TEST(ArbiterPrimaryTest, AStreamThatEndsWhileTheTermIsClaimed) {
  ArbiterDriver node(Arbitrated());
  node.Solo();
  node.On(K::kPeerConnected, node.machine().ProposedTerm());
  EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());  // it waits for the answer
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_TRUE(node.state().output_open);
  EXPECT_THAT(node.Yes(), ElementsAre(A::kStopEpochs, A::kOpenOutput, A::kConnect));
  // From what was confirmed, the next is claimed.
  const Term confirmed = node.state().confirmed;
  node.On(K::kPeerConnected, node.machine().ProposedTerm());
  EXPECT_EQ(node.claim().expected, confirmed);
}

TEST(ArbiterPrimaryTest, P3_ALostSecondaryMeansHoldAndAsk) {
  ArbiterDriver node(Arbitrated());
  node.InStep();
  const Term term = node.state().term;
  EXPECT_THAT(node.On(K::kLinkClosed),
              ElementsAre(A::kHoldOutput, A::kStopEpochs, A::kStopConnecting, A::kClaim));
  EXPECT_EQ(node.claim().action, ClaimAction::kSolo);
  EXPECT_EQ(node.claim().expected, term);
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_FALSE(node.state().output_open);
  // Silence decides nothing, and is said.
  EXPECT_THAT(node.Silent(), IsEmpty());
  EXPECT_THAT(node.Silent(), IsEmpty());
  EXPECT_THAT(node.state().reason, HasSubstr("does not answer"));
  EXPECT_THAT(node.state().reason, HasSubstr("unprotect --force` lets the output out"));
  EXPECT_FALSE(node.state().output_open);
  EXPECT_THAT(node.Yes(), ElementsAre(A::kStopEpochs, A::kOpenOutput, A::kConnect));
  EXPECT_TRUE(node.state().output_open);
  EXPECT_GT(node.state().term, term);
}

TEST(ArbiterPrimaryTest, P3_TheLoserIsFenced) {
  ArbiterDriver node(Arbitrated());
  node.InStep();
  node.On(K::kPeerSilent);
  EXPECT_THAT(node.No(), ElementsAre(A::kDiscardOutput, A::kStopGuest, A::kStopEpochs,
                                     A::kStopConnecting, A::kCloseLink));
  EXPECT_EQ(node.mode(), Mode::kFenced);
  EXPECT_EQ(node.state().newest_term, Term(901));
  EXPECT_THAT(node.state().reason, HasSubstr("begins anew as a secondary"));
  EXPECT_THAT(node.state().reason, testing::Not(HasSubstr("start this node")));
  Policy stays = Arbitrated();
  stays.stay_fenced = true;
  ArbiterDriver kept(stays);
  kept.InStep();
  kept.On(K::kPeerSilent);
  kept.No();
  EXPECT_THAT(kept.state().reason, HasSubstr("start this node again as a secondary"));
}

TEST(ArbiterPrimaryTest, AnotherClaimsAnswerMeansNothing) {
  ArbiterDriver node(Arbitrated());
  node.InStep();
  node.On(K::kLinkClosed);
  const RoleState before = node.state();
  EXPECT_THAT(node.Answer(K::kArbiterYes, Term(1)), IsEmpty());
  EXPECT_THAT(node.Answer(K::kArbiterNo, Term(1)), IsEmpty());
  EXPECT_EQ(node.state(), before);
}

TEST(ArbiterPrimaryTest, AGoodbyeAlsoTakesAYes) {
  for (const GoodbyeReason reason : {GoodbyeReason::kShutdown, GoodbyeReason::kDisk}) {
    ArbiterDriver node(Arbitrated());
    node.InStep();
    node.Goodbye(reason);
    EXPECT_FALSE(node.state().output_open);
    ASSERT_TRUE(node.state().claim.has_value());
    node.Yes();
    EXPECT_TRUE(node.state().output_open);
    EXPECT_EQ(node.action(A::kConnect).later, reason == GoodbyeReason::kDisk);
  }
}

TEST(ArbiterPrimaryTest, AnOperatorsForceDoesNotWait) {
  ArbiterDriver node(Arbitrated());
  node.InStep();
  node.On(K::kLinkClosed);
  const Term given_up = node.state().claim->wanted;
  Event unprotect{};
  unprotect.kind = K::kOpUnprotect;
  unprotect.force = true;
  node.On(unprotect);
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_TRUE(node.state().output_open);
  // The arbiter is to know. What was given up had taken effect, and is no rival.
  ASSERT_TRUE(node.state().claim.has_value());
  EXPECT_GT(node.state().claim->wanted, given_up);
  node.Answer(K::kArbiterNo, node.state().claim->wanted, {given_up, "this", Term(), ""},
              /*ours=*/true);
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_EQ(node.claim().expected, given_up);
  node.Yes();
  EXPECT_TRUE(node.state().output_open);
  EXPECT_EQ(node.state().confirmed, node.state().term);
}

// After an operator's force lineage and record may name different nodes: the record decides.
TEST(ArbiterPrimaryTest, P3_OfTwoPrimariesTheRecordSaysWhichIsOver) {
  for (const EventKind met : {K::kOtherPrimary, K::kPeerRefused, K::kGoodbye}) {
    ArbiterDriver node(Arbitrated());
    node.Solo();
    Event event{};
    event.kind = met;
    event.term = Term(901);
    event.holds = PeerHolds::kGuest;
    event.lineage = {Term(901), Term(900), Term(900)};
    event.goodbye = GoodbyeReason::kPromoted;
    node.On(event);
    EXPECT_TRUE(RunsGuest(node.state()));
    EXPECT_FALSE(node.state().output_open);
    ASSERT_TRUE(node.state().claim.has_value());
    ArbiterDriver other = node;
    node.Yes();
    EXPECT_TRUE(node.state().output_open);
    EXPECT_TRUE(node.action(A::kConnect).later);
    other.No();
    EXPECT_EQ(other.mode(), Mode::kFenced);
  }
}

// An operator's --take-over: the secondary that is in step knows nothing of it.
TEST(ArbiterPrimaryTest, P3_ARecordThatIsAnothersOutweighsASecondaryInStep) {
  ArbiterDriver node(Arbitrated());
  node.InStep();
  EXPECT_THAT(node.OtherPrimary(Term(901), Lineage{}), IsEmpty());  // anybody may say Hello
  EXPECT_EQ(node.mode(), Mode::kProtected);
  Event event{};
  event.kind = K::kOtherPrimary;
  event.term = Term(901);
  event.record = {Term(901), "other", Term(), ""};
  EXPECT_THAT(node.On(event), ElementsAre(A::kCloseLink, A::kHoldOutput, A::kStopEpochs,
                                          A::kStopConnecting, A::kClaim));
  EXPECT_FALSE(node.state().output_open);
  node.No();
  EXPECT_EQ(node.mode(), Mode::kFenced);
}

// The record was deleted, or is an older one. Whoever cannot have been promoted over puts it there
// again; everybody else waits for an operator.
TEST(ArbiterPrimaryTest, P3_ALostRecordIsRestoredOnlyByAGuestThatIsSurelyTheOnlyOne) {
  const auto lost = [](ArbiterDriver& node, ArbiterRecord record, bool ours) {
    Event event{};
    event.kind = K::kArbiterSilent;
    event.term = node.state().claim->wanted;
    event.record = record;
    event.ours = ours;
    event.lost = true;
    return node.On(event);
  };
  ArbiterDriver node(Arbitrated());
  node.Solo();
  EXPECT_TRUE(MayRestoreRecord(Arbitrated(), node.state()));
  const Term wanted = node.machine().ProposedTerm();
  node.On(K::kPeerConnected, wanted);
  ArbiterDriver older = node, others = node;
  EXPECT_THAT(lost(node, {}, false), ElementsAre(A::kClaim));
  EXPECT_EQ(node.claim().expected, Term());
  EXPECT_EQ(node.claim().wanted, wanted);
  EXPECT_THAT(node.Yes(), ElementsAre(A::kStartSync));
  EXPECT_THAT(lost(older, {Term(3), "this", {}, ""}, true), ElementsAre(A::kClaim));
  EXPECT_EQ(older.claim().expected, Term(3));
  EXPECT_THAT(lost(others, {Term(3), "other", {}, ""}, false), IsEmpty());

  // In step: its secondary has not been promoted. Once that is lost, nobody knows.
  ArbiterDriver protected_node(Arbitrated());
  protected_node.InStep();
  EXPECT_TRUE(MayRestoreRecord(Arbitrated(), protected_node.state()));
  protected_node.On(K::kLinkClosed);
  EXPECT_FALSE(MayRestoreRecord(Arbitrated(), protected_node.state()));
  EXPECT_THAT(lost(protected_node, {}, false), IsEmpty());
  EXPECT_FALSE(protected_node.state().output_open);
  // But an operator who has looked.
  Event unprotect{};
  unprotect.kind = K::kOpUnprotect;
  unprotect.force = true;
  protected_node.On(unprotect);
  EXPECT_THAT(lost(protected_node, {}, false), ElementsAre(A::kClaim));
  EXPECT_EQ(protected_node.claim().expected, Term());
  protected_node.Yes();
  EXPECT_EQ(protected_node.mode(), Mode::kSolo);

  // A start is not such a case, nor is any secondary.
  ArbiterDriver started(Arbitrated());
  Event start{};
  start.kind = K::kStartPrimary;
  start.record = {Term(32), "this", Term(), ""};
  started.On(start);
  EXPECT_THAT(lost(started, {}, false), IsEmpty());
  ArbiterDriver secondary(Arbitrated(1));
  secondary.Holding();
  secondary.On(K::kPeerSilent);
  EXPECT_THAT(lost(secondary, {}, false), IsEmpty());
}

// A fence command remembers nothing: it is asked only when the other node is lost.
TEST(ArbiterPrimaryTest, ACommandFencesNobodyWhoIsNotLost) {
  Policy policy = Arbitrated();
  policy.arbiter_keeps_record = false;
  ArbiterDriver node(policy);
  EXPECT_THAT(node.On(K::kStartPrimary), ElementsAre(A::kConnect));
  node.On(K::kPeerConnected, node.machine().ProposedTerm());
  node.On(K::kSyncDone, node.state().term);
  node.On(K::kEpochCommitted, node.state().term, EpochId(1));
  EXPECT_EQ(node.mode(), Mode::kProtected);
  node.Goodbye(GoodbyeReason::kShutdown);  // it said so itself, and keeps nothing
  EXPECT_EQ(node.mode(), Mode::kSolo);

  ArbiterDriver other(policy);
  other.Protected();
  other.On(K::kPeerSilent);
  ASSERT_TRUE(other.state().claim.has_value());
  EXPECT_EQ(other.claim().expected, other.state().term);  // in which they were in step
  EXPECT_FALSE(other.state().output_open);
  other.Yes();
  EXPECT_TRUE(other.state().output_open);
}

// --- secondary

TEST(ArbiterSecondaryTest, P3_PromotesWithTheYesOnly) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding(Term(32));
  EXPECT_THAT(node.On(K::kPeerSilent), ElementsAre(A::kClaim));
  EXPECT_EQ(node.claim().action, ClaimAction::kPromote);
  EXPECT_EQ(node.claim().expected, Term(32));
  EXPECT_EQ(node.claim().promoted_term, node.claim().wanted);
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.On(K::kPeerSilent), IsEmpty());  // asked already
  EXPECT_THAT(node.Silent(), IsEmpty());
  const Term wanted = node.state().claim->wanted;
  const std::vector<ActionKind> actions = node.Yes();
  EXPECT_EQ(actions.front(), A::kPromote);
  EXPECT_EQ(node.actions().front().term, wanted);
  node.On(K::kPromotionDone, Term(32));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_EQ(node.state().term, wanted);
  EXPECT_FALSE(node.state().claim.has_value());
  EXPECT_TRUE(node.state().output_open);
}

// The winner may die before it is in step with this node again.
TEST(ArbiterSecondaryTest, P3_TheLoserKeepsItsReplicaForNobodyButAnOperator) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding(Term(32));
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.No(Term(912)), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_TRUE(node.state().committed);
  EXPECT_THAT(node.state().reason, HasSubstr("epoch 7 of term 32 is older"));
  EXPECT_THAT(node.On(K::kPeerSilent), IsEmpty());
  EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
  ArbiterDriver asked = node, forced = node;
  // The winner's stream is written over it.
  node.On(K::kPeerConnected, Term(928));
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  EXPECT_FALSE(node.state().committed);
  EXPECT_EQ(node.state().overruled, Term());
  // An operator is told no like everybody.
  EXPECT_THAT(asked.Failover(/*force=*/false), ElementsAre(A::kClaim));
  EXPECT_EQ(asked.claim().expected, Term(32));
  asked.No(Term(912));
  EXPECT_EQ(asked.mode(), Mode::kDegraded);
  // By force he goes back, and takes the term from the winner that he was told of.
  EXPECT_EQ(forced.Failover(/*force=*/true).front(), A::kPromote);
  forced.On(K::kPromotionDone, Term(32));
  EXPECT_EQ(forced.claim().expected, Term(912));
}

TEST(ArbiterSecondaryTest, ANoOnAStandingStreamEndsIt) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding(Term(32));
  node.On(K::kPeerSilent);
  EXPECT_THAT(node.No(), ElementsAre(A::kCloseLink));
  EXPECT_FALSE(node.state().peer_connected);
}

// A yes that comes when there is nothing left to promote must not leave the guest to nobody.
TEST(ArbiterSecondaryTest, AYesWithoutAReplicaIsGivenBack) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding(Term(32));
  node.On(K::kPeerSilent);
  const ArbiterClaim claim = *node.state().claim;
  EXPECT_THAT(node.On(K::kReplicaLost), ElementsAre(A::kDropReplica, A::kWithdraw));
  EXPECT_EQ(node.mode(), Mode::kStandby);
  ASSERT_TRUE(node.state().claim.has_value());
  ArbiterDriver withdrawn = node;
  ArbiterDriver earlier = node;  // the record is of a claim that it had given up
  EXPECT_THAT(earlier.Answer(K::kArbiterNo, claim.wanted, {Term(817), "this", {}, ""}, true),
              ElementsAre(A::kGiveBack));
  EXPECT_EQ(earlier.action(A::kGiveBack).term, Term(817));
  EXPECT_EQ(earlier.mode(), Mode::kStandby);
  withdrawn.Answer(K::kClaimWithdrawn, claim.wanted);
  EXPECT_FALSE(withdrawn.state().claim.has_value());
  EXPECT_EQ(withdrawn.mode(), Mode::kStandby);

  EXPECT_THAT(node.Yes(), ElementsAre(A::kGiveBack));
  EXPECT_EQ(node.action(A::kGiveBack).term, claim.wanted);
  EXPECT_EQ(node.mode(), Mode::kStandby);
  EXPECT_THAT(node.state().reason, HasSubstr("given back"));
}

TEST(ArbiterSecondaryTest, APromotionThatCannotBeTriedAgainGivesTheTermBack) {
  for (const bool intact : {true, false}) {
    ArbiterDriver node(Arbitrated(1));
    node.Holding(Term(32));
    node.On(K::kPeerSilent);
    const Term wanted = node.state().claim->wanted;
    node.Yes();
    Event failed{};
    failed.kind = K::kPromotionFailed;
    failed.intact = intact;
    if (intact) {
      EXPECT_THAT(node.On(failed), IsEmpty());
      continue;
    }
    EXPECT_THAT(node.On(failed), ElementsAre(A::kDropReplica, A::kGiveBack));
    EXPECT_EQ(node.action(A::kGiveBack).term, wanted);
  }
  // What was forced was never the arbiter's word.
  ArbiterDriver forced(Arbitrated(1));
  forced.Holding(Term(32));
  forced.Failover(/*force=*/true);
  EXPECT_THAT(forced.On(K::kPromotionFailed), ElementsAre(A::kDropReplica));
}

// The primary of a switchover comes back, and what this node could have tried again is overwritten:
// it would be told no for ever.
TEST(ArbiterSecondaryTest, ATermOfAFailedPromotionIsGivenBackToThePrimaryThatComes) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding(Term(32));
  node.On(K::kPeerSilent);
  const Term wanted = node.state().claim->wanted;
  node.Yes();
  Event failed{};
  failed.kind = K::kPromotionFailed;
  failed.intact = true;
  node.On(failed);
  ASSERT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.On(K::kPeerConnected, Term(1024)), ElementsAre(A::kGiveBack));
  EXPECT_EQ(node.action(A::kGiveBack).term, wanted);
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  // Nothing was ever confirmed to a node that only follows.
  ArbiterDriver follows(Arbitrated(1));
  follows.Holding(Term(32));
  follows.On(K::kLinkClosed);
  EXPECT_THAT(follows.On(K::kPeerConnected, Term(1024)), IsEmpty());
}

// The arbiter was away when the primary was silent for a moment: its answer must not promote later.
TEST(ArbiterSecondaryTest, AClaimIsWithdrawnWhenThePrimaryIsHeardAgain) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding(Term(32));
  node.On(K::kPeerSilent);
  const ArbiterClaim claim = *node.state().claim;
  node.Silent();
  EXPECT_THAT(node.On(K::kPeerHeard), ElementsAre(A::kWithdraw));
  EXPECT_EQ(node.action(A::kWithdraw).claim, claim);
  EXPECT_THAT(node.On(K::kPeerHeard), IsEmpty());  // is being withdrawn
  node.Silent();
  EXPECT_THAT(node.state().reason, HasSubstr("withdraws its claim"));
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  ASSERT_TRUE(node.state().claim.has_value());  // it may have taken effect: no primary is accepted
  EXPECT_THAT(node.On(K::kEpochCommitted, Term(32), EpochId(9)), IsEmpty());
  ArbiterDriver late = node, again = node;

  EXPECT_THAT(node.Answer(K::kClaimWithdrawn, claim.wanted), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kProtected);
  EXPECT_FALSE(node.state().claim.has_value());
  EXPECT_EQ(node.state().committed_epoch, EpochId(9));
  EXPECT_EQ(node.state().newest_term, Term(32));  // nobody has what was claimed
  EXPECT_THAT(node.Answer(K::kArbiterYes, claim.wanted), IsEmpty());

  // It had taken effect: then nobody else has the guest.
  EXPECT_EQ(late.Yes().front(), A::kPromote);
  EXPECT_EQ(late.mode(), Mode::kPromoting);

  // The primary is lost once more before it is withdrawn.
  EXPECT_THAT(again.On(K::kLinkClosed), ElementsAre(A::kClaim));
  EXPECT_EQ(again.claim(), claim);
  EXPECT_THAT(again.Answer(K::kClaimWithdrawn, claim.wanted), IsEmpty());
  EXPECT_EQ(again.state().claim, claim);
  EXPECT_EQ(again.Yes().front(), A::kPromote);
}

TEST(ArbiterSecondaryTest, WhatIsWithdrawnFromAPrimaryThatLeftIsAnOperatorsAgain) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding(Term(32));
  node.On(K::kPeerSilent);
  node.On(K::kPeerHeard);
  node.Goodbye(GoodbyeReason::kShutdown);
  node.Answer(K::kClaimWithdrawn, node.state().claim->wanted);
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.state().reason, HasSubstr("`romulusctl failover`"));
  // By force nothing is waited for.
  node.On(K::kPeerSilent);
  EXPECT_EQ(node.Failover(/*force=*/true).front(), A::kPromote);
  EXPECT_FALSE(node.state().withdrawing);
}

TEST(ArbiterSecondaryTest, WhatIsClaimedIsNotGivenUpForAPrimarysGoodbye) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding();
  node.On(K::kPeerSilent);
  node.Goodbye(GoodbyeReason::kUnprotect);
  EXPECT_TRUE(node.state().committed);
  node.Yes();
  EXPECT_EQ(node.mode(), Mode::kPromoting);
}

TEST(ArbiterSecondaryTest, AClaimThatWasNotMadeIsForgotten) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding();
  node.On(K::kPeerSilent);
  node.Answer(K::kClaimVoid, node.state().claim->wanted);
  EXPECT_FALSE(node.state().claim.has_value());
  // The stream's term was agreed before, and is below what would have been claimed.
  const Term agreed = NextTerm(Arbitrated(0), NextTerm(Arbitrated(0), Term(32)));
  ASSERT_LT(agreed, PromotionTerm(Arbitrated(1), Term(32)));
  node.On(K::kPeerConnected, agreed);
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  EXPECT_FALSE(node.state().committed);
  EXPECT_EQ(node.state().term, agreed);
}

// The loop hears of the primary first, of the claim that it made void afterwards.
TEST(ArbiterSecondaryTest, APrimaryThatWasAcceptedBeforeTheClaimIsFollowed) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding();
  node.On(K::kPeerSilent);
  const Term wanted = node.state().claim->wanted;
  node.On(K::kPeerConnected, Term(48));
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  EXPECT_EQ(node.state().term, Term(48));
  EXPECT_FALSE(node.state().claim.has_value());
  const RoleState before = node.state();
  node.Answer(K::kClaimVoid, wanted);
  EXPECT_EQ(node.state(), before);
}

TEST(ArbiterSecondaryTest, AnOperatorAsksTheArbiterTooUnlessByForce) {
  ArbiterDriver node(Arbitrated(1));
  node.Holding(Term(32));
  node.On(K::kPeerSilent);
  const Term asked = node.state().claim->wanted;
  EXPECT_THAT(node.Failover(/*force=*/false), IsEmpty());
  EXPECT_EQ(node.state().claim->wanted, asked);
  EXPECT_EQ(node.Failover(/*force=*/true).front(), A::kPromote);
  node.On(K::kPromotionDone, Term(32));
  EXPECT_TRUE(node.state().output_open);
  // It was not asked; it is to know now, and its no ends this guest.
  EXPECT_EQ(node.claim().expected, Term(32));
  node.No();
  EXPECT_EQ(node.mode(), Mode::kFenced);
}

}  // namespace
}  // namespace romulus::failover

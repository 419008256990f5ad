#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "failover/role_machine.h"

namespace romulus::failover {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using K = EventKind;
using A = ActionKind;

Policy Manual() { return {.on_secondary_lost = OnSecondaryLost::kSolo, .node_index = 0}; }
Policy Automatic() {
  return {.auto_failover = true, .on_secondary_lost = OnSecondaryLost::kHold, .node_index = 1};
}

// A machine with the events' boilerplate taken away.
class Driver {
 public:
  explicit Driver(const Policy& policy) : machine_(policy) {}

  std::vector<ActionKind> On(Event event) {
    actions_ = machine_.Handle(event, ++now_ns_);
    std::vector<ActionKind> kinds;
    for (const Action& action : actions_) kinds.push_back(action.kind);
    return kinds;
  }
  std::vector<ActionKind> On(EventKind kind, Term term = Term(), EpochId epoch = EpochId()) {
    Event event{};
    event.kind = kind;
    event.term = term;
    event.epoch = epoch;
    return On(event);
  }
  std::vector<ActionKind> Goodbye(GoodbyeReason reason, Term term = Term()) {
    Event event{};
    event.kind = K::kGoodbye;
    event.goodbye = reason;
    event.term = term;
    return On(event);
  }
  std::vector<ActionKind> Failover(bool force) {
    Event event{};
    event.kind = K::kOpFailover;
    event.force = force;
    return On(event);
  }

  Driver& Primary() {
    On(K::kStartPrimary);
    return *this;
  }
  Driver& Syncing() {
    Primary();
    On(K::kPeerConnected, machine_.ProposedTerm());
    return *this;
  }
  Driver& SyncDone() {
    Syncing();
    On(K::kSyncDone, state().term);
    return *this;
  }
  Driver& Protected() {
    SyncDone();
    On(K::kEpochCommitted, state().term, EpochId(1));
    return *this;
  }
  Driver& Secondary() {
    On(K::kStartSecondary);
    return *this;
  }
  Driver& Receiving(Term term = Term(32)) {
    Secondary();
    On(K::kPeerConnected, term);
    return *this;
  }
  Driver& Holding(Term term = Term(32)) {
    Receiving(term);
    On(K::kEpochCommitted, term, EpochId(7));
    return *this;
  }

  const RoleState& state() const { return machine_.state(); }
  Mode mode() const { return state().mode; }
  const std::vector<Action>& actions() const { return actions_; }
  const Action& action(ActionKind kind) const {
    static const Action kNone{};
    for (const Action& action : actions_) {
      if (action.kind == kind) return action;
    }
    ADD_FAILURE() << "no action " << ActionName(kind);
    return kNone;
  }
  RoleMachine& machine() { return machine_; }

 private:
  RoleMachine machine_;
  std::vector<Action> actions_;
  uint64_t now_ns_ = 0;
};

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

// --- primary: the term

TEST(PrimaryTest, ANewerTermFences) {
  const std::vector<std::function<std::vector<ActionKind>(Driver&)>> ways = {
      [](Driver& node) { return node.On(K::kHigherTerm, Term(999)); },
      [](Driver& node) { return node.Goodbye(GoodbyeReason::kPromoted, Term(999)); },
      [](Driver& node) {
        Event refused{};
        refused.kind = K::kPeerRefused;
        refused.by_term = true;
        refused.term = Term(999);
        return node.On(refused);
      }};
  for (const auto& way : ways) {
    Driver node(Automatic());
    node.Protected();
    EXPECT_THAT(way(node), ElementsAre(A::kDiscardOutput, A::kStopGuest, A::kStopEpochs,
                                       A::kStopConnecting, A::kCloseLink));
    EXPECT_EQ(node.mode(), Mode::kFenced);
    EXPECT_FALSE(RunsGuest(node.state()));
    EXPECT_FALSE(node.state().output_open);
    EXPECT_EQ(node.state().newest_term, Term(999));
    // And it stays so.
    EXPECT_THAT(node.On(K::kPeerConnected, Term(2000)), IsEmpty());
    EXPECT_THAT(node.Failover(true), ElementsAre(A::kRefuse));
    EXPECT_EQ(node.mode(), Mode::kFenced);
  }
}

TEST(PrimaryTest, AnOlderOrEqualTermDoesNotFence) {
  Driver node(Manual());
  node.Protected();
  EXPECT_THAT(node.On(K::kHigherTerm, node.state().term), IsEmpty());
  EXPECT_THAT(node.Goodbye(GoodbyeReason::kPromoted, Term(1)),
              ElementsAre(A::kCloseLink, A::kStopEpochs, A::kOpenOutput, A::kConnect));
  EXPECT_TRUE(RunsGuest(node.state()));
}

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
  EXPECT_THAT(node.On(K::kOpUnprotect),
              ElementsAre(A::kStopConnecting, A::kCloseLink, A::kStopEpochs, A::kOpenOutput));
  EXPECT_EQ(node.action(A::kCloseLink).goodbye, GoodbyeReason::kUnprotect);
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_THAT(node.On(K::kOpUnprotect), ElementsAre(A::kRefuse));
  // A handshake that was under way comes too late.
  EXPECT_THAT(node.On(K::kPeerConnected, node.machine().ProposedTerm()),
              ElementsAre(A::kCloseLink));
  EXPECT_THAT(node.On(K::kOpProtect), ElementsAre(A::kConnect));
}

TEST(PrimaryTest, UnprotectEndsAHold) {
  Driver node(Automatic());
  node.Protected();
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.On(K::kOpUnprotect),
              ElementsAre(A::kStopConnecting, A::kStopEpochs, A::kOpenOutput));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_TRUE(node.state().output_open);
}

TEST(PrimaryTest, TheGuestsEndIsToldAndItsLastWordsLeave) {
  Driver node(Automatic());
  node.Protected();
  EXPECT_THAT(node.On(K::kGuestStopped), ElementsAre(A::kStopConnecting, A::kStopEpochs,
                                                     A::kCloseLink, A::kOpenOutput, A::kExit));
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

// --- secondary

TEST(SecondaryTest, SyncsThenHolds) {
  Driver node(Manual());
  EXPECT_THAT(node.On(K::kStartSecondary), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kStandby);
  node.On(K::kPeerConnected, Term(32));
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  node.On(K::kEpochCommitted, Term(32), EpochId(1));
  EXPECT_EQ(node.mode(), Mode::kProtected);
  EXPECT_TRUE(node.state().committed);
  EXPECT_FALSE(RunsGuest(node.state()));
}

TEST(SecondaryTest, WithoutACommittedEpochThereIsNothingToPromote) {
  for (const Policy& policy : {Manual(), Automatic()}) {
    for (EventKind lost : {K::kLinkClosed, K::kPeerSilent}) {
      Driver node(policy);
      node.Receiving();
      node.On(lost);
      EXPECT_EQ(node.mode(), Mode::kStandby);
      EXPECT_THAT(node.state().reason, HasSubstr("nothing to promote"));
      EXPECT_THAT(node.Failover(true), ElementsAre(A::kRefuse));
      EXPECT_THAT(std::string(node.actions()[0].status.message()), HasSubstr("nothing to promote"));
    }
  }
}

TEST(SecondaryTest, ANewFullSyncGivesTheOldReplicaUp) {
  Driver node(Automatic());
  node.Holding();
  node.On(K::kStreamBroken);
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  node.On(K::kPeerConnected, Term(48));
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  node.On(K::kLinkClosed);
  EXPECT_EQ(node.mode(), Mode::kStandby);
}

TEST(SecondaryTest, ByHandItWaitsForTheOperator) {
  for (EventKind lost : {K::kLinkClosed, K::kPeerSilent}) {
    Driver node(Manual());
    node.Holding();
    EXPECT_THAT(node.On(lost), IsEmpty());
    EXPECT_EQ(node.mode(), Mode::kDegraded);
    EXPECT_THAT(node.state().reason, HasSubstr("romulusctl failover"));
    const auto actions = node.Failover(false);
    ASSERT_FALSE(actions.empty());
    EXPECT_EQ(actions[0], A::kPromote);
    EXPECT_EQ(node.mode(), Mode::kPromoting);
  }
}

TEST(SecondaryTest, FailoverWhileThePrimaryAnswersNeedsForce) {
  Driver node(Manual());
  node.Holding();
  EXPECT_THAT(node.Failover(false), ElementsAre(A::kRefuse));
  EXPECT_THAT(std::string(node.actions()[0].status.message()), HasSubstr("--force"));
  EXPECT_THAT(node.Failover(true), ElementsAre(A::kPromote, A::kCloseLink));
  EXPECT_EQ(node.actions()[1].goodbye, GoodbyeReason::kPromoted);
  EXPECT_EQ(node.actions()[0].term, node.state().newest_term);
  EXPECT_THAT(node.Failover(true), ElementsAre(A::kRefuse));
}

TEST(SecondaryTest, AutomaticallyOnLoss) {
  Driver closed(Automatic());
  closed.Holding();
  EXPECT_THAT(closed.On(K::kLinkClosed), ElementsAre(A::kPromote));
  EXPECT_EQ(closed.mode(), Mode::kPromoting);
  Driver silent(Automatic());
  silent.Holding();
  EXPECT_THAT(silent.On(K::kPeerSilent), ElementsAre(A::kPromote, A::kCloseLink));
}

TEST(SecondaryTest, AutomaticallyOnlyOnSilenceIfSoConfigured) {
  Policy policy = Automatic();
  policy.promote_on_link_closed = false;
  Driver node(policy);
  node.Holding();
  EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.On(K::kPeerSilent), ElementsAre(A::kPromote));
}

TEST(SecondaryTest, APrimaryThatLeftOnPurposeIsNotReplaced) {
  Driver node(Automatic());
  node.Holding();
  EXPECT_THAT(node.Goodbye(GoodbyeReason::kShutdown), ElementsAre(A::kCloseLink));
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
  EXPECT_THAT(node.On(K::kPeerSilent), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.Failover(false), ElementsAre(A::kPromote));
}

TEST(SecondaryTest, AFinishedGuestOrEndedProtectionIsNotPromoted) {
  for (GoodbyeReason reason : {GoodbyeReason::kGuestFinished, GoodbyeReason::kUnprotect}) {
    Driver node(Automatic());
    node.Holding();
    EXPECT_THAT(node.Goodbye(reason), ElementsAre(A::kCloseLink, A::kDropReplica));
    EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
    EXPECT_THAT(node.On(K::kPeerSilent), IsEmpty());
    EXPECT_THAT(node.Failover(true), ElementsAre(A::kRefuse));
    EXPECT_FALSE(node.state().committed);
  }
}

TEST(SecondaryTest, ABrokenStreamIsNoDeadPrimary) {
  for (int by_us = 0; by_us < 2; ++by_us) {
    Driver node(Automatic());
    node.Holding();
    by_us == 0 ? node.Goodbye(GoodbyeReason::kProtocol) : node.On(K::kStreamBroken);
    EXPECT_EQ(node.mode(), Mode::kDegraded);
    EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
    // But if it never comes back, it is dead.
    EXPECT_THAT(node.On(K::kPeerSilent), ElementsAre(A::kPromote));
  }
}

TEST(SecondaryTest, APrimaryHeardAgainIsTheProtectedOne) {
  Driver node(Manual());
  node.Holding();
  node.On(K::kPeerSilent);
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  node.On(K::kPeerHeard);
  EXPECT_EQ(node.mode(), Mode::kProtected);
  EXPECT_THAT(node.Failover(false), ElementsAre(A::kRefuse));
}

TEST(SecondaryTest, APromotionEndsInAPrimaryOfItsOwnTerm) {
  Driver node(Automatic());
  node.Holding(Term(32));
  node.On(K::kLinkClosed);
  const Term term = node.action(A::kPromote).term;
  EXPECT_EQ(term.value() % kTermStride, 1u);
  EXPECT_GT(term, Term(32 + kTermStride));
  EXPECT_THAT(node.On(K::kPromotionDone), ElementsAre(A::kOpenOutput, A::kConnect));
  EXPECT_EQ(node.state().role, Role::kPrimary);
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_EQ(node.state().term, term);
  EXPECT_TRUE(RunsGuest(node.state()));
  EXPECT_THAT(node.state().reason, HasSubstr("epoch 7"));
}

TEST(SecondaryTest, AFailedPromotionGivesItsTermBack) {
  Driver node(Automatic());
  node.Holding(Term(32));
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.On(K::kPromotionFailed), ElementsAre(A::kDropReplica));
  EXPECT_EQ(node.mode(), Mode::kStandby);
  EXPECT_EQ(node.state().newest_term, Term(32));
  EXPECT_FALSE(RunsGuest(node.state()));
  // The old primary may come back.
  node.On(K::kPeerConnected, Term(48));
  EXPECT_EQ(node.mode(), Mode::kSyncing);
}

TEST(SecondaryTest, ANewerTermDuringThePromotionFencesIt) {
  Driver node(Automatic());
  node.Holding();
  node.On(K::kLinkClosed);
  node.On(K::kHigherTerm, Term(999));
  const auto actions = node.On(K::kPromotionDone);
  EXPECT_THAT(actions, testing::Contains(A::kStopGuest));
  EXPECT_THAT(actions, testing::Not(testing::Contains(A::kOpenOutput)));
  EXPECT_EQ(node.mode(), Mode::kFenced);
}

TEST(SecondaryTest, AStreamOfAnOlderTermIsNotBegun) {
  Driver node(Manual());
  node.Secondary();
  node.On(K::kHigherTerm, Term(100));
  node.On(K::kPeerConnected, Term(99));
  EXPECT_EQ(node.mode(), Mode::kStandby);
}

TEST(SecondaryTest, Shutdown) {
  Driver node(Manual());
  node.Holding();
  EXPECT_THAT(node.On(K::kShutdown), ElementsAre(A::kCloseLink, A::kExit));
  EXPECT_EQ(node.actions()[0].goodbye, GoodbyeReason::kShutdown);
}

// --- every event in every state

TEST(RoleMachineTest, EveryStateTakesEveryEvent) {
  using Setup = std::function<void(Driver&)>;
  const std::vector<Setup> setups = {
      [](Driver&) {},
      [](Driver& n) { n.Primary(); },
      [](Driver& n) { n.Syncing(); },
      [](Driver& n) { n.SyncDone(); },
      [](Driver& n) { n.Protected(); },
      [](Driver& n) { n.Protected(), n.On(K::kLinkClosed); },
      [](Driver& n) { n.Protected(), n.On(K::kHigherTerm, Term(999)); },
      [](Driver& n) { n.Protected(), n.On(K::kGuestStopped); },
      [](Driver& n) { n.Secondary(); },
      [](Driver& n) { n.Receiving(); },
      [](Driver& n) { n.Holding(); },
      [](Driver& n) { n.Holding(), n.On(K::kStreamBroken); },
      [](Driver& n) { n.Holding(), n.Failover(true); },
      [](Driver& n) { n.Holding(), n.On(K::kShutdown); },
  };
  for (const Policy& policy : {Manual(), Automatic()}) {
    for (size_t setup = 0; setup < setups.size(); ++setup) {
      for (size_t kind = 0; kind < kEventKindCount; ++kind) {
        for (uint64_t term : {0, 32, 5000}) {
          Driver node(policy);
          setups[setup](node);
          const RoleState before = node.state();
          const std::vector<ActionKind> actions =
              node.On(static_cast<EventKind>(kind), Term(term), EpochId(3));
          const RoleState& after = node.state();
          const std::string where = "setup " + std::to_string(setup) + ", " +
                                    std::string(EventName(static_cast<EventKind>(kind)));
          // What is said must fit together (P8).
          EXPECT_GE(after.newest_term, after.term) << where;
          EXPECT_GE(after.term, before.term) << where;
          EXPECT_TRUE(after.mode == before.mode || !after.reason.empty()) << where;
          EXPECT_TRUE(after.guest_running || !after.output_open) << where;
          if (after.mode == Mode::kFenced || after.mode == Mode::kFinished) {
            EXPECT_FALSE(after.guest_running) << where;
          }
          if (after.mode == Mode::kProtected && after.role == Role::kPrimary) {
            EXPECT_FALSE(after.output_open) << where;
          }
          // A guest that no longer runs was told to stop, or stopped by itself.
          if (before.guest_running && !after.guest_running &&
              static_cast<EventKind>(kind) != K::kGuestStopped) {
            EXPECT_THAT(actions, testing::Contains(A::kStopGuest)) << where;
          }
          for (const Action& action : node.actions()) {
            EXPECT_EQ(action.kind == A::kRefuse, !action.status.ok()) << where;
          }
        }
      }
    }
  }
}

TEST(RoleMachineTest, DatesChangesOfMode) {
  RoleMachine machine(Manual());
  Event event{};
  event.kind = K::kStartPrimary;
  machine.Handle(event, 100);
  EXPECT_EQ(machine.state().since_ns, 100u);
  event.kind = K::kOpPause;
  machine.Handle(event, 200);
  EXPECT_EQ(machine.state().since_ns, 100u);
  event.kind = K::kPeerConnected;
  event.term = machine.ProposedTerm();
  machine.Handle(event, 300);
  EXPECT_EQ(machine.state().since_ns, 300u);
}

}  // namespace
}  // namespace romulus::failover

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "failover/role_machine.h"
#include "unit/failover_role_driver.h"

namespace romulus::failover {
namespace {

// --- secondary

TEST(SecondaryTest, SyncsThenHolds) {
  Driver node(Manual());
  EXPECT_THAT(node.On(K::kStartSecondary), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kStandby);
  node.On(K::kPeerConnected, Term(32));
  EXPECT_EQ(node.mode(), Mode::kSyncing);
  node.On(K::kEpochCommitted, Term(32), EpochId(1));
  EXPECT_EQ(node.mode(), Mode::kProtected);
  EXPECT_EQ(node.state().reason, "in step with the primary");
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

// Beside the stream's end nothing else is news: it is the replica that must not be gone on from.
TEST(SecondaryTest, AReplicaThatIsKnownToBeWrongIsPromotedByForceOnly) {
  Driver node(Automatic());
  node.Holding();
  EXPECT_THAT(node.Goodbye(GoodbyeReason::kReplicaWrong), ElementsAre(A::kCloseLink));
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.state().reason, HasSubstr("wrong"));
  EXPECT_THAT(node.state().reason, HasSubstr("--force"));
  EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
  EXPECT_THAT(node.On(K::kPeerSilent), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.Failover(false), ElementsAre(A::kRefuse));
  EXPECT_THAT(std::string(node.actions()[0].status.message()), HasSubstr("audit"));
  EXPECT_THAT(node.Failover(true), ElementsAre(A::kPromote));
  // The full sync that follows makes it right.
  Driver synced(Automatic());
  synced.Holding();
  synced.Goodbye(GoodbyeReason::kReplicaWrong);
  synced.On(K::kPeerConnected, Term(48));
  synced.On(K::kEpochCommitted, Term(48), EpochId(1));
  EXPECT_THAT(synced.On(K::kLinkClosed), ElementsAre(A::kPromote));
}

// The primary may die before it has heard, or told, what the audit here has found.
TEST(SecondaryTest, WhatItsOwnAuditFoundWrongIsPromotedByForceOnly) {
  for (const K end : {K::kLinkClosed, K::kPeerSilent}) {
    Driver node(Automatic());
    node.Holding();
    EXPECT_THAT(node.On(K::kReplicaWrong), IsEmpty());
    EXPECT_EQ(node.mode(), Mode::kProtected);
    EXPECT_THAT(node.state().reason, HasSubstr("wrong"));
    EXPECT_THAT(node.On(end), testing::Not(testing::Contains(A::kPromote)));
    EXPECT_EQ(node.mode(), Mode::kDegraded);
    EXPECT_THAT(node.Failover(false), ElementsAre(A::kRefuse));
    EXPECT_THAT(node.Failover(true), testing::Contains(A::kPromote));
  }
  // Nor is it handed over, and a full sync makes it right.
  Driver node(Automatic());
  node.Holding();
  node.On(K::kReplicaWrong);
  const Term term = node.state().term;
  const EpochId epoch = node.state().committed_epoch;
  EXPECT_THAT(node.On(K::kHandOver, term, epoch), testing::Not(testing::Contains(A::kPromote)));
  node.On(K::kLinkClosed);
  node.On(K::kPeerConnected, Term(48));
  node.On(K::kEpochCommitted, Term(48), EpochId(1));
  EXPECT_THAT(node.On(K::kLinkClosed), ElementsAre(A::kPromote));
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
  EXPECT_EQ(node.state().lineage, (Lineage{term, Term(32), Term(32)}));
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

TEST(SecondaryTest, APromotionThatFailedBeforeTheReplicaWasTouchedCanBeTriedAgain) {
  Driver node(Manual());
  node.Holding(Term(32));
  node.On(K::kLinkClosed);
  node.Failover(false);
  Event failed{};
  failed.kind = K::kPromotionFailed;
  failed.intact = true;
  failed.detail = "no memory";
  EXPECT_THAT(node.On(failed), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_THAT(node.state().reason, HasSubstr("no memory"));
  EXPECT_THAT(node.Failover(false), ElementsAre(A::kPromote));
  EXPECT_EQ(node.mode(), Mode::kPromoting);
}

// The old primary was restarted meanwhile, any number of times: its term is high and proves
// nothing.
TEST(SecondaryTest, AHighTermDuringThePromotionDoesNotEndIt) {
  Driver node(Automatic());
  node.Holding(Term(32));
  node.On(K::kLinkClosed);
  node.OtherPrimary(Term(999), {.shared = Term(32)});
  EXPECT_THAT(node.On(K::kPromotionDone, Term(32)), ElementsAre(A::kOpenOutput, A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_GT(node.machine().ProposedTerm(), Term(999)) << "what it sends over there will be newer";
  node.OtherPrimary(Term(2000), {.shared = Term(32)});
  EXPECT_EQ(node.mode(), Mode::kSolo);
}

// A stream was accepted, and brought an epoch, between the decision and the sealing.
TEST(SecondaryTest, APromotionCoversTheTermOfTheEpochThatWasSealed) {
  Driver node(Automatic());
  node.Holding(Term(32));
  node.On(K::kLinkClosed);
  node.On(K::kPromotionDone, Term(48));
  EXPECT_EQ(node.state().lineage.covers, Term(48));
  EXPECT_EQ(node.state().lineage.shared, Term(48));
}

TEST(SecondaryTest, WhatItsDisksCameFromIsOverWhenItFollows) {
  Driver node(Manual());
  Event start{};
  start.kind = K::kStartSecondary;
  start.lineage = {Term(17), Term(16), Term(32)};
  node.On(start);
  EXPECT_EQ(node.state().lineage, start.lineage);
  node.On(K::kPeerConnected, Term(64));
  EXPECT_EQ(node.state().lineage, Lineage{});
}

TEST(SecondaryTest, AStreamOfAnOlderTermIsNotBegun) {
  Driver node(Manual());
  node.Secondary();
  node.OtherPrimary(Term(100), {});
  node.On(K::kPeerConnected, Term(99));
  EXPECT_EQ(node.mode(), Mode::kStandby);
}

TEST(SecondaryTest, AReplicaThatItsDisksLostIsNotPromoted) {
  Driver node(Automatic());
  node.Holding();
  Event lost{};
  lost.kind = K::kReplicaLost;
  lost.detail = "/images/root.journal: no space left on device";
  EXPECT_THAT(node.On(lost), ElementsAre(A::kDropReplica));
  EXPECT_EQ(node.mode(), Mode::kStandby);
  EXPECT_THAT(node.state().reason, HasSubstr("/images/root.journal"));
  EXPECT_THAT(node.On(K::kPeerSilent), IsEmpty());
  EXPECT_EQ(node.mode(), Mode::kStandby);
  EXPECT_THAT(node.Failover(true), ElementsAre(A::kRefuse));
  // The primary comes again, and there is room.
  node.On(K::kPeerConnected, Term(64));
  node.On(K::kEpochCommitted, Term(64), EpochId(1));
  EXPECT_EQ(node.mode(), Mode::kProtected);
  // Under way already: the replica itself says what becomes of it.
  Driver promoting(Automatic());
  promoting.Holding().On(K::kPeerSilent);
  EXPECT_EQ(promoting.mode(), Mode::kPromoting);
  EXPECT_THAT(promoting.On(lost), IsEmpty());
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
      [](Driver& n) { n.Protected(), n.On(K::kOpUnprotect); },
      [](Driver& n) { n.Held({.shared = Term(32)}); },
      [](Driver& n) {
        n.Protected(), n.OtherPrimary(Term(999), {Term(999), Term(998), Term(998)});
      },
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

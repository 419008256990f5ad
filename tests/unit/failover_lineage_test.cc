// P3: which of two primaries is over, whatever their terms are, and what a node that was started
// from protected disks says before it knows.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "base/lineage.h"
#include "unit/failover_role_driver.h"

namespace romulus::failover {
namespace {

constexpr Lineage kBooted{};
// Protected in term 32, and what its secondary became then.
constexpr Lineage kShared{.shared = Term(32)};
constexpr Lineage kPromoted{Term(65), Term(32), Term(32)};

TEST(LineageTest, APromotionIsOverWhatItContinuesAndWhatIsOlder) {
  EXPECT_EQ(JudgeLineages(kPromoted, kShared), Newer::kFirst);
  EXPECT_EQ(JudgeLineages(kShared, kPromoted), Newer::kSecond);
  EXPECT_EQ(JudgeLineages(kPromoted, kBooted), Newer::kFirst)
      << "a new guest beside the living one";
  EXPECT_EQ(JudgeLineages(kBooted, kBooted), Newer::kNeither);
  EXPECT_EQ(JudgeLineages(kShared, kShared), Newer::kNeither);
  // The other has shared something since: it is not the one that was promoted over.
  EXPECT_EQ(JudgeLineages(kPromoted, {.shared = Term(80)}), Newer::kNeither);
}

TEST(LineageTest, OfTwoPromotedTheLaterIsNewer) {
  // The promoted one protected itself with the other in term 81, which was promoted then.
  const Lineage first{Term(65), Term(32), Term(81)};
  const Lineage second{Term(112), Term(81), Term(81)};
  EXPECT_EQ(JudgeLineages(second, first), Newer::kFirst);
  EXPECT_EQ(JudgeLineages(first, second), Newer::kSecond);
  // The first ack of term 81 was not heard of, or not written down, before the end.
  EXPECT_EQ(JudgeLineages(kPromoted, second), Newer::kSecond);
}

TEST(LineageTest, NobodysClaimMakesBothNewer) {
  for (uint64_t bits = 0; bits < 4096; ++bits) {
    const auto term = [&](int at) { return Term(bits >> (2 * at) & 3); };
    const Lineage a{term(0), term(1), term(2)};
    const Lineage b{term(3), term(4), term(5)};
    const Newer ab = JudgeLineages(a, b);
    const Newer ba = JudgeLineages(b, a);
    EXPECT_EQ(ab == Newer::kFirst, ba == Newer::kSecond) << bits;
    EXPECT_EQ(ab == Newer::kNeither, ba == Newer::kNeither) << bits;
  }
}

// --- a primary meets another one

void ExpectFenced(const Driver& node) {
  EXPECT_EQ(node.mode(), Mode::kFenced);
  EXPECT_FALSE(RunsGuest(node.state()));
  EXPECT_FALSE(node.state().output_open);
  EXPECT_THAT(node.state().reason, HasSubstr("again as a secondary"));
}

TEST(PrimaryLineageTest, APromotionOverItFences) {
  const std::vector<std::function<std::vector<ActionKind>(Driver&)>> ways = {
      [](Driver& node) {
        return node.OtherPrimary(Term(999), {Term(999), Term(32), Term(32)});
      },
      [](Driver& node) {
        return node.Refused(PeerHolds::kGuest, {Term(999), Term(32), Term(32)}, Term(999));
      },
      [](Driver& node) { return node.Goodbye(GoodbyeReason::kPromoted, Term(999)); }};
  for (const auto& way : ways) {
    Driver node(Automatic());
    node.Protected();
    ASSERT_LE(node.state().lineage.shared, Term(32));
    EXPECT_THAT(way(node), ElementsAre(A::kDiscardOutput, A::kStopGuest, A::kStopEpochs,
                                       A::kStopConnecting, A::kCloseLink));
    ExpectFenced(node);
    EXPECT_EQ(node.state().newest_term, Term(999));
    // And it stays so.
    EXPECT_THAT(node.On(K::kPeerConnected, Term(2000)), IsEmpty());
    EXPECT_THAT(node.Failover(true), ElementsAre(A::kRefuse));
    EXPECT_EQ(node.mode(), Mode::kFenced);
  }
}

// Restarted until its term is beyond the promoted one's: it is the older one all the same.
TEST(PrimaryLineageTest, AHighTermDoesNotSaveAStaleOne) {
  for (bool asks : {false, true}) {
    Driver stale(Manual());
    stale.Held(kShared, Term(960));
    ASSERT_GT(stale.state().term, Term(960));
    if (asks) {
      stale.Refused(PeerHolds::kGuest, kPromoted, Term(65));
    } else {
      stale.OtherPrimary(Term(65), kPromoted);
    }
    ExpectFenced(stale);
    EXPECT_THAT(stale.state().reason, HasSubstr("in term 65"));
  }
}

TEST(PrimaryLineageTest, APromotedOneOutlivesTheStaleOnesWhateverTheirTerm) {
  for (bool asks : {false, true}) {
    Driver node(Automatic());
    node.Holding(Term(32));
    node.On(K::kLinkClosed);
    node.On(K::kPromotionDone, Term(32));
    const Lineage own = node.state().lineage;
    EXPECT_THAT(asks ? node.Refused(PeerHolds::kGuest, kShared, Term(9999))
                     : node.OtherPrimary(Term(9999), kShared),
                IsEmpty());
    EXPECT_EQ(node.mode(), Mode::kSolo);
    EXPECT_TRUE(node.state().output_open);
    EXPECT_EQ(node.state().lineage, own);
    EXPECT_THAT(node.state().reason, HasSubstr("this one was promoted over"));
    EXPECT_GT(node.machine().ProposedTerm(), Term(9999));
  }
}

// A guest that was booted elsewhere has a term too, maybe a higher one, and has taken nothing over.
TEST(PrimaryLineageTest, OfTwoThatWereBootedNeitherYields) {
  Driver asked(Manual());
  asked.Primary();
  EXPECT_THAT(asked.OtherPrimary(Term(999), kBooted), IsEmpty());
  Driver asking(Manual());
  asking.Primary();
  EXPECT_THAT(asking.Refused(PeerHolds::kGuest, kBooted, Term(999)), IsEmpty());
  for (Driver* node : {&asked, &asking}) {
    EXPECT_EQ(node->mode(), Mode::kSolo);
    EXPECT_TRUE(RunsGuest(node->state()));
    EXPECT_TRUE(node->state().output_open);
    EXPECT_THAT(node->state().reason, HasSubstr("two primaries"));
    EXPECT_THAT(node->state().reason, HasSubstr("start it again as a secondary"));
  }
  // What is held for a secondary that may have promoted stays held.
  Driver held(Automatic());
  held.Protected();
  held.On(K::kLinkClosed);
  EXPECT_THAT(held.Refused(PeerHolds::kGuest, kBooted, Term(999)), IsEmpty());
  EXPECT_EQ(held.mode(), Mode::kDegraded);
  EXPECT_FALSE(held.state().output_open);
}

TEST(PrimaryLineageTest, APromotionFromBeforeWhatItSharedSinceDoesNotFence) {
  Driver node(Manual());
  node.Protected();
  const Term shared = node.state().lineage.shared;
  ASSERT_GT(shared, Term(1));
  const Lineage older{Term(9999), Term(shared.value() - 1), Term(shared.value() - 1)};
  EXPECT_THAT(node.OtherPrimary(Term(9999), older), IsEmpty());
  EXPECT_TRUE(RunsGuest(node.state()));
}

TEST(PrimaryLineageTest, TheFirstAckIsWhatMakesATermShared) {
  Driver node(Manual());
  node.SyncDone();
  EXPECT_EQ(node.state().lineage.shared, Term());
  node.On(K::kEpochCommitted, node.state().term, EpochId(1));
  EXPECT_EQ(node.state().lineage.shared, node.state().term);
  const Term shared = node.state().term;
  node.On(K::kLinkClosed);
  EXPECT_GT(node.state().term, shared);
  EXPECT_EQ(node.state().lineage.shared, shared) << "going on alone shares nothing";
}

TEST(PrimaryLineageTest, AStartChangesNoLineage) {
  Driver node(Manual());
  Event start{};
  start.kind = K::kStartPrimary;
  start.term = Term(640);
  start.lineage = kPromoted;
  EXPECT_THAT(node.On(start), ElementsAre(A::kConnect));
  EXPECT_EQ(node.state().lineage, kPromoted);
  EXPECT_GT(node.state().term, Term(640));
}

// --- held since the start (P1)

TEST(HeldStartTest, LetsNothingOutAndLooksForTheOther) {
  for (const Policy& policy : {Manual(), Automatic()}) {
    Driver node(policy);
    node.Held(kShared);
    EXPECT_EQ(node.actions()[0].kind, A::kHoldOutput);
    EXPECT_EQ(node.actions()[1].kind, A::kConnect);
    EXPECT_EQ(node.mode(), Mode::kDegraded);
    EXPECT_TRUE(RunsGuest(node.state()));
    EXPECT_FALSE(node.state().output_open);
    EXPECT_TRUE(node.state().held_since_start);
    EXPECT_THAT(node.state().reason, HasSubstr("held"));
    EXPECT_THAT(node.state().reason, HasSubstr("unprotect --force"));
    // No answer is no word.
    EXPECT_THAT(node.On(K::kLinkClosed), IsEmpty());
    EXPECT_THAT(node.On(K::kPeerSilent), IsEmpty());
    EXPECT_FALSE(node.state().output_open);
  }
}

TEST(HeldStartTest, AnAcceptedStreamsFirstAckLetsItGoOn) {
  Driver node(Automatic());
  node.Held(kShared);
  EXPECT_THAT(node.On(K::kPeerConnected, node.machine().ProposedTerm()),
              ElementsAre(A::kStartSync));
  EXPECT_FALSE(node.state().output_open);
  EXPECT_FALSE(node.state().held_since_start);
  // Lost before: what may have happened over there is not known again.
  EXPECT_THAT(node.On(K::kLinkClosed), ElementsAre(A::kHoldOutput, A::kStopEpochs, A::kConnect));
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  node.On(K::kPeerConnected, node.machine().ProposedTerm());
  node.On(K::kSyncDone, node.state().term);
  node.On(K::kEpochCommitted, node.state().term, EpochId(1));
  EXPECT_EQ(node.mode(), Mode::kProtected);
  EXPECT_EQ(node.state().lineage.shared, node.state().term);
}

TEST(HeldStartTest, ARefusalByWhoeverHoldsNothingOpensIt) {
  Driver node(Automatic());
  node.Held(kShared);
  EXPECT_THAT(node.Refused(PeerHolds::kNothing, kBooted, Term(64)),
              ElementsAre(A::kStopEpochs, A::kOpenOutput));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_GT(node.state().term, Term(64));
}

TEST(HeldStartTest, AnyOtherRefusalDoesNot) {
  Driver node(Automatic());
  node.Held(kShared);
  // It may promote yet; it does not say; its disks are of a guest that was promoted over this one.
  EXPECT_THAT(node.Refused(PeerHolds::kReplica, kBooted), IsEmpty());
  EXPECT_THAT(node.Refused(PeerHolds::kUnknown, kBooted), IsEmpty());
  EXPECT_THAT(node.Refused(PeerHolds::kNothing, kPromoted), IsEmpty());
  EXPECT_THAT(node.state().reason, HasSubstr("start it as the primary"));
  EXPECT_EQ(node.mode(), Mode::kDegraded);
  EXPECT_FALSE(node.state().output_open);
  EXPECT_TRUE(node.state().held_since_start);
}

TEST(HeldStartTest, AnOperatorsForceOpensIt) {
  Driver node(Manual());
  node.Held(kShared);
  EXPECT_THAT(node.On(K::kOpUnprotect), ElementsAre(A::kRefuse));
  Event force{};
  force.kind = K::kOpUnprotect;
  force.force = true;
  EXPECT_THAT(node.On(force), ElementsAre(A::kStopConnecting, A::kStopEpochs, A::kOpenOutput));
  EXPECT_EQ(node.mode(), Mode::kSolo);
  EXPECT_FALSE(node.state().held_since_start);
}

}  // namespace
}  // namespace romulus::failover

// The rule by which a claim is judged, whoever keeps the record.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "failover/arbiter.h"

namespace romulus::failover {
namespace {

using ::testing::HasSubstr;

ArbiterIdentity Alpha() { return {"vm1", "uuid", "alpha", "beta", "test"}; }
ArbiterIdentity Beta() { return {"vm1", "uuid", "beta", "alpha", "test"}; }
ArbiterClaim From(uint64_t expected, uint64_t wanted) {
  return {ClaimAction::kPromote, Term(expected), Term(wanted), Term(wanted)};
}
ArbiterRecord Holds(const std::string& node, uint64_t term) { return {Term(term), node, {}, "b"}; }

TEST(ArbiterRuleTest, WhatIsExpectedMayBeSwapped) {
  EXPECT_TRUE(JudgeClaim(Alpha(), From(0, 16), ArbiterRecord()).swap);
  EXPECT_TRUE(JudgeClaim(Alpha(), From(16, 33), Holds("beta", 16)).swap);
  EXPECT_TRUE(JudgeClaim(Alpha(), From(16, 33), Holds("alpha", 16)).swap);
  const ArbiterRecord wanted = RecordOf(Alpha(), From(16, 33));
  EXPECT_EQ(wanted.term, Term(33));
  EXPECT_EQ(wanted.holder, "alpha");
  EXPECT_EQ(wanted.promoted_term, Term(33));
  EXPECT_EQ(wanted.build, "test");
}

TEST(ArbiterRuleTest, AClaimWhoseAnswerWasLostIsAYes) {
  const ClaimRule rule = JudgeClaim(Alpha(), From(16, 33), Holds("alpha", 33));
  EXPECT_FALSE(rule.swap);
  EXPECT_EQ(rule.answer.verdict, Verdict::kYes);
  // Only this node's: the other one's in the same term would be against the rules, but is no yes.
  EXPECT_EQ(JudgeClaim(Alpha(), From(16, 33), Holds("beta", 33)).answer.verdict, Verdict::kNo);
}

TEST(ArbiterRuleTest, AWithdrawalTouchesTheRecordThatWasClaimedFrom) {
  const ArbiterClaim claim = From(16, 33);
  const ClaimRule touch = JudgeWithdrawal(Alpha(), claim, Holds("beta", 16));
  EXPECT_TRUE(touch.swap);
  EXPECT_EQ(touch.put, Holds("beta", 16));
  EXPECT_EQ(touch.answer.verdict, Verdict::kYes);
  // It had taken effect.
  EXPECT_EQ(JudgeWithdrawal(Alpha(), claim, Holds("alpha", 33)).answer.verdict, Verdict::kNo);
  // It cannot any more.
  for (const ArbiterRecord& record :
       {Holds("beta", 34), Holds("beta", 33), Holds("beta", 5), ArbiterRecord()}) {
    const ClaimRule rule = JudgeWithdrawal(Alpha(), claim, record);
    EXPECT_FALSE(rule.swap);
    EXPECT_EQ(rule.answer.verdict, Verdict::kYes);
  }
  // What is not there cannot be touched.
  EXPECT_EQ(JudgeWithdrawal(Alpha(), From(0, 16), ArbiterRecord()).answer.verdict, Verdict::kError);
}

TEST(ArbiterRuleTest, WhatIsGivenBackIsThePeers) {
  const ClaimRule rule = JudgeGivingBack(Alpha(), Term(33), Holds("alpha", 33));
  ASSERT_TRUE(rule.swap);
  EXPECT_EQ(rule.put.term, Term(33));
  EXPECT_EQ(rule.put.holder, "beta");
  // Again, as after a lost answer.
  EXPECT_EQ(JudgeGivingBack(Alpha(), Term(33), rule.put).answer.verdict, Verdict::kYes);
  // The peer's claim from before hears that the term is its own, and may claim from it.
  EXPECT_EQ(JudgeClaim(Beta(), From(16, 32), rule.put).answer.verdict, Verdict::kNo);
  EXPECT_TRUE(IsOurs(Beta(), rule.put));
  EXPECT_TRUE(JudgeClaim(Beta(), From(33, 48), rule.put).swap);
  for (const ArbiterRecord& record : {Holds("beta", 34), Holds("alpha", 49), ArbiterRecord()}) {
    EXPECT_EQ(JudgeGivingBack(Alpha(), Term(33), record).answer.verdict, Verdict::kNo);
  }
}

// Two hosts that were given one node name want the same terms: only one of them may have any.
TEST(ArbiterRuleTest, P3_ANamesakeOnAnotherHostIsSomebodyElse) {
  ArbiterIdentity one = Alpha(), two = Alpha();
  one.host_id = "11", one.host_name = "rack1";
  two.host_id = "22", two.host_name = "rack2";
  const ArbiterRecord record = RecordOf(one, From(16, 32));
  EXPECT_TRUE(IsOurs(one, record));
  EXPECT_FALSE(IsOurs(two, record));
  EXPECT_TRUE(IsNamesakes(two, record));
  EXPECT_FALSE(IsNamesakes(Beta(), record));
  EXPECT_EQ(JudgeClaim(one, From(16, 32), record).answer.verdict, Verdict::kYes);
  const ClaimRule rule = JudgeClaim(two, From(16, 32), record);
  EXPECT_FALSE(rule.swap);
  EXPECT_EQ(rule.answer.verdict, Verdict::kNo);
  EXPECT_THAT(rule.answer.detail, HasSubstr("'rack1' (11)"));
  EXPECT_THAT(rule.answer.detail, HasSubstr("'rack2' (22)"));
  EXPECT_THAT(rule.answer.detail, HasSubstr("--take-over"));
  // What an operator says with --take-over: from the record as it is.
  EXPECT_TRUE(JudgeClaim(two, From(32, 48), record).swap);
}

// A record of a romulusd that did not say its host.
TEST(ArbiterRuleTest, P3_ARecordWithoutAHostIsItsNodesButNoAnswer) {
  ArbiterIdentity who = Alpha();
  who.host_id = "11";
  EXPECT_TRUE(IsOurs(who, Holds("alpha", 32)));
  EXPECT_FALSE(IsOurs(who, Holds("beta", 32)));
  EXPECT_FALSE(IsOurs(who, ArbiterRecord()));
  EXPECT_TRUE(JudgeClaim(who, From(32, 48), Holds("alpha", 32)).swap);
  EXPECT_EQ(RecordOf(who, From(32, 48)).host_id, "11");
  // This claim would have written the host: it is not its answer that was lost.
  EXPECT_EQ(JudgeClaim(who, From(16, 32), Holds("alpha", 32)).answer.verdict, Verdict::kNo);
}

TEST(ArbiterRuleTest, WhatIsNewerIsANoWithItsHolder) {
  const ClaimRule rule = JudgeClaim(Alpha(), From(16, 33), Holds("beta", 34));
  EXPECT_FALSE(rule.swap);
  EXPECT_EQ(rule.answer.verdict, Verdict::kNo);
  EXPECT_EQ(rule.answer.record, Holds("beta", 34));
  EXPECT_THAT(rule.answer.detail, HasSubstr("'beta' holds term 34"));
  // Somebody was first where nobody was expected.
  EXPECT_EQ(JudgeClaim(Alpha(), From(0, 33), Holds("beta", 1)).answer.verdict, Verdict::kNo);
  // An own claim of another term: the caller must know before it goes on.
  EXPECT_EQ(JudgeClaim(Alpha(), From(16, 65), Holds("alpha", 33)).answer.verdict, Verdict::kNo);
}

TEST(ArbiterRuleTest, WhatIsOlderThanWasClaimedProvesNothing) {
  EXPECT_EQ(JudgeClaim(Alpha(), From(16, 33), ArbiterRecord()).answer.verdict, Verdict::kError);
  EXPECT_EQ(JudgeClaim(Alpha(), From(16, 33), Holds("beta", 2)).answer.verdict, Verdict::kError);
  EXPECT_TRUE(JudgeClaim(Alpha(), From(16, 33), Holds("beta", 2)).answer.lost);
  EXPECT_FALSE(JudgeClaim(Alpha(), From(16, 33), Holds("beta", 34)).answer.lost);
  EXPECT_EQ(JudgeClaim(Alpha(), From(16, 33), Holds("alpha", 1)).answer.verdict, Verdict::kError);
}

TEST(ArbiterRuleTest, ClaimsThatMakeNoSenseAreErrors) {
  EXPECT_TRUE(Validate(From(0, 1)).ok());
  EXPECT_FALSE(Validate(From(5, 5)).ok());
  EXPECT_FALSE(Validate(From(6, 5)).ok());
  ArbiterClaim claim = From(5, 6);
  claim.promoted_term = Term(7);
  EXPECT_FALSE(Validate(claim).ok());
  claim = From(5, kMaxPeerTerm.value());
  EXPECT_TRUE(Validate(claim).ok());
  claim.wanted = kMaxPeerTerm.Next();
  EXPECT_FALSE(Validate(claim).ok());
}

// Any order of reads, swaps, lost answers and repetitions of two claims from one term.
TEST(ArbiterRuleTest, P3_OfTwoClaimsFromOneTermOneWins) {
  struct Claimant {
    ArbiterIdentity who;
    ArbiterClaim claim;
    ArbiterRecord seen;
    bool read = false;
    int yes = 0;
  };
  for (uint32_t seed = 0; seed < 2000; ++seed) {
    std::mt19937 random(seed);
    ArbiterRecord record = Holds("alpha", 16);
    std::vector<Claimant> both = {{Alpha(), From(16, 33), {}}, {Beta(), From(16, 34), {}}};
    for (int step = 0; step < 40; ++step) {
      Claimant& one = both[random() % 2];
      const bool lost = random() % 3 == 0;  // the answer, not its effect
      if (!one.read) {
        one.seen = record;
        one.read = !lost;
        continue;
      }
      const ClaimRule rule = JudgeClaim(one.who, one.claim, one.seen);
      one.read = false;
      if (!rule.swap) {
        one.yes += rule.answer.verdict == Verdict::kYes ? 1 : 0;
      } else if (record == one.seen) {
        record = RecordOf(one.who, one.claim);
        one.yes += lost ? 0 : 1;
      }
    }
    EXPECT_FALSE(both[0].yes > 0 && both[1].yes > 0) << "seed " << seed;
    EXPECT_GT(both[0].yes + both[1].yes, 0) << "seed " << seed;
  }
}

TEST(ArbiterRuleTest, EveryValueHasAName) {
  for (size_t i = 0; i < kVerdictCount; ++i) {
    EXPECT_NE(VerdictName(static_cast<Verdict>(i)), "?");
  }
  EXPECT_EQ(ClaimActionName(ClaimAction::kPromote), "promote");
  EXPECT_EQ(ClaimActionName(ClaimAction::kSolo), "solo");
  EXPECT_EQ(ClaimActionName(ClaimAction::kProtect), "protect");
}

}  // namespace
}  // namespace romulus::failover

// What two nodes do under thousands of schedules: failover_two_nodes.h.
#include "unit/failover_two_nodes.h"

#include <gtest/gtest.h>

#include <string>

namespace romulus::failover {
namespace {

constexpr uint64_t kSeeds = 2000;
constexpr int kSteps = 1500;

TEST(TwoNodesTest, NeverTwoInOneTermByHand) {
  int promotions = 0;
  int protections = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    World world(seed, /*automatic=*/false, /*operators=*/true);
    ASSERT_EQ(world.Run(kSteps), "") << "seed " << seed;
    promotions += world.promotions();
    protections += world.protections();
  }
  // The schedules do reach what they are to test.
  EXPECT_GT(promotions, 100);
  EXPECT_GT(protections, 1000);
}

TEST(TwoNodesTest, WithoutAnOperatorNobodyPromotesByHand) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    World world(seed, /*automatic=*/false, /*operators=*/false);
    ASSERT_EQ(world.Run(kSteps), "") << "seed " << seed;
    EXPECT_EQ(world.promotions(), 0);
  }
}

TEST(TwoNodesTest, AutomaticallyNothingGetsOutThatThePromotedDoesNotKnow) {
  int promotions = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    World world(seed, /*automatic=*/true, /*operators=*/false);
    ASSERT_EQ(world.Run(kSteps), "") << "seed " << seed;
    promotions += world.promotions();
  }
  EXPECT_GT(promotions, 500);
}

TEST(TwoNodesTest, OperatorsWithoutForceCannotMakeBothHeard) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    World world(seed, /*automatic=*/true, /*operators=*/true, /*by_force=*/false);
    ASSERT_EQ(world.Run(kSteps), "") << "seed " << seed;
  }
}

TEST(TwoNodesTest, AStaleOneIsNotHeardHoweverOftenItIsStarted) {
  int stale_starts = 0;
  int fenced = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    World world(seed, /*automatic=*/true, /*operators=*/false, /*by_force=*/false,
                /*restarts=*/true);
    ASSERT_EQ(world.Run(kSteps), "") << "seed " << seed;
    ASSERT_EQ(world.Calm(), "") << "seed " << seed << ", afterwards";
    stale_starts += world.stale_starts();
    fenced += world.fenced();
  }
  EXPECT_GT(stale_starts, 1000);
  EXPECT_GT(fenced, 500);
}

// By hand, and with force: both may be heard, but one of them ends when they meet.
TEST(TwoNodesTest, OfTwoPrimariesOneEndsWhateverOperatorsDid) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    World world(seed, /*automatic=*/seed % 2 == 0, /*operators=*/true, /*by_force=*/true,
                /*restarts=*/true);
    ASSERT_EQ(world.Run(kSteps), "") << "seed " << seed;
    ASSERT_EQ(world.Calm(), "") << "seed " << seed << ", afterwards";
  }
}

// However the stream ends, whatever fails: the guest moves on one node, and afterwards on some.
TEST(TwoNodesTest, ASwitchoverLeavesOneGuestThatMoves) {
  int handed_over = 0, went_on = 0, unsure = 0;
  for (uint64_t seed = 0; seed < kSeeds / 4; ++seed) {
    World world(seed, /*automatic=*/false, /*operators=*/false, /*by_force=*/false,
                /*restarts=*/false, /*switchovers=*/true);
    ASSERT_EQ(world.Run(kSteps), "") << "seed " << seed;
    ASSERT_EQ(world.Calm(), "") << "seed " << seed << ", afterwards";
    handed_over += world.handed_over();
    went_on += world.went_on();
    unsure += world.unsure();
  }
  EXPECT_GT(handed_over, 100);
  EXPECT_GT(went_on, 100);
  EXPECT_GT(unsure, 30);
}

TEST(TwoNodesTest, AutomaticallyWithOperatorsNeverTwoInOneTerm) {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    World world(seed, /*automatic=*/true, /*operators=*/true);
    ASSERT_EQ(world.Run(kSteps), "") << "seed " << seed;
  }
}

}  // namespace
}  // namespace romulus::failover

#include "epoch/governor.h"

#include <gtest/gtest.h>

namespace romulus::epoch {
namespace {

constexpr GovernorOptions kOptions{
    .max_dirty_pages = 100, .max_interval_ns = 1'000'000, .min_interval_ns = 200'000};

GovernorView At(uint64_t ran_ns) {
  return {.now_ns = 5'000'000 + ran_ns, .epoch_began_ns = 5'000'000};
}

TEST(GovernorTest, CutsForEachReason) {
  const Governor governor(kOptions);
  EXPECT_EQ(governor.Decide(At(999'999)), std::nullopt);
  EXPECT_EQ(governor.Decide(At(1'000'000)), CutReason::kInterval);
  GovernorView view = At(0);
  view.ring_full = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kRingFull);
  view = At(0);
  view.budget_reached = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kBudget);
  view = At(0);
  view.requested = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kRequest);
}

TEST(GovernorTest, OutputWaitsOnlyForTheMinimumInterval) {
  const Governor governor(kOptions);
  GovernorView view = At(199'999);
  view.output_waiting = true;
  EXPECT_EQ(governor.Decide(view), std::nullopt);
  EXPECT_EQ(governor.NextLookNs(view), view.now_ns + 1);
  view.now_ns += 1;
  EXPECT_EQ(governor.Decide(view), CutReason::kOutput);
}

TEST(GovernorTest, P6_WithoutASlotOnlyBudgetAndRingStopTheGuest) {
  const Governor governor(kOptions);
  GovernorView view = At(10'000'000);
  view.slot_free = false;
  view.requested = view.output_waiting = true;
  EXPECT_EQ(governor.Decide(view), std::nullopt);
  view.budget_reached = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kBudget);
}

TEST(GovernorTest, LooksWhenTheBudgetIsLikelyReached) {
  Governor governor(kOptions);
  governor.Learn(/*ran_ns=*/400'000, /*pages=*/100, /*paused_ns=*/0);
  // Somewhat before: a guest that has become faster is seen to be.
  EXPECT_EQ(governor.NextLookNs(At(0)), 5'000'000u + 350'000u);
  governor.Learn(0, 0, 0);  // an idle epoch teaches nothing
  EXPECT_EQ(governor.NextLookNs(At(0)), 5'000'000u + 350'000u);
}

TEST(GovernorTest, LooksHardlyBeforeThatWhereTheGuestStopsForIt) {
  Governor governor(kOptions);
  governor.Learn(/*ran_ns=*/400'000, /*pages=*/100, /*paused_ns=*/0);
  GovernorView view = At(0);
  view.look_stops_guest = true;
  EXPECT_EQ(governor.NextLookNs(view), 5'000'000u + 375'000u);
  view.likely_pages = 60;  // those that stay writable are there from the start
  EXPECT_EQ(governor.NextLookNs(view), 5'000'000u + 375'000u);
}

TEST(GovernorTest, BelievesAnEpochFarAboveItsBudgetAtOnce) {
  Governor governor(kOptions);
  governor.Learn(/*ran_ns=*/400'000, /*pages=*/100, /*paused_ns=*/0);
  governor.Learn(/*ran_ns=*/200'000, /*pages=*/250, /*paused_ns=*/0);
  EXPECT_EQ(governor.NextLookNs(At(0)), 5'000'000u + 70'000u);  // 100 pages of 800 ns, less 1/8
}

TEST(GovernorTest, AGuestThatStopsForLooksJustBelowTheBudgetStopsRarely) {
  Governor governor({.max_dirty_pages = 512, .max_interval_ns = 20'000'000});
  governor.Learn(/*ran_ns=*/20'000'000, /*pages=*/510, /*paused_ns=*/0);
  int looks = 0;
  for (const uint64_t learnt_ns : {20'000'000u, 512'000u}) {
    governor.Learn(learnt_ns, /*pages=*/510, /*paused_ns=*/0);
    GovernorView view = At(0);
    view.look_stops_guest = true;
    view.likely_pages = 510;
    for (; view.now_ns < view.epoch_began_ns + 20'000'000; ++looks) {
      view.now_ns = governor.NextLookNs(view);
    }
  }
  // At most one each sixteenth: 2 + ln(2e7 / 9.6e6 / (15 / 16)) / ln(17 / 16), after a fast epoch.
  EXPECT_LE(looks, 2 + 2 + 15);
}

TEST(GovernorTest, DoesNotLookForABudgetThatSomebodyWillTell) {
  Governor governor(kOptions);
  governor.Learn(/*ran_ns=*/400'000, /*pages=*/100, /*paused_ns=*/0);
  GovernorView view = At(0);
  view.watches_budget = false;
  EXPECT_EQ(governor.NextLookNs(view), 5'000'000u + kOptions.max_interval_ns);
  view.budget_reached = view.ring_full = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kBudget);
}

TEST(GovernorTest, LooksWhenWhatIsDirtyAlreadySaysThatTheBudgetWillBeReached) {
  Governor governor(kOptions);
  GovernorView view = At(200'000);
  view.likely_pages = 25;
  EXPECT_EQ(governor.NextLookNs(view), view.now_ns + 600'000) << "at the pace of this epoch";
  governor.Learn(/*ran_ns=*/400'000, /*pages=*/100, /*paused_ns=*/0);
  EXPECT_EQ(governor.NextLookNs(view), view.now_ns + 300'000) << "at that of the one before";
  view.likely_pages = 1;
  view.now_ns += 700'000;
  EXPECT_EQ(governor.NextLookNs(view), view.epoch_began_ns + 1'000'000) << "the interval's end";
}

// A guest that writes all but a page of its budget and then waits.
TEST(GovernorTest, LooksBecomeRareJustBelowTheBudget) {
  Governor governor({.max_dirty_pages = 512, .max_interval_ns = 20'000'000});
  governor.Learn(/*ran_ns=*/512'000, /*pages=*/512, /*paused_ns=*/0);
  GovernorView view = At(500'000);
  view.likely_pages = 511;
  int looks = 0;
  for (; view.now_ns < view.epoch_began_ns + 20'000'000; ++looks) {
    view.now_ns = governor.NextLookNs(view);
  }
  // Every 20,000, then later by a 64th each: 1.28e6 / 2e4 + ln(2e7 / 1.28e6) / ln(65 / 64).
  EXPECT_LE(looks, 64 + 178);
}

// An epoch that was late, for a reason of the host, does not make those after it late.
TEST(GovernorTest, LearnsFasterThanItForgets) {
  Governor governor({.max_dirty_pages = 100, .max_interval_ns = 100'000'000});
  governor.Learn(/*ran_ns=*/800'000, /*pages=*/100, /*paused_ns=*/0);
  governor.Learn(/*ran_ns=*/8'000'000, /*pages=*/100, /*paused_ns=*/0);
  EXPECT_LT(governor.NextLookNs(At(0)), 5'000'000u + 1'300'000u);
  for (int i = 0; i < 4; ++i) governor.Learn(/*ran_ns=*/400'000, /*pages=*/100, /*paused_ns=*/0);
  EXPECT_LT(governor.NextLookNs(At(0)), 5'000'000u + 420'000u);
}

TEST(GovernorTest, LongPausesLeaveTheGuestAShare) {
  Governor governor(kOptions);
  governor.Learn(/*ran_ns=*/1'000'000, /*pages=*/0, /*paused_ns=*/20'000'000);
  GovernorView view = At(4'999'999);
  view.output_waiting = true;
  EXPECT_EQ(governor.Decide(view), std::nullopt);
  view.now_ns += 1;
  EXPECT_EQ(governor.Decide(view), CutReason::kInterval);
  // What the guest or an operator forces is not put off, and caps hold.
  view = At(0);
  view.requested = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kRequest);
  view = At(0);
  view.budget_reached = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kBudget);
  view = At(0);
  view.ring_full = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kRingFull);
}

TEST(GovernorTest, LooksWhenTheGuestHasHadItsShare) {
  Governor governor({.max_dirty_pages = 100, .max_interval_ns = 1'000'000, .min_interval_ns = 0});
  governor.Learn(/*ran_ns=*/1'000'000'000, /*pages=*/100, /*paused_ns=*/20'000'000);
  GovernorView view = At(1'000'000);
  view.output_waiting = true;
  EXPECT_EQ(governor.NextLookNs(view), view.epoch_began_ns + 5'000'000);
}

TEST(GovernorTest, ShortPausesChangeNothingAndOneOddPauseLittle) {
  Governor governor(kOptions);
  governor.Learn(/*ran_ns=*/1'000'000, /*pages=*/0, /*paused_ns=*/800'000);
  GovernorView view = At(200'000);
  view.output_waiting = true;
  EXPECT_EQ(governor.Decide(view), CutReason::kOutput);
  EXPECT_EQ(governor.Decide(At(1'000'000)), CutReason::kInterval);
  governor.Learn(/*ran_ns=*/1'000'000, /*pages=*/0, /*paused_ns=*/60'000'000'000);
  EXPECT_EQ(governor.Decide(At(99'999'999)), std::nullopt);
  EXPECT_EQ(governor.Decide(At(100'000'000)), CutReason::kInterval);
  governor.Learn(/*ran_ns=*/1'000'000, /*pages=*/0, /*paused_ns=*/800'000);  // and is forgotten
  EXPECT_EQ(governor.Decide(At(1'000'000)), CutReason::kInterval);
}

class IdleGovernorTest : public ::testing::Test {
 protected:
  static GovernorView Idle(uint64_t ran_ns) {
    GovernorView view = At(ran_ns);
    view.idle = true;
    return view;
  }
  Governor governor_{{.max_dirty_pages = 100,
                      .max_interval_ns = 1'000'000,
                      .min_interval_ns = 200'000,
                      .idle_interval_ns = 10'000'000}};
};

TEST_F(IdleGovernorTest, NothingWrittenMayWaitLonger) {
  EXPECT_EQ(governor_.Decide(Idle(9'999'999)), std::nullopt);
  EXPECT_EQ(governor_.Decide(Idle(10'000'000)), CutReason::kInterval);
  EXPECT_EQ(governor_.Decide(At(1'000'000)), CutReason::kInterval) << "no longer idle";
}

TEST_F(IdleGovernorTest, OutputAndRequestsDoNotWait) {
  GovernorView view = Idle(2'000'000);
  view.output_waiting = true;
  EXPECT_EQ(governor_.Decide(view), CutReason::kOutput);
  view = Idle(0);
  view.requested = true;
  EXPECT_EQ(governor_.Decide(view), CutReason::kRequest);
}

TEST_F(IdleGovernorTest, WhatIsWrittenThenIsSeenWithinTheInterval) {
  for (uint64_t ran_ns = 0; ran_ns < 10'000'000;) {
    const GovernorView view = Idle(ran_ns);
    const uint64_t next_ns = governor_.NextLookNs(view);
    ASSERT_GT(next_ns, view.now_ns);
    ASSERT_LE(next_ns - view.now_ns, 1'000'000u) << ran_ns;
    ran_ns = next_ns - view.epoch_began_ns;
    ASSERT_LE(ran_ns, 10'000'000u) << "its own end is overslept";
  }
}

TEST_F(IdleGovernorTest, ShorterThanAnyOtherItMeansNothing) {
  Governor governor(kOptions);
  EXPECT_EQ(governor.Decide(Idle(1'000'000)), CutReason::kInterval);
}

// Nothing spins: neither for a guest that has become idle, nor while all slots are taken.
TEST_F(IdleGovernorTest, LooksBecomeRare) {
  governor_.Learn(/*ran_ns=*/50'000, /*pages=*/100, /*paused_ns=*/0);
  const auto looks = [&](GovernorView view) {
    int count = 0;
    for (; view.now_ns < view.epoch_began_ns + 10'000'000; ++count) {
      view.now_ns = governor_.NextLookNs(view);
    }
    return count;
  };
  // The first at 7/8 of the budget's time, then each later than the last by 20,000, or a quarter of
  // the epoch's age: 2, then ln(1e6 / 83,750) / ln 1.25 up to the interval, and after it as many as
  // until looks are a whole interval apart, ln 4 / ln 1.25, and then one an interval.
  EXPECT_LE(looks(Idle(0)), 1 + 2 + 12 + 7 + 6);
  GovernorView full = At(0);
  full.slot_free = false;
  full.output_waiting = true;
  EXPECT_LE(looks(full), 1 + 2 + 12 + 7 + 6);
  governor_.Learn(/*ran_ns=*/10'000'000, /*pages=*/0, /*paused_ns=*/0);
  EXPECT_LE(looks(Idle(0)), 1 + 10);  // when the budget may be reached, then once an interval
}

TEST(GovernorTest, RefusesContradictions) {
  EXPECT_TRUE(Validate(kOptions).ok());
  EXPECT_FALSE(Validate({.max_dirty_pages = 0}).ok());
  EXPECT_FALSE(Validate({.max_interval_ns = 0}).ok());
  EXPECT_FALSE(Validate({.max_interval_ns = 5, .min_interval_ns = 6}).ok());
}

}  // namespace
}  // namespace romulus::epoch

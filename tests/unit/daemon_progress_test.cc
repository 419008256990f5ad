#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/progress.h"

namespace romulus::daemon {
namespace {

constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kTimeout = 8 * kSecond;

class ProgressTest : public ::testing::Test {
 protected:
  // A second later.
  ProgressJudge::Verdict Look(const std::vector<LoopLook>& looks) {
    now_ns_ += kSecond;
    return judge_.Judge(looks, now_ns_);
  }

  uint64_t now_ns_ = 5 * kSecond;
  ProgressJudge judge_{kTimeout};
};

TEST_F(ProgressTest, NothingToWatchIsWell) { EXPECT_TRUE(Look({}).beat); }

TEST_F(ProgressTest, ANewLoopHasToMoveFirst) {
  EXPECT_FALSE(Look({{"a", 7}}).beat);
  EXPECT_FALSE(Look({{"a", 7}}).beat);
  EXPECT_TRUE(Look({{"a", 8}}).beat);
}

TEST_F(ProgressTest, EachMovesBetweenTwoBeatsAtItsOwnTime) {
  Look({{"a", 1}, {"b", 1}});
  EXPECT_FALSE(Look({{"a", 2}, {"b", 1}}).beat);
  EXPECT_TRUE(Look({{"a", 2}, {"b", 2}}).beat);
  // What was seen before that beat does not count for the next.
  EXPECT_FALSE(Look({{"a", 2}, {"b", 3}}).beat);
  EXPECT_TRUE(Look({{"a", 3}, {"b", 3}}).beat);
}

TEST_F(ProgressTest, OneThatOwesNothingIsNotWaitedFor) {
  Look({{"a", 1}, {"paused", 1, false}});
  EXPECT_TRUE(Look({{"a", 2}, {"paused", 1, false}}).beat);
  for (int i = 0; i < 20; ++i) Look({{"a", 2}, {"paused", 1, false}});
  // Its time begins when it owes again.
  const ProgressJudge::Verdict now = Look({{"a", 3}, {"paused", 1}});
  EXPECT_TRUE(now.late.empty());
}

TEST_F(ProgressTest, HalfTheTimeIsLateAndIsSaidOnce) {
  Look({{"a", 1}, {"b", 1}});
  int said = 0;
  for (uint64_t mark = 2; mark < 12; ++mark) {
    const ProgressJudge::Verdict verdict = Look({{"a", mark}, {"b", 1}});
    EXPECT_FALSE(verdict.beat);
    for (const ProgressJudge::Change& late : verdict.late) {
      ++said;
      EXPECT_EQ(late.name, "b");
      EXPECT_EQ(late.for_ns, kTimeout / 2);
    }
  }
  EXPECT_EQ(said, 1);
  const ProgressJudge::Verdict again = Look({{"a", 12}, {"b", 2}});
  ASSERT_EQ(again.goes_on.size(), 1u);
  EXPECT_EQ(again.goes_on[0].name, "b");
  EXPECT_TRUE(again.beat);
}

TEST_F(ProgressTest, OneThatIsGoneIsNotWaitedFor) {
  Look({{"a", 1}, {"b", 1}});
  for (uint64_t mark = 2; mark < 8; ++mark) Look({{"a", mark}, {"b", 1}});
  const ProgressJudge::Verdict verdict = Look({{"a", 8}});
  EXPECT_TRUE(verdict.beat);
  ASSERT_EQ(verdict.goes_on.size(), 1u);
  // One of that name that comes later is another one.
  EXPECT_FALSE(Look({{"a", 9}, {"b", 1}}).beat);
}

TEST_F(ProgressTest, AClockThatStandsStillOrGoesBackAccusesNobody) {
  judge_.Judge({{"a", 1}}, now_ns_);
  EXPECT_TRUE(judge_.Judge({{"a", 1}}, now_ns_ - kSecond).late.empty());
}

}  // namespace
}  // namespace romulus::daemon

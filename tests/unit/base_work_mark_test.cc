#include <gtest/gtest.h>

#include "base/work_mark.h"

namespace romulus::base {
namespace {

TEST(WorkMarkTest, SaysWhetherAndHowFar) {
  WorkMark mark;
  const WorkMark::Look before = mark.look();
  EXPECT_FALSE(before.at_work);
  {
    WorkMark::Scope scope(mark);
    const WorkMark::Look begun = mark.look();
    EXPECT_TRUE(begun.at_work);
    EXPECT_NE(begun.moves, before.moves);
    EXPECT_EQ(mark.look().moves, begun.moves);
    mark.Step();
    EXPECT_TRUE(mark.look().at_work);
    EXPECT_NE(mark.look().moves, begun.moves);
  }
  EXPECT_FALSE(mark.look().at_work);
  EXPECT_NE(mark.look().moves, before.moves);
}

}  // namespace
}  // namespace romulus::base

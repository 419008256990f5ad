#include <gtest/gtest.h>

#include <cstdint>

#include "replica/console_tail.h"
#include "replica/fault.h"

namespace romulus::replica {
namespace {

void Add(ConsoleTail* tail, absl::string_view bytes, uint64_t released) {
  ASSERT_TRUE(tail->Check(tail->end(), bytes.size(), released).ok());
  tail->Append(tail->end(), bytes, released);
}

TEST(ConsoleTailTest, KeepsExactlyWhatIsNotKnownReleased) {
  ConsoleTail tail(100);
  ASSERT_TRUE(tail.Check(1000, 5, 1000).ok());
  tail.Append(1000, "hello", 1000);
  EXPECT_EQ(tail.offset(), 1000u);
  EXPECT_EQ(tail.tail(), "hello");
  Add(&tail, " world", 1003);
  EXPECT_EQ(tail.offset(), 1003u);
  EXPECT_EQ(tail.tail(), "lo world");
  EXPECT_EQ(tail.end(), 1011u);
  tail.Released(1001);  // old news
  EXPECT_EQ(tail.tail(), "lo world");
  tail.Released(1010);
  EXPECT_EQ(tail.tail(), "d");
  tail.Released(5000);
  EXPECT_EQ(tail.tail(), "");
  EXPECT_EQ(tail.offset(), 1011u);
}

TEST(ConsoleTailTest, GapsRepeatsAndNonsenseAreRefused) {
  ConsoleTail tail(100);
  tail.Append(10, "abc", 0);
  EXPECT_EQ(FaultOf(tail.Check(14, 1, 0)), Fault::kConsole);
  EXPECT_EQ(FaultOf(tail.Check(12, 1, 0)), Fault::kConsole);
  EXPECT_EQ(FaultOf(tail.Check(13, 1, 15)), Fault::kConsole);
  EXPECT_TRUE(tail.Check(13, 1, 14).ok());
  EXPECT_TRUE(tail.Check(13, 0, 0).ok());
  ConsoleTail fresh(100);
  EXPECT_EQ(FaultOf(fresh.Check(UINT64_MAX - 3, 10, 0)), Fault::kConsole);
}

TEST(ConsoleTailTest, IsBounded) {
  ConsoleTail tail(10);
  Add(&tail, "12345678", 0);
  EXPECT_EQ(FaultOf(tail.Check(8, 3, 0)), Fault::kCap);
  EXPECT_TRUE(tail.Check(8, 2, 0).ok());
  EXPECT_TRUE(tail.Check(8, 3, 1).ok());
  tail.Released(5);
  EXPECT_TRUE(tail.Check(8, 7, 0).ok());
  EXPECT_EQ(FaultOf(tail.Check(8, 8, 0)), Fault::kCap);
}

}  // namespace
}  // namespace romulus::replica

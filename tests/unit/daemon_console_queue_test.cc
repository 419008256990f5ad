#include <gtest/gtest.h>

#include <string>

#include "daemon/console_queue.h"

namespace romulus::daemon {
namespace {

TEST(ConsoleQueueTest, KeepsWhatIsNotWritten) {
  ConsoleQueue queue(100, nullptr);
  EXPECT_FALSE(queue.start_offset().has_value());
  EXPECT_FALSE(queue.written_offset().has_value());
  EXPECT_TRUE(queue.Unwritten().bytes.empty());
  queue.Push(1000, "hello");
  queue.Push(1005, " world");
  EXPECT_EQ(queue.start_offset(), 1000u);
  EXPECT_EQ(queue.written_offset(), 1000u);
  EXPECT_EQ(queue.queued_bytes(), 11u);
  EXPECT_EQ(queue.Read(0, 5).bytes, "hello");
  queue.Written(3);
  EXPECT_EQ(queue.written_offset(), 1003u);
  EXPECT_EQ(queue.Unwritten().offset, 1003u);
  EXPECT_EQ(queue.Unwritten().bytes, "lo world");
  EXPECT_EQ(queue.Read(queue.begin(), 100).bytes, "lo world");
  EXPECT_EQ(queue.Read(queue.begin(), 100).offset, 1003u);
  queue.Written(2);  // old news
  EXPECT_EQ(queue.queued_bytes(), 8u);
  queue.Written(99);  // there is no more than all
  EXPECT_EQ(queue.queued_bytes(), 0u);
  EXPECT_EQ(queue.begin(), 11u);
  EXPECT_EQ(queue.written_offset(), 1011u);
  EXPECT_TRUE(queue.Read(queue.begin(), 100).bytes.empty());
}

TEST(ConsoleQueueTest, ReadsAtAnyPlaceOfManyPieces) {
  ConsoleQueue queue(1 << 20, nullptr);
  std::string all;
  for (int i = 0; i < 30; ++i) {
    const std::string piece(10'000, static_cast<char>('a' + i));
    queue.Push(7 + all.size(), piece);
    all += piece;
  }
  for (uint64_t at : {0, 9'999, 10'000, 65'000, 123'456, 299'999}) {
    const ConsoleBytes read = queue.Read(at, 500);
    EXPECT_EQ(read.offset, 7 + at);
    ASSERT_FALSE(read.bytes.empty());
    EXPECT_EQ(read.bytes, all.substr(at, read.bytes.size()));
  }
  queue.Written(123'456);
  EXPECT_EQ(queue.Unwritten().offset, 7u + 123'456u);
  EXPECT_EQ(queue.Unwritten().bytes, all.substr(123'456));
}

TEST(ConsoleQueueTest, P6_SaysWhenItIsOverItsCap) {
  int rooms = 0;
  ConsoleQueue queue(8, [&] { ++rooms; });
  queue.Push(0, "12345678");
  EXPECT_FALSE(queue.OverCap());
  queue.Push(8, "9");
  EXPECT_TRUE(queue.OverCap());
  queue.Written(4);
  EXPECT_TRUE(queue.OverCap());
  queue.Written(5);
  EXPECT_FALSE(queue.OverCap());
  EXPECT_EQ(rooms, 1);
  queue.Written(9);
  EXPECT_EQ(rooms, 1);
}

// A promotion that failed after it had spoken, and another one: each byte keeps its own offset.
TEST(ConsoleQueueTest, AStreamThatJumps) {
  ConsoleQueue queue(100, nullptr);
  queue.Push(10, "abc");
  queue.Push(50, "xyz");
  EXPECT_EQ(queue.Read(0, 100).bytes, "abc");
  EXPECT_EQ(queue.Read(4, 100).bytes, "yz");
  EXPECT_EQ(queue.Read(4, 100).offset, 51u);
  EXPECT_EQ(queue.Unwritten().offset, 50u);
  EXPECT_EQ(queue.Unwritten().bytes, "xyz");
}

}  // namespace
}  // namespace romulus::daemon

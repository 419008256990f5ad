// The split virtqueue with a driver that keeps the rules.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "support/virtio_rig.h"

namespace romulus::devices {
namespace {

using testing::DriverQueue;
using ::testing::ElementsAre;
using testing::GuestCpu;
using ::testing::IsEmpty;
using testing::kBuffers;
using testing::kDescIndirect;
using testing::kDescNext;
using testing::kDescWrite;
using testing::kRings;
using testing::UsedEntry;

constexpr uint16_t kSize = 8;

class VirtQueueTest : public ::testing::TestWithParam<bool> {
 protected:
  VirtQueueTest()
      : memory_(*memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4))),
        driver_(cpu_, kRings, kSize, GetParam()),
        queue_(*memory_, 16) {
    EXPECT_FALSE(queue_.Enable(setup(), {.indirect = true, .event_index = GetParam()}));
  }
  QueueSetup setup() const {
    return {kSize, driver_.descriptors(), driver_.avail(), driver_.used()};
  }
  Chain MustPop() {
    auto chain = queue_.Pop();
    EXPECT_TRUE(chain.ok()) << chain.status();
    EXPECT_TRUE(chain.ok() && chain->has_value());
    return chain.ok() && chain->has_value() ? **chain : Chain{};
  }
  bool IsDrained() {
    auto chain = queue_.Pop();
    return chain.ok() && !chain->has_value();
  }

  std::unique_ptr<memory::GuestMemory> memory_;
  GuestCpu cpu_{*memory_};
  DriverQueue driver_;
  VirtQueue queue_;
};
INSTANTIATE_TEST_SUITE_P(EventIndex, VirtQueueTest, ::testing::Bool());

TEST_P(VirtQueueTest, ChainsComeInOrderAndGoBack) {
  EXPECT_TRUE(IsDrained());
  driver_.OfferChain(3, {{kBuffers, 10, 0, 0}, {kBuffers + 0x1000, 20, kDescWrite, 0}});
  driver_.OfferChain(0, {{kBuffers + 0x2000, 30, kDescWrite, 0}});
  const Chain first = MustPop();
  EXPECT_EQ(first.head, 3);
  EXPECT_THAT(first.readable, ElementsAre(Segment{Gpa(kBuffers), 10}));
  EXPECT_THAT(first.writable, ElementsAre(Segment{Gpa(kBuffers + 0x1000), 20}));
  EXPECT_EQ(first.readable_bytes, 10u);
  EXPECT_EQ(first.writable_bytes, 20u);
  const Chain second = MustPop();
  EXPECT_TRUE(IsDrained());
  EXPECT_THAT(queue_.InFlight(), ElementsAre(3, 0));
  queue_.Push(second, 7);
  EXPECT_THAT(queue_.InFlight(), ElementsAre(3));
  queue_.Push(first, 20);
  EXPECT_EQ(driver_.PollUsed(), (UsedEntry{0, 7}));
  EXPECT_EQ(driver_.PollUsed(), (UsedEntry{3, 20}));
  EXPECT_FALSE(driver_.PollUsed());
}

TEST_P(VirtQueueTest, IndirectChainsMayFollowDirectBuffers) {
  const uint64_t table = kBuffers + 0x8000;
  driver_.OfferIndirect(1, table, {{kBuffers, 1, 0, 0}, {kBuffers + 16, 2, kDescWrite, 0}});
  Chain chain = MustPop();
  EXPECT_EQ(chain.head, 1);
  EXPECT_EQ(chain.readable_bytes, 1u);
  EXPECT_EQ(chain.writable_bytes, 2u);
  queue_.Push(chain, 0);
  // 2.7.5.3.2: the write flag of the descriptor that refers to a table is ignored.
  driver_.PutDescriptor(2, {kBuffers, 5, kDescNext, 6});
  driver_.PutDescriptor(6, {table, 32, kDescIndirect | kDescWrite, 0});
  driver_.Offer(2);
  chain = MustPop();
  EXPECT_EQ(chain.readable.size(), 2u);
  EXPECT_EQ(chain.readable_bytes, 6u);
  EXPECT_EQ(chain.writable_bytes, 2u);
}

// Linux: an indirect chain may be longer than the queue.
TEST_P(VirtQueueTest, IndirectChainMayBeLongerThanTheQueue) {
  std::vector<testing::RawDescriptor> chain(100, {kBuffers, 3, 0, 0});
  driver_.OfferIndirect(0, kBuffers + 0x8000, chain);
  EXPECT_EQ(MustPop().readable_bytes, 300u);
}

TEST_P(VirtQueueTest, IndicesWrapAround) {
  for (int i = 0; i < 70'000; ++i) {
    const uint16_t head = static_cast<uint16_t>(i % kSize);
    driver_.OfferChain(head, {{kBuffers, 1, kDescWrite, 0}});
    Chain chain = MustPop();
    ASSERT_EQ(chain.head, head);
    queue_.Push(chain, static_cast<uint32_t>(i));
    ASSERT_EQ(driver_.PollUsed(), (UsedEntry{head, static_cast<uint32_t>(i)})) << i;
  }
  EXPECT_TRUE(IsDrained());
}

TEST_P(VirtQueueTest, AFullQueueIsNoFault) {
  for (uint16_t head = 0; head < kSize; ++head) {
    driver_.OfferChain(head, {{kBuffers, 1, 0, 0}});
  }
  for (uint16_t head = 0; head < kSize; ++head) EXPECT_EQ(MustPop().head, head);
  EXPECT_TRUE(IsDrained());
  EXPECT_EQ(queue_.InFlight().size(), kSize);
}

TEST_P(VirtQueueTest, InterruptsAsTheDriverAsks) {
  const auto use_one = [&] {
    driver_.OfferChain(0, {{kBuffers, 1, kDescWrite, 0}});
    queue_.Push(MustPop(), 0);
  };
  EXPECT_FALSE(queue_.NeedsInterrupt()) << "nothing was used";
  use_one();
  EXPECT_TRUE(queue_.NeedsInterrupt());
  EXPECT_FALSE(queue_.NeedsInterrupt()) << "once";
  if (GetParam()) {
    driver_.SetUsedEvent(3);  // the fourth
    use_one();
    EXPECT_FALSE(queue_.NeedsInterrupt());
    use_one();
    EXPECT_FALSE(queue_.NeedsInterrupt());
    use_one();
    EXPECT_TRUE(queue_.NeedsInterrupt());
    use_one();
    EXPECT_FALSE(queue_.NeedsInterrupt());
    driver_.SetUsedEvent(6);
    use_one();
    use_one();
    use_one();
    EXPECT_TRUE(queue_.NeedsInterrupt()) << "passed within a batch";
    driver_.SetNoInterrupt(true);
    driver_.SetUsedEvent(8);
    use_one();
    EXPECT_TRUE(queue_.NeedsInterrupt()) << "the flag means nothing here";
  } else {
    driver_.SetNoInterrupt(true);
    use_one();
    EXPECT_FALSE(queue_.NeedsInterrupt());
    driver_.SetNoInterrupt(false);
    EXPECT_FALSE(queue_.NeedsInterrupt()) << "that one was not wanted";
    use_one();
    EXPECT_TRUE(queue_.NeedsInterrupt());
  }
}

TEST_P(VirtQueueTest, TheDriverNotifiesOnlyWhenAsked) {
  EXPECT_FALSE(queue_.SetNotifications(true));
  EXPECT_TRUE(driver_.OfferChain(0, {{kBuffers, 1, 0, 0}}));
  queue_.SetNotifications(false);
  EXPECT_FALSE(driver_.OfferChain(1, {{kBuffers, 1, 0, 0}}));
  MustPop();
  EXPECT_TRUE(queue_.SetNotifications(true)) << "one came meanwhile";
  MustPop();
  EXPECT_FALSE(queue_.SetNotifications(true));
  EXPECT_TRUE(driver_.OfferChain(2, {{kBuffers, 1, 0, 0}}));
}

TEST_P(VirtQueueTest, NeverWritesWhatItDoesNotMark) {
  const auto drain = [&] {
    memory::PageSet pages(memory_->layout().gfn_end());
    memory_->write_log().Drain(pages);
    pages.Sort();
    return std::vector<Gfn>(pages.pages().begin(), pages.pages().end());
  };
  drain();
  driver_.OfferChain(0, {{kBuffers, 1, kDescWrite, 0}});
  const Chain chain = MustPop();
  EXPECT_THAT(drain(), IsEmpty()) << "looking is not writing";
  queue_.Push(chain, 1);
  EXPECT_THAT(drain(), ElementsAre(GfnOf(Gpa(driver_.used()))));
  queue_.SetNotifications(false);
  queue_.SetNotifications(true);
  EXPECT_THAT(drain(), ElementsAre(GfnOf(Gpa(driver_.used()))));
}

// A used ring whose index lies on another page than its elements, and its event on a third.
TEST(UsedRingTest, EveryPageOfItIsMarked) {
  auto memory = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4));
  GuestCpu cpu(*memory);
  VirtQueue queue(*memory, 512);
  const uint64_t used = kRings + 0x10000 - 4;
  ASSERT_FALSE(queue.Enable({512, kRings, kRings + 0x8000, used}, {.event_index = true}));
  cpu.Put(kRings, testing::RawDescriptor{kBuffers, 1, kDescWrite, 0});
  cpu.Put<uint16_t>(kRings + 0x8000 + 2, 1);
  auto chain = queue.Pop();
  ASSERT_TRUE(chain.ok() && chain->has_value());
  queue.Push(**chain, 0);
  queue.SetNotifications(true);
  memory::PageSet pages(memory->layout().gfn_end());
  memory->write_log().Drain(pages);
  pages.Sort();
  const uint64_t first = used >> kPageShift;
  EXPECT_THAT(pages.pages(), ElementsAre(Gfn(first), Gfn(first + 1), Gfn(first + 2)));
}

TEST_P(VirtQueueTest, AChainFromBeforeAResetIsVoid) {
  driver_.OfferChain(0, {{kBuffers, 1, kDescWrite, 0}});
  const Chain chain = MustPop();
  EXPECT_TRUE(queue_.Holds(chain));
  queue_.Reset();
  EXPECT_FALSE(queue_.Holds(chain));
  ASSERT_FALSE(queue_.Enable(setup(), {}));
  EXPECT_FALSE(queue_.Holds(chain));
  queue_.Push(chain, 1);
  EXPECT_EQ(driver_.UsedIndex(), 0);
}

TEST_P(VirtQueueTest, ARestoredQueueHandsOutWhatWasInFlight) {
  for (uint16_t head = 0; head < 4; ++head) {
    driver_.OfferChain(head, {{kBuffers + head, 1, kDescWrite, 0}});
  }
  const Chain zero = MustPop();
  MustPop();
  const Chain two = MustPop();
  queue_.Push(zero, 0);
  EXPECT_TRUE(queue_.NeedsInterrupt());
  std::string state;
  base::ByteWriter writer(&state);
  queue_.Save(writer);

  const QueueFeatures features{.indirect = true, .event_index = GetParam()};
  VirtQueue other(*memory_, 16);
  base::ByteReader reader(base::AsBytes({state.data(), state.size()}));
  ASSERT_TRUE(other.Restore(reader, features).ok());
  EXPECT_EQ(reader.remaining(), 0u);
  std::string again;
  base::ByteWriter second_writer(&again);
  other.Save(second_writer);
  EXPECT_EQ(again, state);
  EXPECT_THAT(other.InFlight(), ElementsAre(1, 2));
  EXPECT_TRUE(other.SetNotifications(true)) << "there is work";
  for (const uint16_t head : {1, 2, 3}) {
    auto chain = other.Pop();
    ASSERT_TRUE(chain.ok() && chain->has_value());
    EXPECT_EQ((*chain)->head, head);
    EXPECT_THAT((*chain)->writable, ElementsAre(Segment{Gpa(kBuffers + head), 1}));
    other.Push(**chain, head);
  }
  EXPECT_EQ(driver_.PollUsed(), (UsedEntry{0, 0}));
  for (const uint16_t head : {1, 2, 3}) EXPECT_EQ(driver_.PollUsed(), (UsedEntry{head, head}));
  EXPECT_EQ(two.head, 2);
}

TEST(ChainTest, CopiesAcrossSegments) {
  auto memory = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4));
  const std::vector<Segment> segments{{Gpa(0x1ffe), 4}, {Gpa(0x5000), 1}, {Gpa(0x7000), 10}};
  std::string text(15, '\0');
  std::iota(text.begin(), text.end(), 'a');
  EXPECT_EQ(*Scatter(*memory, segments, 0, base::AsBytes({text.data(), text.size()})), 15u);
  memory::PageSet pages(memory->layout().gfn_end());
  memory->write_log().Drain(pages);
  pages.Sort();
  EXPECT_THAT(pages.pages(), ElementsAre(Gfn(1), Gfn(2), Gfn(5), Gfn(7)));
  std::string back(100, '\0');
  const auto into = std::as_writable_bytes(std::span<char>(back.data(), back.size()));
  EXPECT_EQ(*Gather(*memory, segments, 3, into), 12u) << "no more than there is";
  EXPECT_EQ(back.substr(0, 12), "defghijklmno");
  EXPECT_EQ(*Gather(*memory, segments, 99, into), 0u);
  EXPECT_EQ(*Scatter(*memory, segments, 14, base::AsBytes("ZZZ")), 1u);

  EXPECT_THAT(*Slice(segments, 3, 3), ElementsAre(Segment{Gpa(0x2001), 1}, Segment{Gpa(0x5000), 1},
                                                  Segment{Gpa(0x7000), 1}));
  EXPECT_EQ(Slice(segments, 3, 13).status().code(), absl::StatusCode::kOutOfRange);

  const auto readable = ReadableSpans(*memory, segments);
  ASSERT_TRUE(readable.ok());
  EXPECT_EQ(readable->size(), 3u);
  EXPECT_EQ((*readable)[2][9], std::byte{'Z'});
  ASSERT_TRUE(WritableSpans(*memory, segments).ok());
  pages.Clear();
  memory->write_log().Drain(pages);
  pages.Clear();
  ASSERT_TRUE(MarkWritten(*memory, segments, 5).ok());
  memory->write_log().Drain(pages);
  EXPECT_EQ(pages.size(), 3u) << "not the page beyond what was written";
  EXPECT_FALSE(ReadableSpans(*memory, std::vector<Segment>{{Gpa(4u << 20), 1}}).ok());
}

}  // namespace
}  // namespace romulus::devices

// What the secondary's heartbeats say about the link.
#include <gtest/gtest.h>

#include <cstdint>

#include "wire/link_rate.h"

namespace romulus::wire {
namespace {

constexpr uint64_t kMillisecond = 1'000'000;
constexpr uint64_t kMega = 1'000'000;

// A stream with a report every `interval_ns`.
class Stream {
 public:
  explicit Stream(uint64_t interval_ns = 100 * kMillisecond) : interval_ns_(interval_ns) {}

  // `rate` bytes/s come for `seconds`, with `under_way` bytes behind them at each report.
  uint64_t Run(double seconds, double rate, uint64_t under_way, double busy = 0.05) {
    const auto reports = static_cast<int>(seconds * 1e9 / static_cast<double>(interval_ns_));
    for (int i = 0; i < reports; ++i) {
      now_.at_ns += interval_ns_;
      now_.received_bytes += static_cast<uint64_t>(rate * 1e-9 * static_cast<double>(interval_ns_));
      now_.busy_ns += static_cast<uint64_t>(busy * static_cast<double>(interval_ns_));
      now_.sent_bytes = now_.received_bytes + under_way;
      link_.Add(now_);
    }
    return link_.bytes_per_second();
  }
  LinkRate& link() { return link_; }
  LinkReport& now() { return now_; }

 private:
  const uint64_t interval_ns_;
  LinkRate link_;
  LinkReport now_{.at_ns = 1000 * kMillisecond};
};

TEST(LinkRateTest, ALinkThatAllWaitsForIsKnownAfterSomeStretches) {
  for (const double rate : {1e6, 10e6, 100e6, 200e6}) {
    Stream stream;
    EXPECT_EQ(stream.Run(0.5, rate, 8 << 20), 0u) << rate;
    EXPECT_NEAR(static_cast<double>(stream.Run(5, rate, 8 << 20)), rate, 0.1 * rate) << rate;
  }
}

TEST(LinkRateTest, MessagesComeWholeAndTheRateIsStillOne) {
  // 1 MB/s, half a megabyte at a time.
  Stream stream;
  uint64_t rate = 0;
  for (int i = 0; i < 20; ++i) {
    stream.Run(0.4, 0, 2 << 20);
    rate = stream.Run(0.1, 5e6, 2 << 20);
  }
  EXPECT_NEAR(static_cast<double>(rate), 1e6, 0.5e6);
}

TEST(LinkRateTest, ASecondaryThatIsAtWorkIsNoThinLink) {
  Stream stream;
  EXPECT_EQ(stream.Run(20, 10e6, 8 << 20, /*busy=*/0.9), 0u);
  EXPECT_NE(stream.Run(20, 10e6, 8 << 20, /*busy=*/0.2), 0u);
}

TEST(LinkRateTest, APrimaryWithLittleToSayIsNoThinLink) {
  Stream idle;
  EXPECT_EQ(idle.Run(20, 10e6, 0), 0u);
  // What a report happens to find on its way; on loopback that is a message or two.
  Stream bursts;
  EXPECT_EQ(bursts.Run(20, 50e6, 600 << 10), 0u);
  // Most of the time: one report without is enough.
  Stream often;
  for (int i = 0; i < 100; ++i) {
    often.Run(0.3, 10e6, 4 << 20);
    EXPECT_EQ(often.Run(0.1, 10e6, 1000), 0u);
  }
}

TEST(LinkRateTest, AFullSyncOverLoopbackTellsNothing) {
  Stream stream;
  EXPECT_EQ(stream.Run(20, 800e6, 8 << 20), 0u);
}

TEST(LinkRateTest, ReportsThatComeSeldomAreEnough) {
  Stream stream(2000 * kMillisecond);
  EXPECT_NEAR(static_cast<double>(stream.Run(20, 10e6, 4 << 20)), 10e6, 1e6);
}

TEST(LinkRateTest, OneSlowStretchDoesNotMakeALinkThin) {
  Stream stream;
  stream.Run(5, 100e6, 8 << 20);
  stream.Run(1.0, 10e6, 8 << 20);
  EXPECT_NEAR(static_cast<double>(stream.link().bytes_per_second()), 100e6, 10e6);
  EXPECT_NEAR(static_cast<double>(stream.Run(10, 10e6, 8 << 20)), 10e6, 1e6) << "many do";
}

TEST(LinkRateTest, ALinkThatDoesMoreIsThicker) {
  Stream stream;
  ASSERT_NEAR(static_cast<double>(stream.Run(5, 10e6, 8 << 20)), 10e6, 1e6);
  // Nobody waits for it now.
  EXPECT_NEAR(static_cast<double>(stream.Run(1, 90e6, 0)), 90e6, 5e6);
}

TEST(LinkRateTest, ALinkForWhichNobodyWaitsIsForgotten) {
  Stream stream;
  stream.Run(5, 10e6, 8 << 20);
  EXPECT_NE(stream.Run(50, 1e6, 0), 0u);
  EXPECT_EQ(stream.Run(20, 1e6, 0), 0u);
  EXPECT_NE(stream.Run(10, 10e6, 8 << 20), 0u);
}

// More than the link carries, until it is compressed: to send it raw again would fill the queues.
TEST(LinkRateTest, ALinkOnWhichCompressionLeavesRoomIsRemembered) {
  Stream stream;
  stream.Run(5, 10e6, 8 << 20);
  stream.now().compresses = true;
  EXPECT_NEAR(static_cast<double>(stream.Run(600, 6e6, 0)), 10e6, 1e6);
  EXPECT_EQ(stream.Run(1800, 6e6, 0), 0u) << "but not for ever";
}

// A steady load over a long way has its round trip's worth under way, and nobody waits.
TEST(LinkRateTest, ALongWayIsNoThinLink) {
  Stream stream;
  stream.now().rtt_ns = 80 * kMillisecond;
  EXPECT_EQ(stream.Run(60, 20e6, static_cast<uint64_t>(20e6 * 0.08)), 0u);
  EXPECT_NEAR(static_cast<double>(stream.Run(10, 20e6, 8 << 20)), 20e6, 2e6) << "a queue is one";
}

TEST(LinkRateTest, WhatBuffersHeldBackIsNoRate) {
  Stream stream;
  stream.Run(5, 5e6, 8 << 20);
  for (int i = 0; i < 10; ++i) {
    stream.Run(1, 0, 8 << 20, /*busy=*/1.0);   // the secondary waits for its disk,
    stream.Run(1, 10e6, 8 << 20, /*busy=*/0);  // and all comes at once
    stream.Run(5, 5e6, 8 << 20);
    EXPECT_NEAR(static_cast<double>(stream.link().bytes_per_second()), 5e6, 1e6);
  }
}

TEST(LinkRateTest, AStandstillIsNoRate) {
  Stream stream;
  stream.Run(5, 10e6, 8 << 20);
  EXPECT_NEAR(static_cast<double>(stream.Run(10, 0, 8 << 20)), 10e6, 1e6);
}

TEST(LinkRateTest, LiesAreHarmless) {
  Stream stream;
  stream.Run(5, 10e6, 8 << 20);
  for (int i = 0; i < 3; ++i) {
    stream.now().at_ns = 5;  // back in time
    stream.Run(0.1, 10e6, 8 << 20);
    stream.now().received_bytes = 0;
    stream.now().busy_ns = 0;
    stream.Run(0.1, 10e6, 8 << 20);
  }
  // More than was sent, and all there is.
  LinkRate link;
  EXPECT_EQ(link.Add({.at_ns = 1, .received_bytes = 0, .busy_ns = 0, .sent_bytes = 10}), 0u);
  for (uint64_t i = 1; i < 100; ++i) {
    link.Add({.at_ns = i * (UINT64_MAX / 100),
              .received_bytes = i * (UINT64_MAX / 100),
              .busy_ns = UINT64_MAX,
              .sent_bytes = 10});
  }
  EXPECT_EQ(link.bytes_per_second(), 0u);
  link = LinkRate();
  for (uint64_t i = 1; i < 100; ++i) {
    link.Add({.at_ns = i * 1000 * kMillisecond,
              .received_bytes = i % 2 * UINT64_MAX,
              .busy_ns = 0,
              .sent_bytes = UINT64_MAX});
  }
  EXPECT_LE(link.bytes_per_second(), 1'000'000'000 * kMega);
}

}  // namespace
}  // namespace romulus::wire

#include <gtest/gtest.h>

#include "failover/failure_detector.h"

namespace romulus::failover {
namespace {

constexpr uint64_t kMs = 1'000'000;

class FailureDetectorTest : public testing::Test {
 protected:
  FailureDetectorTest() { detector_.Reset(now_ns_); }

  // Ticks as configured until `ms` have passed.
  PeerLife Run(uint64_t ms) {
    for (uint64_t i = 0; i < ms / 10; ++i) {
      now_ns_ += 10 * kMs;
      life_ = detector_.Tick(now_ns_);
    }
    return life_;
  }
  // Our own process stands still.
  PeerLife Stall(uint64_t ms) {
    now_ns_ += ms * kMs;
    return life_ = detector_.Tick(now_ns_);
  }
  void Sign() { detector_.OnSignOfLife(now_ns_); }

  uint64_t now_ns_ = 1'000'000 * kMs;
  PeerLife life_ = PeerLife::kAlive;
  FailureDetector detector_{{.interval_ns = 50 * kMs,
                             .threshold_ns = 500 * kMs,
                             .tick_ns = 10 * kMs,
                             .stall_ns = 40 * kMs}};
};

TEST_F(FailureDetectorTest, SilenceBecomesSuspicionThenLoss) {
  EXPECT_EQ(Run(250), PeerLife::kAlive);
  EXPECT_EQ(Run(10), PeerLife::kSuspect);
  EXPECT_EQ(Run(230), PeerLife::kSuspect);
  EXPECT_EQ(Run(10), PeerLife::kLost);
}

TEST_F(FailureDetectorTest, TheTickThatFindsALossIsNotLate) {
  Run(480);
  EXPECT_EQ(detector_.UntilNextTickNs(), 10 * kMs);
  now_ns_ += 13 * kMs;  // a bit late
  ASSERT_EQ(detector_.Tick(now_ns_), PeerLife::kSuspect);
  EXPECT_EQ(detector_.UntilNextTickNs(), 7 * kMs);
  now_ns_ += 7 * kMs;
  EXPECT_EQ(detector_.Tick(now_ns_), PeerLife::kLost);
  EXPECT_EQ(detector_.UntilNextTickNs(), 10 * kMs);
  detector_.Stop();
  EXPECT_EQ(detector_.UntilNextTickNs(), 10 * kMs);
}

TEST_F(FailureDetectorTest, SignsOfLifeKeepThePeerAlive) {
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(Run(200), PeerLife::kAlive);
    Sign();
  }
  EXPECT_EQ(detector_.stats().count, 100u);
  EXPECT_EQ(detector_.stats().mean_gap_ns, 200 * kMs);
  EXPECT_EQ(detector_.stats().jitter_ns, 0u);
  EXPECT_EQ(detector_.stats().max_gap_ns, 200 * kMs);
}

TEST_F(FailureDetectorTest, ASuspectIsClearedByOneSign) {
  EXPECT_EQ(Run(300), PeerLife::kSuspect);
  Sign();
  EXPECT_EQ(detector_.life(), PeerLife::kAlive);
  EXPECT_EQ(Run(250), PeerLife::kAlive);
}

TEST_F(FailureDetectorTest, LossIsFinalUntilReset) {
  EXPECT_EQ(Run(500), PeerLife::kLost);
  Sign();
  EXPECT_EQ(Run(10), PeerLife::kLost);
  detector_.Reset(now_ns_);
  EXPECT_EQ(Run(10), PeerLife::kAlive);
}

// SIGSTOP of ourselves for half a minute: the peer may have sent all the time.
TEST_F(FailureDetectorTest, OurOwnStallIsNotThePeersSilence) {
  EXPECT_EQ(Stall(30'000), PeerLife::kAlive);
  EXPECT_EQ(detector_.stats().own_stalls, 1u);
  EXPECT_EQ(detector_.stats().max_own_stall_ns, 30'000 * kMs);
  EXPECT_EQ(Run(200), PeerLife::kAlive);
  Sign();
  EXPECT_EQ(Run(250), PeerLife::kAlive);
}

TEST_F(FailureDetectorTest, AfterOurStallADeadPeerIsStillFound) {
  Stall(30'000);
  EXPECT_EQ(Run(450), PeerLife::kSuspect);
  EXPECT_EQ(Run(50), PeerLife::kLost);
}

// An overloaded host on which every tick is late must not make a talking peer lost.
TEST_F(FailureDetectorTest, ManyStallsWithSignsBetween) {
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(Stall(700), PeerLife::kAlive);
    Sign();
  }
}

TEST_F(FailureDetectorTest, JitterIsMeasured) {
  for (int i = 0; i < 200; ++i) {
    Run(i % 2 == 0 ? 40 : 60);
    Sign();
  }
  EXPECT_NEAR(static_cast<double>(detector_.stats().mean_gap_ns), 50.0 * kMs, 2.0 * kMs);
  EXPECT_NEAR(static_cast<double>(detector_.stats().jitter_ns), 10.0 * kMs, 2.0 * kMs);
}

TEST_F(FailureDetectorTest, NobodyIsLostBeforeResetOrAfterStop) {
  FailureDetector idle({.interval_ns = 50 * kMs,
                        .threshold_ns = 500 * kMs,
                        .tick_ns = 10 * kMs,
                        .stall_ns = 40 * kMs});
  for (uint64_t now_ns = 0; now_ns < 2'000 * kMs; now_ns += 10 * kMs) {
    EXPECT_EQ(idle.Tick(now_ns), PeerLife::kAlive);
  }
  Run(300);
  detector_.Stop();
  EXPECT_EQ(Run(1'000), PeerLife::kAlive);
}

TEST(FailureDetectorOptionsTest, ContradictionsAreNamed) {
  EXPECT_TRUE(Validate(FailureDetectorOptions{}).ok());
  EXPECT_NE(std::string(Validate({.interval_ns = 50, .threshold_ns = 99, .tick_ns = 10}).message())
                .find("threshold"),
            std::string::npos);
  EXPECT_NE(std::string(Validate({.interval_ns = 50, .threshold_ns = 500, .tick_ns = 51}).message())
                .find("tick"),
            std::string::npos);
  EXPECT_FALSE(Validate({.interval_ns = 50, .threshold_ns = 500, .tick_ns = 0}).ok());
  EXPECT_NE(
      std::string(Validate({.interval_ns = 50, .threshold_ns = 500, .tick_ns = 10, .stall_ns = 19})
                      .message())
          .find("stall"),
      std::string::npos);
  EXPECT_TRUE(
      Validate({.interval_ns = 50, .threshold_ns = 500, .tick_ns = 10, .stall_ns = 20}).ok());
}

}  // namespace
}  // namespace romulus::failover

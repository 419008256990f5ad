// P7: what comes on the second path is a beat of the other node, or is refused by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <string>

#include "base/types.h"
#include "wire/beats.h"

namespace romulus::wire {
namespace {

constexpr char kUuid[] = "8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11";
constexpr uint64_t kMs = 1'000'000;

class Beats : public testing::Test {
 protected:
  static v1::Beat Good(uint64_t sequence) {
    v1::Beat beat;
    beat.set_vm_uuid(kUuid);
    beat.set_node_name("beta");
    beat.set_incarnation(7);
    beat.set_sequence(sequence);
    beat.set_mode(v1::BEAT_MODE_STANDBY);
    beat.set_holds(v1::HOLDS_NOTHING);
    return beat;
  }
  // Takes a good one first, so that a refusal is of what was changed.
  BeatFault After(const std::function<void(v1::Beat&)>& change) {
    BeatReader reader(options_);
    EXPECT_TRUE(reader.Take(Good(1).SerializeAsString(), now_ns_).ok());
    v1::Beat beat = Good(2);
    change(beat);
    const bool taken = reader.Take(beat.SerializeAsString(), now_ns_).ok();
    EXPECT_EQ(taken, reader.fault() == BeatFault::kNone);
    return reader.fault();
  }

  const BeatReaderOptions options_{
      .vm_uuid = kUuid, .node_name = "alpha", .peer_name = "beta", .interval_ns = 50 * kMs};
  uint64_t now_ns_ = 1'000 * kMs;
};

TEST_F(Beats, OfTheOtherNodeAreTaken) {
  BeatReader reader(options_);
  EXPECT_FALSE(reader.proven());
  for (uint64_t i = 1; i < 10'000; ++i) {
    ASSERT_TRUE(reader.Take(Good(i).SerializeAsString(), now_ns_ += 50 * kMs).ok()) << i;
  }
  EXPECT_TRUE(reader.proven());
}

TEST_F(Beats, OfOthersAreRefusedByName) {
  EXPECT_EQ(After([](v1::Beat&) {}), BeatFault::kNone);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.clear_vm_uuid(); }), BeatFault::kWrongVm);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.mutable_vm_uuid()->back() = '2'; }),
            BeatFault::kWrongVm);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.set_node_name("alpha"); }), BeatFault::kSameName);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.set_node_name("gamma"); }), BeatFault::kUnknownNode);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.clear_node_name(); }), BeatFault::kUnknownNode);
}

TEST_F(Beats, ThatNoNodeSaysAreMalformed) {
  EXPECT_EQ(After([](v1::Beat& beat) { beat.set_incarnation(0); }), BeatFault::kMalformed);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.clear_mode(); }), BeatFault::kMalformed);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.set_mode(static_cast<v1::BeatMode>(99)); }),
            BeatFault::kMalformed);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.set_holds(static_cast<v1::Holds>(99)); }),
            BeatFault::kMalformed);
  const uint64_t beyond = kMaxPeerTerm.value() + 1;
  EXPECT_EQ(After([=](v1::Beat& beat) { beat.set_term(beyond); }), BeatFault::kMalformed);
  EXPECT_EQ(After([=](v1::Beat& beat) { beat.set_asks_release_term(beyond); }),
            BeatFault::kMalformed);
  EXPECT_EQ(After([=](v1::Beat& beat) { beat.set_released_term(beyond); }), BeatFault::kMalformed);
  EXPECT_EQ(After([=](v1::Beat& beat) { beat.mutable_lineage()->set_shared_term(beyond); }),
            BeatFault::kMalformed);
}

TEST_F(Beats, ThatWereHeardBeforeAreRefused) {
  EXPECT_EQ(After([](v1::Beat& beat) { beat.set_sequence(1); }), BeatFault::kReplayed);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.set_sequence(0); }), BeatFault::kReplayed);
  EXPECT_EQ(After([](v1::Beat& beat) { beat.set_incarnation(8); }), BeatFault::kReplayed);
}

TEST_F(Beats, OfTooManyBytesAreNotLookedAt) {
  BeatReader reader(options_);
  v1::Beat beat = Good(1);
  beat.set_vm_uuid(std::string(kMaxBeatBytes, 'x'));
  EXPECT_FALSE(reader.Take(beat.SerializeAsString(), now_ns_).ok());
  EXPECT_EQ(reader.fault(), BeatFault::kOversized);
}

TEST_F(Beats, AFloodEndsAndABurstDoesNot) {
  BeatReader reader(options_);
  uint64_t sequence = 0;
  // What queued up while one of the two was stopped.
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(reader.Take(Good(++sequence).SerializeAsString(), now_ns_).ok()) << i;
  }
  int taken = 0;
  while (reader.Take(Good(++sequence).SerializeAsString(), now_ns_ += kMs).ok()) {
    ASSERT_LT(++taken, 1'000);
  }
  EXPECT_EQ(reader.fault(), BeatFault::kFlood);
}

TEST_F(Beats, P7_NoBytesDoAnyHarm) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 20'000; ++round) {
    BeatReader reader(options_);
    std::string bytes = Good(1).SerializeAsString();
    for (int i = 0; i < 3; ++i) bytes[random() % bytes.size()] = static_cast<char>(random());
    if (random() % 2 == 0) bytes.resize(random() % bytes.size());
    const auto beat = reader.Take(bytes, now_ns_);
    ASSERT_EQ(beat.ok(), reader.fault() == BeatFault::kNone);
    if (!beat.ok()) continue;
    ASSERT_EQ(beat->node_name(), "beta");
    ASSERT_EQ(beat->vm_uuid(), kUuid);
  }
}

}  // namespace
}  // namespace romulus::wire

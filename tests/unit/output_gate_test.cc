#include "epoch/output_gate.h"

#include <gtest/gtest.h>

#include <string>

#include "base/bytes.h"

namespace romulus::epoch {
namespace {

class Collected final : public ReleasedOutput {
 public:
  void Emit(uint64_t offset, absl::string_view bytes) override {
    EXPECT_EQ(offset, start + text.size()) << "a gap or a repeat in the released stream";
    text.append(bytes.data(), bytes.size());
  }
  uint64_t start = 0;
  std::string text;
};

class OutputGateTest : public ::testing::Test {
 protected:
  void Say(absl::string_view text) { gate_.WriteConsole(base::AsBytes(text)); }
  Collected out_;
  OutputGate gate_{{.cap_bytes = 8, .start_offset = 0}, &out_};
};

TEST_F(OutputGateTest, OpenGateLetsBytesOutAtOnce) {
  Say("boot");
  EXPECT_EQ(out_.text, "boot");
  EXPECT_EQ(gate_.held_bytes(), 0u);
}

TEST_F(OutputGateTest, P1_NothingLeavesBeforeItsEpochIsAcked) {
  gate_.Cut(EpochId(1));
  Say("a");
  Say("b");
  EXPECT_EQ(out_.text, "");
  ConsoleCut cut = gate_.Cut(EpochId(2));
  EXPECT_EQ(cut.offset, 0u);
  EXPECT_EQ(cut.bytes, "ab");
  Say("c");
  gate_.Release(EpochId(1));
  EXPECT_EQ(out_.text, "");
  gate_.Release(EpochId(2));
  EXPECT_EQ(out_.text, "ab");
  EXPECT_EQ(gate_.Cut(EpochId(3)).offset, 2u);
  gate_.Release(EpochId(3));
  EXPECT_EQ(out_.text, "abc");
}

TEST_F(OutputGateTest, AnAckCoversAllEpochsBefore) {
  gate_.Cut(EpochId(1));
  Say("x");
  gate_.Cut(EpochId(2));
  Say("y");
  EXPECT_EQ(gate_.Cut(EpochId(3)).offset, 1u);
  gate_.Release(EpochId(3));
  EXPECT_EQ(out_.text, "xy");
}

TEST_F(OutputGateTest, P5_AnUndoneCutGivesItsBytesToTheNextEpoch) {
  gate_.Cut(EpochId(1));
  Say("ab");
  gate_.Cut(EpochId(2));
  Say("c");
  gate_.UndoCut(EpochId(2));
  gate_.Release(EpochId(1));
  EXPECT_EQ(out_.text, "");
  EXPECT_EQ(gate_.Cut(EpochId(2)).bytes, "abc");
}

TEST_F(OutputGateTest, ANewStreamCarriesWhatTheOldOneDidNotRelease) {
  gate_.Cut(EpochId(1));
  Say("ab");
  gate_.Cut(EpochId(2));
  Say("c");
  gate_.BeginStream();
  ConsoleCut cut = gate_.Cut(EpochId(3));
  EXPECT_EQ(cut.offset, 0u);
  EXPECT_EQ(cut.bytes, "abc");
}

TEST_F(OutputGateTest, P6_SaysWhenItIsOverItsCap) {
  int rooms = 0;
  gate_.SetRoom([&] { ++rooms; });
  gate_.Cut(EpochId(1));
  Say("12345678");
  EXPECT_TRUE(gate_.OverCap());
  gate_.Cut(EpochId(2));
  EXPECT_TRUE(gate_.OverCap());
  gate_.Release(EpochId(2));
  EXPECT_FALSE(gate_.OverCap());
  EXPECT_EQ(rooms, 1);
  EXPECT_EQ(out_.text, "12345678");  // and nothing was dropped
}

TEST_F(OutputGateTest, SaysOncePerEpochThatOutputWaits) {
  int waiting = 0;
  gate_.SetOutputWaiting([&] { ++waiting; });
  gate_.Cut(EpochId(1));
  Say("a");
  Say("b");
  EXPECT_EQ(waiting, 1);
  gate_.Cut(EpochId(2));
  Say("c");
  EXPECT_EQ(waiting, 2);
}

TEST_F(OutputGateTest, P3_ALoserLetsNothingOut) {
  gate_.Cut(EpochId(1));
  Say("late");
  gate_.Discard();
  Say("later");
  gate_.Release(EpochId(9));
  EXPECT_EQ(out_.text, "");
}

TEST_F(OutputGateTest, SoloReleasesEverythingInOrder) {
  gate_.Cut(EpochId(1));
  Say("a");
  gate_.Cut(EpochId(2));
  Say("b");
  gate_.Open();
  Say("c");
  EXPECT_EQ(out_.text, "abc");
}

}  // namespace
}  // namespace romulus::epoch

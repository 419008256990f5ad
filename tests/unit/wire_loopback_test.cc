#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "wire/loopback_link.h"

namespace romulus::wire {
namespace {

constexpr LoopbackEnd kPrimary = LoopbackEnd::kPrimary;
constexpr LoopbackEnd kSecondary = LoopbackEnd::kSecondary;

class Heard final : public LinkListener {
 public:
  void OnMessage(absl::string_view frames) override { messages.emplace_back(frames); }
  void OnClosed(const absl::Status& status) override {
    ++closed;
    why = status;
  }
  std::vector<std::string> messages;
  int closed = 0;
  absl::Status why;
};

class LoopbackTest : public testing::Test {
 protected:
  LoopbackTest() {
    network_.SetListener(kPrimary, &at_primary_);
    network_.SetListener(kSecondary, &at_secondary_);
    primary_ = network_.TakeLink(kPrimary);
    secondary_ = network_.TakeLink(kSecondary);
  }
  using Messages = std::vector<std::string>;
  Heard at_primary_;
  Heard at_secondary_;
  LoopbackNetwork network_;
  std::unique_ptr<Link> primary_;
  std::unique_ptr<Link> secondary_;
};

TEST_F(LoopbackTest, NothingMovesUntilStepped) {
  ASSERT_TRUE(primary_->Send("a").ok());
  ASSERT_TRUE(primary_->Send("b").ok());
  EXPECT_TRUE(at_secondary_.messages.empty());
  EXPECT_EQ(network_.InFlight(kSecondary), 2u);
  EXPECT_TRUE(network_.Step(kSecondary));
  EXPECT_EQ(at_secondary_.messages, Messages{"a"});
  EXPECT_FALSE(network_.Step(kPrimary));
  EXPECT_EQ(network_.Pump(), 1u);
  EXPECT_EQ(at_secondary_.messages, (Messages{"a", "b"}));
}

TEST_F(LoopbackTest, Faults) {
  for (const char* message : {"one", "two", "three", "four"}) {
    ASSERT_TRUE(primary_->Send(message).ok());
  }
  EXPECT_TRUE(network_.Drop(kSecondary, 1));
  EXPECT_TRUE(network_.Duplicate(kSecondary, 0));
  EXPECT_TRUE(network_.Swap(kSecondary, 2, 3));
  EXPECT_TRUE(network_.Truncate(kSecondary, 2, 2));
  EXPECT_TRUE(network_.FlipBit(kSecondary, 3, 0));
  EXPECT_FALSE(network_.Drop(kSecondary, 4));
  EXPECT_FALSE(network_.FlipBit(kSecondary, 0, 24));
  EXPECT_FALSE(network_.Truncate(kSecondary, 0, 3));
  EXPECT_FALSE(network_.Duplicate(kPrimary, 0));
  network_.Pump();
  EXPECT_EQ(at_secondary_.messages, (Messages{"one", "one", "fo", "uhree"}));
}

TEST_F(LoopbackTest, CloseReachesBothOnceAndAfterWhatWasSent) {
  ASSERT_TRUE(primary_->Send("last").ok());
  primary_->Close(absl::CancelledError("done"));
  primary_->Close(absl::CancelledError("again"));
  EXPECT_FALSE(primary_->Send("late").ok());
  network_.Pump();
  EXPECT_EQ(at_secondary_.messages, Messages{"last"});
  EXPECT_EQ(at_secondary_.closed, 1);
  EXPECT_EQ(at_primary_.closed, 1);
  EXPECT_EQ(at_primary_.why.message(), "done");
  EXPECT_FALSE(secondary_->Send("answer").ok());
}

TEST_F(LoopbackTest, ACutLosesWhatIsInFlight) {
  ASSERT_TRUE(primary_->Send("lost").ok());
  network_.Cut(absl::UnavailableError("cable"));
  network_.Pump();
  EXPECT_TRUE(at_secondary_.messages.empty());
  EXPECT_EQ(at_secondary_.why.message(), "cable");
  EXPECT_EQ(at_primary_.closed, 1);
}

TEST_F(LoopbackTest, ADestroyedLinkHasToldItsEnd) {
  primary_.reset();
  EXPECT_EQ(at_primary_.closed, 1);
  network_.Pump();
  EXPECT_EQ(at_secondary_.closed, 1);
  EXPECT_EQ(at_primary_.closed, 1);
}

TEST_F(LoopbackTest, AtOnce) {
  network_.DeliverAtOnce();
  ASSERT_TRUE(secondary_->Send("hello").ok());
  EXPECT_EQ(at_primary_.messages, Messages{"hello"});
}

}  // namespace
}  // namespace romulus::wire

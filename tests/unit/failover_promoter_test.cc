#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "failover/promoter.h"

namespace romulus::failover {
namespace {

// Each look at it takes 10 ns.
class SteppingClock final : public base::Clock {
 public:
  uint64_t NowNs() const override { return now_ns_ += 10; }

 private:
  mutable uint64_t now_ns_ = 1000;
};

class FakeGuest final : public PreparedGuest {
 public:
  absl::Status Restore(state::MachineState machine) override {
    steps.push_back("restore");
    restored = std::move(machine);
    return restore;
  }
  absl::Status Start() override {
    steps.push_back("start");
    return start;
  }

  std::vector<std::string> steps;
  state::MachineState restored;
  absl::Status restore;
  absl::Status start;
};

absl::StatusOr<SealedEpoch> Seal() {
  SealedEpoch sealed{.term = Term(3), .epoch = EpochId(9), .machine = {}};
  sealed.machine.Put("vcpu.regs", 0, 1, "registers");
  return sealed;
}

TEST(PromoterTest, SealsRestoresStartsAndTimesEachStep) {
  SteppingClock clock;
  FakeGuest guest;
  const absl::StatusOr<Promotion> promotion = Promote(clock, 990, Seal, guest);
  ASSERT_TRUE(promotion.ok()) << promotion.status();
  EXPECT_EQ(guest.steps, (std::vector<std::string>{"restore", "start"}));
  EXPECT_TRUE(guest.restored.Has("vcpu.regs", 0));
  EXPECT_EQ(promotion->from_term, Term(3));
  EXPECT_EQ(promotion->epoch, EpochId(9));
  EXPECT_EQ(promotion->times.decided_ns, 990u);
  EXPECT_EQ(promotion->times.seal_ns, 10u);
  EXPECT_EQ(promotion->times.restore_ns, 10u);
  EXPECT_EQ(promotion->times.start_ns, 10u);
  EXPECT_EQ(promotion->times.total_ns, 1040u - 990u);
}

TEST(PromoterTest, NothingIsRestoredWithoutASealedEpoch) {
  SteppingClock clock;
  FakeGuest guest;
  const auto promotion = Promote(
      clock, 0, [] { return absl::FailedPreconditionError("nothing to promote"); }, guest);
  EXPECT_EQ(promotion.status().message(), "seal: nothing to promote");
  EXPECT_TRUE(guest.steps.empty());
}

TEST(PromoterTest, TheFailedStepIsNamed) {
  SteppingClock clock;
  FakeGuest bad_state;
  bad_state.restore = absl::InvalidArgumentError("section left over");
  EXPECT_EQ(Promote(clock, 0, Seal, bad_state).status().message(), "restore: section left over");
  EXPECT_EQ(bad_state.steps, std::vector<std::string>{"restore"});
  FakeGuest stuck;
  stuck.start = absl::InternalError("no vCPU");
  EXPECT_EQ(Promote(clock, 0, Seal, stuck).status().message(), "start: no vCPU");
}

}  // namespace
}  // namespace romulus::failover

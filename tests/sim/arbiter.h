// The simulated arbiter: one record on three members, a majority of which must be reached, and the
// real rule of a claim (failover::JudgeClaim). What a claim did stays done if its answer is lost.
#ifndef ROMULUS_TESTS_SIM_ARBITER_H_
#define ROMULUS_TESTS_SIM_ARBITER_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "failover/arbiter.h"
#include "sim/scheduler.h"
#include "sim/tally.h"

namespace romulus::sim {

inline constexpr int kMembers = 3;

// Shared by both nodes' arbiters.
struct Quorum {
  failover::ArbiterRecord record;
  std::array<bool, kMembers> down{};
  std::array<std::array<bool, kMembers>, 2> cut{};  // from a node to a member
  int answers_to_lose = 0;

  bool Reaches(int node) const {
    int reached = 0;
    for (int member = 0; member < kMembers; ++member) {
      reached += !down[member] && !cut[node][member];
    }
    return reached > kMembers / 2;
  }
  void Mend() {
    down = {};
    cut = {};
    answers_to_lose = 0;
  }
};

class SimArbiter final : public failover::Arbiter {
 public:
  SimArbiter(int node, const failover::ArbiterIdentity& who, Quorum* quorum, Scheduler* scheduler,
             Thread* control, Tally* tally)
      : node_(node),
        who_(who),
        quorum_(quorum),
        scheduler_(scheduler),
        control_(control),
        tally_(tally) {}

  void Claim(const failover::ArbiterClaim& claim, absl::Duration timeout, Done done) override {
    Ask(timeout, std::move(done), [who = who_, quorum = quorum_, claim] {
      failover::ClaimRule rule = failover::JudgeClaim(who, claim, quorum->record);
      if (!rule.swap) return rule.answer;
      quorum->record = failover::RecordOf(who, claim);
      return failover::ArbiterAnswer{failover::Verdict::kYes, quorum->record, ""};
    });
  }
  void Read(absl::Duration timeout, Done done) override {
    Ask(timeout, std::move(done), [quorum = quorum_] {
      return failover::ArbiterAnswer{failover::Verdict::kYes, quorum->record, ""};
    });
  }

 private:
  void Ask(absl::Duration timeout, Done done, std::function<failover::ArbiterAnswer()> judge) {
    const auto timeout_ns = static_cast<uint64_t>(absl::ToInt64Nanoseconds(timeout));
    auto waiting = std::make_shared<Done>(std::move(done));
    const std::function<void(failover::ArbiterAnswer)> answer =
        [this, waiting](failover::ArbiterAnswer got) {
          if (*waiting == nullptr) return;
          tally_->claims[static_cast<size_t>(got.verdict)]++;
          control_->Post([call = std::make_shared<Done>(std::exchange(*waiting, nullptr)), got] {
            std::move (*call)(got);
          });
        };
    scheduler_->After(timeout_ns, Mine([answer] {
                        answer({failover::Verdict::kSilent, {}, "no answer in time"});
                      }));
    // What is on its way is not this node's to end: a claim may take effect after it has died.
    scheduler_->After(scheduler_->Pick(timeout_ns / 2),
                      [this, answer, judge, gone = gone_, quorum = quorum_, node = node_] {
                        if (!quorum->Reaches(node)) return;
                        const failover::ArbiterAnswer got = judge();
                        if (!*gone) Answer(answer, got);
                      });
  }
  void Answer(const std::function<void(failover::ArbiterAnswer)>& answer,
              const failover::ArbiterAnswer& got) {
    if (quorum_->answers_to_lose > 0) {
      --quorum_->answers_to_lose;
      return tally_->Count(Fault::kAnswerLost);
    }
    scheduler_->After(scheduler_->Pick(kMillisecond), Mine([answer, got] { answer(got); }));
  }
  std::function<void()> Mine(std::function<void()> what) {
    return [gone = gone_, what = std::move(what)] {
      if (!*gone) what();
    };
  }

  const int node_;
  const failover::ArbiterIdentity who_;
  Quorum* const quorum_;
  Scheduler* const scheduler_;
  Thread* const control_;
  Tally* const tally_;
  struct Gone {
    std::shared_ptr<bool> flag = std::make_shared<bool>(false);
    ~Gone() { *flag = true; }
  } life_;
  const std::shared_ptr<bool> gone_ = life_.flag;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_ARBITER_H_

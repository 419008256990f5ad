// The simulated arbiter: one record on three members, a majority of which must be reached, and the
// real rule of a claim (failover::JudgeClaim). What a claim did stays done if its answer is lost.
#ifndef ROMULUS_TESTS_SIM_ARBITER_H_
#define ROMULUS_TESTS_SIM_ARBITER_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "failover/arbiter.h"
#include "sim/scheduler.h"
#include "sim/tally.h"

namespace romulus::sim {

inline constexpr int kMembers = 3;

// Shared by both nodes' arbiters.
struct Quorum {
  failover::ArbiterRecord record;
  uint64_t revision = 0;  // of the record: rises whenever it is put
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
    Ask(timeout, std::move(done), claim, [who = who_, claim](const failover::ArbiterRecord& now) {
      return failover::JudgeClaim(who, claim, now);
    });
  }
  void Withdraw(const failover::ArbiterClaim& claim, absl::Duration timeout, Done done) override {
    for (const auto& [open, over] : open_) {
      if (open == claim) *over = true;
    }
    Ask(timeout, std::move(done), std::nullopt,
        [who = who_, claim](const failover::ArbiterRecord& now) {
          return failover::JudgeWithdrawal(who, claim, now);
        });
  }
  void GiveBack(Term held, absl::Duration timeout, Done done) override {
    Ask(timeout, std::move(done), std::nullopt,
        [who = who_, held](const failover::ArbiterRecord& now) {
          return failover::JudgeGivingBack(who, held, now);
        });
  }
  void Read(absl::Duration timeout, Done done) override {
    Ask(timeout, std::move(done), std::nullopt, [](const failover::ArbiterRecord& now) {
      return failover::ClaimRule{.answer = {failover::Verdict::kYes, now, ""}};
    });
  }

 private:
  using Rule = std::function<failover::ClaimRule(const failover::ArbiterRecord& now)>;

  void Ask(absl::Duration timeout, Done done, std::optional<failover::ArbiterClaim> claim,
           Rule rule) {
    const auto timeout_ns = static_cast<uint64_t>(absl::ToInt64Nanoseconds(timeout));
    auto waiting = std::make_shared<Done>(std::move(done));
    const auto over = std::make_shared<bool>(false);  // no swap is sent any more
    if (claim) open_.emplace_back(*claim, over);
    const std::function<void(failover::ArbiterAnswer)> answer =
        [this, waiting, over](failover::ArbiterAnswer got) {
          if (*waiting == nullptr) return;
          tally_->claims[static_cast<size_t>(got.verdict)]++;
          std::erase_if(open_, [&](const auto& one) { return one.second == over; });
          control_->Post([call = std::make_shared<Done>(std::exchange(*waiting, nullptr)), got] {
            std::move (*call)(got);
          });
        };
    scheduler_->After(timeout_ns, Mine([answer] {
                        answer({failover::Verdict::kSilent, {}, "no answer in time"});
                      }));
    // It is read, and swapped if it is untouched then. What is on its way is not this node's to
    // end: a swap may take effect after it has died, or was told to take it back.
    scheduler_->After(
        scheduler_->Pick(timeout_ns / 4),
        [this, answer, rule, over, timeout_ns, gone = gone_, quorum = quorum_, node = node_] {
          if (!quorum->Reaches(node)) return;
          const failover::ClaimRule read = rule(quorum->record);
          if (!read.swap) {
            if (!*gone) Answer(answer, read.answer);
            return;
          }
          if (*gone || *over) return;
          scheduler_->After(scheduler_->Pick(timeout_ns / 4),
                            [this, answer, read, gone, quorum, node, seen = quorum->revision] {
                              if (!quorum->Reaches(node) || quorum->revision != seen) return;
                              quorum->record = read.put;
                              ++quorum->revision;
                              if (!*gone) Answer(answer, read.answer);
                            });
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
  // Claims that are not answered, and whether each is still pursued.
  std::vector<std::pair<failover::ArbiterClaim, std::shared_ptr<bool>>> open_;
  struct Gone {
    std::shared_ptr<bool> flag = std::make_shared<bool>(false);
    ~Gone() { *flag = true; }
  } life_;
  const std::shared_ptr<bool> gone_ = life_.flag;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_ARBITER_H_

#include "arbiter/command_arbiter.h"

#include <unistd.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "arbiter/child.h"

namespace romulus::arbiter {
namespace {

using failover::ArbiterAnswer;
using failover::ArbiterClaim;
using failover::ClaimAction;
using failover::Verdict;

constexpr absl::Duration kLongest = absl::Minutes(10);
constexpr int kYesCode = 0;

class CommandArbiter final : public failover::Arbiter {
 public:
  CommandArbiter(const CommandOptions& options, const failover::ArbiterIdentity& identity,
                 base::Executor* executor)
      : options_(options),
        identity_(identity),
        executor_(executor),
        alive_(std::make_shared<bool>(true)) {}
  ~CommandArbiter() override {
    runner_.Stop();
    if (thread_.joinable()) thread_.join();
  }

  void Claim(const ArbiterClaim& claim, absl::Duration timeout, Done done) override {
    if (const absl::Status valid = Validate(claim); !valid.ok()) {
      return AnswerLater({Verdict::kError, {}, std::string(valid.message())}, std::move(done));
    }
    if (claim.action == ClaimAction::kProtect) {
      return AnswerLater({Verdict::kYes, {}, "nobody has to be fenced"}, std::move(done));
    }
    if (running_) {
      return AnswerLater({Verdict::kSilent, {}, "an earlier claim's command still runs"},
                         std::move(done));
    }
    if (thread_.joinable()) thread_.join();  // it has posted its answer: no wait
    running_ = true;
    ChildRequest request;
    request.argv = options_.argv;
    request.environment = EnvironmentOf(claim);
    request.timeout = std::clamp(timeout, absl::Milliseconds(1), kLongest);
    request.max_lines = CommandOptions::kMaxLines;
    request.max_line_bytes = CommandOptions::kMaxLineBytes;
    done_ = std::move(done);
    claim_ = claim;
    thread_ = std::thread([this, request = std::move(request)] {
      const ChildResult result = runner_.Run(request);
      executor_->Post([this, alive = std::weak_ptr<bool>(alive_), result] {
        if (!alive.expired()) OnEnd(result);
      });
    });
  }

  // What was begun is brought to its end: a peer that is half fenced is of no use to anybody.
  void Withdraw(const ArbiterClaim& claim, absl::Duration, Done done) override {
    if (!running_ || claim_ != claim) {
      return AnswerLater({Verdict::kYes, {}, "no fence command runs for it"}, std::move(done));
    }
    if (withdrawn_ != nullptr) {
      AnswerLater({Verdict::kSilent, {}, "it is being withdrawn once more"}, std::move(withdrawn_));
    }
    withdrawn_ = std::move(done);
  }

  void GiveBack(Term, absl::Duration, Done done) override {
    AnswerLater({Verdict::kError, {}, "a fence command keeps no record"}, std::move(done));
  }

  void Read(absl::Duration, Done done) override {
    AnswerLater({Verdict::kError, {}, "a fence command keeps no record"}, std::move(done));
  }

 private:
  void AnswerLater(ArbiterAnswer answer, Done done) {
    auto shared = std::make_shared<Done>(std::move(done));
    executor_->Post([alive = std::weak_ptr<bool>(alive_), shared, answer = std::move(answer)] {
      if (!alive.expired()) std::move (*shared)(answer);
    });
  }

  std::vector<std::string> EnvironmentOf(const ArbiterClaim& claim) const {
    std::vector<std::string> environment;
    for (char** entry = environ; *entry != nullptr; ++entry) {
      if (!absl::StartsWith(*entry, "ROMULUS_")) environment.emplace_back(*entry);
    }
    const auto add = [&](absl::string_view name, const auto& value) {
      environment.push_back(absl::StrCat("ROMULUS_", name, "=", value));
    };
    add("VM", identity_.vm_name);
    add("UUID", identity_.vm_uuid);
    add("ACTION", ClaimActionName(claim.action));
    add("EXPECTED_TERM", claim.expected.value());
    add("TERM", claim.wanted.value());
    add("NODE", identity_.node);
    add("PEER", identity_.peer);
    return environment;
  }

  void OnEnd(const ChildResult& result) {
    running_ = false;
    Done done = std::move(done_);
    if (options_.on_output) {
      for (const std::string& line : result.lines) options_.on_output(line);
    }
    ArbiterAnswer answer;
    std::string how = std::string(result.status.message());
    if (absl::IsFailedPrecondition(result.status)) {
      answer.verdict = Verdict::kError;
      absl::StrAppend(&how, ": mend the arbiter's command");
    } else if (result.status.ok()) {
      how = absl::StrCat("ended with ", result.exit_code);
      if (result.exit_code == kYesCode) answer.verdict = Verdict::kYes;
    }
    answer.detail = absl::StrCat("fence command: ", how);
    if (answer.verdict != Verdict::kYes && !result.lines.empty()) {
      absl::StrAppend(&answer.detail, "; it said: ", result.lines.back());
    }
    Done withdrawn = std::exchange(withdrawn_, nullptr);
    std::move(done)(answer);
    if (withdrawn == nullptr) return;
    answer.verdict = answer.verdict == Verdict::kYes ? Verdict::kNo : Verdict::kYes;
    std::move(withdrawn)(std::move(answer));
  }

  const CommandOptions options_;
  const failover::ArbiterIdentity identity_;
  base::Executor* const executor_;
  const std::shared_ptr<bool> alive_;
  ChildRunner runner_;
  bool running_ = false;  // until its answer was given
  Done done_;
  ArbiterClaim claim_;  // it runs for
  Done withdrawn_;      // null: the claim was not withdrawn
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<failover::Arbiter>> MakeCommandArbiter(
    const CommandOptions& options, const failover::ArbiterIdentity& identity,
    base::Executor* executor) {
  if (options.argv.empty() || !absl::StartsWith(options.argv[0], "/")) {
    return absl::InvalidArgumentError("the fence command must be an absolute path");
  }
  return std::make_unique<CommandArbiter>(options, identity, executor);
}

}  // namespace romulus::arbiter

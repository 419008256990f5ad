// What the node asks its arbiter, and how it goes on asking until it is answered.
#include <algorithm>
#include <csignal>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status.h"
#include "daemon/make_arbiter.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

using failover::ArbiterAnswer;
using failover::ArbiterClaim;
using failover::ArbiterRecord;
using failover::Event;
using failover::EventKind;
using failover::Verdict;

constexpr uint64_t kMillisecond = 1'000'000;  // in nanoseconds
// Of asking again while there is no answer.
constexpr uint64_t kMinBackoffMs = 100;
constexpr uint64_t kMaxBackoffMs = 2'000;
// A start waits so long for the arbiter; then whoever started the daemon hears why.
constexpr absl::Duration kStartPatience = absl::Seconds(60);
// How long a guest that nothing happens to may be without its record.
constexpr uint64_t kWatchPeriodNs = 5'000 * kMillisecond;
// Whoever is to stop waits for the arbiter no longer, for each of at most two questions.
constexpr absl::Duration kStopPatience = absl::Seconds(5);

// Whether an arbiter that answers so can be relied on.
bool IsWord(const ArbiterAnswer& answer) {
  return answer.verdict == Verdict::kYes || answer.verdict == Verdict::kNo;
}

uint64_t UnixMs() { return static_cast<uint64_t>(absl::ToUnixMillis(absl::Now())); }

}  // namespace

absl::Status Node::OpenArbiter() {
  start_as_primary_ = options_.start_as_primary;
  if (options_.config.peer() == nullptr) return absl::OkStatus();
  ROMULUS_ASSIGN_OR_RETURN(arbiter_identity_, ArbiterIdentityOf(options_.config, BuildName()));
  ROMULUS_ASSIGN_OR_RETURN(
      arbiter_,
      MakeArbiter(options_.config, arbiter_identity_, &control_, [this](const std::string& line) {
        log_.Info("fence_command_says", {{"line", line}});
      }));
  if (arbiter_ == nullptr) return absl::OkStatus();
  if (!role_.policy().arbiter_keeps_record) {
    arbiter_status_.set_kind("command");
    return absl::OkStatus();
  }
  arbiter_status_.set_kind("etcd");
  return ConsultArbiter();
}

absl::Status Node::ConsultArbiter() {
  if (options_.begins_anew) return absl::OkStatus();  // it will follow
  std::optional<ArbiterAnswer> answer;
  const auto take = [&answer](ArbiterAnswer got) { answer = std::move(got); };
  const absl::Time until = absl::Now() + kStartPatience;
  const auto ask = [&](const std::function<void()>& question) {
    do {
      answer.reset();
      question();
      while (!answer && control_.io().run_one() != 0) {
      }
      if (!answer) return absl::InternalError("the control loop ended");
      // They are held until the node runs (romulusd.cc).
      sigset_t pending;
      if (::sigpending(&pending) == 0 &&
          (::sigismember(&pending, SIGTERM) == 1 || ::sigismember(&pending, SIGINT) == 1)) {
        return absl::CancelledError("told to stop while the arbiter was asked");
      }
      if (answer->verdict == Verdict::kSilent) {
        log_.Warning("arbiter_silent", {{"detail", answer->detail}});
      }
    } while (answer->verdict == Verdict::kSilent && absl::Now() < until);
    if (IsWord(*answer)) return absl::OkStatus();
    return absl::UnavailableError(absl::StrCat(
        "the arbiter must be asked before this node starts, and ",
        answer->verdict == Verdict::kSilent
            ? "does not answer (does it run, and are failover.arbiter.etcd.endpoints its "
              "addresses?): "
            : "cannot answer: ",
        answer->detail));
  };
  const auto read = [&] { arbiter_->Read(ArbiterTimeout(config_), take); };
  ROMULUS_RETURN_IF_ERROR(ask(read));
  if (!options_.start_as_primary && answer->record.term != Term() &&
      !failover::IsOurs(arbiter_identity_, answer->record)) {
    // A daemon of this node's that died may have claimed, and its swap be on its way: while this
    // one waits for a primary it would fence that primary, for nobody. As in a withdrawal, it has
    // come by the second reading, or never will.
    ArbiterClaim earlier;
    earlier.expected = answer->record.term;
    earlier.wanted = Term(answer->record.term.value() + 1);
    ROMULUS_RETURN_IF_ERROR(
        ask([&] { arbiter_->Withdraw(earlier, ArbiterTimeout(config_), take); }));
    ROMULUS_RETURN_IF_ERROR(ask(read));
  }
  metrics_.SetArbiterUp(true);
  record_at_start_ = answer->record;
  const bool ours = failover::IsOurs(arbiter_identity_, record_at_start_);
  const bool none = record_at_start_.term == Term();
  if (failover::IsNamesakes(arbiter_identity_, record_at_start_) && !options_.take_over) {
    return absl::FailedPreconditionError(
        failover::NamesakeText(arbiter_identity_, record_at_start_));
  }
  if (!options_.role_given) {
    // Whoever had the guest last goes on; the first start of all is an operator's to decide.
    start_as_primary_ = ours;
    if (none) {
      waits_because_ =
          "the arbiter has no record of this VM yet: at the first start of all, one node must be "
          "started with `--role primary`, once";
    }
  } else if (!start_as_primary_ && ours) {
    waits_because_ = absl::StrCat(
        "the arbiter's record of term ", record_at_start_.term.value(),
        " is this node's, which was told to be the secondary: if no guest runs on the other, start "
        "this node without --role, and it boots the guest");
  } else if (start_as_primary_ && !ours && !none && !options_.take_over) {
    return absl::FailedPreconditionError(absl::StrCat(
        "node '", record_at_start_.holder, "' holds term ", record_at_start_.term.value(),
        " at the arbiter: it has the guest. Start this node without --role, and it will follow; if "
        "the other is gone for good, `--role primary --take-over`"));
  }
  log_.Info("arbiter_record", {{"holder", record_at_start_.holder},
                               {"term", record_at_start_.term.value()},
                               {"start", start_as_primary_ ? "primary" : "secondary"}});
  return absl::OkStatus();
}

// Not from within the handling of an event: a command may answer at once.
void Node::AskSoon(const ArbiterClaim& claim) {
  const absl::Duration delay = ArbiterDelay(options_.config);
  if (delay == absl::ZeroDuration()) return control_.Post([this, claim] { Ask(claim); });
  log_.Info("fence_waits", {{"delay_ms", absl::ToInt64Milliseconds(delay)}});
  control_.PostAfter(static_cast<uint64_t>(absl::ToInt64Nanoseconds(delay)),
                     [this, claim, asked = ++asked_] {
                       if (asked == asked_) Ask(claim);
                     });
}

void Node::Ask(const ArbiterClaim& claim) {
  const failover::RoleState& state = role_.state();
  if (arbiter_ == nullptr || state.claim != claim || state.withdrawing || stop_ == Stop::kEnds)
    return;
  log_.Info("arbiter_asked", {{"action", failover::ClaimActionName(claim.action)},
                              {"expected", claim.expected.value()},
                              {"wanted", claim.wanted.value()}});
  arbiter_->Claim(claim, ArbiterTimeout(config_),
                  [this, claim, asked = ++asked_](const ArbiterAnswer& answer) {
                    NoteAnswer(failover::ClaimActionName(claim.action), claim, answer);
                    if (asked == asked_) OnArbiterAnswer(claim, answer);
                  });
}

void Node::Withdraw(const ArbiterClaim& claim) {
  const failover::RoleState& state = role_.state();
  if (arbiter_ == nullptr || state.claim != claim || !state.withdrawing || stop_ == Stop::kEnds)
    return;
  log_.Info("claim_taken_back", {{"expected", claim.expected.value()},
                                 {"wanted", claim.wanted.value()},
                                 {"why", state.reason}});
  arbiter_->Withdraw(claim, ArbiterTimeout(config_),
                     [this, claim, asked = ++asked_](const ArbiterAnswer& answer) {
                       NoteAnswer("withdraw", claim, answer);
                       if (asked == asked_) OnWithdrawal(claim, answer);
                     });
}

void Node::AskLater(const ArbiterClaim& claim, bool withdrawing) {
  ask_backoff_ms_ = std::clamp(2 * ask_backoff_ms_, kMinBackoffMs, kMaxBackoffMs);
  control_.PostAfter(ask_backoff_ms_ * kMillisecond, [this, claim, withdrawing, asked = asked_] {
    if (asked != asked_) return;
    if (withdrawing) {
      Withdraw(claim);
    } else {
      Ask(claim);
    }
  });
}

void Node::NoteAnswer(absl::string_view what, const ArbiterClaim& claim,
                      const ArbiterAnswer& answer) {
  const std::string verdict(failover::VerdictName(answer.verdict));
  metrics_.ArbiterAnswered(static_cast<size_t>(answer.verdict));
  metrics_.SetArbiterUp(IsWord(answer));
  arbiter_status_.set_last_verdict(verdict);
  arbiter_status_.set_last_detail(answer.detail);
  arbiter_status_.set_last_unix_ms(UnixMs());
  if (answer.record.term != Term()) {
    arbiter_status_.set_holder(answer.record.holder);
    arbiter_status_.set_holder_host(answer.record.host_name);
    arbiter_status_.set_term(answer.record.term.value());
  }
  log_.Info("arbiter_answered", {{"action", what},
                                 {"wanted", claim.wanted.value()},
                                 {"verdict", verdict},
                                 {"holder", answer.record.holder},
                                 {"host", answer.record.host_name},
                                 {"term", answer.record.term.value()},
                                 {"detail", answer.detail}});
}

void Node::OnArbiterAnswer(const ArbiterClaim& claim, const ArbiterAnswer& answer) {
  if (role_.state().claim != claim) return;  // given up meanwhile
  Event event = EventOf(EventKind::kArbiterSilent, answer.detail);
  event.term = claim.wanted;
  event.record = answer.record;
  event.ours = failover::IsOurs(arbiter_identity_, answer.record);
  event.lost = answer.lost;
  event.namesake = failover::IsNamesakes(arbiter_identity_, answer.record);
  if (event.namesake) namesake_ = answer.detail;
  switch (answer.verdict) {
    case Verdict::kYes:
      event.kind = EventKind::kArbiterYes;
      break;
    case Verdict::kNo:
      event.kind = EventKind::kArbiterNo;
      break;
    case Verdict::kSilent:
    case Verdict::kError:
      AskLater(claim, /*withdrawing=*/false);
      break;
  }
  if (event.kind != EventKind::kArbiterSilent) ask_backoff_ms_ = 0;
  Handle(std::move(event)).IgnoreError();
  AnswerAskers(answer);
}

void Node::OnWithdrawal(const ArbiterClaim& claim, const ArbiterAnswer& answer) {
  if (role_.state().claim != claim || !role_.state().withdrawing) return;
  Event event = EventOf(EventKind::kArbiterSilent, answer.detail);
  event.term = claim.wanted;
  event.record = answer.record;
  switch (answer.verdict) {
    case Verdict::kYes:
      event.kind = EventKind::kClaimWithdrawn;
      break;
    case Verdict::kNo:
      event.kind = EventKind::kArbiterYes;
      break;
    case Verdict::kSilent:
    case Verdict::kError:
      AskLater(claim, /*withdrawing=*/true);
      break;
  }
  if (event.kind != EventKind::kArbiterSilent) ask_backoff_ms_ = 0;
  Handle(std::move(event)).IgnoreError();
  if (role_.state().mode != failover::Mode::kPromoting) AnswerAskers({});
}

// Whoever asked for a failover hears what became of it; the arbiter is asked for it all the same.
void Node::AnswerAskers(const ArbiterAnswer& answer) {
  if (answer.verdict == Verdict::kYes || failover_answers_.empty()) return;
  AnswerFailovers(absl::UnavailableError(role_.state().reason));
}

void Node::GiveBack(Term held, std::function<void()> then) {
  if (arbiter_ == nullptr) return;
  giving_back_ = held;
  const absl::Duration patience =
      then == nullptr ? ArbiterTimeout(config_) : std::min(ArbiterTimeout(config_), kStopPatience);
  arbiter_->GiveBack(held, patience, [this, held, then](const ArbiterAnswer& answer) {
    ArbiterClaim claim;
    claim.wanted = held;
    NoteAnswer("give_back", claim, answer);
    const bool done = answer.verdict == Verdict::kYes || answer.verdict == Verdict::kNo;
    if (done) giving_back_.reset();
    if (then != nullptr) return then();
    if (done || stop_ == Stop::kEnds) return;
    ask_backoff_ms_ = std::clamp(2 * ask_backoff_ms_, kMinBackoffMs, kMaxBackoffMs);
    control_.PostAfter(ask_backoff_ms_ * kMillisecond, [this, held] {
      if (giving_back_ == held && stop_ != Stop::kEnds) GiveBack(held);
    });
  });
}

void Node::WatchRecord() {
  if (arbiter_ == nullptr || !role_.policy().arbiter_keeps_record) return;
  // One look at a time: an arbiter that hangs has room for claims.
  const auto again = [this] { control_.PostAfter(kWatchPeriodNs, [this] { WatchRecord(); }); };
  const failover::RoleState& state = role_.state();
  if (state.claim || stop_ == Stop::kEnds) return again();
  // Whoever has no guest has nothing to restore, but its operator wants to know of an arbiter that
  // will be missed.
  arbiter_->Read(
      ArbiterTimeout(config_),
      [this, again, asked = asked_, confirmed = state.confirmed](const ArbiterAnswer& answer) {
        metrics_.SetArbiterUp(IsWord(answer));
        if (asked == asked_) OnRecord(confirmed, answer);
        again();
      });
}

void Node::OnRecord(Term confirmed, const ArbiterAnswer& answer) {
  const failover::RoleState& state = role_.state();
  if (state.claim || stop_ == Stop::kEnds || state.confirmed != confirmed ||
      !MayRestoreRecord(role_.policy(), state)) {
    return;
  }
  // Silence disturbs nobody until the arbiter is needed.
  if (answer.verdict == Verdict::kError) {
    return log_.Error("arbiter_record_unusable", {{"detail", answer.detail}});
  }
  if (answer.verdict != Verdict::kYes) return;
  const ArbiterRecord& now = answer.record;
  const bool ours = failover::IsOurs(arbiter_identity_, now);
  if (ours && now.term == confirmed) return;
  if (now.term == Term() || (ours && now.term < confirmed)) {
    ArbiterClaim claim;
    claim.action = failover::ClaimAction::kProtect;
    claim.expected = now.term;
    claim.wanted = confirmed;
    claim.promoted_term = std::min(state.lineage.promoted, confirmed);
    log_.Warning("arbiter_record_lost",
                 {{"term", now.term.value()}, {"restored", confirmed.value()}});
    return arbiter_->Claim(claim, ArbiterTimeout(config_), [this, claim](ArbiterAnswer restored) {
      NoteAnswer("restore", claim, restored);
    });
  }
  log_.Error("arbiter_record_is_anothers", {{"holder", now.holder},
                                            {"host", now.host_name},
                                            {"term", now.term.value()},
                                            {"confirmed", confirmed.value()}});
  // Whose the term is must be known before more is said. A secondary that claims while it is in
  // step says so itself, or ends its stream, long before the record is looked at again.
  const bool again = std::exchange(foreign_record_, now.term) == now.term;
  if (now.term < confirmed || (state.mode != failover::Mode::kSolo && !again)) return;
  Event event = EventOf(EventKind::kOtherPrimary,
                        absl::StrCat("the arbiter's record names '", now.holder, "'"));
  event.term = now.term;
  event.record = now;
  Handle(std::move(event)).IgnoreError();
}

void Node::LeaveArbiter(std::function<void()> then) {
  const failover::RoleState& state = role_.state();
  const bool keeps_record = role_.policy().arbiter_keeps_record;
  if (arbiter_ == nullptr || !keeps_record || exit_ || !(state.claim || giving_back_)) {
    return then();
  }
  const auto say = [this, then = std::move(then)] {
    if (giving_back_) {
      log_.Error("term_left_behind",
                 {{"term", giving_back_->value()},
                  {"what",
                   "the arbiter's record may be this node's, which has no guest: start it "
                   "again, or the other node with `--role primary --take-over`"}});
    }
    then();
  };
  if (!state.claim) return GiveBack(*giving_back_, say);
  const ArbiterClaim claim = *state.claim;
  const bool may_give_back = state.role == failover::Role::kSecondary;
  ++asked_;  // what was asked before is answered to nobody
  log_.Info("claim_taken_back", {{"wanted", claim.wanted.value()}, {"why", "the daemon stops"}});
  arbiter_->Withdraw(
      claim, std::min(ArbiterTimeout(config_), kStopPatience),
      [this, claim, may_give_back, say](const ArbiterAnswer& answer) {
        NoteAnswer("withdraw", claim, answer);
        if (answer.verdict == Verdict::kYes) return say();
        if (answer.verdict == Verdict::kNo && may_give_back) return GiveBack(claim.wanted, say);
        log_.Error("claim_left_behind",
                   {{"wanted", claim.wanted.value()},
                    {"what", answer.verdict == Verdict::kNo
                                 ? "the term is this node's, which stops: started again it boots "
                                   "the guest; the other node needs `--role primary --take-over`"
                                 : "the claim may still take effect, and then nobody has the "
                                   "guest: start this node again, or the other with `--role "
                                   "primary --take-over`"},
                    {"detail", answer.detail}});
        say();
      });
}

void Node::FillArbiter(romulus::v1::GetStatusResponse& status) const {
  if (arbiter_ == nullptr) return;
  romulus::v1::ArbiterStatus& arbiter = *status.mutable_arbiter();
  arbiter = arbiter_status_;
  const std::optional<ArbiterClaim>& claim = role_.state().claim;
  if (!claim) return;
  arbiter.set_asked(std::string(failover::ClaimActionName(claim->action)));
  arbiter.set_asked_term(claim->wanted.value());
}

}  // namespace romulus::daemon

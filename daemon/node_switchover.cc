// The planned hand-over: what the role machine asks for, its clock, and what an operator is told.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "daemon/make_arbiter.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;
using failover::Event;
using failover::EventKind;
using failover::HandOver;
using failover::RoleState;
using metrics::SwitchoverResult;

constexpr uint64_t kMillisecond = 1'000'000;  // in nanoseconds
constexpr uint64_t kDefaultTimeoutNs = 10'000 * kMillisecond;
constexpr uint64_t kMaxTimeoutNs = 25'000 * kMillisecond;  // a call is answered in 30 s
// How long an operator who forces something else waits for a console that stands still.
constexpr absl::Duration kOutputSlice = absl::Milliseconds(50);
// The other node has this long at least: what it was offered cannot be taken back.
constexpr uint64_t kMinAnswerNs = 1'000 * kMillisecond;

absl::string_view ResultName(SwitchoverResult result) {
  switch (result) {
    case SwitchoverResult::kDone:
      return "done";
    case SwitchoverResult::kRefused:
      return "refused";
    case SwitchoverResult::kUnknown:
      return "unknown";
    case SwitchoverResult::kTakenOver:
      return "taken_over";
  }
  return "unknown";
}

absl::Duration Left(const base::Clock& clock, uint64_t until_ns) {
  const uint64_t now_ns = clock.NowNs();
  return absl::Nanoseconds(until_ns - std::min(until_ns, now_ns));
}

}  // namespace

void Node::Switchover(uint32_t timeout_ms, Answer<v1::SwitchoverResponse> answer) {
  const uint64_t timeout_ns = timeout_ms == 0 ? kDefaultTimeoutNs : timeout_ms * kMillisecond;
  if (timeout_ns > kMaxTimeoutNs) {
    return answer(absl::InvalidArgumentError(
        absl::StrCat("timeout_ms: ", timeout_ms, " is more than ", kMaxTimeoutNs / kMillisecond)));
  }
  control_.Post([this, timeout_ns, answer = std::move(answer)] {
    if (stop_ != Stop::kNo) return answer(absl::FailedPreconditionError("this daemon is stopping"));
    StartSwitchover(timeout_ns, answer);
  });
}

void Node::StartSwitchover(uint64_t timeout_ns, Answer<v1::SwitchoverResponse> answer) {
  const uint64_t until_ns = clock_.NowNs() + timeout_ns;
  if (!role_.policy().arbiter_keeps_record || role_.state().mode != failover::Mode::kProtected ||
      role_.state().role != failover::Role::kPrimary) {
    return BeginSwitchover(until_ns, std::move(answer));
  }
  // The other node has to move the record while the guest stands still: not if it cannot be asked.
  arbiter_->Read(ArbiterTimeout(config_), [this, until_ns, answer = std::move(answer)](
                                              failover::ArbiterAnswer read) {
    if (read.verdict == failover::Verdict::kYes) return BeginSwitchover(until_ns, answer);
    answer(absl::FailedPreconditionError(absl::StrCat(
        "the arbiter has to be asked for a switchover, and does not answer: ", read.detail)));
  });
}

void Node::BeginSwitchover(uint64_t until_ns, Answer<v1::SwitchoverResponse> answer) {
  const bool under_way = role_.state().hand_over != HandOver::kNone;
  // An operator and the end of this daemon want the same, and the arbiter was read for both.
  if (under_way && stop_ == Stop::kHandsOver) {
    return switchover_answers_.push_back(std::move(answer));
  }
  if (!under_way) switchover_until_ns_ = until_ns;
  const absl::Status refused = Handle(EventOf(EventKind::kOpSwitchover));
  if (!refused.ok()) return answer(refused);
  switchover_answers_.push_back(std::move(answer));
}

void Node::CutLast() {
  stands_still_since_ns_ = clock_.NowNs();
  log_.Info("switchover_begins", {{"term", role_.state().term.value()}});
  helper_->Post([this, host = host_, generation = ++switchover_generation_,
                 term = role_.state().term, until_ns = switchover_until_ns_] {
    EpochId epoch;
    absl::Status last = host->SetPausedByOperator(true);
    if (last.ok()) {
      absl::StatusOr<EpochId> flushed = host->loop().FlushLast(Left(clock_, until_ns));
      last = flushed.status();
      if (flushed.ok()) epoch = *flushed;
    }
    // What this node has not said the other one would say again, or nobody.
    while (last.ok() && !host->AwaitOutputGone(std::min(kOutputSlice, Left(clock_, until_ns)))) {
      if (generation != switchover_generation_) {
        last = absl::CancelledError("the switchover was given up");
      } else if (Left(clock_, until_ns) == absl::ZeroDuration()) {
        last = absl::DeadlineExceededError("what the guest said last does not leave this node");
      }
    }
    control_.Post(
        [this, generation, term, epoch, last] { OnLastEpoch(generation, term, epoch, last); });
  });
}

void Node::OnLastEpoch(uint64_t generation, Term term, EpochId epoch, const absl::Status& last) {
  if (std::exchange(ends_with_last_epoch_, false)) return FinishShutdown();
  if (generation != switchover_generation_) return;
  Event event = EventOf(last.ok() ? EventKind::kFinalEpoch : EventKind::kFinalEpochFailed,
                        std::string(last.message()));
  event.term = term;
  event.epoch = epoch;
  Handle(std::move(event)).IgnoreError();
}

void Node::OfferHandOver() {
  if (primary_ == nullptr || host_ == nullptr) return;
  v1::HandOver offer;
  offer.set_console_released(console_->written_offset().value_or(host_->gate().released_offset()));
  const uint64_t now_ns = clock_.NowNs();
  offer.set_stood_still_ns(now_ns - stands_still_since_ns_);
  primary_->OfferHandOver(role_.state().committed_epoch, std::move(offer));
  const uint64_t left_ns = switchover_until_ns_ - std::min(switchover_until_ns_, now_ns);
  control_.PostAfter(std::max(left_ns, kMinAnswerNs),
                     [this, generation = switchover_generation_.load()] {
                       if (generation != switchover_generation_) return;
                       Handle(EventOf(EventKind::kHandOverLate)).IgnoreError();
                       AnswerSwitchovers(absl::DeadlineExceededError(role_.state().reason));
                     });
}

void Node::OnHandOverRefused(const std::string& detail) {
  Handle(EventOf(EventKind::kHandOverRefused, detail)).IgnoreError();
}

void Node::OnHandOver(Term term, EpochId epoch, uint64_t stood_still_ns) {
  const uint64_t now_ns = clock_.NowNs();
  stands_still_since_ns_ = now_ns - std::min(now_ns, stood_still_ns);
  log_.Info("hand_over", {{"term", term.value()}, {"epoch", epoch.value()}});
  Event event = EventOf(EventKind::kHandOver);
  event.term = term;
  event.epoch = epoch;
  Handle(std::move(event)).IgnoreError();
}

void Node::NoteSwitchover(const RoleState& before) {
  const RoleState& now = role_.state();
  if (before.hand_over == now.hand_over) return;
  if (now.hand_over == HandOver::kNone) ++switchover_generation_;  // nothing is waited for any more
  v1::LastSwitchover last;
  last.set_from_term(before.term.value());
  last.set_epoch(before.committed_epoch.value());
  if (before.role == failover::Role::kSecondary) {
    if (now.role != failover::Role::kPrimary) return;
    last.set_to_node(config_.node_name());
    last.set_term(now.term.value());
    return RecordSwitchover(SwitchoverResult::kTakenOver, std::move(last));
  }
  if (options_.config.peer() != nullptr) last.set_to_node(options_.config.peer()->name());
  const bool was_offered =
      before.hand_over == HandOver::kOffered || before.hand_over == HandOver::kUnsure;
  if (was_offered && now.mode == failover::Mode::kFenced) {
    last.set_term(now.newest_term.value());
    RecordSwitchover(SwitchoverResult::kDone, last);
    v1::SwitchoverResponse response;
    response.set_new_primary(last.to_node());
    response.set_term(last.term());
    response.set_from_term(last.from_term());
    response.set_epoch(last.epoch());
    response.set_pause_ns(switchovers_.last_pause_ns);
    return AnswerSwitchovers(response);
  }
  last.set_detail(now.reason);
  if (now.hand_over == HandOver::kUnsure) {
    RecordSwitchover(SwitchoverResult::kUnknown, std::move(last));
    AnswerSwitchovers(absl::UnavailableError(now.reason));
  } else if (now.hand_over == HandOver::kNone && before.hand_over != HandOver::kUnsure) {
    RecordSwitchover(SwitchoverResult::kRefused, std::move(last));
    AnswerSwitchovers(absl::FailedPreconditionError(now.reason));
  }
}

void Node::ShowSwitchovers() {
  metrics_.SetSwitchovers(switchovers_.totals, switchovers_.last_pause_ns,
                          switchovers_.last ? switchovers_.last->at_unix_ms() : 0);
}

void Node::RecordSwitchover(SwitchoverResult result, v1::LastSwitchover last) {
  const uint64_t pause_ns = clock_.NowNs() - stands_still_since_ns_;
  const bool moved = result == SwitchoverResult::kDone || result == SwitchoverResult::kTakenOver;
  if (moved) switchovers_.last_pause_ns = pause_ns;
  last.set_at_unix_ms(static_cast<uint64_t>(absl::ToUnixMillis(absl::Now())));
  last.set_result(std::string(ResultName(result)));
  last.set_pause_ns(pause_ns);
  log_.Info("switchover", {{"result", last.result()},
                           {"to_node", last.to_node()},
                           {"epoch", last.epoch()},
                           {"from_term", last.from_term()},
                           {"term", last.term()},
                           {"pause_ns", pause_ns},
                           {"detail", last.detail()}});
  ++switchovers_.totals[static_cast<size_t>(result)];
  switchovers_.last = std::move(last);
  ShowSwitchovers();
  server_->NotifyChanged();
}

void Node::AnswerSwitchovers(const absl::StatusOr<v1::SwitchoverResponse>& answer) {
  for (const auto& to : std::exchange(switchover_answers_, {})) to(answer);
}

}  // namespace romulus::daemon

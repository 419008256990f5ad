// The planned hand-over: daemon/node_switchover.cc.
#include <utility>

#include "sim/node.h"
#include "sim/timing.h"

namespace romulus::sim {

using failover::Event;
using failover::EventKind;
using failover::HandOver;
using failover::RoleState;

void Node::CutLast() {
  host_->SetPausedByOperator(true);
  const uint64_t deadline_ns = parts_.clock->NowNs() + kFlushTimeoutNs;
  helper_.Post(
      [this, generation = ++switchover_generation_, term = role_.state().term, deadline_ns] {
        last_epoch_ = true;  // but for the one that is cut below
        AwaitFinal(generation, term, host_->loop().last_cut(), deadline_ns);
      });
}

void Node::AwaitFinal(uint64_t generation, Term term, EpochId before, uint64_t deadline_ns) {
  if (generation != switchover_generation_) return;
  const epoch::CheckpointLoop& loop = host_->loop();
  const bool over = parts_.clock->NowNs() > deadline_ns;
  if (loop.last_cut() == before && !over) {
    if (host_->staging_exhausted()) primary_->SendAllNow();
    host_->loop().Request();
    host_->loop().Turn();
  }
  const bool acked = loop.last_cut() > before && loop.last_acked() >= loop.last_cut();
  if (acked || over) {
    const EpochId last = acked ? loop.last_cut() : EpochId();
    return control_.Post([this, generation, term, last] { OnLastEpoch(generation, term, last); });
  }
  helper_.PostAfter(5 * kMillisecond, [this, generation, term, before, deadline_ns] {
    AwaitFinal(generation, term, before, deadline_ns);
  });
}

void Node::OnLastEpoch(uint64_t generation, Term term, EpochId epoch) {
  if (generation != switchover_generation_) return;
  if (shutting_down_) return FinishShutdown();
  Event event{};
  event.kind = epoch > EpochId() ? EventKind::kFinalEpoch : EventKind::kFinalEpochFailed;
  event.term = term;
  event.epoch = epoch;
  Handle(std::move(event)).IgnoreError();
}

void Node::OfferHandOver() {
  v1::HandOver offer;
  offer.set_console_released(host_->released_offset());
  primary_->OfferHandOver(role_.state().committed_epoch, offer);
  control_.PostAfter(kHandOverLateNs, [this, generation = switchover_generation_] {
    if (generation != switchover_generation_) return;
    Event event{};
    event.kind = EventKind::kHandOverLate;
    Handle(std::move(event)).IgnoreError();
  });
}

void Node::OnHandOverRefused(const std::string& detail) {
  Event event{};
  event.kind = EventKind::kHandOverRefused;
  event.detail = detail;
  Handle(std::move(event)).IgnoreError();
}

void Node::OnHandOver(Term term, EpochId epoch) {
  Event event{};
  event.kind = EventKind::kHandOver;
  event.term = term;
  event.epoch = epoch;
  Handle(std::move(event)).IgnoreError();
}

void Node::NoteSwitchover(const RoleState& before) {
  const RoleState& now = role_.state();
  if (before.hand_over == now.hand_over || before.role != failover::Role::kPrimary) return;
  if (now.hand_over == HandOver::kUnsure) {
    ++parts_.tally->switchovers_unsure;
  } else if (now.mode == failover::Mode::kFenced) {
    ++parts_.tally->switchovers_done;
  } else if (now.hand_over == HandOver::kNone && before.hand_over != HandOver::kUnsure) {
    ++parts_.tally->switchovers_refused;
  }
  if (now.hand_over == HandOver::kNone && now.guest_running && stopped_meanwhile_) {
    control_.Post(
        [this, event = *std::exchange(stopped_meanwhile_, std::nullopt)] { GuestStopped(event); });
  }
}

}  // namespace romulus::sim

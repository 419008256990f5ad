#include "failover/role_machine.h"

#include "failover/role_step.h"

namespace romulus::failover {

Transition Step::Run() {
  Common();
  SettleHandOver();
  if (!state_.peer_connected) state_.unprotecting = false;
  if (!state_.claim) state_.withdrawing = false;
  const bool waits = state_.mode == Mode::kDegraded && !state_.claim;
  state_.releasing &= waits && state_.role == Role::kPrimary && !state_.peer_connected;
  state_.held_back &= waits && state_.role == Role::kSecondary;
  return {std::move(state_), std::move(actions_)};
}

void Step::Common() {
  switch (event_.kind) {
    case EventKind::kStartPrimary:
      return StartPrimary();
    case EventKind::kStartSecondary:
      state_.role = Role::kSecondary;
      state_.lineage = event_.lineage;
      return Enter(Mode::kStandby, Because("waits for a primary"));
    case EventKind::kShutdown:
      return Shutdown();
    case EventKind::kSecondHeard:
      return SecondHeard();
    case EventKind::kSecondSilent:
      return SecondSilent();
    case EventKind::kArbiterYes:
    case EventKind::kArbiterNo:
    case EventKind::kArbiterSilent:
    case EventKind::kClaimVoid:
    case EventKind::kClaimWithdrawn:
      return Answered();
    default:
      return state_.role == Role::kPrimary ? Primary() : Secondary();
  }
}

void Step::StartPrimary() {
  state_.role = Role::kPrimary;
  Heard(event_.term);
  Heard(event_.record.term);
  Raise();
  state_.lineage = event_.lineage;
  state_.guest_running = true;
  if (policy_.arbiter_keeps_record) {
    state_.output_open = false;
    state_.held_since_start = true;
    state_.confirmed = event_.record.term;
    Do(ActionKind::kHoldOutput);
    return Ask(ClaimAction::kSolo, state_.confirmed, state_.term, "the guest was started here");
  }
  state_.output_open = !event_.hold;
  state_.held_since_start = event_.hold;
  if (event_.hold) {
    Do(ActionKind::kHoldOutput);
    Enter(
        Mode::kDegraded,
        "started from disks that were protected: output is held until the other node says that it "
        "was not promoted since (or `unprotect --force`)");
  } else {
    Enter(Mode::kSolo, "the guest was started here; no secondary yet");
  }
  if (state_.protect_wanted) Do(ActionKind::kConnect);
}

void Step::Shutdown() {
  if (state_.role == Role::kPrimary) {
    Do(ActionKind::kStopConnecting);
    Do(ActionKind::kStopEpochs);
    // The secondary may be asked to go on from its last epoch: what comes after it was never
    // said.
    if (!state_.output_open) Do(ActionKind::kDiscardOutput);
    if (state_.guest_running) Do(ActionKind::kStopGuest);
  }
  if (state_.peer_connected) SayGoodbye(GoodbyeReason::kShutdown, Because("the daemon stops"));
  state_.guest_running = false;
  state_.output_open = false;
  state_.peer_connected = false;
  state_.claim.reset();
  Enter(Mode::kFinished, Because("told to stop"));
  Do(ActionKind::kExit);
}

// This node lost the term (P3): nothing of it may be seen any more.
void Step::Fence(Term term, absl::string_view reason) {
  Heard(term);
  Do(ActionKind::kDiscardOutput);
  Do(ActionKind::kStopGuest);
  Do(ActionKind::kStopEpochs);
  Do(ActionKind::kStopConnecting);
  CloseLink(reason);
  state_.guest_running = false;
  state_.output_open = false;
  state_.peer_connected = false;
  state_.sync_done = false;
  state_.held_since_start = false;
  state_.claim.reset();
  Enter(Mode::kFenced, reason);
  // It was to become the secondary.
  if (state_.hand_over == HandOver::kOffered || state_.hand_over == HandOver::kUnsure) {
    Do(ActionKind::kBeginAnew);
  }
}

bool RunsGuest(const RoleState& state) { return state.guest_running; }

Transition Next(const Policy& policy, const RoleState& state, const Event& event) {
  return Step(policy, state, event).Run();
}

std::vector<Action> RoleMachine::Handle(const Event& event, uint64_t now_ns) {
  Transition next = Next(policy_, state_, event);
  const bool entered = next.state.mode != state_.mode || next.state.role != state_.role;
  next.state.since_ns = entered || state_.since_ns == 0 ? now_ns : state_.since_ns;
  state_ = std::move(next.state);
  return std::move(next.actions);
}

}  // namespace romulus::failover

// What the arbiter is asked, and what follows from its answers.
#include "absl/strings/match.h"
#include "failover/role_step.h"

namespace romulus::failover {

bool MayRestoreRecord(const Policy& policy, const RoleState& state) {
  if (!policy.arbiter_keeps_record || state.role != Role::kPrimary || !state.guest_running) {
    return false;
  }
  if (state.mode == Mode::kProtected) {
    return state.peer_connected && state.confirmed == state.term;
  }
  const bool alone = state.mode == Mode::kSolo || state.mode == Mode::kSyncing;
  return alone && state.output_open && !state.sync_done && state.confirmed != Term();
}

void Step::Ask(ClaimAction action, Term expected, Term wanted, absl::string_view reason) {
  ArbiterClaim claim;
  claim.action = action;
  claim.expected = expected;
  claim.wanted = wanted;
  claim.promoted_term = action == ClaimAction::kPromote ? wanted : state_.lineage.promoted;
  state_.newest_before_claim = state_.newest_term;
  Heard(wanted);
  state_.claim = claim;
  state_.claim_reason = std::string(reason);
  if (state_.role == Role::kPrimary) Do(ActionKind::kStopConnecting);
  if (action != ClaimAction::kProtect && !state_.output_open) state_.mode = Mode::kDegraded;
  state_.reason = absl::StrCat(reason, "; asks the arbiter");
  Do(ActionKind::kClaim);
  actions_.back().claim = claim;
}

void Step::Answered() {
  if (!state_.claim || state_.claim->wanted != event_.term) return;  // of a claim that was given up
  const ArbiterClaim claim = *state_.claim;
  const std::string reason = state_.claim_reason;
  if (event_.kind == EventKind::kArbiterSilent) {
    const bool can_be_mended = event_.record.term == Term() || event_.ours;
    if (event_.lost && can_be_mended && MayRestoreRecord(policy_, state_)) {
      state_.claim->expected = event_.record.term;
      Do(ActionKind::kClaim);
      actions_.back().claim = *state_.claim;
      return;
    }
    state_.reason = absl::StrCat(
        reason,
        state_.withdrawing ? "; withdraws its claim from the arbiter" : "; asks the arbiter",
        ", which does not answer", event_.detail.empty() ? "" : ": ", event_.detail,
        WithoutArbiter(claim));
    return;
  }
  if (event_.kind == EventKind::kClaimVoid) return VoidClaim();
  if (event_.kind == EventKind::kClaimWithdrawn) return Withdrawn();
  state_.claim.reset();
  state_.claim_reason.clear();
  switch (event_.kind) {
    case EventKind::kArbiterYes:
      return ArbiterYes(claim, reason);
    case EventKind::kArbiterNo:
      return ArbiterNo(claim, reason);
    default:
      return;
  }
}

// What is left to an operator; unless the arbiter says so itself.
absl::string_view Step::WithoutArbiter(const ArbiterClaim& claim) const {
  const bool waits = !state_.withdrawing && !state_.output_open;
  if (!waits || absl::StrContains(event_.detail, "--force")) return "";
  switch (claim.action) {
    case ClaimAction::kPromote:
      return "; `romulusctl failover --force` promotes without its word: make sure first that the "
             "guest runs nowhere else";
    case ClaimAction::kSolo:
      return "; `romulusctl unprotect --force` lets the output out without its word: make sure "
             "first that the guest runs nowhere else";
    case ClaimAction::kProtect:
      return "";
  }
  return "";
}

// Nobody was asked for the term, and the primary that was accepted meanwhile need not be beyond it.
void Step::VoidClaim() {
  if (state_.newest_term == state_.claim->wanted) state_.newest_term = state_.newest_before_claim;
  state_.claim.reset();
  state_.claim_reason.clear();
}

// Its swap may be on its way still, or a promotion come of it long after the reason for it has
// gone.
void Step::Withdraw(absl::string_view reason) {
  state_.claim_reason = std::string(reason);
  state_.reason = absl::StrCat(reason, "; withdraws its claim from the arbiter");
  if (std::exchange(state_.withdrawing, true)) return;
  Do(ActionKind::kWithdraw);
  actions_.back().claim = *state_.claim;
}

void Step::Withdrawn() {
  if (!state_.withdrawing) return;  // it was wanted again meanwhile
  const std::string reason = state_.claim_reason;
  VoidClaim();
  state_.reason = reason;
  if (state_.mode != Mode::kDegraded) return;
  if (state_.peer_connected && !state_.peer_silent) return Enter(Mode::kProtected, reason);
  state_.reason = Advice(reason);
}

void Step::ClaimAgain(absl::string_view reason) {
  state_.claim_reason = std::string(reason);
  state_.withdrawing = false;
  Do(ActionKind::kClaim);
  actions_.back().claim = *state_.claim;
}

void Step::ArbiterYes(const ArbiterClaim& claim, const std::string& reason) {
  state_.confirmed = claim.wanted;
  switch (claim.action) {
    case ClaimAction::kPromote:
      if (state_.committed) return PromoteIn(claim.wanted, reason);
      state_.reason = absl::StrCat(
          state_.reason, "; the arbiter said yes when there was nothing left to promote: the term ",
          policy_.arbiter_keeps_record ? "is given back" : "is not used");
      return GiveBack();
    case ClaimAction::kSolo:
      state_.term = claim.wanted;
      RunAlone(reason);
      return Reconnect(state_.reconnect_later);
    case ClaimAction::kProtect:
      if (state_.peer_connected) {
        state_.reason = reason;
        return Do(ActionKind::kStartSync, state_.term);
      }
      // The stream is gone, and no epoch was cut in its term: nobody can take over.
      RunAlone(reason);
      return Reconnect(state_.reconnect_later);
  }
}

void Step::ArbiterNo(const ArbiterClaim& claim, const std::string& reason) {
  Heard(event_.record.term);
  if (event_.ours && claim.action == ClaimAction::kPromote && !state_.committed) {
    state_.confirmed = event_.record.term;  // of an earlier claim, and as much too late
    return GiveBack();
  }
  if (event_.ours) return AskAgain(claim, reason);
  if (!policy_.arbiter_keeps_record) {
    // It does not say who has the guest, so nothing of it is given up here.
    state_.reason = absl::StrCat(reason, "; ", Because("the arbiter says no"));
    return;
  }
  const std::string why =
      absl::StrCat("the arbiter says no: ",
                   Because(absl::StrCat("term ", event_.record.term.value(), " has begun")));
  if (state_.hand_over == HandOver::kUnsure && !event_.namesake) return HoldOffered(why);
  if (state_.role == Role::kPrimary) {
    // Under a name that is another host's it does not begin anew; `detail` says what to do.
    const absl::string_view next = event_.namesake       ? ""
                                   : policy_.stay_fenced ? "; start this node again as a secondary"
                                                         : "; it begins anew as a secondary";
    return Fence(event_.record.term, absl::StrCat(why, next));
  }
  Overruled(why);
}

// What is held here is older than what the winner has, but it may be all that is left if that one
// dies before it is in step with this node again: it is kept until a new stream is written over it,
// and nothing but an operator's force promotes it.
void Step::Overruled(absl::string_view reason) {
  if (state_.peer_connected) CloseLink(reason);
  state_.peer_connected = false;
  if (!state_.committed) {
    if (!Ended()) Enter(Mode::kStandby, reason);
    return;
  }
  state_.peer_left = true;
  state_.overruled = event_.record.term;
  Enter(Mode::kDegraded,
        absl::StrCat(reason, "; epoch ", state_.committed_epoch.value(), " of term ",
                     state_.term.value(),
                     " is older, and kept until the winner protects itself with this node "
                     "(`romulusctl failover --force` goes back to it, and ends the winner)"));
}

void Step::GiveBack() {
  if (!policy_.arbiter_keeps_record || state_.confirmed <= state_.term) return;
  Do(ActionKind::kGiveBack, std::exchange(state_.confirmed, Term()));
}

// An earlier claim of this node's took effect that it had given up: nobody else has the record.
void Step::AskAgain(const ArbiterClaim& claim, const std::string& reason) {
  state_.confirmed = event_.record.term;
  switch (claim.action) {
    case ClaimAction::kPromote:
      return Ask(claim.action, state_.confirmed, PromotionTerm(policy_, state_.newest_term),
                 reason);
    case ClaimAction::kSolo:
      return Ask(claim.action, state_.confirmed, NextTerm(policy_, state_.newest_term), reason);
    case ClaimAction::kProtect:
      // The stream's term is agreed with the other node: a new stream, in a newer one.
      CloseLink("the term was taken meanwhile");
      state_.peer_connected = false;
      RunAlone(reason);
      return Reconnect();
  }
}

void Step::TellArbiter() {
  if (!policy_.arbiter_keeps_record || state_.claim || state_.confirmed == state_.term) return;
  Ask(ClaimAction::kSolo, state_.confirmed, NextTerm(policy_, state_.newest_term), state_.reason);
}

}  // namespace romulus::failover

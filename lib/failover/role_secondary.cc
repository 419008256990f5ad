// What the node that receives epochs makes of an event.
#include "failover/role_step.h"

namespace romulus::failover {

void Step::Secondary() {
  switch (event_.kind) {
    case EventKind::kPeerConnected:
      return SecondaryConnected();
    case EventKind::kEpochCommitted:
      if (event_.term != state_.term || !state_.peer_connected) return;
      state_.committed = true;
      state_.committed_epoch = event_.epoch;
      if (state_.mode == Mode::kSyncing) {
        Enter(Mode::kProtected, "in step with the primary");
      }
      return;
    case EventKind::kLinkClosed:
      return SecondaryLinkClosed();
    case EventKind::kPeerSilent:
      return SecondaryPeerSilent();
    case EventKind::kPeerHeard:
      state_.peer_silent = false;
      if (state_.mode != Mode::kDegraded || !state_.peer_connected || !state_.committed) return;
      if (state_.claim) return Withdraw("the primary is heard again");
      return Enter(Mode::kProtected, "the primary is heard again");
    case EventKind::kGoodbye:
      return SecondaryGoodbye();
    case EventKind::kStreamBroken:
      if (!state_.peer_connected) return;
      SayGoodbye(GoodbyeReason::kProtocol, event_.detail);
      return StreamReset(Because("this node reset the stream"));
    case EventKind::kOtherPrimary:
      return Heard(event_.term);
    case EventKind::kReleaseAsked:
      return ReleaseAsked();
    case EventKind::kReplicaLost:
      // A promotion that is under way hears so from the replica itself.
      if (state_.mode == Mode::kPromoting || Ended()) return;
      DropReplica();
      Enter(Mode::kStandby, Because("the replica was given up"));
      return NothingToClaim();
    case EventKind::kReplicaWrong:
      // The primary learns it from the ack, and says so by its goodbye; it may not live so long.
      if (!state_.committed && !state_.peer_connected) return;
      if (state_.mode == Mode::kPromoting || Ended()) return;
      state_.replica_wrong = true;
      state_.reason = Because("an audit found this replica to be wrong");
      return NothingToClaim();
    case EventKind::kHandOver:
      return TakeHandOver();
    case EventKind::kPromotionDone:
      return PromotionDone();
    case EventKind::kPromotionFailed:
      return PromotionFailed();
    case EventKind::kOpFailover:
      return OperatorFailover();
    case EventKind::kOpPause:
    case EventKind::kOpResume:
    case EventKind::kOpUnprotect:
    case EventKind::kOpProtect:
    case EventKind::kOpSwitchover:
      return Refuse("this node is the secondary: ask the primary");
    default:
      return;
  }
}

void Step::SecondaryConnected() {
  if (state_.mode == Mode::kPromoting || state_.mode == Mode::kFenced) return;
  if (state_.claim)
    VoidClaim();  // it was accepted before: kClaim was not, or will not be, executed
  if (event_.term < state_.newest_term) return;
  GiveBack();  // of a promotion that failed: nothing is left here to try it again with
  state_.term = event_.term;
  Heard(event_.term);
  state_.peer_connected = true;
  state_.peer_silent = false;
  state_.peer_left = false;
  state_.replica_wrong = false;
  state_.released_for = Term();
  // The new full sync is written over whatever was here.
  state_.lineage = Lineage{};
  state_.overruled = Term();
  state_.committed = false;
  state_.committed_epoch = EpochId();
  Enter(Mode::kSyncing, "full sync: nothing to promote yet");
}

void Step::StartPromotion(absl::string_view reason) {
  const Term term = PromotionTerm(policy_, state_.newest_term);
  if (AsksFirst()) {
    if (!state_.claim) return Ask(ClaimAction::kPromote, state_.term, term, reason);
    if (state_.withdrawing) ClaimAgain(reason);
    return Enter(Mode::kDegraded, absl::StrCat(reason, "; asks the arbiter"));
  }
  state_.claim.reset();
  state_.confirmed = std::max(state_.term, state_.overruled);  // as far as is known
  PromoteIn(term, reason);
}

void Step::PromoteIn(Term term, absl::string_view reason) {
  state_.promotion_term = term;
  Heard(term);
  Enter(Mode::kPromoting, reason);
  Do(ActionKind::kPromote, state_.promotion_term);
  if (state_.hand_over == HandOver::kOffered) return;  // the primary waits for the guest to run
  // After the promotion was begun: a link that hangs must not delay it.
  if (state_.peer_connected) SayGoodbye(GoodbyeReason::kPromoted, reason);
  state_.peer_connected = false;
}

void Step::NothingToPromote(absl::string_view reason) {
  Enter(Mode::kStandby, absl::StrCat(reason, "; no epoch was committed: nothing to promote"));
}

void Step::SecondaryLinkClosed() {
  if (!state_.peer_connected) return;
  state_.peer_connected = false;
  if (state_.mode == Mode::kPromoting) return;
  const std::string reason = Because("the stream from the primary ended");
  if (!state_.committed) return NothingToPromote(reason);
  if (policy_.auto_failover && policy_.promote_on_link_closed) return LosePrimary(reason);
  Enter(Mode::kDegraded, Advice(reason));
}

std::string Step::Advice(absl::string_view reason) const {
  if (state_.replica_wrong) {
    return absl::StrCat(reason,
                        "; what is held here is not promoted by itself (`romulusctl failover "
                        "--force` goes on from epoch ",
                        state_.committed_epoch.value(), " nevertheless)");
  }
  if (state_.second_heard && !state_.peer_left) {
    return absl::StrCat(reason,
                        "; the primary is heard on the second path, so nothing is promoted");
  }
  return policy_.auto_failover && !state_.peer_left
             ? absl::StrCat(reason, "; promotes if the primary stays silent")
             : absl::StrCat(reason, "; `romulusctl failover` goes on from epoch ",
                            state_.committed_epoch.value());
}

void Step::SecondaryPeerSilent() {
  state_.peer_silent = true;
  if (state_.mode == Mode::kPromoting || Ended()) return;
  const std::string reason = Because("the primary is silent");
  if (!state_.committed) {
    if (!state_.peer_connected) return;
    CloseLink(reason);
    state_.peer_connected = false;
    return NothingToPromote(reason);
  }
  if (state_.peer_left) return;
  if (policy_.auto_failover) return LosePrimary(reason);
  if (state_.mode == Mode::kProtected) Enter(Mode::kDegraded, Advice(reason));
}

// The primary lives, but the stream must start over.
void Step::StreamReset(absl::string_view reason) {
  state_.peer_connected = false;
  if (state_.mode == Mode::kPromoting) return;
  if (!state_.committed) return NothingToPromote(reason);
  Enter(Mode::kDegraded, Advice(reason));
}

void Step::SecondaryGoodbye() {
  if (event_.goodbye == GoodbyeReason::kPromoted) return Heard(event_.term);
  if (!state_.peer_connected || state_.mode == Mode::kPromoting) return;
  CloseLink("the primary said goodbye");
  switch (event_.goodbye) {
    case GoodbyeReason::kShutdown:
      state_.peer_left = true;
      return StreamReset(Because("the primary was shut down"));
    case GoodbyeReason::kGuestFinished:
      DropReplica();
      Enter(Mode::kFinished, Because("the guest ended on the primary"));
      return NothingToClaim();
    case GoodbyeReason::kUnprotect:
      // What was claimed may be ours already: then the primary hears no, and this is all there is.
      if (state_.claim) return StreamReset(Because("the primary ended the protection"));
      DropReplica();
      return Enter(Mode::kStandby, Because("the primary ended the protection"));
    case GoodbyeReason::kReplicaWrong:
      state_.replica_wrong = true;
      StreamReset(Because("the primary found this replica to be wrong"));
      return NothingToClaim();
    default:
      return StreamReset(Because("the primary reset the stream"));
  }
}

// A yes that came later would leave the guest to nobody.
void Step::NothingToClaim() {
  if (state_.claim) Withdraw(state_.reason);
}

void Step::DropReplica() {
  state_.peer_connected = false;
  state_.peer_left = true;
  state_.replica_wrong = false;
  state_.committed = false;
  state_.committed_epoch = EpochId();
  Do(ActionKind::kDropReplica);
  GiveBack();
}

void Step::PromotionDone() {
  if (state_.mode != Mode::kPromoting) return;
  // A stream may have brought a newer epoch between the decision and the sealing.
  const Term from_term = std::max(event_.term, state_.term);
  state_.role = Role::kPrimary;
  state_.term = state_.promotion_term;
  state_.lineage = {state_.promotion_term, from_term, from_term};
  state_.guest_running = true;
  state_.output_open = true;
  state_.peer_silent = false;
  state_.peer_left = false;
  state_.replica_wrong = false;
  state_.released_for = Term();
  state_.overruled = Term();
  state_.committed = false;
  state_.sync_done = false;
  const EpochId from = std::exchange(state_.committed_epoch, EpochId());
  Enter(Mode::kSolo, absl::StrCat("promoted from epoch ", from.value(), " (", state_.reason, ")"));
  Do(ActionKind::kOpenOutput);
  AnswerHandOver();
  TellArbiter();
  Reconnect();
}

void Step::PromotionFailed() {
  if (state_.mode != Mode::kPromoting) return;
  if (state_.hand_over == HandOver::kOffered && state_.peer_connected) return HandOverFailed();
  // The guest never ran in that term: a primary that still lives may come back with an older one.
  if (state_.newest_term == state_.promotion_term) state_.newest_term = state_.term;
  state_.promotion_term = Term();
  if (event_.intact) {
    Enter(Mode::kDegraded, absl::StrCat(Because("promotion failed"),
                                        "; `romulusctl failover` tries again from epoch ",
                                        state_.committed_epoch.value()));
    return;
  }
  DropReplica();
  Enter(Mode::kStandby, Because("promotion failed; the replica is given up"));
}

void Step::OperatorFailover() {
  if (Ended()) {
    return Refuse(absl::StrCat("nothing to promote: this node is ", ModeName(state_.mode), ": ",
                               state_.reason));
  }
  if (state_.mode == Mode::kPromoting) return Refuse("this node is being promoted already");
  if (!state_.committed) {
    return Refuse(absl::StrCat("nothing to promote: ", state_.reason));
  }
  if (state_.peer_connected && !state_.peer_silent && !event_.force) {
    return Refuse(
        "the primary still answers: two nodes would run the guest (--force promotes anyway)");
  }
  if (state_.replica_wrong && !event_.force) {
    return Refuse("an audit found that this replica is not the guest (--force promotes it anyway)");
  }
  if (state_.second_heard && !state_.peer_left && !event_.force) {
    return Refuse(
        "the primary is heard on the second path: two nodes would run the guest (--force promotes "
        "anyway)");
  }
  StartPromotion(event_.force ? "an operator asked for it, by force" : "an operator asked for it");
}

}  // namespace romulus::failover

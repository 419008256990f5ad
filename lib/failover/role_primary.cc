// What the node that runs the guest makes of an event.
#include "failover/role_step.h"

namespace romulus::failover {

void Step::Primary() {
  if (Ended()) return EndedPrimary();
  if (state_.hand_over != HandOver::kNone && HandingOver()) return;
  switch (event_.kind) {
    case EventKind::kPeerConnected:
      return PrimaryConnected();
    case EventKind::kPeerRefused:
      return Refused();
    case EventKind::kSyncDone:
      if (state_.mode != Mode::kSyncing || event_.term != state_.term) return;
      state_.sync_done = true;
      state_.output_open = false;  // the first cut holds it
      state_.reason = "full sync done; waits for the first ack";
      return;
    case EventKind::kEpochCommitted:
      return PrimaryAcked();
    case EventKind::kLinkClosed:
      return LoseSecondary(Because("the stream to the secondary ended"));
    case EventKind::kPeerSilent:
      if (!state_.peer_connected) return;
      CloseLink("the secondary is silent");
      return LoseSecondary(Because("the secondary is silent"));
    case EventKind::kStreamBroken:
      if (!state_.peer_connected) return;
      SayGoodbye(event_.goodbye == GoodbyeReason::kReplicaWrong ? GoodbyeReason::kReplicaWrong
                                                                : GoodbyeReason::kProtocol,
                 event_.detail);
      return LoseSecondary(Because("the stream to the secondary was reset"));
    case EventKind::kProtectionFailed:
      if (!state_.peer_connected) return;
      SayGoodbye(GoodbyeReason::kProtocol, event_.detail);
      return LoseSecondary(Because("checkpoints fail on this node"));
    case EventKind::kGoodbye:
      return PrimaryGoodbye();
    case EventKind::kOtherPrimary:
      return MeetPrimary();
    case EventKind::kGuestStopped:
      return GuestStopped();
    case EventKind::kOpFailover:
      return Refuse("this node runs the guest: ask for failover on the secondary");
    case EventKind::kOpPause:
      if (state_.paused) return Refuse("the guest is paused already");
      state_.paused = true;
      return Do(ActionKind::kPauseGuest);
    case EventKind::kOpResume:
      if (!state_.paused) return Refuse("the guest is not paused");
      state_.paused = false;
      return Do(ActionKind::kResumeGuest);
    case EventKind::kOpUnprotect:
      return Unprotect();
    case EventKind::kReleased:
      return Released();
    case EventKind::kUnprotectUnanswered:
      state_.unprotecting = false;
      return;
    case EventKind::kOpSwitchover:
      return BeginSwitchover();
    case EventKind::kOpProtect:
      if (state_.protect_wanted) return;
      state_.protect_wanted = true;
      state_.reason = "looks for the secondary, as asked by an operator";
      return Reconnect();
    default:
      return;
  }
}

void Step::EndedPrimary() {
  Heard(event_.term);
  switch (event_.kind) {
    case EventKind::kOpFailover:
    case EventKind::kOpPause:
    case EventKind::kOpResume:
    case EventKind::kOpUnprotect:
    case EventKind::kOpProtect:
    case EventKind::kOpSwitchover:
      return Refuse(absl::StrCat("this node is ", ModeName(state_.mode), ": ", state_.reason));
    default:
      return;
  }
}

void Step::Refused() {
  if (event_.holds == PeerHolds::kGuest) return MeetPrimary();
  Heard(event_.term);
  if (state_.peer_connected) return;
  const std::string reason = Because("the secondary refused us");
  const bool newer_there = JudgeLineages(state_.lineage, event_.lineage) == Newer::kSecond;
  if (state_.mode == Mode::kDegraded && event_.holds == PeerHolds::kNothing && !newer_there) {
    return GoSolo(reason);  // it cannot take over, and has not
  }
  state_.reason =
      state_.output_open
          ? reason
          : absl::StrCat(reason,
                         newer_there ? "; its disks are of a guest that was promoted over "
                                       "this one: start it as the primary instead"
                                     : "",
                         "; output is held (`unprotect --force` lets it out)");
}

// Only a promotion over this guest ends it: without one the other was booted beside it, and this
// one may hold the only state.
void Step::MeetPrimary() {
  if (policy_.arbiter_keeps_record) {
    // Anybody may say Hello; but the record outweighs even a secondary that is in step.
    if (event_.record.term > state_.confirmed && state_.peer_connected && !state_.claim) {
      CloseLink(event_.detail);
      state_.peer_connected = false;
    }
    return AskWhoIsOver("another primary was met");
  }
  const Newer newer = JudgeLineages(state_.lineage, event_.lineage);
  if (newer == Newer::kSecond) {
    return Fence(
        event_.term,
        absl::StrCat(Because("the other node was promoted over this one"), " (in term ",
                     event_.lineage.promoted.value(), ", from an epoch of term ",
                     event_.lineage.covers.value(), "); start this node again as a secondary"));
  }
  Heard(event_.term);
  if (state_.peer_connected) return;
  state_.reason =
      newer == Newer::kFirst
          ? "the other node still runs the guest that this one was promoted over; it stops when it "
            "hears so"
          : "two primaries: the other node runs a guest of its own, and neither yields; stop the "
            "one that is not wanted and start it again as a secondary";
  if (!state_.output_open) absl::StrAppend(&state_.reason, "; output is held");
}

// The record is the one word on which both must agree: lineage and record can differ after an
// operator's force, and then each would end one of the two.
void Step::AskWhoIsOver(absl::string_view what) {
  Heard(event_.term);
  if (state_.peer_connected || state_.claim) return;
  HoldAndAsk(Because(what));
  state_.reconnect_later = true;  // it may be a while before the other hears that it is over
}

void Step::PrimaryConnected() {
  const bool looking = state_.mode == Mode::kSolo || state_.mode == Mode::kDegraded;
  if (!looking || !state_.protect_wanted || event_.term <= state_.term || state_.claim) {
    // Agreed with what this node was some time ago.
    CloseLink("the stream is not wanted any more");
    if (looking) Reconnect();
    return;
  }
  state_.term = event_.term;
  Heard(event_.term);
  state_.peer_connected = true;
  state_.sync_done = false;
  state_.committed_epoch = EpochId();
  state_.held_since_start = false;
  // Output that is held stays so until the new stream's first ack: until then the secondary may
  // still be about to promote what it held before.
  Enter(Mode::kSyncing,
        state_.output_open ? "full sync" : "full sync; output is held until the first ack");
  // Before anything is sent: whoever commits an epoch of this term may claim from it.
  if (policy_.arbiter_keeps_record) {
    return Ask(ClaimAction::kProtect, state_.confirmed, state_.term, state_.reason);
  }
  Do(ActionKind::kStartSync, state_.term);
}

void Step::PrimaryAcked() {
  if (event_.term != state_.term || !state_.peer_connected || !state_.sync_done) return;
  state_.committed_epoch = std::max(state_.committed_epoch, event_.epoch);
  if (state_.mode == Mode::kSyncing) {
    // Not before the first ack: a secondary that was about to be promoted from an older term when
    // it accepted this stream has nothing of this one.
    state_.lineage.shared = state_.term;
    Enter(Mode::kProtected, "in step with the secondary");
  }
}

void Step::GoSolo(absl::string_view reason) {
  if (AsksFirst() && policy_.arbiter_keeps_record) {
    if (state_.sync_done) return HoldAndAsk(reason);
    // Asked already, for the stream that ended.
    if (state_.claim) {
      state_.claim_reason = std::string(reason);
      return Enter(state_.output_open ? Mode::kSolo : Mode::kDegraded,
                   absl::StrCat(reason, "; asks the arbiter"));
    }
  }
  Raise();
  RunAlone(reason);
}

void Step::RunAlone(absl::string_view reason) {
  Do(ActionKind::kStopEpochs);
  state_.sync_done = false;
  state_.output_open = true;
  state_.held_since_start = false;
  Enter(Mode::kSolo, reason);
  Do(ActionKind::kOpenOutput);
}

void Step::HoldAndAsk(absl::string_view reason) {
  Do(ActionKind::kHoldOutput);
  Do(ActionKind::kStopEpochs);
  state_.sync_done = false;
  state_.output_open = false;
  // A fence command confirms nothing, but is told in which term the two were in step.
  Ask(ClaimAction::kSolo, policy_.arbiter_keeps_record ? state_.confirmed : state_.term,
      NextTerm(policy_, state_.newest_term), reason);
}

void Step::Reconnect(bool later) {
  state_.reconnect_later = later;
  if (!state_.protect_wanted || state_.claim) return;
  Do(ActionKind::kConnect);
  actions_.back().later = std::exchange(state_.reconnect_later, false);
}

// The stream is gone. Whoever cannot take over cannot have: then this node goes on alone whatever
// the policy says.
void Step::LoseSecondary(absl::string_view reason) {
  if (!state_.peer_connected) return;
  state_.peer_connected = false;
  const bool may_take_over = state_.sync_done || !state_.output_open;
  if (may_take_over && CanAskRelease()) {
    AskRelease(reason);
  } else if (may_take_over && policy_.on_secondary_lost == OnSecondaryLost::kHold &&
             !policy_.arbiter) {
    Do(ActionKind::kHoldOutput);
    Do(ActionKind::kStopEpochs);
    state_.sync_done = false;
    state_.output_open = false;
    Enter(Mode::kDegraded,
          absl::StrCat(reason, "; output is held until it is back (or `unprotect --force`)"));
  } else if (may_take_over && policy_.arbiter && !state_.claim) {
    HoldAndAsk(reason);
  } else {
    GoSolo(reason);
  }
  Reconnect();
}

void Step::PrimaryGoodbye() {
  // Said on a stream of this guest's: it is the one that is continued there.
  if (event_.goodbye == GoodbyeReason::kPromoted) {
    if (policy_.arbiter_keeps_record) {
      CloseLink("the secondary was promoted");
      state_.peer_connected = false;
      return AskWhoIsOver("the secondary was promoted");
    }
    return Fence(event_.term, Because("the secondary was promoted; start this node again as a "
                                      "secondary"));
  }
  if (!state_.peer_connected) return;
  if (event_.goodbye == GoodbyeReason::kUnprotect && state_.unprotecting) return EndProtection();
  CloseLink("the secondary said goodbye");
  if (event_.goodbye == GoodbyeReason::kShutdown) {
    // Its replica goes with it, so nobody can take over.
    state_.peer_connected = false;
    GoSolo(Because("the secondary shut down"));
    return Reconnect();
  }
  if (event_.goodbye == GoodbyeReason::kDisk) {
    // It cannot promote what it has given up; nor will it take epochs until somebody made room.
    state_.peer_connected = false;
    GoSolo(Because("the secondary gave its replica up"));
    return Reconnect(/*later=*/true);
  }
  LoseSecondary(Because("the secondary ended the stream"));
}

void Step::GuestStopped() {
  const bool secondary_listens = state_.peer_connected;
  Do(ActionKind::kStopConnecting);
  Do(ActionKind::kStopEpochs);
  if (secondary_listens) {
    SayGoodbye(GoodbyeReason::kGuestFinished, Because("the guest ended"));
  }
  // What was said in acked epochs is out. Somebody else may go on from before the rest.
  if (!state_.output_open) Do(ActionKind::kDiscardOutput);
  state_.guest_running = false;
  state_.output_open = false;
  state_.peer_connected = false;
  state_.claim.reset();
  Enter(Mode::kFinished, Because("the guest ended"));
  Do(ActionKind::kExit);
}

// Somebody may hold an epoch and promote it: only that node's word, or an operator's, opens the
// output (P1).
void Step::Unprotect() {
  if (!state_.protect_wanted && state_.mode == Mode::kSolo) {
    return Refuse("the guest is not protected");
  }
  const bool may_take_over = state_.sync_done || !state_.output_open;
  if (event_.force || !may_take_over) return EndProtection();
  if (!state_.peer_connected)
    return Refuse(absl::StrCat("no stream to the secondary: ", kUnprotectByForce));
  if (state_.unprotecting) return Refuse("the secondary is being asked already");
  state_.unprotecting = true;
  Do(ActionKind::kAskUnprotect);
}

void Step::EndProtection() {
  state_.protect_wanted = false;
  state_.unprotecting = false;
  Do(ActionKind::kStopConnecting);
  if (state_.peer_connected) {
    SayGoodbye(GoodbyeReason::kUnprotect, "an operator asked for it");
    state_.peer_connected = false;
  }
  if (state_.mode == Mode::kSolo) {
    state_.reason = "unprotected by an operator";
    return;
  }
  if (event_.force) state_.claim.reset();
  GoSolo("unprotected by an operator");
  TellArbiter();
}

}  // namespace romulus::failover

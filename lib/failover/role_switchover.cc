// A planned hand-over: the guest stands still, its last epoch is acked and said, and the secondary
// goes on from exactly there. The old primary never lets the guest run again while the other node
// may: what it does not hear it holds for.
//
//   primary     kNone -> kDraining -> kOffered -> fenced, begins anew as the secondary
//                          |             |-> refused, given up there: goes on as if nothing had
//                          been |             |-> kUnsure: the stream ended unanswered
//                          |-> the last epoch cannot be had: goes on
//   secondary   kNone -> kOffered, by way of a claim where the arbiter keeps a record -> promoted
//
// With a record the promoter moves it as in a failover, so an old primary that hears nothing asks:
// its claim is answered with yes only if nobody was promoted. A no does not say that the guest ever
// ran there: the promoter may have died with the record in hand. So the old primary keeps what it
// has, standing still, until it meets the other with a guest, the record is given back, or an
// operator decides. A fence command is not asked, by neither: it knows nothing of what ran
// meanwhile.
#include "failover/role_step.h"

namespace romulus::failover {

void Step::BeginSwitchover() {
  if (state_.mode != Mode::kProtected) {
    return Refuse(absl::StrCat("nothing could take the guest over: this node is ",
                               ModeName(state_.mode), ": ", state_.reason));
  }
  if (state_.paused) return Refuse("the guest is paused: resume it first");
  if (state_.unprotecting) return Refuse("the secondary is being asked to give its replica up");
  state_.hand_over = HandOver::kDraining;
  state_.reason = "hands over: the guest's last epoch is on its way";
  Do(ActionKind::kCutLast);
}

bool Step::HandingOver() {
  const bool offered = state_.hand_over == HandOver::kOffered;
  const bool draining = state_.hand_over == HandOver::kDraining;
  switch (event_.kind) {
    case EventKind::kOpPause:
    case EventKind::kOpResume:
    case EventKind::kOpSwitchover:
      Refuse(absl::StrCat("a switchover is under way: ", state_.reason));
      return true;
    case EventKind::kFinalEpoch:
      if (!draining || event_.term != state_.term) return true;
      state_.committed_epoch = std::max(state_.committed_epoch, event_.epoch);
      state_.hand_over = HandOver::kOffered;
      state_.reason = absl::StrCat("hands over: waits for the other node to go on from epoch ",
                                   event_.epoch.value());
      Do(ActionKind::kOfferHandOver, state_.term);
      return true;
    case EventKind::kFinalEpochFailed:
      if (draining) GoOn(Because("the last epoch could not be had"));
      return true;
    case EventKind::kHandOverRefused:
      if (offered) GoOn(Because("the secondary refused it"));
      return true;
    case EventKind::kHandOverLate:
      if (!offered) return true;
      // Whoever lives and is heard may only be slow; but where a record decides nobody need wait.
      if (policy_.arbiter_keeps_record) {
        LoseOffered("the secondary does not answer the hand-over");
      } else {
        state_.reason =
            absl::StrCat("hands over: the other node, which may run the guest from epoch ",
                         state_.committed_epoch.value(), ", does not answer in time");
      }
      return true;
    case EventKind::kLinkClosed:
    case EventKind::kPeerSilent:
    case EventKind::kStreamBroken:
    case EventKind::kProtectionFailed:
      if (draining || !state_.peer_connected) return false;
      LoseOffered(Because("the stream ended during the hand-over"));
      return true;
    case EventKind::kGoodbye:
      return !draining && HandingOverGoodbye();
    case EventKind::kOpUnprotect:
      if (event_.force) state_.confirmed = std::max(state_.confirmed, state_.overruled);
      if (event_.force || !state_.peer_connected) return false;
      Refuse(absl::StrCat("a switchover is under way: ", state_.reason));
      return true;
    case EventKind::kPeerConnected:
    case EventKind::kPeerRefused:
    case EventKind::kOtherPrimary:
      if (state_.hand_over == HandOver::kUnsure && state_.overruled != Term()) {
        MeetWhoWasOffered();
        return true;
      }
      // The secondary moves the record when it takes what it was offered.
      if (offered && policy_.arbiter_keeps_record) return true;
      return state_.hand_over == HandOver::kUnsure && event_.kind != EventKind::kOtherPrimary &&
             HeardOfAnother();
    default:
      return false;
  }
}

bool Step::HandingOverGoodbye() {
  const bool offered = state_.hand_over == HandOver::kOffered;
  if (event_.goodbye == GoodbyeReason::kPromoted) {
    // Without an offer on this stream it is the record that knows, if there is one.
    if (!offered && policy_.arbiter_keeps_record) return false;
    Fence(event_.term, absl::StrCat("handed over to the other node, from epoch ",
                                    state_.committed_epoch.value()));
    return true;
  }
  if (!state_.peer_connected) return true;
  if (offered && event_.goodbye == GoodbyeReason::kHandOverFailed) {
    OfferFailed();
  } else {
    // Not even a shutdown says that the guest did not run there before.
    LoseOffered(Because("the other node ended the stream during the hand-over"));
  }
  return true;
}

// The daemon that was offered the guest may have run it, and died: one that was started since does
// not know.
bool Step::HeardOfAnother() {
  const bool proves_nothing = event_.started_again && event_.holds != PeerHolds::kGuest;
  if (!proves_nothing || policy_.arbiter_keeps_record || state_.peer_connected) return false;
  Heard(event_.term);
  Enter(
      Mode::kDegraded,
      "the other node was started again during the hand-over, and may have run the guest before: "
      "here it stands still, its output held, until an operator decides (`unprotect --force` goes "
      "on here)");
  if (event_.kind == EventKind::kPeerConnected) {
    CloseLink("an operator has to decide first");
    Reconnect(/*later=*/true);
  }
  return true;
}

// The record is the other node's. If the guest runs there its daemon is met, and this one is over.
void Step::HoldOffered(absl::string_view why) {
  if (state_.peer_connected) CloseLink(why);
  state_.peer_connected = false;
  state_.sync_done = false;
  state_.overruled = event_.record.term;
  Enter(
      Mode::kDegraded,
      absl::StrCat(why,
                   "; the other node may have died before the guest ran there: here it stands "
                   "still at epoch ",
                   state_.committed_epoch.value(),
                   ", its output held, until it is met running there (`unprotect --force` goes on "
                   "here, and ends the other)"));
  Reconnect(/*later=*/true);
}

// The record is its own, so any guest that runs there has the word: the promoted one, or one that
// it has booted anew since, having lost that. If it runs none, the record may have been given back.
void Step::MeetWhoWasOffered() {
  Heard(event_.term);
  const bool accepted = event_.kind == EventKind::kPeerConnected;
  const bool guest = event_.kind == EventKind::kOtherPrimary || event_.holds == PeerHolds::kGuest;
  const bool promoted = JudgeLineages(state_.lineage, event_.lineage) == Newer::kSecond;
  if (guest && (promoted || event_.term >= state_.overruled)) {
    return Fence(event_.term,
                 promoted ? "handed over to the other node, where the guest runs"
                          : "the other node, which has the arbiter's record since the hand-over, "
                            "was started again, and runs a guest that was booted anew");
  }
  if (accepted) CloseLink("the arbiter has to decide first");
  if (state_.claim) return;
  HoldAndAsk("the other node, to which the guest was handed over, does not run it");
  state_.reconnect_later = true;
}

// As if nothing had been.
void Step::GoOn(absl::string_view why) {
  state_.hand_over = HandOver::kNone;
  state_.reason = absl::StrCat("in step with the secondary; no switchover: ", why);
  Do(ActionKind::kResumeEpochs);
  Do(ActionKind::kResumeGuest);
}

void Step::LoseOffered(absl::string_view reason) {
  if (state_.peer_connected) CloseLink(reason);
  state_.peer_connected = false;
  state_.hand_over = HandOver::kUnsure;
  if (policy_.arbiter_keeps_record) {
    if (!state_.claim) HoldAndAsk(reason);
    return;
  }
  Do(ActionKind::kHoldOutput);
  Do(ActionKind::kStopEpochs);
  state_.sync_done = false;
  state_.output_open = false;
  Enter(Mode::kDegraded,
        absl::StrCat(reason,
                     "; the other node may run the guest: here it stands still, its output "
                     "held, until that node answers (or `unprotect --force`)"));
  Reconnect();
}

// The other node's word that it has nothing left to promote.
void Step::OfferFailed() {
  const std::string reason = Because("the secondary could not go on from what it was handed");
  CloseLink("the hand-over failed");
  state_.peer_connected = false;
  if (policy_.arbiter_keeps_record) {
    // It had moved the record before, and says to which term.
    state_.confirmed = std::max(state_.confirmed, event_.term);
    Heard(event_.term);
    state_.hand_over = HandOver::kUnsure;
    return HoldAndAsk(reason);
  }
  GoSolo(reason);
  Reconnect();
}

// --- as the secondary

void Step::RefuseHandOver(absl::string_view why) {
  Do(ActionKind::kRefuseHandOver);
  actions_.back().detail = std::string(why);
}

void Step::TakeHandOver() {
  if (!state_.peer_connected || state_.mode == Mode::kPromoting || Ended()) return;
  const bool exact =
      state_.committed && event_.term == state_.term && event_.epoch == state_.committed_epoch;
  if (!exact || state_.claim || state_.replica_wrong) {
    return RefuseHandOver(absl::StrCat("this node is ", ModeName(state_.mode), " at epoch ",
                                       state_.committed_epoch.value(), ": ", state_.reason));
  }
  constexpr absl::string_view kReason = "the primary hands over";
  const Term term = PromotionTerm(policy_, state_.newest_term);
  state_.hand_over = HandOver::kOffered;
  if (policy_.arbiter_keeps_record) {
    return Ask(ClaimAction::kPromote, state_.term, term, kReason);
  }
  state_.confirmed = state_.term;
  PromoteIn(term, kReason);
}

void Step::AnswerHandOver() {
  const bool offered = std::exchange(state_.hand_over, HandOver::kNone) == HandOver::kOffered;
  if (offered && state_.peer_connected) {
    SayGoodbye(GoodbyeReason::kPromoted, "handed over: the guest runs here");
  }
  state_.peer_connected = false;
}

// The old primary has the guest, and goes on with it. A record that was moved names this node: its
// term is told, so that the primary can claim from it.
void Step::HandOverFailed() {
  state_.hand_over = HandOver::kNone;
  const Term told = state_.promotion_term;
  const bool claimed = policy_.arbiter_keeps_record;
  state_.promotion_term = Term();
  if (!claimed && state_.newest_term == told) state_.newest_term = state_.term;
  if (event_.intact && !claimed) {
    Enter(Mode::kProtected, Because("in step with the primary; its hand-over failed"));
    return RefuseHandOver(Because("promotion failed"));
  }
  DropReplica();
  Enter(Mode::kStandby, Because("promotion failed; the replica is given up"));
  SayGoodbye(GoodbyeReason::kHandOverFailed, event_.detail);
}

// --- either

// Whatever has ended the switchover: the guest goes on if it is still this node's.
void Step::SettleHandOver() {
  if (state_.hand_over == HandOver::kNone) return;
  bool over = Ended();
  if (state_.role == Role::kSecondary) {
    over = over || (!state_.claim && state_.mode != Mode::kPromoting);
    // The arbiter's no: the primary is to ask for itself.
    if (over && state_.mode == Mode::kStandby) CloseLink("nothing is promoted here");
  } else {
    const bool in_step = state_.peer_connected && state_.mode == Mode::kProtected;
    over = over || state_.output_open;
    over = over || (state_.hand_over == HandOver::kDraining && !in_step);
    over = over || (state_.hand_over == HandOver::kUnsure && in_step);
    if (over && state_.guest_running && !state_.paused) Do(ActionKind::kResumeGuest);
  }
  if (!over) return;
  state_.hand_over = HandOver::kNone;
  if (state_.role == Role::kPrimary) state_.overruled = Term();
}

}  // namespace romulus::failover

#include "failover/role_machine.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace romulus::failover {
namespace {

// One event being handled: the state as it becomes, and the actions so far. The functions named
// after roles are the machine; the small ones below are its vocabulary.
class Step {
 public:
  Step(const Policy& policy, const RoleState& state, const Event& event)
      : policy_(policy), state_(state), event_(event) {}

  Transition Run() {
    Common();
    if (!state_.peer_connected) state_.unprotecting = false;
    return {std::move(state_), std::move(actions_)};
  }

 private:
  // --- vocabulary

  void Do(ActionKind kind, Term term = Term()) {
    Action action{};
    action.kind = kind;
    action.term = term;
    actions_.push_back(std::move(action));
  }
  void CloseLink(absl::string_view detail) {
    Action action{};
    action.kind = ActionKind::kCloseLink;
    action.detail = std::string(detail);
    actions_.push_back(std::move(action));
  }
  void SayGoodbye(GoodbyeReason reason, absl::string_view detail) {
    CloseLink(detail);
    actions_.back().say_goodbye = true;
    actions_.back().goodbye = reason;
  }
  void Refuse(absl::string_view why) {
    Action action{};
    action.kind = ActionKind::kRefuse;
    action.status = absl::FailedPreconditionError(why);
    actions_.push_back(std::move(action));
  }
  void Enter(Mode mode, absl::string_view reason) {
    state_.mode = mode;
    state_.reason = std::string(reason);
  }
  void Heard(Term term) { state_.newest_term = std::max(state_.newest_term, term); }
  void Raise() {
    state_.term = NextTerm(policy_, state_.newest_term);
    state_.newest_term = state_.term;
  }
  std::string Because(absl::string_view what) const {
    return event_.detail.empty() ? std::string(what) : absl::StrCat(what, ": ", event_.detail);
  }
  bool Ended() const { return state_.mode == Mode::kFenced || state_.mode == Mode::kFinished; }

  // --- either role

  void Common() {
    switch (event_.kind) {
      case EventKind::kStartPrimary:
        return StartPrimary();
      case EventKind::kStartSecondary:
        state_.role = Role::kSecondary;
        return Enter(Mode::kStandby, "waits for a primary");
      case EventKind::kShutdown:
        return Shutdown();
      default:
        return state_.role == Role::kPrimary ? Primary() : Secondary();
    }
  }

  void StartPrimary() {
    state_.role = Role::kPrimary;
    Heard(event_.term);
    Raise();
    state_.guest_running = true;
    state_.output_open = true;
    Enter(Mode::kSolo, "the guest was started here; no secondary yet");
    if (state_.protect_wanted) Do(ActionKind::kConnect);
  }

  void Shutdown() {
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
    Enter(Mode::kFinished, Because("told to stop"));
    Do(ActionKind::kExit);
  }

  // This node lost the term (P3): nothing of it may be seen any more.
  void Fence(Term term, absl::string_view reason) {
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
    Enter(Mode::kFenced, reason);
  }

  // --- primary

  void Primary() {
    if (Ended()) return EndedPrimary();
    switch (event_.kind) {
      case EventKind::kPeerConnected:
        return PrimaryConnected();
      case EventKind::kPeerRefused:
        if (event_.by_term && event_.term > state_.term) {
          return Fence(event_.term, Because("the secondary knows a newer term"));
        }
        if (event_.two_primaries) return TwoPrimaries();
        Heard(event_.term);
        if (!state_.peer_connected) state_.reason = Because("the secondary refused us");
        return;
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
        SayGoodbye(GoodbyeReason::kProtocol, event_.detail);
        return LoseSecondary(Because("the secondary broke the protocol"));
      case EventKind::kProtectionFailed:
        if (!state_.peer_connected) return;
        SayGoodbye(GoodbyeReason::kProtocol, event_.detail);
        return LoseSecondary(Because("checkpoints fail on this node"));
      case EventKind::kGoodbye:
        return PrimaryGoodbye();
      case EventKind::kHigherTerm:
        // Only a promotion ends this guest: without one the other was booted beside it, and this
        // one may hold the only state.
        if (event_.promoted_term > state_.term) {
          return Fence(event_.term, Because("a newer term began"));
        }
        return TwoPrimaries();
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
      case EventKind::kUnprotectUnanswered:
        state_.unprotecting = false;
        return;
      case EventKind::kOpProtect:
        if (state_.protect_wanted) return;
        state_.protect_wanted = true;
        state_.reason = "looks for the secondary, as asked by an operator";
        return Do(ActionKind::kConnect);
      default:
        return;
    }
  }

  void EndedPrimary() {
    Heard(event_.term);
    switch (event_.kind) {
      case EventKind::kOpFailover:
      case EventKind::kOpPause:
      case EventKind::kOpResume:
      case EventKind::kOpUnprotect:
      case EventKind::kOpProtect:
        return Refuse(absl::StrCat("this node is ", ModeName(state_.mode), ": ", state_.reason));
      default:
        return;
    }
  }

  void TwoPrimaries() {
    Heard(event_.term);
    if (state_.peer_connected) return;
    state_.reason =
        "two primaries: the other node runs a guest of its own, and neither yields; stop the one "
        "that is not wanted and start it again as a secondary";
  }

  void PrimaryConnected() {
    const bool looking = state_.mode == Mode::kSolo || state_.mode == Mode::kDegraded;
    if (!looking || !state_.protect_wanted || event_.term <= state_.term) {
      // Agreed with what this node was some time ago.
      CloseLink("the stream is not wanted any more");
      if (looking && state_.protect_wanted) Do(ActionKind::kConnect);
      return;
    }
    state_.term = event_.term;
    Heard(event_.term);
    state_.peer_connected = true;
    state_.sync_done = false;
    state_.committed_epoch = EpochId();
    // Output that is held stays so until the new stream's first ack: until then the secondary may
    // still be about to promote what it held before.
    Enter(Mode::kSyncing, "full sync");
    Do(ActionKind::kStartSync, state_.term);
  }

  void PrimaryAcked() {
    if (event_.term != state_.term || !state_.peer_connected || !state_.sync_done) return;
    state_.committed_epoch = std::max(state_.committed_epoch, event_.epoch);
    if (state_.mode == Mode::kSyncing) {
      Enter(Mode::kProtected, "in step with the secondary");
    }
  }

  void GoSolo(absl::string_view reason) {
    Do(ActionKind::kStopEpochs);
    Raise();
    state_.sync_done = false;
    state_.output_open = true;
    Enter(Mode::kSolo, reason);
    Do(ActionKind::kOpenOutput);
  }

  // The stream is gone. Whoever cannot take over cannot have: then this node goes on alone whatever
  // the policy says.
  void LoseSecondary(absl::string_view reason) {
    if (!state_.peer_connected) return;
    state_.peer_connected = false;
    const bool may_take_over = state_.sync_done || !state_.output_open;
    if (may_take_over && policy_.on_secondary_lost == OnSecondaryLost::kHold) {
      Do(ActionKind::kHoldOutput);
      Do(ActionKind::kStopEpochs);
      state_.sync_done = false;
      state_.output_open = false;
      Enter(Mode::kDegraded,
            absl::StrCat(reason, "; output is held until it is back (or `unprotect --force`)"));
    } else {
      GoSolo(reason);
    }
    if (state_.protect_wanted) Do(ActionKind::kConnect);
  }

  void PrimaryGoodbye() {
    if (event_.goodbye == GoodbyeReason::kPromoted && event_.term > state_.term) {
      return Fence(event_.term, Because("the secondary was promoted"));
    }
    if (!state_.peer_connected) return;
    if (event_.goodbye == GoodbyeReason::kUnprotect && state_.unprotecting) return EndProtection();
    CloseLink("the secondary said goodbye");
    if (event_.goodbye == GoodbyeReason::kShutdown) {
      // Its replica goes with it, so nobody can take over.
      state_.peer_connected = false;
      GoSolo(Because("the secondary shut down"));
      if (state_.protect_wanted) Do(ActionKind::kConnect);
      return;
    }
    if (event_.goodbye == GoodbyeReason::kDisk) {
      // It cannot promote what it has given up; nor will it take epochs until somebody made room.
      state_.peer_connected = false;
      GoSolo(Because("the secondary gave its replica up"));
      if (!state_.protect_wanted) return;
      Do(ActionKind::kConnect);
      actions_.back().later = true;
      return;
    }
    LoseSecondary(Because("the secondary ended the stream"));
  }

  void GuestStopped() {
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
    Enter(Mode::kFinished, Because("the guest ended"));
    Do(ActionKind::kExit);
  }

  // Somebody may hold an epoch and promote it: only that node's word, or an operator's, opens the
  // output (P1).
  void Unprotect() {
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

  void EndProtection() {
    state_.protect_wanted = false;
    state_.unprotecting = false;
    Do(ActionKind::kStopConnecting);
    if (state_.peer_connected) {
      SayGoodbye(GoodbyeReason::kUnprotect, "an operator asked for it");
      state_.peer_connected = false;
    }
    if (state_.mode == Mode::kSolo) {
      state_.reason = "unprotected by an operator";
    } else {
      GoSolo("unprotected by an operator");
    }
  }

  // --- secondary

  void Secondary() {
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
        if (state_.mode == Mode::kDegraded && state_.peer_connected && state_.committed) {
          Enter(Mode::kProtected, "the primary is heard again");
        }
        return;
      case EventKind::kGoodbye:
        return SecondaryGoodbye();
      case EventKind::kStreamBroken:
        if (!state_.peer_connected) return;
        SayGoodbye(GoodbyeReason::kProtocol, event_.detail);
        return StreamReset(Because("this node reset the stream"));
      case EventKind::kHigherTerm:
        return Heard(event_.term);
      case EventKind::kReplicaLost:
        // A promotion that is under way hears so from the replica itself.
        if (state_.mode == Mode::kPromoting || Ended()) return;
        DropReplica();
        return Enter(Mode::kStandby, Because("the replica was given up"));
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
        return Refuse("this node is the secondary: ask the primary");
      default:
        return;
    }
  }

  void SecondaryConnected() {
    if (state_.mode == Mode::kPromoting || state_.mode == Mode::kFenced) return;
    if (event_.term < state_.newest_term) return;
    state_.term = event_.term;
    Heard(event_.term);
    state_.peer_connected = true;
    state_.peer_silent = false;
    state_.peer_left = false;
    // The new full sync is written over whatever was here.
    state_.committed = false;
    state_.committed_epoch = EpochId();
    Enter(Mode::kSyncing, "full sync: nothing to promote yet");
  }

  void StartPromotion(absl::string_view reason) {
    state_.promotion_term = PromotionTerm(policy_, state_.newest_term);
    state_.newest_term = state_.promotion_term;
    Enter(Mode::kPromoting, reason);
    Do(ActionKind::kPromote, state_.promotion_term);
    // After the promotion was begun: a link that hangs must not delay it.
    if (state_.peer_connected) SayGoodbye(GoodbyeReason::kPromoted, reason);
    state_.peer_connected = false;
  }

  void NothingToPromote(absl::string_view reason) {
    Enter(Mode::kStandby, absl::StrCat(reason, "; no epoch was committed: nothing to promote"));
  }

  void SecondaryLinkClosed() {
    if (!state_.peer_connected) return;
    state_.peer_connected = false;
    if (state_.mode == Mode::kPromoting) return;
    const std::string reason = Because("the stream from the primary ended");
    if (!state_.committed) return NothingToPromote(reason);
    if (policy_.auto_failover && policy_.promote_on_link_closed) return StartPromotion(reason);
    Enter(Mode::kDegraded, Advice(reason));
  }

  std::string Advice(absl::string_view reason) const {
    return policy_.auto_failover && !state_.peer_left
               ? absl::StrCat(reason, "; promotes if the primary stays silent")
               : absl::StrCat(reason, "; `romulusctl failover` goes on from epoch ",
                              state_.committed_epoch.value());
  }

  void SecondaryPeerSilent() {
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
    if (policy_.auto_failover) return StartPromotion(reason);
    if (state_.mode == Mode::kProtected) Enter(Mode::kDegraded, Advice(reason));
  }

  // The primary lives, but the stream must start over.
  void StreamReset(absl::string_view reason) {
    state_.peer_connected = false;
    if (state_.mode == Mode::kPromoting) return;
    if (!state_.committed) return NothingToPromote(reason);
    Enter(Mode::kDegraded, Advice(reason));
  }

  void SecondaryGoodbye() {
    if (event_.goodbye == GoodbyeReason::kPromoted) return Heard(event_.term);
    if (!state_.peer_connected || state_.mode == Mode::kPromoting) return;
    CloseLink("the primary said goodbye");
    switch (event_.goodbye) {
      case GoodbyeReason::kShutdown:
        state_.peer_left = true;
        return StreamReset(Because("the primary was shut down"));
      case GoodbyeReason::kGuestFinished:
        DropReplica();
        return Enter(Mode::kFinished, Because("the guest ended on the primary"));
      case GoodbyeReason::kUnprotect:
        DropReplica();
        return Enter(Mode::kStandby, Because("the primary ended the protection"));
      default:
        return StreamReset(Because("the primary reset the stream"));
    }
  }

  void DropReplica() {
    state_.peer_connected = false;
    state_.peer_left = true;
    state_.committed = false;
    state_.committed_epoch = EpochId();
    Do(ActionKind::kDropReplica);
  }

  void PromotionDone() {
    if (state_.mode != Mode::kPromoting) return;
    state_.role = Role::kPrimary;
    state_.term = state_.promotion_term;
    state_.promoted_term = state_.term;
    state_.guest_running = true;
    state_.output_open = true;
    state_.peer_silent = false;
    state_.peer_left = false;
    state_.committed = false;
    state_.sync_done = false;
    const EpochId from = std::exchange(state_.committed_epoch, EpochId());
    if (state_.newest_term > state_.term) {
      return Fence(state_.newest_term, "a newer term began during the promotion");
    }
    Enter(Mode::kSolo,
          absl::StrCat("promoted from epoch ", from.value(), " (", state_.reason, ")"));
    Do(ActionKind::kOpenOutput);
    if (state_.protect_wanted) Do(ActionKind::kConnect);
  }

  void PromotionFailed() {
    if (state_.mode != Mode::kPromoting) return;
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

  void OperatorFailover() {
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
    StartPromotion(event_.force ? "an operator asked for it, by force"
                                : "an operator asked for it");
  }

  const Policy& policy_;
  RoleState state_;
  const Event& event_;
  std::vector<Action> actions_;
};

}  // namespace

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

// What both roles make of being heard, or not, on the second path. A peer is lost only when it is
// silent on both: as long as it is heard there the two can agree, and nobody need be promoted.
#include "failover/role_step.h"

namespace romulus::failover {

void Step::SecondHeard() {
  state_.second_heard = true;
  if (state_.mode != Mode::kDegraded || state_.peer_connected || state_.claim) return;
  if (state_.role == Role::kPrimary) {
    // One that was just started asks by its Hellos: its guest may be over, which only they tell.
    if (!state_.held_since_start && CanAskRelease()) AskRelease("no stream to the secondary");
    return;
  }
  if (state_.committed) Enter(Mode::kDegraded, Advice("no stream from the primary"));
}

void Step::SecondSilent() {
  state_.second_heard = false;
  if (std::exchange(state_.releasing, false)) {
    const std::string reason = Because("the secondary is silent on both paths");
    if (policy_.arbiter) return HoldAndAsk(reason);
    return Enter(
        Mode::kDegraded,
        absl::StrCat(reason, "; output is held until it is back (or `unprotect --force`)"));
  }
  if (state_.role == Role::kPrimary || state_.mode != Mode::kDegraded || state_.claim) return;
  if (!state_.committed || (state_.peer_connected && !state_.peer_silent)) return;
  const std::string reason = Because("the primary is silent on both paths");
  if (state_.held_back && !state_.peer_left && !state_.replica_wrong) return StartPromotion(reason);
  Enter(Mode::kDegraded, Advice(reason));
}

// A record decides faster than the other node, and nobody competes for it. A fence command would
// end a node that lives; it is for those who are silent.
bool Step::CanAskRelease() const {
  const bool would_wait = policy_.arbiter || policy_.on_secondary_lost == OnSecondaryLost::kHold;
  return state_.second_heard && would_wait && !policy_.arbiter_keeps_record && !state_.claim;
}

// Asked for as long as the state says so.
void Step::AskRelease(absl::string_view reason) {
  Do(ActionKind::kHoldOutput);
  Do(ActionKind::kStopEpochs);
  state_.sync_done = false;
  state_.output_open = false;
  state_.releasing = true;
  Enter(Mode::kDegraded,
        absl::StrCat(reason,
                     "; output is held until the secondary, which is heard on the second path, has "
                     "given its replica up"));
}

// No two streams have one term, so this is the answer to what is asked now, and not to an earlier
// loss; and a new stream, which could bring a replica, would have ended the asking.
void Step::Released() {
  if (!state_.releasing || event_.term != state_.term) return;
  GoSolo("no stream to the secondary, which has given its replica up, as asked on the second path");
}

void Step::LosePrimary(absl::string_view reason) {
  // It may be all that is left, or one bit off: for an operator to weigh.
  if (state_.replica_wrong) return Enter(Mode::kDegraded, Advice(reason));
  if (!state_.second_heard) return StartPromotion(reason);
  if (state_.claim) return;
  state_.held_back = true;
  Enter(Mode::kDegraded, Advice(reason));
}

void Step::ReleaseAsked() {
  if (state_.mode == Mode::kPromoting || Ended() || state_.claim) return;
  if (state_.committed || state_.peer_connected) {
    // Of a stream that this node has not, or not any more: what it holds was not meant.
    if (event_.term != state_.term) return;
    if (state_.peer_connected) CloseLink("the primary has given this stream up");
    DropReplica();
    Enter(Mode::kStandby,
          "the primary lost the stream and goes on alone, as it said on the "
          "second path");
  }
  state_.released_for = event_.term;
}

}  // namespace romulus::failover

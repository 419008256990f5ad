// What the role machine's words are called, and how its terms are counted.
#include <array>

#include "absl/strings/str_cat.h"
#include "failover/role_machine.h"

namespace romulus::failover {

absl::string_view RoleName(Role role) { return role == Role::kPrimary ? "primary" : "secondary"; }

absl::string_view ModeName(Mode mode) {
  constexpr std::array<absl::string_view, 8> kNames = {
      "solo", "syncing", "protected", "degraded", "standby", "promoting", "fenced", "finished"};
  return kNames[static_cast<size_t>(mode)];
}

absl::string_view EventName(EventKind kind) {
  constexpr std::array<absl::string_view, kEventKindCount> kNames = {
      "start_primary", "start_secondary",   "peer_connected",
      "peer_refused",  "sync_done",         "epoch_committed",
      "link_closed",   "peer_silent",       "peer_heard",
      "second_heard",  "second_silent",     "release_asked",
      "released",      "goodbye",           "stream_broken",
      "other_primary", "promotion_done",    "promotion_failed",
      "guest_stopped", "protection_failed", "replica_lost",
      "replica_wrong", "op_failover",       "op_pause",
      "op_resume",     "op_unprotect",      "op_protect",
      "arbiter_yes",   "arbiter_no",        "arbiter_silent",
      "claim_void",    "claim_withdrawn",   "unprotect_unanswered",
      "op_switchover", "final_epoch",       "final_epoch_failed",
      "hand_over",     "hand_over_refused", "hand_over_late",
      "shutdown"};
  return kNames[static_cast<size_t>(kind)];
}

absl::string_view ActionName(ActionKind kind) {
  constexpr std::array<absl::string_view, kActionKindCount> kNames = {
      "connect",          "stop_connecting", "start_sync",      "open_output",
      "hold_output",      "discard_output",  "stop_guest",      "pause_guest",
      "resume_guest",     "stop_epochs",     "close_link",      "ask_unprotect",
      "promote",          "drop_replica",    "claim",           "withdraw",
      "give_back",        "cut_last",        "offer_hand_over", "resume_epochs",
      "refuse_hand_over", "refuse",          "begin_anew",      "exit"};
  return kNames[static_cast<size_t>(kind)];
}

OnSecondaryLost DefaultOnSecondaryLost(bool auto_failover) {
  return auto_failover ? OnSecondaryLost::kHold : OnSecondaryLost::kSolo;
}

absl::Status Validate(const Policy& policy) {
  if (policy.node_index >= kTermStride) {
    return absl::InvalidArgumentError(
        absl::StrCat("nodes: at most ", kTermStride, " are supported"));
  }
  if (policy.arbiter_keeps_record && !policy.arbiter) {
    return absl::InvalidArgumentError("no arbiter, but it keeps a record");
  }
  if (policy.auto_failover && policy.on_secondary_lost == OnSecondaryLost::kSolo &&
      !policy.arbiter) {
    return absl::InvalidArgumentError(
        "auto_failover and on_secondary_lost SOLO contradict each other: a primary that goes on "
        "alone "
        "while its secondary promotes itself means two guests; use HOLD or turn auto_failover off");
  }
  return absl::OkStatus();
}

Term NextTerm(const Policy& policy, Term above) {
  const uint64_t floor = above.value() / kTermStride * kTermStride + policy.node_index;
  return Term(floor > above.value() ? floor : floor + kTermStride);
}

Term PromotionTerm(const Policy& policy, Term above) {
  // The old primary goes solo at most once without our hearing of it: one stride.
  return NextTerm(policy, Term(above.value() + 2 * kTermStride));
}

}  // namespace romulus::failover

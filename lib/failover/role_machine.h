// Who runs the guest, in which mode, and why: a pure function (policy, state, event) -> (state,
// actions). The daemon executes the actions on its control loop; simulation executes them under a
// scheduler. No clocks, no threads, no input or output here.
//
// Terms: every raise takes a number that only this node can take (its residue modulo kTermStride is
// the node's index), so two nodes never run the guest in the same term (P3), arbiter or not. Which
// of two primaries is over is decided by where their guests come from (base/lineage.h), never by
// their terms.
#ifndef ROMULUS_FAILOVER_ROLE_MACHINE_H_
#define ROMULUS_FAILOVER_ROLE_MACHINE_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "base/lineage.h"
#include "base/types.h"
#include "failover/arbiter.h"

namespace romulus::failover {

enum class Role : uint8_t { kPrimary, kSecondary };

enum class Mode : uint8_t {
  // Primary.
  kSolo,       // the guest runs, output is open, nobody could take over
  kSyncing,    // the guest runs; full sync (both roles)
  kProtected,  // both roles: the secondary holds a committed epoch and the stream stands
  kDegraded,   // both roles: protection is interrupted, and somebody must decide or return.
               //   primary: output is held; secondary: holds a committed epoch of a lost primary
  // Secondary.
  kStandby,    // holds nothing that could be promoted
  kPromoting,  // the guest is being restored here
  // Either.
  kFenced,    // this node lost the term: its guest is stopped, its output discarded
  kFinished,  // the guest ended by itself, or the daemon was told to stop
};

absl::string_view RoleName(Role role);
absl::string_view ModeName(Mode mode);

enum class OnSecondaryLost : uint8_t {
  kSolo,  // go on alone, output open
  kHold,  // hold output until the secondary is back, refuses us and holds nothing that it could
          // promote, or an operator says unprotect
};

struct Policy {
  bool auto_failover = false;
  OnSecondaryLost on_secondary_lost = OnSecondaryLost::kSolo;
  // auto_failover: a closed stream is loss enough; false: wait for silence as well.
  bool promote_on_link_closed = true;
  // Claims decide: nobody promotes, goes solo or begins to protect without the arbiter's yes,
  // unless an operator forces it. Then `on_secondary_lost` means nothing.
  bool arbiter = false;
  // It remembers who holds the term (etcd): then starts and new streams are claimed as well. One
  // that does not (a fence command) is asked only when the other node is lost.
  bool arbiter_keeps_record = false;
  bool stay_fenced = false;  // a node that lost the term to the record does not begin anew
  uint64_t node_index = 0;   // of this node in the configuration's list; below kTermStride
};

// kHold with auto_failover (the other side may have promoted), else kSolo.
OnSecondaryLost DefaultOnSecondaryLost(bool auto_failover);
// Errors: InvalidArgument naming the fields that contradict each other.
absl::Status Validate(const Policy& policy);

inline constexpr uint64_t kTermStride = 16;
// The next term above `above` that belongs to this node.
Term NextTerm(const Policy& policy, Term above);
// The term of a promotion above `above`: beyond what the old primary reaches by going solo, so that
// people see the newer one at a glance.
Term PromotionTerm(const Policy& policy, Term above);

// What an operator must know who ends the protection without the secondary's word.
inline constexpr absl::string_view kUnprotectByForce =
    "the other node may hold an epoch and promote it; `romulusctl unprotect --force` lets the "
    "output "
    "out all the same: make sure first that the guest cannot run there, else both are heard";

// A switchover, as far as it has come; failover/role_switchover.cc.
enum class HandOver : uint8_t {
  kNone,
  kDraining,  // primary: the guest stands still, its last epoch is on its way
  kOffered,   // primary: the secondary was told to go on from that epoch, and has not answered: it
              //   may run the guest. Secondary: it was told so, and owes the answer
  kUnsure,    // primary: the stream ended before the answer. The guest stands still here until the
              //   same daemon is heard, the arbiter decides, the promoted guest is met, or an
              //   operator forces it
};

struct RoleState {
  Role role = Role::kSecondary;
  Mode mode = Mode::kStandby;
  Term term;                    // in which this node runs the guest or receives epochs
  Term newest_term;             // ever heard of; at least `term`
  bool guest_running = false;   // here, vCPUs may run (also while paused by an operator)
  bool output_open = false;     // what the guest says leaves at once
  bool paused = false;          // by an operator
  bool protect_wanted = true;   // primary: keep looking for the secondary
  bool peer_connected = false;  // a stream stands
  bool peer_silent = false;     // secondary: no sign of life beyond the threshold
  bool peer_left = false;       // secondary: it said goodbye, so its silence is no failure
  bool replica_wrong = false;   // secondary: an audit found so, here or as the primary said
  bool unprotecting = false;    // primary: the secondary was asked to give its replica up
  bool sync_done = false;       // primary: epochs were cut, so the secondary may hold one
  HandOver hand_over = HandOver::kNone;
  bool committed = false;   // secondary: holds a committed epoch
  EpochId committed_epoch;  // of `term`; primary: the newest acked
  Term promotion_term;      // secondary, promoting: in which the guest will run here
  Lineage lineage;          // primary: of its guest; secondary: of its disks, until it follows
  bool held_since_start = false;  // primary: output was never open or acked, as a secondary may
                                  // have been promoted before this start
  // What the arbiter was asked and has not answered. Until it has, it may have taken effect: a
  // primary looks for no secondary, a secondary accepts no primary.
  std::optional<ArbiterClaim> claim{};
  std::string claim_reason{};    // why it was asked
  bool withdrawing = false;      // secondary: the claim is not wanted any more
  Term newest_before_claim{};    // newest_term then
  Term confirmed{};              // newest that the arbiter has confirmed to be this node's
  Term overruled{};              // in which the arbiter said that another has the guest; secondary,
                                 // or primary while kUnsure
  bool reconnect_later = false;  // after the answer
  // The second path (role_second_path.cc); false and 0 where there is none.
  bool second_heard = false;  // the peer is heard on it
  bool held_back = false;     // secondary: would have been promoted, but for second_heard
  bool releasing = false;     // primary: the secondary is being asked there to give up its replica,
                              // of `term`
  Term released_for{};        // secondary: it has; until the next stream
  std::string reason;         // why this mode, for people (P8)
  uint64_t since_ns = 0;      // when the mode was entered; set by RoleMachine

  friend bool operator==(const RoleState&, const RoleState&) = default;
};

// The arbiter's record is gone, or an older one of this node's: this node may put what was
// confirmed to it there again without a question, because nobody else can have the guest. Either
// its output is open and no secondary held an epoch since it was confirmed, or the secondary is in
// step.
bool MayRestoreRecord(const Policy& policy, const RoleState& state);

// True while two nodes in this state and in the same term would break P3.
bool RunsGuest(const RoleState& state);

enum class EventKind : uint8_t {
  kStartPrimary,    // configured initial role; the guest was booted. term, lineage, hold
  kStartSecondary,  // lineage, detail
  kPeerConnected,   // handshake accepted (primary: our Hello was; secondary: we accepted). term
  kPeerRefused,     // primary: our Hello was refused. detail, term = the other's newest, holds,
                    // lineage
  kSyncDone,        // primary: all memory is over there. Must be handled before the first epoch is
                    // cut: from here on the secondary may hold one, and a loss is judged by that
  kEpochCommitted,  // primary: acked; secondary: committed. term, epoch
  kLinkClosed,      // the stream ended. detail
  kPeerSilent,      // the failure detector says lost, whether or not the stream stands
  kPeerHeard,       // secondary: a sign of life after kPeerSilent
  kSecondHeard,     // the peer is heard on the second path
  kSecondSilent,    // no more, or it is heard but does not work. detail
  kReleaseAsked,    // secondary: on the second path the primary of `term` asks for kAskUnprotect
  kReleased,        // primary: and has its answer. term
  kGoodbye,         // the peer ended the stream on purpose. goodbye, detail
  kStreamBroken,   // the peer lives, but the stream must start over (a refused frame, a bad audit).
                   // detail; goodbye: kReplicaWrong, else not looked at
  kOtherPrimary,   // another node that runs a guest has said Hello here. detail, term, lineage;
                   // or, record: the arbiter's record has been another's for a while
  kPromotionDone,  // the guest runs here. term = of the epoch that it goes on from
  kPromotionFailed,   // detail
  kGuestStopped,      // by itself. detail. While epochs are cut: after the last one, which has its
                      // last words, was acked (or could not be)
  kProtectionFailed,  // primary: a checkpoint failed beyond repair; the stream must start over.
                      // detail
  kReplicaLost,   // secondary: its disks cannot take what comes; it has given its replica up, and
                  // told the primary. detail
  kReplicaWrong,  // secondary: its own audit found that what it holds is not the guest, and a full
                  // sync is to follow. detail
  kOpFailover,    // force
  kOpPause,
  kOpResume,
  kOpUnprotect,  // force
  kOpProtect,
  // The arbiter's answers to the claim of `term` (ArbiterClaim::wanted); others mean nothing.
  kArbiterYes,
  kArbiterNo,            // record, ours, detail
  kArbiterSilent,        // no answer, or none of use; the same is asked again. detail
  kClaimVoid,            // kClaim was not executed: a primary had just been accepted
  kClaimWithdrawn,       // it has not taken effect and never will (if it had: kArbiterYes)
  kUnprotectUnanswered,  // primary: what kAskUnprotect asked for was not answered in time
  kOpSwitchover,
  kFinalEpoch,        // primary: what kCutLast asked for is acked, its output has left. term, epoch
  kFinalEpochFailed,  // primary: or could not be had. detail
  kHandOver,          // secondary: the primary asks to go on from this epoch. term, epoch
  kHandOverRefused,   // primary: the other node does not, and the stream stands. detail
  kHandOverLate,      // primary: it has not answered in time
  kShutdown,          // SIGTERM
};
inline constexpr size_t kEventKindCount = static_cast<size_t>(EventKind::kShutdown) + 1;
absl::string_view EventName(EventKind kind);

enum class GoodbyeReason : uint8_t {
  kShutdown,
  kGuestFinished,
  kProtocol,
  kPromoted,
  kUnprotect,
  kCap,
  kDisk,  // the secondary has given its replica up, because its disks cannot take what comes
  kHandOverFailed,  // the secondary could not promote what it was handed, and has given it up
  kReplicaWrong,    // the primary found by an audit that the replica is not the guest
};

// What the other node could go on from, as its answer says.
enum class PeerHolds : uint8_t {
  kUnknown,
  kNothing,
  kReplica,  // a committed epoch, or a stream that may bring one
  kGuest,    // a guest runs there
};

struct Event {
  EventKind kind = EventKind::kShutdown;
  Term term{};
  EpochId epoch{};
  bool force = false;  // kOpFailover
  bool hold = false;   // kStartPrimary: a secondary may have been promoted meanwhile
  Lineage lineage{};   // kStartPrimary, kStartSecondary: of the disks here; else the other's
  PeerHolds holds = PeerHolds::kUnknown;  // kPeerRefused
  // kPeerConnected, kPeerRefused of a primary: that is another daemon than the one which was
  // accepted, or offered a hand-over, last. What it says proves nothing of what that one did.
  bool started_again = false;
  bool intact = false;  // kPromotionFailed: before the replica was sealed, so it may be tried again
  GoodbyeReason goodbye = GoodbyeReason::kShutdown;
  ArbiterRecord record{};  // kStartPrimary, kOtherPrimary, kArbiterNo, `lost`: what the arbiter has
  bool ours = false;       // it is this node's; kArbiterNo: of a claim that it gave up
  bool namesake = false;   // kArbiterNo: it is that of another host, which has this node's name
  bool lost = false;       // kArbiterSilent: it is gone, or older than it must be
  std::string detail{};
};

enum class ActionKind : uint8_t {
  kConnect,  // primary: look for the secondary (at once unless `later`, then with back-off) until
             // connected
  kStopConnecting,
  kStartSync,   // primary: begin a full sync on the standing stream; epochs will be of `term`
  kOpenOutput,  // let out what is held, from now on at once
  kHoldOutput,
  kDiscardOutput,
  kStopGuest,  // for good
  kPauseGuest,
  kResumeGuest,
  kStopEpochs,    // primary: no more checkpoints; tracking may end
  kCloseLink,     // after a Goodbye, if `goodbye` applies
  kAskUnprotect,  // primary: ask the secondary to give its replica up, on the standing stream;
                  // kGoodbye (kUnprotect) or kUnprotectUnanswered follows
  kPromote,       // secondary: seal, restore, run; then kPromotionDone or kPromotionFailed. `term`
  kDropReplica,   // secondary: what is held must not be promoted any more
  kClaim,         // ask the arbiter, `claim`, until it answers or the state has another or none
  kWithdraw,      // instead: make sure that `claim` does not take effect; kClaimWithdrawn or
                  // kArbiterYes follows
  kGiveBack,  // hand the arbiter's record of `term`, which is ours, to the other node; until it is
              // answered, and nothing follows
  kCutLast,   // primary: stop the guest, cut its last epoch, let its output leave; then
              // kFinalEpoch or kFinalEpochFailed
  kOfferHandOver,   // primary: tell the secondary to go on from that epoch; kGoodbye (kPromoted,
                    // kHandOverFailed), kHandOverRefused or kHandOverLate follows
  kResumeEpochs,    // primary: there are epochs after the last one
  kRefuseHandOver,  // secondary: say so on the standing stream. detail
  kRefuse,          // the operator's request, with `status`
  kBeginAnew,       // the guest is the other node's: the daemon starts over as a secondary
  kExit,            // the daemon may end
};
inline constexpr size_t kActionKindCount = static_cast<size_t>(ActionKind::kExit) + 1;
absl::string_view ActionName(ActionKind kind);

struct Action {
  ActionKind kind = ActionKind::kExit;
  Term term{};
  bool say_goodbye = false;  // kCloseLink
  GoodbyeReason goodbye = GoodbyeReason::kShutdown;
  std::string detail{};
  absl::Status status{};  // kRefuse
  ArbiterClaim claim{};   // kClaim, kWithdraw
  bool later = false;     // kConnect: what went wrong over there is not mended at once
};

struct Transition {
  RoleState state;
  std::vector<Action> actions;  // in order
};

// Total: every event is allowed in every state; one that means nothing there changes nothing.
Transition Next(const Policy& policy, const RoleState& state, const Event& event);

// Holds the state and dates its changes. One thread (the control loop).
class RoleMachine {
 public:
  // `policy` must be valid.
  explicit RoleMachine(const Policy& policy) : policy_(policy) {}

  std::vector<Action> Handle(const Event& event, uint64_t now_ns);
  const RoleState& state() const { return state_; }
  const Policy& policy() const { return policy_; }
  // What a Hello sent now must carry as stream_term.
  Term ProposedTerm() const { return NextTerm(policy_, state_.newest_term); }

 private:
  Policy policy_;
  RoleState state_;
};

}  // namespace romulus::failover

#endif  // ROMULUS_FAILOVER_ROLE_MACHINE_H_

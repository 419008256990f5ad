// Who decides between two nodes that cannot see each other. An arbiter keeps one record per VM (a
// fence command keeps none): which node, by its name and its host, holds which term. A node that
// wants to go solo, to promote, or to begin protecting in a new term claims: the record must go
// from the term that it knows to a new one of its own. Of two nodes' claims from one term at most
// one is ever answered with yes, whatever the network does (P3).
//
// `none` is no object: without an arbiter the policy alone decides (role_machine.h). `command` and
// `etcd` are in lib/arbiter; simulation has its own.
//
// Threads: one, that of the executor which an arbiter was made with (the control loop). Everything
// is called there, the destructor too, and answers come there; never from within Claim() or Read().
#ifndef ROMULUS_FAILOVER_ARBITER_H_
#define ROMULUS_FAILOVER_ARBITER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/types.h"

namespace romulus::failover {

// Whose claims an arbiter carries; constant.
struct ArbiterIdentity {
  std::string vm_name;
  std::string vm_uuid;
  std::string node;  // this one
  std::string peer;  // the other; empty: there is none
  std::string build;
  // What tells two hosts that were given one node name apart; and what people call it.
  std::string host_id{};
  std::string host_name{};
};

enum class ClaimAction : uint8_t {
  kPromote,  // a secondary, whose primary is lost
  kSolo,     // a primary, whose secondary is lost
  kProtect,  // a primary, which begins to protect in a new term; nobody is lost
};
absl::string_view ClaimActionName(ClaimAction action);

struct ArbiterClaim {
  ClaimAction action = ClaimAction::kPromote;
  // In which this node and its peer were in step; 0: there must be no record yet.
  Term expected;
  // Above `expected`; this node's own (NextTerm, PromotionTerm): no other node ever wants it.
  Term wanted;
  // Of the promotion that the holder's guest comes from (`wanted`, if this is one); 0: it was
  // booted.
  Term promoted_term;

  friend bool operator==(const ArbiterClaim&, const ArbiterClaim&) = default;
};

struct ArbiterRecord {
  Term term;
  std::string holder;  // a node's name
  Term promoted_term;
  std::string build;  // that wrote it
  // Of the holder; empty: written by a romulusd that did not say.
  std::string host_id{};
  std::string host_name{};

  friend bool operator==(const ArbiterRecord&, const ArbiterRecord&) = default;
};

enum class Verdict : uint8_t {
  // Of a claim: the record is ours in the term that we wanted. Of a read: see `record`.
  kYes,
  // The record is not as expected; see `record`. It may be this node's own: then an earlier claim
  // took effect whose answer was lost. A fence command never says so.
  kNo,
  // No answer in time. Nothing may be concluded: a claim may have taken effect, or still take it
  // for as long as nothing else does. The same claim may be made again.
  kSilent,
  // There was an answer that is of no use, and asking again does not help before an operator has
  // done what `detail` says. Nothing may be concluded either.
  kError,
};
inline constexpr size_t kVerdictCount = static_cast<size_t>(Verdict::kError) + 1;
absl::string_view VerdictName(Verdict verdict);

struct ArbiterAnswer {
  Verdict verdict = Verdict::kSilent;
  // kYes, kNo: what the arbiter has now. Term 0: nothing (read: nobody ever claimed; claim: this
  // arbiter keeps no record).
  ArbiterRecord record;
  std::string detail;  // for people: why
  // kError of a claim: the record is gone, or older than the term that was claimed from; it is
  // `record`.
  bool lost = false;
};

class Arbiter {
 public:
  using Done = absl::AnyInvocable<void(ArbiterAnswer) &&>;

  // Questions that are not answered yet are given up: their `done` is destroyed, not called. Takes
  // no longer than a moment (a command under way is killed).
  virtual ~Arbiter() = default;

  // `done` is called exactly once, at the latest a moment after `timeout`, unless the arbiter is
  // destroyed before. A claim that makes no sense (Validate) is a kError. Several questions may be
  // under way; an arbiter that cannot take one more says kSilent.
  virtual void Claim(const ArbiterClaim& claim, absl::Duration timeout, Done done) = 0;
  // Takes back a claim of this node's that may still take effect. Where it is under way it is
  // answered with kSilent, and not tried again. kYes: it has not taken effect and never will. kNo:
  // it has; `record` is ours. Else nothing is known, and the same may be asked again.
  virtual void Withdraw(const ArbiterClaim& claim, absl::Duration timeout, Done done) = 0;
  // Hands the term that this node holds to its peer, which had the guest before: here is none to
  // go on from. kYes: the peer has it. kNo: it is not this node's (any more).
  virtual void GiveBack(Term held, absl::Duration timeout, Done done) = 0;
  // What the record says now (never an older one). kYes with it; kError if this arbiter keeps none.
  virtual void Read(absl::Duration timeout, Done done) = 0;
};

// Errors: InvalidArgument, unless expected < wanted <= kMaxPeerTerm and promoted_term <= wanted.
absl::Status Validate(const ArbiterClaim& claim);

// The record is this node's: by its name, and by its host unless the record names none. The next
// claim then says which.
bool IsOurs(const ArbiterIdentity& who, const ArbiterRecord& record);
// It is a node's of this one's name, on another host.
bool IsNamesakes(const ArbiterIdentity& who, const ArbiterRecord& record);
// For people: which two hosts these are, and what to do.
std::string NamesakeText(const ArbiterIdentity& who, const ArbiterRecord& record);

// The rule of every arbiter with a record: what a claim by `node` means while the record is `now`
// (term 0: none).
struct ClaimRule {
  bool swap = false;       // put `put` in its place, if it still is `now`, untouched since
  ArbiterRecord put{};     // if `swap`
  ArbiterAnswer answer{};  // if `swap`: once that is done
};
ClaimRule JudgeClaim(const ArbiterIdentity& who, const ArbiterClaim& claim,
                     const ArbiterRecord& now);
// The same for a withdrawal. To put the very same record again is no idle work: a claim's swap
// under way wants the record untouched since it was read, and never finds it so again.
ClaimRule JudgeWithdrawal(const ArbiterIdentity& who, const ArbiterClaim& claim,
                          const ArbiterRecord& now);
// The same for a term that is given back.
ClaimRule JudgeGivingBack(const ArbiterIdentity& who, Term held, const ArbiterRecord& now);
ArbiterRecord RecordOf(const ArbiterIdentity& who, const ArbiterClaim& claim);

}  // namespace romulus::failover

#endif  // ROMULUS_FAILOVER_ARBITER_H_

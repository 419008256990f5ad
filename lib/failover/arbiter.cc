#include "failover/arbiter.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace romulus::failover {

absl::string_view ClaimActionName(ClaimAction action) {
  switch (action) {
    case ClaimAction::kPromote:
      return "promote";
    case ClaimAction::kSolo:
      return "solo";
    case ClaimAction::kProtect:
      return "protect";
  }
  return "?";
}

absl::string_view VerdictName(Verdict verdict) {
  switch (verdict) {
    case Verdict::kYes:
      return "yes";
    case Verdict::kNo:
      return "no";
    case Verdict::kSilent:
      return "silent";
    case Verdict::kError:
      return "error";
  }
  return "?";
}

absl::Status Validate(const ArbiterClaim& claim) {
  if (claim.wanted <= claim.expected || claim.wanted > kMaxPeerTerm) {
    return absl::InvalidArgumentError(absl::StrCat(
        "term ", claim.wanted.value(), " cannot be claimed from term ", claim.expected.value()));
  }
  if (claim.promoted_term > claim.wanted) {
    return absl::InvalidArgumentError(
        absl::StrCat("a promotion in term ", claim.promoted_term.value(),
                     " cannot be older than term ", claim.wanted.value()));
  }
  return absl::OkStatus();
}

ArbiterRecord RecordOf(const ArbiterIdentity& who, const ArbiterClaim& claim) {
  ArbiterRecord record;
  record.term = claim.wanted;
  record.holder = who.node;
  record.promoted_term = claim.promoted_term;
  record.build = who.build;
  record.host_id = who.host_id;
  record.host_name = who.host_name;
  return record;
}

bool IsOurs(const ArbiterIdentity& who, const ArbiterRecord& record) {
  return record.term != Term() && record.holder == who.node &&
         (record.host_id.empty() || record.host_id == who.host_id);
}

bool IsNamesakes(const ArbiterIdentity& who, const ArbiterRecord& record) {
  return record.term != Term() && record.holder == who.node && !IsOurs(who, record);
}

std::string NamesakeText(const ArbiterIdentity& who, const ArbiterRecord& record) {
  const auto host = [](const std::string& name, const std::string& id) {
    return absl::StrCat("host '", name, "' (", id, ")");
  };
  return absl::StrCat(
      "two hosts are called node '", who.node, "': ", host(record.host_name, record.host_id),
      " holds term ", record.term.value(), " under this name, and this is ",
      host(who.host_name, who.host_id),
      ". Give each host its own node (--node). If this one replaces the other, which is gone for "
      "good, start it once with `--role primary --take-over`");
}

namespace {

// Terms are each node's own, so a record in the term that was wanted is that very claim's. By the
// host as well: two that were given one name want the same terms.
bool TookEffect(const ArbiterIdentity& who, const ArbiterClaim& claim, const ArbiterRecord& now) {
  return now.term == claim.wanted && now.holder == who.node && now.host_id == who.host_id;
}

}  // namespace

ClaimRule JudgeClaim(const ArbiterIdentity& who, const ArbiterClaim& claim,
                     const ArbiterRecord& now) {
  ClaimRule rule;
  if (TookEffect(who, claim, now)) {
    // The answer was lost.
    rule.answer = {Verdict::kYes, now, "the record is this node's already"};
    return rule;
  }
  if (now.term == claim.expected) {
    rule.swap = true;
    rule.put = RecordOf(who, claim);
    rule.answer = {Verdict::kYes, rule.put, "the claim was taken"};
    return rule;
  }
  if (now.term < claim.expected) {
    // Nobody won; somebody took the record away, or this is not where it was.
    rule.answer = {Verdict::kError, now,
                   now.term == Term()
                       ? absl::StrCat("there is no record, though term ", claim.expected.value(),
                                      " was claimed: it was deleted, or is kept elsewhere")
                       : absl::StrCat("the record says term ", now.term.value(), ", though term ",
                                      claim.expected.value(),
                                      " was claimed: it was restored from a backup, or is kept "
                                      "elsewhere"),
                   /*lost=*/true};
    return rule;
  }
  if (IsNamesakes(who, now)) {
    rule.answer = {Verdict::kNo, now, NamesakeText(who, now)};
    return rule;
  }
  rule.answer = {Verdict::kNo, now,
                 absl::StrCat("node '", now.holder, "' holds term ", now.term.value(),
                              "; this node claimed from term ", claim.expected.value())};
  return rule;
}

ClaimRule JudgeWithdrawal(const ArbiterIdentity& who, const ArbiterClaim& claim,
                          const ArbiterRecord& now) {
  ClaimRule rule;
  if (TookEffect(who, claim, now)) {
    rule.answer = {Verdict::kNo, now, "the claim had taken effect"};
    return rule;
  }
  if (now.term == Term() && claim.expected == Term()) {
    rule.answer = {Verdict::kError, now, "there is no record yet that could be touched"};
    return rule;
  }
  if (now.term == claim.expected) {
    rule.swap = true;
    rule.put = now;
    rule.answer = {Verdict::kYes, now, "the claim was withdrawn"};
    return rule;
  }
  rule.answer = {Verdict::kYes, now, "the record is another one than was claimed from"};
  return rule;
}

ClaimRule JudgeGivingBack(const ArbiterIdentity& who, Term held, const ArbiterRecord& now) {
  ClaimRule rule;
  if (now.term == held && IsOurs(who, now)) {
    rule.swap = true;
    // The term stays, and is the peer's by its name: that node asks for one of its own before it
    // does anything in it, and says its host then.
    rule.put.term = held;
    rule.put.holder = who.peer;
    rule.put.build = who.build;
    rule.answer = {Verdict::kYes, rule.put, "the term was given back"};
    return rule;
  }
  const bool given = now.term == held && now.holder == who.peer;
  rule.answer = {given ? Verdict::kYes : Verdict::kNo, now,
                 given ? "the term was given back already" : "the record is not this node's"};
  return rule;
}

}  // namespace romulus::failover

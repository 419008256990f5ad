// One event being handled by the role machine: the state as it becomes, and the actions so far. The
// functions named after roles are the machine (role_primary.cc, role_secondary.cc); the small ones
// below are its vocabulary. Included by role_*.cc alone; one object per event.
#ifndef ROMULUS_FAILOVER_ROLE_STEP_H_
#define ROMULUS_FAILOVER_ROLE_STEP_H_

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "failover/role_machine.h"

namespace romulus::failover {

class Step {
 public:
  Step(const Policy& policy, const RoleState& state, const Event& event)
      : policy_(policy), state_(state), event_(event) {}

  Transition Run();

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

  void Common();
  void StartPrimary();
  void Shutdown();
  void Fence(Term term, absl::string_view reason);

  // --- the arbiter

  void Ask(ClaimAction action, Term expected, Term wanted, absl::string_view reason);
  void Answered();
  absl::string_view WithoutArbiter(const ArbiterClaim& claim) const;
  void VoidClaim();
  // The open claim is not wanted any more.
  void Withdraw(absl::string_view reason);
  void Withdrawn();
  void ClaimAgain(absl::string_view reason);
  void Overruled(absl::string_view reason);
  // The record may be ours although there is nothing here to go on from.
  void GiveBack();
  void ArbiterYes(const ArbiterClaim& claim, const std::string& reason);
  void ArbiterNo(const ArbiterClaim& claim, const std::string& reason);
  // After an operator's force: what runs here is to be the arbiter's word as well.
  void TellArbiter();
  void AskAgain(const ArbiterClaim& claim, const std::string& reason);
  // The arbiter must be asked before anything follows from this event.
  bool AsksFirst() const { return policy_.arbiter && !event_.force; }

  // --- the second path

  void SecondHeard();
  void SecondSilent();
  // True if the secondary can be asked there, and its word will do.
  bool CanAskRelease() const;
  void AskRelease(absl::string_view reason);
  void Released();
  void LosePrimary(absl::string_view reason);
  void ReleaseAsked();

  // --- primary

  void Primary();
  void EndedPrimary();
  void Refused();
  void MeetPrimary();
  void AskWhoIsOver(absl::string_view what);
  void PrimaryConnected();
  void PrimaryAcked();
  void GoSolo(absl::string_view reason);
  void RunAlone(absl::string_view reason);
  void HoldAndAsk(absl::string_view reason);
  void Reconnect(bool later = false);
  void LoseSecondary(absl::string_view reason);
  void PrimaryGoodbye();
  void GuestStopped();
  void Unprotect();
  void EndProtection();

  // --- switchover

  void BeginSwitchover();
  bool HandingOver();  // whether there is no more to the event
  bool HandingOverGoodbye();
  bool HeardOfAnother();
  void HoldOffered(absl::string_view why);
  void MeetWhoWasOffered();
  void GoOn(absl::string_view why);
  void LoseOffered(absl::string_view reason);
  void OfferFailed();
  void TakeHandOver();
  void AnswerHandOver();
  void HandOverFailed();
  void SettleHandOver();
  void RefuseHandOver(absl::string_view why);

  // --- secondary

  void Secondary();
  void SecondaryConnected();
  void StartPromotion(absl::string_view reason);
  void PromoteIn(Term term, absl::string_view reason);
  void NothingToPromote(absl::string_view reason);
  void SecondaryLinkClosed();
  std::string Advice(absl::string_view reason) const;
  void SecondaryPeerSilent();
  void StreamReset(absl::string_view reason);
  void SecondaryGoodbye();
  void DropReplica();
  void NothingToClaim();
  void PromotionDone();
  void PromotionFailed();
  void OperatorFailover();

  const Policy& policy_;
  RoleState state_;
  const Event& event_;
  std::vector<Action> actions_;
};

}  // namespace romulus::failover

#endif  // ROMULUS_FAILOVER_ROLE_STEP_H_

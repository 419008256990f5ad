#include "sim/node.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "sim/timing.h"

namespace romulus::sim {
namespace {

using failover::ActionKind;
using failover::EventKind;
using failover::Mode;
using failover::Role;

failover::FailureDetectorOptions Detector() {
  return {.interval_ns = 100 * kMillisecond,
          .threshold_ns = 400 * kMillisecond,
          .tick_ns = kTickNs,
          .stall_ns = 4 * kTickNs};
}

}  // namespace

Node::Node(const Parts& parts)
    : parts_(parts),
      role_(parts.policy),
      detector_(Detector()),
      control_(parts.scheduler, process_),
      checkpoint_(parts.scheduler, process_),
      vcpu_(parts.scheduler, process_),
      helper_(parts.scheduler, process_) {
  if (parts_.quorum != nullptr) {
    const failover::ArbiterIdentity who = {.vm_name = "sim",
                                           .vm_uuid = "sim-uuid",
                                           .node = NodeName(parts_.index),
                                           .peer = NodeName(1 - parts_.index),
                                           .build = "sim"};
    arbiter_ = std::make_unique<SimArbiter>(parts_.index, who, parts_.quorum, parts_.scheduler,
                                            &control_, parts_.tally);
  }
  const auto heard = [this] { last_sign_ns_ = parts_.clock->NowNs(); };
  HelloFacts facts = Facts();
  facts.plays_secondary = !parts_.start_as_primary;
  facts.holds = v1::HOLDS_UNSPECIFIED;
  secondary_ = std::make_unique<Secondary>(
      Secondary::Parts{
          .node = parts_.index,
          .scheduler = parts_.scheduler,
          .process = process_,
          .network = parts_.network,
          .oracle = parts_.oracle,
          .pools = parts_.pools,
          .clock = parts_.clock,
          .control = &control_,
          .listener = this,
          .heard = heard,
          .prepare =
              [this](std::shared_ptr<memory::GuestMemory> memory) {
                return std::make_shared<Host>(HostParts(), std::move(memory));
              },
          .solo_allowed = parts_.policy.on_secondary_lost == failover::OnSecondaryLost::kSolo},
      std::move(facts));
  primary_ = std::make_unique<Primary>(
      Primary::Parts{.node = parts_.index,
                     .scheduler = parts_.scheduler,
                     .process = process_,
                     .network = parts_.network,
                     .oracle = parts_.oracle,
                     .tally = parts_.tally,
                     .clock = parts_.clock,
                     .control = &control_,
                     .listener = this,
                     .heard = heard,
                     .let_others_run = parts_.let_others_run,
                     .release_before_ack = parts_.broken == Broken::kReleaseBeforeAck});
  failover::Event event{};
  event.kind = EventKind::kStartSecondary;
  if (parts_.start_as_primary) {
    host_ = std::make_shared<Host>(HostParts(), parts_.pools->Memory());
    host_->Boot(parts_.life);
    event.kind = EventKind::kStartPrimary;
    event.record = parts_.record_at_start;
  }
  Handle(std::move(event)).IgnoreError();
  Tick();
  if (host_ == nullptr) return;
  ROMULUS_CHECK(host_->Start().ok());
  GuestTurn();
  CheckpointTurn();
}

Node::~Node() { process_->alive = false; }

Host::Parts Node::HostParts() {
  return {.node = parts_.index,
          .pools = parts_.pools,
          .oracle = parts_.oracle,
          .clock = parts_.clock,
          .on_checkpoint_failed =
              [this](EpochId, const absl::Status&) {
                ++parts_.tally->epochs_aborted;
                control_.Post([] {});
              },
          .on_gave_up =
              [this](const absl::Status& why) {
                control_.Post([this, detail = why.ToString()] {
                  failover::Event event{};
                  event.kind = EventKind::kProtectionFailed;
                  event.detail = detail;
                  Handle(std::move(event)).IgnoreError();
                });
              }};
}

absl::Status Node::Handle(failover::Event event) {
  const failover::RoleState before = role_.state();
  const std::vector<failover::Action> actions = role_.Handle(event, parts_.clock->NowNs());
  secondary_->SetFacts(Facts());
  const failover::RoleState& now = role_.state();
  if (parts_.trace) TraceEvent(event, before);
  parts_.oracle->Entered(parts_.index, before, now);
  if (before.mode != now.mode && now.mode == Mode::kFenced && parts_.policy.arbiter_keeps_record) {
    control_.Post([this] { begins_anew_ = exit_ = true; });
  }
  NoteSwitchover(before);
  absl::Status refused;
  for (const failover::Action& action : actions) {
    if (action.kind == ActionKind::kRefuse) {
      refused = action.status;
    } else {
      if (parts_.trace) Trace(absl::StrCat("  ", std::string(failover::ActionName(action.kind))));
      Execute(action);
    }
  }
  return refused;
}

void Node::TraceEvent(const failover::Event& event, const failover::RoleState& before) const {
  const failover::RoleState& now = role_.state();
  failover::RoleState rest = before;
  rest.committed_epoch = now.committed_epoch;
  if (rest == now) return;  // one more epoch: there are many
  Trace(absl::StrCat(failover::EventName(event.kind), ": ", failover::RoleName(now.role), " ",
                     failover::ModeName(now.mode), ", term ", now.term.value(), ", epoch ",
                     now.committed_epoch.value(), now.output_open ? ", open" : "", " (", now.reason,
                     ")"));
}

void Node::Execute(const failover::Action& action) {
  switch (action.kind) {
    case ActionKind::kConnect:
      connecting_ = true;
      backoff_ns_ = 0;
      ++connect_generation_;
      if (!action.later) return Connect();
      return control_.PostAfter(kReconnectMaxNs, [this, generation = connect_generation_] {
        if (generation == connect_generation_) Connect();
      });
    case ActionKind::kStopConnecting:
      connecting_ = false;
      ++connect_generation_;
      return;
    case ActionKind::kStartSync:
      if (host_ == nullptr) return;
      if (role_.state().output_open) host_->OpenOutput();
      last_epoch_ = false;  // that of a switchover
      return primary_->StartSync(host_, action.term);
    case ActionKind::kOpenOutput:
      if (host_ != nullptr) host_->OpenOutput();
      return;
    case ActionKind::kHoldOutput:
      if (host_ != nullptr) host_->HoldOutput();
      return;
    case ActionKind::kDiscardOutput:
      if (host_ != nullptr) host_->DiscardOutput();
      return;
    case ActionKind::kStopGuest:
      if (host_ != nullptr) host_->Stop();
      return;
    case ActionKind::kPauseGuest:
    case ActionKind::kResumeGuest:
      return helper_.Post([host = host_, paused = action.kind == ActionKind::kPauseGuest] {
        if (host != nullptr) host->SetPausedByOperator(paused);
      });
    case ActionKind::kStopEpochs:
      return primary_->StopEpochs(host_);
    case ActionKind::kCloseLink:
      return CloseLinks(action);
    case ActionKind::kAskUnprotect:
      return AskUnprotect();
    case ActionKind::kPromote:
      return secondary_->Promote(action.term);
    case ActionKind::kClaim:
      return Claim(action.claim);
    case ActionKind::kWithdraw:
      ask_backoff_ns_ = 0;
      return control_.Post([this, claim = action.claim] { Withdraw(claim); });
    case ActionKind::kGiveBack:
      return control_.Post([this, term = action.term] { GiveBack(term); });
    case ActionKind::kDropReplica:
      if (secondary_->primary_is_coming() && !secondary_->store().sealed()) return;
      return secondary_->NewReplica();
    case ActionKind::kBeginAnew:
      return control_.Post([this] { begins_anew_ = exit_ = true; });
    case ActionKind::kCutLast:
      return CutLast();
    case ActionKind::kOfferHandOver:
      return OfferHandOver();
    case ActionKind::kResumeEpochs:
      last_epoch_ = false;
      return;
    case ActionKind::kRefuseHandOver:
      return secondary_->RefuseHandOver(action.detail);
    case ActionKind::kExit:
      exit_ = true;
      return;
    case ActionKind::kRefuse:
      return;
  }
}

void Node::Connect() {
  if (host_ == nullptr || !connecting_) return;
  wire::HelloInput hello;
  hello.machine = SimMachine();
  hello.node_name = NodeName(parts_.index);
  hello.build = "sim";
  hello.max_frame_bytes = codec::kDefaultMaxBodyBytes;
  hello.current_term = role_.state().term;
  hello.stream_term = role_.ProposedTerm();
  hello.lineage = role_.state().lineage;
  primary_->Connect(std::move(hello));
}

void Node::RetryConnect() {
  if (!connecting_) return;
  backoff_ns_ = backoff_ns_ == 0 ? kReconnectMinNs : std::min(2 * backoff_ns_, kReconnectMaxNs);
  control_.PostAfter(backoff_ns_, [this, generation = connect_generation_] {
    if (generation == connect_generation_) Connect();
  });
}

void Node::CloseLinks(const failover::Action& action) {
  v1::Goodbye::Reason reason = v1::Goodbye::REASON_PROTOCOL;
  switch (action.goodbye) {
    case failover::GoodbyeReason::kShutdown:
      reason = v1::Goodbye::REASON_SHUTDOWN;
      break;
    case failover::GoodbyeReason::kGuestFinished:
      reason = v1::Goodbye::REASON_GUEST_FINISHED;
      break;
    case failover::GoodbyeReason::kPromoted:
      reason = v1::Goodbye::REASON_PROMOTED;
      break;
    case failover::GoodbyeReason::kUnprotect:
      reason = v1::Goodbye::REASON_UNPROTECT;
      break;
    case failover::GoodbyeReason::kHandOverFailed:
      reason = v1::Goodbye::REASON_HAND_OVER_FAILED;
      break;
    default:
      break;
  }
  const absl::Status why = absl::CancelledError(action.detail);
  std::optional<Primary::Farewell> farewell;
  if (action.say_goodbye) farewell = Primary::Farewell{reason, action.detail};
  primary_->Close(std::move(farewell), why);
  secondary_->CloseStream(action.say_goodbye ? std::optional(reason) : std::nullopt,
                          role_.state().newest_term, action.detail);
}

void Node::AskUnprotect() {
  primary_->AskUnprotect();
  control_.PostAfter(kUnprotectTimeoutNs, [this, generation = ++unprotect_generation_] {
    if (generation != unprotect_generation_) return;
    failover::Event event{};
    event.kind = EventKind::kUnprotectUnanswered;
    Handle(std::move(event)).IgnoreError();
  });
}

void Node::Claim(const failover::ArbiterClaim& claim) {
  const bool promotes = claim.action == failover::ClaimAction::kPromote;
  failover::Event event{};
  event.term = claim.wanted;
  if (promotes && parts_.broken == Broken::kPromoteWithoutArbiter) {
    event.kind = EventKind::kArbiterYes;
    return control_.Post([this, event] { Handle(event).IgnoreError(); });
  }
  if (promotes && secondary_->primary_is_coming()) {
    event.kind = EventKind::kClaimVoid;
    return control_.Post([this, event] { Handle(event).IgnoreError(); });
  }
  ask_backoff_ns_ = 0;
  control_.Post([this, claim] { Ask(claim); });
}

void Node::Ask(const failover::ArbiterClaim& claim) {
  if (arbiter_ == nullptr || role_.state().claim != claim || role_.state().withdrawing) return;
  arbiter_->Claim(claim, absl::Nanoseconds(kArbiterTimeoutNs),
                  [this, claim, asked = ++asked_](const failover::ArbiterAnswer& answer) {
                    if (asked == asked_) OnArbiterAnswer(claim, answer);
                  });
}

void Node::Withdraw(const failover::ArbiterClaim& claim) {
  if (arbiter_ == nullptr || role_.state().claim != claim || !role_.state().withdrawing) return;
  arbiter_->Withdraw(claim, absl::Nanoseconds(kArbiterTimeoutNs),
                     [this, claim, asked = ++asked_](const failover::ArbiterAnswer& answer) {
                       if (asked == asked_) OnWithdrawal(claim, answer);
                     });
}

void Node::AskLater(const failover::ArbiterClaim& claim, bool withdrawing) {
  ask_backoff_ns_ = std::clamp(2 * ask_backoff_ns_, kAskMinNs, kAskMaxNs);
  control_.PostAfter(ask_backoff_ns_, [this, claim, withdrawing, asked = asked_] {
    if (asked != asked_) return;
    if (withdrawing) {
      Withdraw(claim);
    } else {
      Ask(claim);
    }
  });
}

void Node::GiveBack(Term held) {
  arbiter_->GiveBack(
      held, absl::Nanoseconds(kArbiterTimeoutNs),
      [this, held](const failover::ArbiterAnswer& answer) {
        if (answer.verdict == failover::Verdict::kYes || answer.verdict == failover::Verdict::kNo) {
          return;
        }
        control_.PostAfter(kAskMinNs, [this, held] { GiveBack(held); });
      });
}

void Node::OnWithdrawal(const failover::ArbiterClaim& claim,
                        const failover::ArbiterAnswer& answer) {
  if (role_.state().claim != claim || !role_.state().withdrawing) return;
  failover::Event event{};
  event.kind = EventKind::kArbiterSilent;
  event.detail = answer.detail;
  event.term = claim.wanted;
  event.record = answer.record;
  if (answer.verdict == failover::Verdict::kYes) {
    event.kind = EventKind::kClaimWithdrawn;
  } else if (answer.verdict == failover::Verdict::kNo) {
    event.kind = EventKind::kArbiterYes;
  } else {
    AskLater(claim, /*withdrawing=*/true);
  }
  if (event.kind != EventKind::kArbiterSilent) ask_backoff_ns_ = 0;
  Handle(std::move(event)).IgnoreError();
}

void Node::OnArbiterAnswer(const failover::ArbiterClaim& claim,
                           const failover::ArbiterAnswer& answer) {
  if (role_.state().claim != claim) return;
  failover::Event event{};
  event.kind = EventKind::kArbiterSilent;
  event.detail = answer.detail;
  event.term = claim.wanted;
  event.record = answer.record;
  event.ours = answer.record.holder == NodeName(parts_.index);
  event.lost = answer.lost;
  if (answer.verdict == failover::Verdict::kYes) {
    event.kind = EventKind::kArbiterYes;
  } else if (answer.verdict == failover::Verdict::kNo) {
    event.kind = EventKind::kArbiterNo;
  } else {
    AskLater(claim, /*withdrawing=*/false);
  }
  if (event.kind != EventKind::kArbiterSilent) ask_backoff_ns_ = 0;
  Handle(std::move(event)).IgnoreError();
}

void Node::ResetDetector() {
  last_sign_ns_ = parts_.clock->NowNs();
  detector_.Reset(last_sign_ns_);
}

void Node::Tick() {
  const uint64_t now_ns = parts_.clock->NowNs();
  const bool was_lost = detector_.life() == failover::PeerLife::kLost;
  failover::Event event{};
  if (last_sign_ns_ > last_sign_seen_ns_) {
    last_sign_seen_ns_ = last_sign_ns_;
    if (was_lost) {
      detector_.Reset(now_ns);
      event.kind = EventKind::kPeerHeard;
      Handle(event).IgnoreError();
    } else {
      detector_.OnSignOfLife(last_sign_ns_);
    }
  }
  const failover::RoleState& state = role_.state();
  const bool matters = state.peer_connected || (state.role == Role::kSecondary && state.committed);
  if (detector_.Tick(now_ns) == failover::PeerLife::kLost && !was_lost && matters) {
    event.kind = EventKind::kPeerSilent;
    Handle(event).IgnoreError();
  }
  if (!exit_) control_.PostAfter(detector_.UntilNextTickNs(), [this] { Tick(); });
}

// --- the guest's threads

void Node::GuestTurn() {
  host_->Step(parts_.scheduler->Number(), parts_.scheduler->Chance(64));
  vcpu_.PostAfter(parts_.scheduler->Between(kGuestMinNs, kGuestMaxNs), [this] { GuestTurn(); });
}

void Node::CheckpointTurn() {
  if (!last_epoch_) {
    if (host_->staging_exhausted()) primary_->SendAllNow();
    host_->loop().Turn();
  }
  checkpoint_.PostAfter(parts_.scheduler->Between(kLookMinNs, kLookMaxNs),
                        [this] { CheckpointTurn(); });
}

void Node::FailCheckpoint(absl::string_view where, uint64_t skip) {
  if (host_ == nullptr) return;
  host_->failpoints().Arm(where, /*count=*/1, skip);
  if (parts_.broken == Broken::kForgetPutBack) {
    host_->failpoints().Arm("tracker.forget_put_back", /*count=*/1000);
  }
}

// --- the world's hands

void Node::Operator(EventKind kind, bool force, bool is_risk) {
  control_.Post([this, kind, force, is_risk] {
    failover::Event event{};
    event.kind = kind;
    event.force = force;
    const bool risk_before = parts_.oracle->risk_taken();
    if (is_risk) parts_.oracle->SetRiskTaken(true);
    const absl::Status refused = Handle(std::move(event));
    if (refused.ok()) return;
    parts_.oracle->SetRiskTaken(risk_before);
    Trace(absl::StrCat("refused: ", refused.message()));
  });
}

void Node::FalseAlarm() {
  control_.Post([this] {
    failover::Event event{};
    event.kind = EventKind::kPeerSilent;
    Handle(event).IgnoreError();
    if (parts_.scheduler->Chance(2)) return;
    event.kind = EventKind::kPeerHeard;
    Handle(event).IgnoreError();
  });
}

void Node::StopFor(uint64_t ns) { process_->stopped_until_ns = parts_.scheduler->now_ns() + ns; }

void Node::Sigterm() {
  control_.Post([this] {
    if (std::exchange(shutting_down_, true)) {
      exit_ = true;  // the second ends it at once
      return;
    }
    const failover::RoleState& state = role_.state();
    if (state.hand_over == failover::HandOver::kDraining) return;  // OnLastEpoch goes on
    if (state.role != Role::kPrimary || state.mode != Mode::kProtected || host_ == nullptr ||
        state.hand_over != failover::HandOver::kNone) {
      return FinishShutdown();
    }
    host_->SetPausedByOperator(true);
    AfterLastEpoch([this] { FinishShutdown(); });
  });
}

void Node::FinishShutdown() {
  failover::Event event{};
  event.kind = EventKind::kShutdown;
  Handle(std::move(event)).IgnoreError();
  exit_ = true;
}

void Node::GuestEnds() {
  if (host_ == nullptr || !host_->guest().runs()) return;
  host_->guest().Stop();
  control_.Post([this] {
    failover::Event event{};
    event.kind = EventKind::kGuestStopped;
    event.detail = "power_off";
    GuestStopped(event);
  });
}

void Node::GuestStopped(const failover::Event& event) {
  if (role_.state().hand_over != failover::HandOver::kNone) {
    stopped_meanwhile_ = event;
    return;
  }
  if (!role_.state().sync_done) {
    Handle(event).IgnoreError();
    return;
  }
  AfterLastEpoch([this, event] { Handle(event).IgnoreError(); });
}

void Node::AfterLastEpoch(std::function<void()> then) {
  helper_.Post([this, then = std::move(then)] {
    if (host_->staging_exhausted()) primary_->SendAllNow();
    host_->loop().Request();
    host_->loop().Turn();
    last_epoch_ = true;
    AwaitLast(parts_.clock->NowNs() + kFlushTimeoutNs, then);
  });
}

void Node::AwaitLast(uint64_t deadline_ns, std::function<void()> then) {
  const epoch::CheckpointLoop& loop = host_->loop();
  if (loop.last_acked() >= loop.last_cut() || parts_.clock->NowNs() > deadline_ns) {
    return control_.Post(std::move(then));
  }
  helper_.PostAfter(5 * kMillisecond,
                    [this, deadline_ns, then = std::move(then)] { AwaitLast(deadline_ns, then); });
}

HelloFacts Node::Facts() const {
  const failover::RoleState& state = role_.state();
  HelloFacts facts;
  facts.newest_term = state.newest_term;
  facts.lineage = state.lineage;
  facts.instance = parts_.instance;
  if (state.role == Role::kPrimary) {
    if (state.guest_running) facts.holds = v1::HOLDS_GUEST;
  } else if (state.committed || state.peer_connected || state.mode == Mode::kPromoting) {
    facts.holds = v1::HOLDS_REPLICA;
  }
  facts.plays_secondary = state.role == Role::kSecondary && state.mode != Mode::kPromoting &&
                          state.mode != Mode::kFenced && state.mode != Mode::kFinished &&
                          !state.claim && !shutting_down_;
  if (!facts.plays_secondary) facts.role_detail = std::string(failover::ModeName(state.mode));
  return facts;
}

}  // namespace romulus::sim

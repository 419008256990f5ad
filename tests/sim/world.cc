#include "sim/world.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "sim/timing.h"

namespace romulus::sim {
namespace {

using failover::EventKind;
using failover::Mode;
using failover::Role;

constexpr uint64_t kLookEveryNs = 10 * kMillisecond;

}  // namespace

World::World(const Options& options, Pools* pools, Tally* tally)
    : options_(options),
      pools_(pools),
      tally_(tally),
      scheduler_(options.seed),
      oracle_(&scheduler_, tally),
      network_(&scheduler_, tally) {
  constexpr Rules kDrawn[] = {Rules::kAutomatic,  Rules::kAutomatic, Rules::kManualHold,
                              Rules::kManualSolo, Rules::kArbiter,   Rules::kArbiter};
  rules_ = kDrawn[scheduler_.Pick(std::size(kDrawn))];
  careless_ = scheduler_.Chance(8);
  if (options_.broken == Broken::kPromoteThoughPrimaryAnswers) rules_ = Rules::kManualSolo;
  if (options_.broken == Broken::kPromoteWithoutArbiter) rules_ = Rules::kArbiter;
  for (auto& clock : clocks_) {
    const int64_t drift_ppm =
        scheduler_.Chance(2) ? 0 : static_cast<int64_t>(scheduler_.Pick(100'000)) - 50'000;
    if (drift_ppm != 0) tally_->Count(Fault::kClockDrift);
    clock = std::make_unique<HostClock>(&scheduler_, scheduler_.Pick(uint64_t{1} << 50), drift_ppm);
  }
}

World::~World() {
  for (int index = 0; index < 2; ++index) {
    if (nodes_[index] != nullptr) Kill(index, false);
  }
  nesting_ = 0;
  Bury();
}

void World::Trace(int node, const std::string& what) {
  if (!options_.trace) return;
  options_.trace(absl::StrFormat("%9.3f ms  %s  %s",
                                 static_cast<double>(scheduler_.now_ns()) / kMillisecond,
                                 node < 0 ? "world" : absl::StrCat("node ", node), what));
}

std::string World::Run() {
  ++tally_->schedules;
  constexpr absl::string_view kRuleNames[] = {"automatic", "manual, hold", "manual, solo",
                                              "arbiter"};
  Trace(-1, absl::StrCat("seed ", options_.seed, ", ", kRuleNames[static_cast<size_t>(rules_)],
                         careless_ ? ", careless operator" : ""));
  Start(0, /*as_primary=*/true, /*as_told=*/true);
  Start(1, /*as_primary=*/false, /*as_told=*/true);
  RunUntil(scheduler_.Between(20, 400) * kMillisecond);
  const uint64_t faults = options_.faults ? scheduler_.Pick(9) : 0;
  std::vector<uint64_t> at_ns;
  for (uint64_t i = 0; i < faults; ++i) at_ns.push_back(scheduler_.Pick(kFaultsEndNs));
  std::sort(at_ns.begin(), at_ns.end());
  for (const uint64_t when_ns : at_ns) {
    if (Over()) break;
    if (when_ns > scheduler_.now_ns()) RunUntil(when_ns);
    if (Over()) break;
    DoFault(static_cast<Fault>(scheduler_.Pick(kFaultCount)), static_cast<int>(scheduler_.Pick(2)));
  }
  if (!Over()) RunUntil(kFaultsEndNs);
  faults_over_ = true;
  network_.Heal();
  quorum_.Mend();
  Trace(-1, "heals");
  while (!Over() && scheduler_.now_ns() < kEndNs) {
    Repair();
    RunUntil(std::min(kEndNs, scheduler_.now_ns() + kRepairEveryNs));
    if (InStep() && scheduler_.now_ns() > kFaultsEndNs + 2 * kRepairEveryNs) break;
  }
  if (!Over()) CheckEnd();
  tally_->events += scheduler_.events();
  return oracle_.violation();
}

void World::RunUntil(uint64_t until_ns) {
  ++nesting_;
  scheduler_.RunUntil(until_ns, [this] {
    Check();
    return Over();
  });
  --nesting_;
  Bury();
}

void World::Bury() {
  if (nesting_ == 0) graves_.clear();
}

failover::Policy World::PolicyOf(int index) const {
  failover::Policy policy;
  policy.auto_failover = rules_ == Rules::kAutomatic || rules_ == Rules::kArbiter;
  policy.arbiter = policy.arbiter_keeps_record = rules_ == Rules::kArbiter;
  policy.on_secondary_lost = rules_ == Rules::kManualSolo ? failover::OnSecondaryLost::kSolo
                                                          : failover::OnSecondaryLost::kHold;
  policy.node_index = static_cast<uint64_t>(index);
  if (options_.broken == Broken::kPromoteThoughPrimaryAnswers) policy.auto_failover = true;
  return policy;
}

void World::Start(int index, bool as_primary, bool as_told) {
  if (rules_ == Rules::kArbiter && !as_told) {
    if (!quorum_.Reaches(index)) return Trace(index, "cannot start: the arbiter does not answer");
    as_primary = quorum_.record.holder == NodeName(index);
  }
  Trace(index, as_primary ? "starts as primary" : "starts as secondary");
  network_.HostIsBack(index);
  host_down_[index] = false;
  Node::Parts parts;
  parts.index = index;
  parts.start_as_primary = as_primary;
  parts.life = as_primary ? ++lives_ : 0;
  parts.instance = ++instances_;
  parts.policy = PolicyOf(index);
  if (rules_ == Rules::kArbiter) {
    parts.quorum = &quorum_;
    parts.record_at_start = quorum_.record;
  }
  parts.broken = options_.broken;
  parts.scheduler = &scheduler_;
  parts.network = &network_;
  parts.oracle = &oracle_;
  parts.tally = tally_;
  parts.pools = pools_;
  parts.clock = clocks_[index].get();
  parts.let_others_run = [this](uint64_t ns) { RunUntil(scheduler_.now_ns() + ns); };
  if (options_.trace)
    parts.trace = [this](int node, const std::string& what) { Trace(node, what); };
  over_and_out_[index] = false;
  nodes_[index] = std::make_unique<Node>(parts);
}

void World::Kill(int index, bool host_too) {
  if (nodes_[index] == nullptr) return;
  // A guest of memory alone, promoted without an arbiter: with its process goes all that knows of
  // the promotion, and the old primary, whose output is held, goes on with the next secondary.
  if (rules_ != Rules::kArbiter && nodes_[index]->store().sealed() && Runs(1 - index) &&
      !oracle_.risk_taken()) {
    ++tally_->forgotten;
    oracle_.SetRiskTaken(true);
  }
  Trace(index, host_too ? "host dies" : "process ends");
  host_down_[index] = host_too;
  network_.Kill(index, host_too);
  nodes_[index]->Die();
  // It may stand in a call of its own, which must come to an end first.
  graves_.push_back(std::move(nodes_[index]));
  unwell_ns_[index] = 0;
  Bury();
}

bool World::Runs(int index) const {
  return nodes_[index] != nullptr && nodes_[index]->state().guest_running;
}

bool World::Holds(int index) const {
  return nodes_[index] != nullptr &&
         (nodes_[index]->state().committed || nodes_[index]->state().mode == Mode::kPromoting);
}

// Never boots a second guest beside one that lives, or may yet: a secondary in a full sync has not
// always read all that a dead primary sent, which may end in an epoch.
void World::Restart(int index) {
  if (nodes_[index] != nullptr) return;
  tally_->Count(Fault::kRestart);
  const Node* const other = nodes_[1 - index].get();
  const bool may_hold =
      Holds(1 - index) || (other != nullptr && other->state().mode == Mode::kSyncing);
  Start(index, /*as_primary=*/!Runs(1 - index) && !may_hold && scheduler_.Chance(2));
}

void World::DoFault(Fault fault, int index) {
  Node* const node = nodes_[index].get();
  const uint64_t now_ns = scheduler_.now_ns();
  const uint64_t a_while_ns = scheduler_.Between(20, 500) * kMillisecond;
  const auto count = [&] {
    tally_->Count(fault);
    Trace(index, absl::StrCat("fault: ", kFaultNames[static_cast<size_t>(fault)]));
  };
  switch (fault) {
    case Fault::kProcessDies:
    case Fault::kHostDies:
      if (node == nullptr) return Restart(index);
      count();
      return Kill(index, fault == Fault::kHostDies);
    case Fault::kRestart:
      return Restart(index);
    case Fault::kPartition:
    case Fault::kPartitionOneWay:
      count();
      network_.Cut(index);
      if (fault == Fault::kPartition) network_.Cut(1 - index);
      return scheduler_.After(a_while_ns, [this] { network_.Heal(); });
    case Fault::kLinkReset:
      count();
      return network_.Reset();
    case Fault::kDelay:
      count();
      return network_.Slow(index, now_ns + a_while_ns, 100 * kMillisecond);
    case Fault::kAckLate:
      // Towards whoever is the primary.
      count();
      return network_.Slow(Runs(0) ? 0 : 1, now_ns + a_while_ns, 200 * kMillisecond);
    case Fault::kDouble:
      if (network_.MangleOne(Network::Mangle::kDouble)) count();
      return;
    case Fault::kDrop:
      if (network_.MangleOne(Network::Mangle::kDrop)) count();
      return;
    case Fault::kSwap:
      if (network_.MangleOne(Network::Mangle::kSwap)) count();
      return;
    case Fault::kSlowDisk:
      if (node == nullptr) return;
      count();
      network_.Unread(index, now_ns + a_while_ns);
      return node->SlowDisk(now_ns + a_while_ns);
    case Fault::kStopped:
      if (node == nullptr) return;
      count();
      return node->StopFor(a_while_ns);
    case Fault::kFalseAlarm:
      if (node == nullptr) return;
      count();
      return node->FalseAlarm();
    case Fault::kCheckpointFails: {
      constexpr absl::string_view kWhere[] = {"checkpoint.copy", "checkpoint.capture",
                                              "checkpoint.cut", "tracker.harvest", "tracker.reset"};
      if (!Runs(index)) return;
      count();
      return node->FailCheckpoint(kWhere[scheduler_.Pick(std::size(kWhere))], scheduler_.Pick(2));
    }
    case Fault::kSigterm:
      if (node == nullptr) return;
      count();
      return node->Sigterm();
    case Fault::kGuestEnds:
      if (!Runs(index) || !scheduler_.Chance(4)) return;
      count();
      return node->GuestEnds();
    case Fault::kArbiterMinority:
    case Fault::kArbiterOutage:
    case Fault::kArbiterCutOff:
    case Fault::kAnswerLost:
      return DoArbiter(fault, index);
    case Fault::kOldStream:
    case Fault::kClockDrift:
      return;  // they come by themselves
    default:
      return DoOperator(fault, index);
  }
}

void World::DoArbiter(Fault fault, int index) {
  if (rules_ != Rules::kArbiter) return;
  Trace(index, absl::StrCat("fault: ", kFaultNames[static_cast<size_t>(fault)]));
  if (fault == Fault::kAnswerLost) {
    ++quorum_.answers_to_lose;  // counted when it is
    return;
  }
  tally_->Count(fault);
  const int member = static_cast<int>(scheduler_.Pick(kMembers));
  if (fault == Fault::kArbiterCutOff) {
    quorum_.cut[index] = {true, true, true};
  } else if (scheduler_.Chance(2) && fault == Fault::kArbiterMinority) {
    quorum_.cut[index][member] = true;
  } else {
    quorum_.down[member] = true;
    if (fault == Fault::kArbiterOutage) quorum_.down[(member + 1) % kMembers] = true;
  }
  scheduler_.After(scheduler_.Between(20, 500) * kMillisecond, [this] { quorum_.Mend(); });
}

void World::DoOperator(Fault fault, int index) {
  Node* const node = nodes_[index].get();
  if (node == nullptr) return;
  // A word that the arbiter would not give is never safe.
  const bool is_arbiters = rules_ == Rules::kArbiter;
  const bool other_is_dead = !Runs(1 - index) && !Holds(1 - index) && !is_arbiters;
  const auto say = [&](EventKind kind, bool force, bool is_safe) {
    if (!is_safe && !careless_) return;
    tally_->Count(fault);
    Trace(index, absl::StrCat("operator: ", kFaultNames[static_cast<size_t>(fault)]));
    node->Operator(kind, force, !is_safe);
  };
  switch (fault) {
    case Fault::kOpFailover:
      // Where a primary goes on alone, who promotes must know that it does not.
      return say(EventKind::kOpFailover, false, rules_ != Rules::kManualSolo || !Runs(1 - index));
    case Fault::kOpFailoverForced:
      return say(EventKind::kOpFailover, true, !Runs(1 - index) && !is_arbiters);
    case Fault::kOpUnprotect:
      return say(EventKind::kOpUnprotect, false, true);
    case Fault::kOpUnprotectForced:
      return say(EventKind::kOpUnprotect, true, other_is_dead);
    case Fault::kOpProtect:
      return say(EventKind::kOpProtect, false, true);
    case Fault::kOpSwitchover:
      // Whoever is the primary.
      if (!Runs(index) && Runs(1 - index)) return DoOperator(fault, 1 - index);
      return say(EventKind::kOpSwitchover, false, true);
    case Fault::kOpPause:
      say(EventKind::kOpPause, false, true);
      return scheduler_.After(scheduler_.Pick(200 * kMillisecond), [this, index] {
        if (nodes_[index] != nullptr) nodes_[index]->Operator(EventKind::kOpResume);
      });
    default:
      return;
  }
}

void World::BootAnew() {
  Kill(0, false);
  Kill(1, false);
  Start(1, /*as_primary=*/false, /*as_told=*/true);
  Start(0, /*as_primary=*/true, /*as_told=*/true);
}

void World::Repair() {
  for (int index = 0; index < 2; ++index) {
    Node* const node = nodes_[index].get();
    if (node == nullptr) continue;
    // A systemd unit would have started it again.
    if (node->state().mode == Mode::kFenced || node->state().mode == Mode::kFinished) {
      Kill(index, false);
    }
  }
  for (int index = 0; index < 2; ++index) {
    if (nodes_[index] != nullptr) continue;
    if (!Runs(1 - index) && !Holds(1 - index)) return BootAnew();
    Start(index, /*as_primary=*/false);
  }
  for (int index = 0; index < 2; ++index) {
    Node* const node = nodes_[index].get();
    if (node == nullptr) continue;
    const failover::RoleState& state = node->state();
    if (state.role == Role::kPrimary) {
      if (!state.protect_wanted) node->Operator(EventKind::kOpProtect);
      if (state.paused) node->Operator(EventKind::kOpResume);
      // Without an arbiter nobody but an operator knows what became of who died in a switchover.
      const bool unsure = state.hand_over == failover::HandOver::kUnsure && !state.claim;
      if (unsure && rules_ != Rules::kArbiter && !Runs(1 - index) && !Holds(1 - index)) {
        node->Operator(EventKind::kOpUnprotect, /*force=*/true);
      }
      continue;
    }
    if (Runs(1 - index)) continue;
    if (state.committed && state.mode == Mode::kDegraded) {
      node->Operator(EventKind::kOpFailover);
    } else if (!Holds(0) && !Holds(1) && index == 0) {
      BootAnew();
      return;
    }
  }
}

// --- what is judged after every event

void World::Check() {
  const failover::RoleState* const states[] = {
      nodes_[0] == nullptr ? nullptr : &nodes_[0]->state(),
      nodes_[1] == nullptr ? nullptr : &nodes_[1]->state()};
  oracle_.TwoNodes(states[0], states[1]);
  // What follows costs more and holds for longer.
  if (scheduler_.now_ns() < next_look_ns_) return;
  next_look_ns_ = scheduler_.now_ns() + kLookEveryNs;
  for (int index = 0; index < 2; ++index) {
    Node* const node = nodes_[index].get();
    if (node == nullptr) continue;
    CheckProtection(index);
    if (node->exited() && !over_and_out_[index]) {
      over_and_out_[index] = true;
      scheduler_.After(kMillisecond, [this, index, node] {
        if (nodes_[index].get() != node) return;
        const bool begins_anew = node->begins_anew();
        Kill(index, false);
        if (begins_anew) Start(index, /*as_primary=*/false, /*as_told=*/true);
      });
    }
    const failover::RoleState& state = node->state();
    if (state.role != Role::kSecondary || !state.committed || !node->quiet()) continue;
    const replica::ReplicaStatus status = node->store().status();
    if (status.state == replica::ReplicaState::kCommitted &&
        status.newest.epoch >= state.committed_epoch) {
      continue;
    }
    if (!state.peer_connected) continue;  // the new stream's Hello is on its way to be told
    oracle_.Violate("P8", index,
                    absl::StrCat("says that it holds epoch ", state.committed_epoch.value(),
                                 ", and ", status.detail));
  }
}

// Protected: the other node holds an epoch of this very term. It may be lost at any moment; that
// must be noticed in bounded time.
void World::CheckProtection(int index) {
  const Node& node = *nodes_[index];
  const failover::RoleState& state = node.state();
  uint64_t& since_ns = unwell_ns_[index];
  const Node* const other = nodes_[1 - index].get();
  bool held = true;
  if (state.role == Role::kPrimary && state.mode == Mode::kProtected) {
    held = false;
    if (other != nullptr) {
      const replica::ReplicaStatus status = other->store().status();
      held =
          status.newest.term == state.term && (status.state == replica::ReplicaState::kCommitted ||
                                               status.state == replica::ReplicaState::kPromoted);
    }
  }
  const uint64_t now_ns = scheduler_.now_ns();
  if (held || node.stopped_until_ns() > now_ns) {
    since_ns = 0;
  } else if (since_ns == 0) {
    since_ns = now_ns;
  } else if (now_ns - since_ns > kMayNotKnowNs) {
    oracle_.Violate(
        "P8", index,
        absl::StrCat("has called itself protected for ", (now_ns - since_ns) / kMillisecond,
                     " ms while nobody holds an epoch of its term"));
  }
}

bool World::InStep() const {
  for (const auto& node : nodes_) {
    if (node == nullptr) return false;
    const failover::RoleState& state = node->state();
    if (state.role == Role::kPrimary && state.mode == Mode::kProtected) return true;
  }
  return false;
}

void World::CheckEnd() {
  if (InStep()) {
    ++tally_->protected_at_end;
    return;
  }
  const auto name = [&](int index) {
    if (nodes_[index] == nullptr) return absl::StrCat("node ", index, " is down");
    const failover::RoleState& state = nodes_[index]->state();
    return absl::StrCat("node ", index, " ", std::string(failover::RoleName(state.role)), " ",
                        std::string(failover::ModeName(state.mode)), " in term ",
                        state.term.value(), " (", state.reason, ")");
  };
  oracle_.Violate("again", 0, absl::StrCat("is not protected again: ", name(0), "; ", name(1)));
}

}  // namespace romulus::sim

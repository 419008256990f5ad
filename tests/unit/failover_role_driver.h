// Drives a role machine in tests, with the events' boilerplate taken away.
#ifndef ROMULUS_TESTS_UNIT_FAILOVER_ROLE_DRIVER_H_
#define ROMULUS_TESTS_UNIT_FAILOVER_ROLE_DRIVER_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "failover/role_machine.h"

namespace romulus::failover {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using K = EventKind;
using A = ActionKind;

inline Policy Manual() { return {.on_secondary_lost = OnSecondaryLost::kSolo, .node_index = 0}; }
inline Policy Automatic() {
  return {.auto_failover = true, .on_secondary_lost = OnSecondaryLost::kHold, .node_index = 1};
}

// A machine with the events' boilerplate taken away.
class Driver {
 public:
  explicit Driver(const Policy& policy) : machine_(policy) {}

  std::vector<ActionKind> On(Event event) {
    actions_ = machine_.Handle(event, ++now_ns_);
    std::vector<ActionKind> kinds;
    for (const Action& action : actions_) kinds.push_back(action.kind);
    return kinds;
  }
  std::vector<ActionKind> On(EventKind kind, Term term = Term(), EpochId epoch = EpochId()) {
    Event event{};
    event.kind = kind;
    event.term = term;
    event.epoch = epoch;
    return On(event);
  }
  std::vector<ActionKind> Goodbye(GoodbyeReason reason, Term term = Term()) {
    Event event{};
    event.kind = K::kGoodbye;
    event.goodbye = reason;
    event.term = term;
    return On(event);
  }
  // Another node that runs a guest asks here.
  std::vector<ActionKind> OtherPrimary(Term term, const Lineage& lineage) {
    Event event{};
    event.kind = K::kOtherPrimary;
    event.term = term;
    event.lineage = lineage;
    return On(event);
  }
  std::vector<ActionKind> Refused(PeerHolds holds, const Lineage& lineage = {},
                                  Term term = Term()) {
    Event event{};
    event.kind = K::kPeerRefused;
    event.term = term;
    event.holds = holds;
    event.lineage = lineage;
    return On(event);
  }
  // The arbiter's, to the open claim; `now` is what its record says.
  std::vector<ActionKind> Answer(EventKind kind, Term now = Term(), bool ours = false) {
    Event event{};
    event.kind = kind;
    event.term = state().claim ? state().claim->wanted : Term();
    event.record.term = now;
    event.ours = ours;
    return On(event);
  }
  std::vector<ActionKind> Failover(bool force) {
    Event event{};
    event.kind = K::kOpFailover;
    event.force = force;
    return On(event);
  }

  Driver& Primary() {
    On(K::kStartPrimary);
    return *this;
  }
  // Started from disks that were protected.
  Driver& Held(const Lineage& lineage, Term newest = Term(32)) {
    Event event{};
    event.kind = K::kStartPrimary;
    event.term = newest;
    event.lineage = lineage;
    event.hold = true;
    On(event);
    return *this;
  }
  Driver& Syncing() {
    Primary();
    On(K::kPeerConnected, machine_.ProposedTerm());
    return *this;
  }
  Driver& SyncDone() {
    Syncing();
    On(K::kSyncDone, state().term);
    return *this;
  }
  Driver& Protected() {
    SyncDone();
    On(K::kEpochCommitted, state().term, EpochId(1));
    return *this;
  }
  Driver& Secondary() {
    On(K::kStartSecondary);
    return *this;
  }
  Driver& Receiving(Term term = Term(32)) {
    Secondary();
    On(K::kPeerConnected, term);
    return *this;
  }
  Driver& Holding(Term term = Term(32)) {
    Receiving(term);
    On(K::kEpochCommitted, term, EpochId(7));
    return *this;
  }

  const RoleState& state() const { return machine_.state(); }
  Mode mode() const { return state().mode; }
  const std::vector<Action>& actions() const { return actions_; }
  const Action& action(ActionKind kind) const {
    static const Action kNone{};
    for (const Action& action : actions_) {
      if (action.kind == kind) return action;
    }
    ADD_FAILURE() << "no action " << ActionName(kind);
    return kNone;
  }
  RoleMachine& machine() { return machine_; }

 private:
  RoleMachine machine_;
  std::vector<Action> actions_;
  uint64_t now_ns_ = 0;
};

}  // namespace romulus::failover

#endif  // ROMULUS_TESTS_UNIT_FAILOVER_ROLE_DRIVER_H_

// Sees everything and judges: what the nodes cannot know of each other is known here. Every promise
// that is broken ends the schedule with a sentence that carries its number.
//
//   P1  bytes leave only open, or with an epoch that a secondary had committed; the client, who
//   reads
//       all consoles by position, never sees a byte that contradicts an earlier one, nor a gap
//   P2  what is promoted is exactly the newest acked epoch: memory, machine and console
//   P3  never two nodes that run the guest in one term; never two that are heard
//   P5  what a secondary commits is, page by page, what the primary's memory was at that epoch
//   P8  who calls himself protected is so
#ifndef ROMULUS_TESTS_SIM_ORACLE_H_
#define ROMULUS_TESTS_SIM_ORACLE_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>

#include "failover/role_machine.h"
#include "replica/epoch_key.h"
#include "replica/replica_store.h"
#include "sim/guest.h"
#include "sim/scheduler.h"
#include "sim/tally.h"

namespace romulus::sim {

class Oracle {
 public:
  Oracle(Scheduler* scheduler, Tally* tally) : scheduler_(scheduler), tally_(tally) {}

  // An operator, or a policy, has taken the risk that two are heard or that something said is
  // undone: from now on the client's view proves nothing.
  void SetRiskTaken(bool taken) { risk_taken_ = taken; }
  bool risk_taken() const { return risk_taken_; }

  // The guest stands, its pages are copied.
  void Cut(const replica::EpochKey& key, const Cpu& cpu, const memory::GuestMemory& memory);
  void Committed(int node, const replica::EpochKey& key, const memory::GuestMemory& memory);
  void Acked(int node, const replica::EpochKey& key);
  // `solo_allowed`: the policy lets a primary be heard alone while a secondary holds an epoch.
  void Promoted(int node, const replica::PromotableEpoch& taken, const Cpu& cpu, bool solo_allowed);
  // `with`: the epoch whose ack let it out; none: output is open.
  void Said(int node, uint64_t life, uint64_t offset, absl::string_view bytes,
            std::optional<replica::EpochKey> with);
  void Entered(int node, const failover::RoleState& before, const failover::RoleState& now);
  void TwoNodes(const failover::RoleState* a, const failover::RoleState* b);

  void Violate(absl::string_view promise, int node, const std::string& what);
  const std::string& violation() const { return violation_; }

 private:
  struct Epoch {
    Snapshot snapshot;
    bool committed = false;
  };

  Scheduler* scheduler_;
  Tally* tally_;
  bool risk_taken_ = false;
  std::map<replica::EpochKey, Epoch> epochs_;
  std::deque<replica::EpochKey> order_;                 // of epochs_, as they were cut
  std::map<uint64_t, replica::EpochKey> newest_acked_;  // by life
  std::map<uint64_t, std::string> heard_;               // life -> what the client has seen
  std::map<uint64_t, int> ran_;                         // term -> node
  std::string violation_;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_ORACLE_H_

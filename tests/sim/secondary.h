// The node's door for a primary, as daemon/secondary.cc keeps it: sessions, replica store and
// promoter are the real ones, the threads (readers, worker, heartbeats) are queues of the
// scheduler.
#ifndef ROMULUS_TESTS_SIM_SECONDARY_H_
#define ROMULUS_TESTS_SIM_SECONDARY_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "failover/promoter.h"
#include "replica/counters.h"
#include "replica/replica_store.h"
#include "romulus/v1/replication.pb.h"
#include "sim/host.h"
#include "sim/network.h"
#include "sim/scheduler.h"
#include "wire/handshake.h"

namespace romulus::sim {

// What changes with the role, for judging a Hello: daemon/hello_facts.h.
struct HelloFacts {
  bool plays_secondary = true;
  std::string role_detail;
  Term newest_term;
  v1::Holds holds = v1::HOLDS_NOTHING;
  Lineage lineage;
  uint64_t instance = 0;
};

struct PromotedGuest {
  std::shared_ptr<Host> host;
  failover::Promotion promotion;
};

// Of daemon/secondary.h; on the control loop.
class SecondaryListener {
 public:
  virtual ~SecondaryListener() = default;
  virtual void OnHello(const v1::Hello& hello, const v1::HelloReply& reply) = 0;
  virtual void OnCommitted(Term term, EpochId epoch) = 0;
  virtual void OnHandOver(Term term, EpochId epoch) = 0;
  virtual void OnSecondaryGoodbye(const v1::Goodbye& goodbye) = 0;
  virtual void OnInboundClosed(const absl::Status& why) = 0;
  virtual void OnPromotion(absl::StatusOr<PromotedGuest> promoted, bool replica_intact) = 0;
};

wire::MachineIdentity SimMachine();
std::string NodeName(int node);

class Secondary {
 public:
  struct Parts {
    int node = 0;
    Scheduler* scheduler = nullptr;
    std::shared_ptr<Process> process;
    Network* network = nullptr;
    Oracle* oracle = nullptr;
    Pools* pools = nullptr;
    const base::Clock* clock = nullptr;
    Thread* control = nullptr;
    SecondaryListener* listener = nullptr;
    std::function<void()> heard;
    // A machine on the replica's memory, as Prepare makes it.
    std::function<std::shared_ptr<Host>(std::shared_ptr<memory::GuestMemory>)> prepare;
    bool solo_allowed = false;  // by the policy: Oracle::Promoted
  };
  Secondary(const Parts& parts, HelloFacts facts);
  ~Secondary();

  void SetFacts(HelloFacts facts) { facts_ = std::move(facts); }
  void NewReplica();
  void Promote(Term term);
  void RefuseHandOver(const std::string& detail);
  void CloseStream(std::optional<v1::Goodbye::Reason> reason, Term term, const std::string& detail);
  // Its disks are slow: what comes lies unread, and this node knows why.
  void SlowDisk(uint64_t until_ns) { slow_disk_until_ns_ = until_ns; }

  const replica::ReplicaStore& store() const { return *store_; }
  // Hellos that were welcome, of which the control loop has not heard.
  bool primary_is_coming() const { return coming_ != 0; }
  bool quiet() const { return worker_.idle(); }

 private:
  class Inbound;
  class Prepared;

  wire::LinkListener* Accept(std::shared_ptr<wire::Link> link);
  v1::HelloReply Judge(const v1::Hello& hello) const;
  absl::StatusOr<PromotedGuest> PromoteOnWorker(Term term);
  void Heartbeat();

  const Parts parts_;
  HelloFacts facts_;
  replica::ReplicaCounters counters_;
  std::shared_ptr<memory::GuestMemory> memory_;
  std::shared_ptr<replica::ReplicaStore> store_;
  std::set<std::shared_ptr<Inbound>> streams_;
  std::shared_ptr<Inbound> current_;
  uint64_t slow_disk_until_ns_ = 0;
  uint64_t coming_ = 0;
  std::shared_ptr<Host> prepared_;
  Thread worker_;
  Thread heartbeats_;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_SECONDARY_H_

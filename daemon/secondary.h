// The node's door for a primary, open in both roles: a secondary takes the stream into its replica,
// a node that runs the guest refuses and says which term it is. Keeps a machine ready on the
// replica's memory, so that a promotion only restores state and runs.
//
// Methods on the control loop. Streams are heard on the links' threads; preparing and promoting run
// on one worker; heartbeats have a thread of their own, because sending may wait.
#ifndef ROMULUS_DAEMON_SECONDARY_H_
#define ROMULUS_DAEMON_SECONDARY_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "daemon/asio_executor.h"
#include "daemon/disk_stamps.h"
#include "daemon/guest_host.h"
#include "daemon/hello_facts.h"
#include "daemon/signs_of_life.h"
#include "failover/promoter.h"
#include "replica/counters.h"
#include "replica/replica_store.h"
#include "romulus/v1/replication.pb.h"
#include "wire/grpc_server.h"

namespace romulus::daemon {

struct PromotedGuest {
  std::shared_ptr<GuestHost> host;
  failover::Promotion promotion;
  uint64_t console_offset = 0;  // where its output goes on
};

// On the control loop.
class SecondaryListener {
 public:
  virtual ~SecondaryListener() = default;
  // A Hello was answered; `peer` is where it came from.
  virtual void OnHello(const romulus::v1::Hello& hello, const romulus::v1::HelloReply& reply,
                       const std::string& peer) = 0;
  virtual void OnReplicaSync(uint64_t pages_done, uint64_t pages_total, bool complete) = 0;
  // Pages of the replica are not what the primary's were.
  virtual void OnReplicaMismatch(const std::vector<replica::AuditMismatch>& pages) = 0;
  virtual void OnReplicaDiskMismatch(const std::vector<replica::DiskAuditMismatch>& blocks) = 0;
  // Told by the newest; several commits may be one call.
  virtual void OnCommitted(Term term, EpochId epoch) = 0;
  // The primary's guest stands still, since `stood_still_ns`, and its last epoch is committed here.
  virtual void OnHandOver(Term term, EpochId epoch, uint64_t stood_still_ns) = 0;
  virtual void OnSecondaryGoodbye(const romulus::v1::Goodbye& goodbye) = 0;
  // An accepted stream ended; with a replica::Fault on it if this node refused what came.
  virtual void OnInboundClosed(const absl::Status& why) = 0;
  // Once per burst: more connections than can be had; `ended` were ended for it so far.
  virtual void OnCrowded(const absl::Status& why, uint64_t ended) = 0;
  // The machine could not be made ahead: this node could not promote.
  virtual void OnPrepareFailed(const absl::Status& why) = 0;
  // `replica_intact`: it failed before the replica was touched.
  virtual void OnPromotion(absl::StatusOr<PromotedGuest> promoted, bool replica_intact) = 0;
};

struct SecondaryParts {
  GuestHostOptions guest;
  base::Executor* control = nullptr;
  SignsOfLife* signs = nullptr;
  SecondaryListener* listener = nullptr;
  replica::DiskReplica* disks = nullptr;  // null: none is replicated here
  wire::LinkSecurity security{};
};

class Secondary final : private wire::LinkAcceptor {
 public:
  // Listens on `address`. Errors: GrpcLinkServer::Listen's.
  static absl::StatusOr<std::unique_ptr<Secondary>> Listen(const SecondaryParts& parts,
                                                           const std::string& address,
                                                           HelloFacts facts);
  ~Secondary() override;

  // What Hellos are judged by from now on.
  void SetFacts(HelloFacts facts);
  // A primary is welcome of which the control loop has not heard yet: what was held is its to
  // overwrite. With facts by which none is welcome, once false it stays so.
  bool primary_is_coming() const;
  // An empty replica, ready for a full sync; the old one and its machine are gone.
  absl::Status NewReplica();
  // Seals the replica and runs it in `term`; OnPromotion follows.
  void Promote(Term term, uint64_t decided_ns);
  // Answers OnHandOver: this node follows on.
  void RefuseHandOver(const std::string& detail);
  // Ends the accepted stream, if any, after a goodbye if one is given.
  void CloseStream(std::optional<romulus::v1::Goodbye::Reason> reason, Term term,
                   const std::string& detail);
  // Accepts nothing more and ends all streams. Blocks; idempotent.
  void Shutdown();

  // Of the thread that takes the accepted stream; at rest if there is none. Any thread.
  base::WorkMark::Look stream_work() const;
  // Where machines are prepared and promoted.
  base::Executor& promoter() { return worker_; }

  replica::ReplicaStatus replica_status() const;
  std::vector<replica::DiskFacts> disk_facts() const;
  const replica::ReplicaCounters& counters() const { return counters_; }
  replica::ReplicaCounters& counters() { return counters_; }

 private:
  class Inbound;
  class Prepared;

  Secondary(const SecondaryParts& parts, HelloFacts facts, HostFacts host);

  wire::LinkListener* Accept(std::unique_ptr<wire::Link> link, absl::string_view peer) override;
  void OnCrowded(const absl::Status& why, uint64_t ended) override;
  romulus::v1::HelloReply Judge(const romulus::v1::Hello& hello);
  void HeardOfWelcome();
  bool MayGiveUp() const;
  romulus::v1::HelloReply JudgeNow(const romulus::v1::Hello& hello, uint64_t* generation) const;
  // Control loop: the stream whose Hello was just accepted becomes the one that counts.
  void Accepted(const std::shared_ptr<Inbound>& inbound, const romulus::v1::Hello& hello);
  void PrepareAhead(std::vector<arch::CpuidEntry> cpuid);
  // Worker: makes `prepared_` for `prepared_cpuid_`.
  absl::Status Prepare();
  absl::StatusOr<PromotedGuest> PromoteOnWorker(Term term, uint64_t decided_ns);
  // While a stream stands: nobody wakes up for nothing.
  void Heartbeat();
  void BeatAfter(uint64_t wait_ns);
  uint64_t heartbeat_interval_ns() const;
  std::shared_ptr<replica::ReplicaStore> store() const;
  std::shared_ptr<Inbound> current() const;
  void Forget(const std::shared_ptr<Inbound>& inbound);

  const SecondaryParts parts_;
  bool shut_down_ = false;
  const HostFacts host_;
  replica::ReplicaCounters counters_;

  // When the newest epoch was committed: how long the guest has stood still, but for the time that
  // the epoch took to get here.
  std::atomic<uint64_t> committed_at_ns_{0};

  mutable std::mutex mutex_;
  HelloFacts facts_;
  uint64_t facts_generation_ = 0;
  uint64_t coming_ = 0;                // welcome Hellos that the control loop has not heard of
  absl::Status prepare_status_;        // of the last attempt
  uint64_t prepare_failed_at_ns_ = 0;  // if that is an error
  std::shared_ptr<replica::ReplicaStore> store_;
  std::shared_ptr<memory::GuestMemory> memory_;
  std::set<std::shared_ptr<Inbound>> streams_;  // alive until their link is closed
  std::shared_ptr<Inbound> current_;            // accepted last
  bool beating_ = false;                        // a heartbeat is to come

  // Worker only.
  std::shared_ptr<GuestHost> prepared_;
  std::vector<arch::CpuidEntry> prepared_cpuid_;  // of the machine made, or wanted, last

  AsioExecutor worker_{/*own_thread=*/true, "promoter"};
  AsioExecutor heartbeats_{/*own_thread=*/true, "heartbeats"};
  std::unique_ptr<wire::GrpcLinkServer> server_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_SECONDARY_H_

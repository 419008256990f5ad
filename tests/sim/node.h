// One daemon: the control loop of daemon/node*.cc. Feeds the real role machine and executes what it
// answers; README.md says which function stands for which.
#ifndef ROMULUS_TESTS_SIM_NODE_H_
#define ROMULUS_TESTS_SIM_NODE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "failover/arbiter.h"
#include "failover/failure_detector.h"
#include "failover/role_machine.h"
#include "sim/arbiter.h"
#include "sim/primary.h"
#include "sim/secondary.h"

namespace romulus::sim {

// Faults of the rig's own, which the promises must notice.
enum class Broken : uint8_t {
  kNothing,
  kReleaseBeforeAck,
  kPromoteThoughPrimaryAnswers,
  kPromoteWithoutArbiter,
  kForgetPutBack,
};

class Node final : private PrimaryListener, private SecondaryListener {
 public:
  struct Parts {
    int index = 0;
    bool start_as_primary = false;
    uint64_t life = 0;      // of the guest that it boots
    uint64_t instance = 0;  // of this start: HelloReply.instance
    failover::Policy policy;
    Quorum* quorum = nullptr;  // null: no arbiter
    failover::ArbiterRecord record_at_start;
    Broken broken = Broken::kNothing;
    Scheduler* scheduler = nullptr;
    Network* network = nullptr;
    Oracle* oracle = nullptr;
    Tally* tally = nullptr;
    Pools* pools = nullptr;
    const base::Clock* clock = nullptr;
    std::function<void(uint64_t ns)> let_others_run;
    std::function<void(int node, const std::string& what)> trace;  // may be empty
  };
  explicit Node(const Parts& parts);
  ~Node() override;
  // The process dies: nothing is said, nothing runs any more.
  void Die() { process_->alive = false; }

  // The world's hands.
  // `is_risk`: see Oracle::SetRiskTaken, unless it is refused.
  void Operator(failover::EventKind kind, bool force = false, bool is_risk = false);
  void FalseAlarm();
  void Sigterm();
  void GuestEnds();
  void StopFor(uint64_t ns);  // SIGSTOP, SIGCONT
  void SlowDisk(uint64_t until_ns) { secondary_->SlowDisk(until_ns); }
  // The next checkpoint fails at the named failpoint, when it has passed it `skip` times.
  void FailCheckpoint(absl::string_view where, uint64_t skip);

  const failover::RoleState& state() const { return role_.state(); }
  const std::shared_ptr<Host>& host() const { return host_; }
  bool exited() const { return exit_; }
  bool begins_anew() const { return begins_anew_; }
  // Nothing waits to be handled: what the role machine says is what is known.
  bool quiet() const { return control_.idle() && secondary_->quiet(); }
  const replica::ReplicaStore& store() const { return secondary_->store(); }
  uint64_t stopped_until_ns() const { return process_->stopped_until_ns; }

 private:
  absl::Status Handle(failover::Event event);
  void Execute(const failover::Action& action);
  void TraceEvent(const failover::Event& event, const failover::RoleState& before) const;
  void Connect();
  void RetryConnect();
  void CloseLinks(const failover::Action& action);
  void AskUnprotect();
  // daemon/node_arbiter.cc.
  void Claim(const failover::ArbiterClaim& claim);
  void Ask(const failover::ArbiterClaim& claim);
  void Withdraw(const failover::ArbiterClaim& claim);
  void AskLater(const failover::ArbiterClaim& claim, bool withdrawing);
  void OnArbiterAnswer(const failover::ArbiterClaim& claim, const failover::ArbiterAnswer& answer);
  void GiveBack(Term held);
  void OnWithdrawal(const failover::ArbiterClaim& claim, const failover::ArbiterAnswer& answer);
  void ResetDetector();
  void Tick();
  // What the guest's threads do, from the moment that this loop knows of a guest.
  void GuestTurn();
  void CheckpointTurn();
  // Cuts one more epoch, waits for its ack (or not longer than a real flush) and goes on.
  void AfterLastEpoch(std::function<void()> then);
  void AwaitLast(uint64_t deadline_ns, std::function<void()> then);
  void FinishShutdown();
  void GuestStopped(const failover::Event& event);
  // daemon/node_switchover.cc.
  void CutLast();
  void AwaitFinal(uint64_t generation, Term term, EpochId before, uint64_t deadline_ns);
  void OnLastEpoch(uint64_t generation, Term term, EpochId epoch);
  void OfferHandOver();
  void NoteSwitchover(const failover::RoleState& before);
  HelloFacts Facts() const;
  Host::Parts HostParts();
  void Trace(const std::string& what) const {
    if (parts_.trace) parts_.trace(parts_.index, what);
  }

  // PrimaryListener:
  void OnStreamAccepted(Term stream_term, const v1::HelloReply& reply) override;
  void OnStreamRefused(const v1::HelloReply& reply) override;
  void OnConnectFailed(const absl::Status& why) override;
  void OnSyncDone(Term term) override;
  void OnAcked(Term term, EpochId epoch) override;
  void OnPrimaryGoodbye(const v1::Goodbye& goodbye) override;
  void OnHandOverRefused(const std::string& detail) override;
  void OnStreamBroken(const absl::Status& why) override;
  void OnStreamClosed(const absl::Status& why) override;

  // SecondaryListener:
  void OnHello(const v1::Hello& hello, const v1::HelloReply& reply) override;
  void OnCommitted(Term term, EpochId epoch) override;
  void OnHandOver(Term term, EpochId epoch) override;
  void OnSecondaryGoodbye(const v1::Goodbye& goodbye) override;
  void OnInboundClosed(const absl::Status& why) override;
  void OnPromotion(absl::StatusOr<PromotedGuest> promoted, bool replica_intact) override;

  const Parts parts_;
  std::shared_ptr<Process> process_ = std::make_shared<Process>();
  failover::RoleMachine role_;
  failover::FailureDetector detector_;
  Thread control_;
  Thread checkpoint_;
  Thread vcpu_;
  Thread helper_;
  std::unique_ptr<failover::Arbiter> arbiter_;
  std::shared_ptr<Host> host_;
  std::unique_ptr<Primary> primary_;
  std::unique_ptr<Secondary> secondary_;

  bool connecting_ = false;
  uint64_t connect_generation_ = 0;
  uint64_t backoff_ns_ = 0;
  uint64_t unprotect_generation_ = 0;
  uint64_t last_sign_ns_ = 0;
  uint64_t last_sign_seen_ns_ = 0;
  bool shutting_down_ = false;
  bool last_epoch_ = false;  // no more are cut
  bool exit_ = false;
  bool begins_anew_ = false;
  uint64_t ask_backoff_ns_ = 0;
  uint64_t asked_ = 0;
  uint64_t switchover_generation_ = 0;
  uint64_t peer_instance_ = 0;
  std::optional<failover::Event> stopped_meanwhile_;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_NODE_H_

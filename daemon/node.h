// The daemon's heart: the control loop on which alone roles change. It feeds failover::RoleMachine
// with what happens and executes the actions that it answers; every decision is the role machine's.
//
// Create(), Run() and destruction on one thread, which is the control loop's. The ControlBackend
// calls come from gRPC's threads and are answered from the control loop.
#ifndef ROMULUS_DAEMON_NODE_H_
#define ROMULUS_DAEMON_NODE_H_

#include <atomic>
#include <boost/asio/signal_set.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "daemon/asio_executor.h"
#include "daemon/config.h"
#include "daemon/console.h"
#include "daemon/control_service.h"
#include "daemon/disk_stamps.h"
#include "daemon/epoch_records.h"
#include "daemon/event_journal.h"
#include "daemon/guest_disks.h"
#include "daemon/guest_host.h"
#include "daemon/history.h"
#include "daemon/log.h"
#include "daemon/primary.h"
#include "daemon/second_path.h"
#include "daemon/secondary.h"
#include "daemon/service_manager.h"
#include "daemon/signs_of_life.h"
#include "daemon/watchdog.h"
#include "disk/watched_files.h"
#include "failover/arbiter.h"
#include "failover/failure_detector.h"
#include "failover/role_machine.h"
#include "failover/second_path_detector.h"
#include "kvm/system.h"
#include "metrics/exposer.h"
#include "metrics/metrics.h"
#include "wire/tls.h"

namespace romulus::daemon {

// What a node knows of switchovers, which make it begin anew: it outlives them.
struct SwitchoverRecord {
  std::optional<romulus::v1::LastSwitchover> last;
  std::vector<uint64_t> totals;  // by metrics::SwitchoverResult
  uint64_t last_pause_ns = 0;
};

// An event without term or epoch.
inline failover::Event EventOf(failover::EventKind kind, std::string detail = "") {
  failover::Event event{};
  event.kind = kind;
  event.detail = std::move(detail);
  return event;
}

struct NodeOptions {
  LoadedConfig config;  // ok()
  bool start_as_primary = false;
  bool role_given = false;  // else an arbiter with a record decides
  // This process was that node before, so no claim of a dead one can be on its way.
  bool begins_anew = false;
  bool take_over = false;  // as primary: although the arbiter's record is the other node's
  // The secondary's disks are overwritten even if they may be newer than this node's: once.
  bool overwrite_peer = false;
  SwitchoverRecord switchovers{};     // of the node that this one goes on from
  ServiceManager* manager = nullptr;  // outlives the node, as the watchdog does
  Watchdog* watchdog = nullptr;
  // What happened outlives a node that begins anew. Neither is null; both outlive the node.
  EventJournal* events = nullptr;
  History* history = nullptr;
};

class Node final : private GuestHostListener,
                   private PrimaryListener,
                   private SecondaryListener,
                   private SecondPathListener,
                   private wire::TlsListener,
                   private ControlBackend {
 public:
  // Opens everything that can be refused: addresses, console, the kernel. Errors name what and why.
  static absl::StatusOr<std::unique_ptr<Node>> Create(NodeOptions options,
                                                      std::unique_ptr<kvm::System> system);
  ~Node() override;

  // Until the role machine says exit. The status is what the process should end with.
  absl::Status Run();
  // After Run(): this node lost the term, and is to be made anew, as a secondary.
  bool begins_anew() const { return begins_anew_ && stop_ == Stop::kNo; }
  const SwitchoverRecord& switchovers() const { return switchovers_; }

 private:
  explicit Node(NodeOptions options, std::unique_ptr<kvm::System> system);
  absl::Status Open();
  bool CanSteerRings();

  // Feeds the role machine and executes. Returns the refusal, if the event was an operator's wish.
  absl::Status Handle(failover::Event event);
  void Execute(const failover::Action& action);
  void StateChanged(const failover::RoleState& before, const std::string& event);

  void Connect();
  void RetryConnect();
  void Promote(Term term);
  // node_arbiter.cc: what the arbiter is asked, until it answers.
  absl::Status OpenArbiter();
  // Before a guest is booted: whose the record is. `start_as_primary_` follows.
  absl::Status ConsultArbiter();
  void AskSoon(const failover::ArbiterClaim& claim);
  void Ask(const failover::ArbiterClaim& claim);
  void Withdraw(const failover::ArbiterClaim& claim);
  void AskLater(const failover::ArbiterClaim& claim, bool withdrawing);
  void NoteAnswer(absl::string_view what, const failover::ArbiterClaim& claim,
                  const failover::ArbiterAnswer& answer);
  void OnArbiterAnswer(const failover::ArbiterClaim& claim, const failover::ArbiterAnswer& answer);
  void OnWithdrawal(const failover::ArbiterClaim& claim, const failover::ArbiterAnswer& answer);
  void AnswerAskers(const failover::ArbiterAnswer& answer);
  // Hands the record to the other node, until that is answered; `then`, if given, after one try.
  void GiveBack(Term held, std::function<void()> then = nullptr);
  // Now and then: a record that was deleted or restored from a backup is written again, if that is
  // safe.
  void WatchRecord();
  void OnRecord(Term confirmed, const failover::ArbiterAnswer& answer);
  // What is open at the arbiter when this node stops is closed, or said; then `then`.
  void LeaveArbiter(std::function<void()> then);
  void FillArbiter(romulus::v1::GetStatusResponse& status) const;
  // node_tls.cc: who this node is on the network, and whom it believes.
  absl::Status OpenTls();
  wire::LinkSecurity Security() const;  // of what stands between the two nodes
  std::optional<RemoteControl> Remote() const;
  void RepeatInsecure();
  void CloseTls();  // nobody but who holds it uses it any more
  void UpdateTlsMetrics();
  // node_service.cc: what the service manager is told, and what its watchdog looks at.
  void TellManager();
  void WatchLoops();
  void WatchGuest();
  // A disk does not answer: who waits for it is waited for (disk/watched_files.h).
  bool DiskHangs() const;
  std::function<bool()> DiskExcuse() const;  // of a loop, while one does
  // node_second_path.cc: the other network on which the two nodes hear each other.
  absl::Status OpenSecondPath();
  void WatchSecondPath(uint64_t now_ns);
  uint64_t UntilNextBeatNs() const;  // on the second path, if there is one
  void TellSecondPath(failover::SecondPath now);
  void SendBeat();
  romulus::v1::Beat BuildBeat() const;
  void MeetOnSecondPath(const romulus::v1::Beat& beat);
  bool SecondPathFailed() const;
  void FillPaths(romulus::v1::GetStatusResponse& status) const;
  void UpdatePathMetrics();
  void RecordFailover(const failover::Promotion& promotion, uint64_t detect_ns);
  // node_switchover.cc: the planned hand-over. Both steps, the last epoch and the other node's
  // answer, are to end within `timeout_ns`; `answer` comes once.
  void StartSwitchover(uint64_t timeout_ns, Answer<romulus::v1::SwitchoverResponse> answer);
  void BeginSwitchover(uint64_t until_ns, Answer<romulus::v1::SwitchoverResponse> answer);
  void CutLast();
  void OnLastEpoch(uint64_t generation, Term term, EpochId epoch, const absl::Status& last);
  void OfferHandOver();
  void NoteSwitchover(const failover::RoleState& before);
  void ShowSwitchovers();
  void RecordSwitchover(metrics::SwitchoverResult result, romulus::v1::LastSwitchover last);
  void AnswerSwitchovers(const absl::StatusOr<romulus::v1::SwitchoverResponse>& answer);
  void GuestStopped(const failover::Event& event);
  void AskUnprotect();
  void AnswerUnprotects();
  void AnswerFailovers(const absl::Status& status);
  void CloseLinks(const failover::Action& action);
  void SetPaused(bool paused);
  void Tick();
  void ResetDetector();
  // What was agreed on with the other node, for status.
  void NoteAgreed(const std::string& build, const romulus::v1::HelloReply& reply);
  // node_disks.cc: what this node's disks are, in either role.
  absl::Status OpenDisks();
  // What the disks' side files say follows the role machine, before its actions are executed.
  void RecordStamps();
  // Once the side files say so.
  void OpenOutput();
  void NoteDiskProgress(const wire::SyncProgress& progress);
  void ShowNoSync();
  void NoteStreamEnd(const absl::Status& why);
  void FillDisks(romulus::v1::GetStatusResponse& status) const;
  // What hangs, if something does: "waits for PATH (sync) since 3.2 s"; else empty.
  std::string DiskWaitText() const;
  void TellDiskWait();
  void CloseDisks(bool guest_ran_here);
  // node_audit.cc: what comparing the two nodes' memories and disks has found.
  void NoteMismatch(size_t pages, EpochId epoch, Gfn gfn, const std::string& then);
  void DoubtReplica();
  void NoteDiskMismatch(size_t blocks, EpochId epoch, const epoch::DiskBlock& block,
                        const std::string& then);
  void FillAudit(romulus::v1::GetStatusResponse& status) const;
  void UpdateAuditMetrics();
  // node_history.cc: what is remembered for those who ask later.
  void TellTerm(Term before, const std::string& event);
  void Remember();
  void WatchDrivers();
  void FillTls(romulus::v1::GetStatusResponse& status) const;
  void UpdateMetrics();
  void UpdateDeviceMetrics();
  void ExportMetrics();
  // node_stop.cc: told to stop. The guest is handed over, or asked to power off, or just ended.
  void BeginStop();
  void StopByHandOver();
  void OnStopHandedOver(const absl::Status& status);
  void StopByPowerButton();
  void StopInPlace();
  // The guest stands still (or is made to): its last epoch is cut and acked, then `then` follows.
  void AfterLastEpoch(bool make_stand_still, std::function<void()> then);
  void FinishShutdown();
  void End();
  std::string LeftBehind() const;
  HelloFacts Facts() const;
  romulus::v1::GetStatusResponse BuildStatus() const;
  // Why the mode is what it is, and what is wrong with disks or console if anything is.
  std::string ReasonOf(const std::string& mode_reason) const;
  void FillReplica(romulus::v1::GetStatusResponse& status) const;
  void FillGuest(romulus::v1::GetStatusResponse& status) const;
  void FillDevices(romulus::v1::GetStatusResponse& status) const;
  romulus::v1::Tunables BuildTunables() const;

  // GuestHostListener (any thread):
  void OnGuestStopped(vmm::GuestStop reason, const absl::Status& detail) override;
  void OnCheckpointFailed(EpochId epoch, const absl::Status& why) override;
  void OnProtectionGaveUp(const absl::Status& why) override;
  void OnMacClash(const std::string& device) override;
  void OnTapFailure(const std::string& device, const absl::Status& why) override;

  // PrimaryListener:
  void OnStreamAccepted(Term stream_term, const romulus::v1::HelloReply& reply) override;
  void OnStreamRefused(const romulus::v1::HelloReply& reply) override;
  void OnConnectFailed(const absl::Status& why) override;
  void OnSyncProgress(const wire::SyncProgress& progress) override;
  void OnSyncDone(Term term) override;
  void OnAcked(Term term, EpochId epoch) override;
  void OnAuditMismatch(const wire::AuditReport& report) override;
  void OnPrimaryGoodbye(const romulus::v1::Goodbye& goodbye) override;
  void OnHandOverRefused(const std::string& detail) override;
  void OnStreamBroken(const absl::Status& why) override;
  void OnStreamClosed(const absl::Status& why) override;

  // SecondaryListener:
  void OnHello(const romulus::v1::Hello& hello, const romulus::v1::HelloReply& reply,
               const std::string& peer) override;
  void OnReplicaSync(uint64_t pages_done, uint64_t pages_total, bool complete) override;
  void OnReplicaMismatch(const std::vector<replica::AuditMismatch>& pages) override;
  void OnReplicaDiskMismatch(const std::vector<replica::DiskAuditMismatch>& blocks) override;
  void OnCommitted(Term term, EpochId epoch) override;
  void OnHandOver(Term term, EpochId epoch, uint64_t stood_still_ns) override;
  void OnSecondaryGoodbye(const romulus::v1::Goodbye& goodbye) override;
  void OnInboundClosed(const absl::Status& why) override;
  void OnCrowded(const absl::Status& why, uint64_t ended) override;
  void OnPrepareFailed(const absl::Status& why) override;
  void OnPromotion(absl::StatusOr<PromotedGuest> promoted, bool replica_intact) override;

  // SecondPathListener:
  void OnBeat(const romulus::v1::Beat& beat, uint64_t heard_ns) override;
  void OnSecondPathClosed(const absl::Status& why) override;
  void OnBeatRefused(wire::BeatFault fault, const std::string& from,
                     const absl::Status& why) override;

  // TlsListener (any thread):
  void OnTlsRefused(wire::TlsRefusal why, const std::string& from,
                    const std::string& detail) override;
  void OnTlsReloaded(const wire::TlsMaterial& now) override;
  void OnTlsReloadFailed(const absl::Status& why) override;

  // ControlBackend (any thread):
  void GetStatus(Answer<romulus::v1::GetStatusResponse> answer) override;
  void Failover(bool force, Answer<romulus::v1::FailoverResponse> answer) override;
  void Switchover(uint32_t timeout_ms, Answer<romulus::v1::SwitchoverResponse> answer) override;
  void Pause(Answer<romulus::v1::PauseResponse> answer) override;
  void Resume(Answer<romulus::v1::ResumeResponse> answer) override;
  void SetProtection(bool wanted, bool force, Answer<bool> answer) override;
  void ListEpochs(uint32_t last, Answer<romulus::v1::ListEpochsResponse> answer) override;
  void Set(const romulus::v1::Tunables& tunables, Answer<romulus::v1::SetResponse> answer) override;
  const EventJournal& events() const override { return *options_.events; }
  const History& history() const override { return *options_.history; }

  const NodeOptions options_;
  const romulus::v1::Config& config_;
  const std::unique_ptr<kvm::System> system_;
  const base::MonotonicClock clock_;
  Log log_;
  metrics::Metrics metrics_;
  EpochRecords records_;
  SignsOfLife signs_;
  AsioExecutor control_{/*own_thread=*/false};
  failover::RoleMachine role_;
  failover::FailureDetector detector_;
  failover::SecondPathDetector second_detector_;
  failover::SecondPath second_told_ = failover::SecondPath::kNever;  // to the role machine
  uint64_t beat_sent_ns_ = 0;
  std::pair<uint64_t, uint64_t> met_{};  // incarnation and term of a primary met on the second path
  std::unique_ptr<failover::Arbiter> arbiter_;  // null: none
  failover::ArbiterIdentity arbiter_identity_;
  failover::ArbiterRecord record_at_start_;
  std::string waits_because_;  // for people, of a secondary that nobody said it is one
  Term foreign_record_;   // that the last look at the record found, beyond what was confirmed here
  std::string namesake_;  // not empty: another host of this node's name has the record
  romulus::v1::ArbiterStatus arbiter_status_;
  uint64_t ask_backoff_ms_ = 0;
  std::optional<Term> giving_back_;
  uint64_t asked_ = 0;  // questions so far; answers to all but the last mean nothing
  bool start_as_primary_ = false;

  disk::WatchedFiles files_{disk::PosixFiles(), clock_};
  uint64_t told_wait_since_ns_ = 0;  // the operation on a disk that was logged as slow; 0: none
  uint64_t told_wait_ns_ = 0;        // how slow it was then
  DiskCopies disks_;                 // in the configuration's order; opened and locked once
  std::unique_ptr<DiskStamps> stamps_;
  std::unique_ptr<replica::DiskFiles> disk_files_;  // a node that began as a secondary
  absl::Status stamp_status_;                       // why output must wait, if it must
  uint64_t output_generation_ = 0;                  // of the opening that waits for the stamp
  bool overwrite_peer_ = false;
  uint64_t protect_backoff_ms_ = 0;  // after a secondary gave its replica up
  std::vector<wire::DiskProgress> disk_progress_;

  std::shared_ptr<wire::TlsIdentity> tls_;  // null: plain text
  std::unique_ptr<Console> console_;
  std::unique_ptr<metrics::Exposer> exposer_;
  std::shared_ptr<GuestHost> host_;  // the guest that runs here, if one does
  std::unique_ptr<Primary> primary_;
  std::unique_ptr<Secondary> secondary_;
  std::unique_ptr<SecondPath> second_path_;  // null: none is configured
  std::unique_ptr<AsioExecutor> helper_;     // blocking work for the guest: flush, pause, stop
  std::unique_ptr<ControlServer> server_;
  std::vector<std::unique_ptr<Watchdog::Loop>> watched_;  // gone before what they look at
  boost::asio::signal_set signals_;

  bool connecting_ = false;
  uint64_t connect_generation_ = 0;
  uint64_t backoff_ms_ = 0;
  // Told to stop, and what is done about it.
  enum class Stop : uint8_t { kNo, kHandsOver, kAsksGuest, kEnds };
  Stop stop_ = Stop::kNo;
  bool ends_with_last_epoch_ = false;  // of a hand-over that was under way
  bool exit_ = false;
  bool begins_anew_ = false;
  absl::Status exit_status_;
  uint64_t since_unix_ms_ = 0;
  uint64_t last_sign_seen_ns_ = 0;
  uint64_t decided_ns_ = 0;
  uint64_t last_sign_at_decision_ns_ = 0;
  bool promotion_by_operator_ = false;
  std::string peer_detail_;
  std::string peer_build_;      // as the peer of the last accepted stream called itself
  uint32_t peer_protocol_ = 0;  // that it speaks
  romulus::v1::SyncProgress sync_;
  std::optional<romulus::v1::LastFailover> last_failover_;
  std::vector<Answer<romulus::v1::FailoverResponse>> failover_answers_;
  std::vector<Answer<bool>> unprotect_answers_;
  uint64_t unprotect_generation_ = 0;
  SwitchoverRecord switchovers_;
  std::vector<Answer<romulus::v1::SwitchoverResponse>> switchover_answers_;
  std::atomic<uint64_t> switchover_generation_{0};  // set on the control loop
  uint64_t switchover_until_ns_ = 0;
  const uint64_t instance_ = uint64_t{std::random_device()()} << 32 | std::random_device()();
  uint64_t peer_instance_ = 0;  // of the node that was accepted last, or last offered a hand-over
  uint64_t stands_still_since_ns_ = 0;  // the guest, for a switchover; here or on the old primary
  std::optional<failover::Event> stopped_meanwhile_;  // the guest, by itself, during one
  uint64_t epochs_aborted_ = 0;
  struct Unlogged {
    uint64_t logged_ns = 0;  // the last time; 0: never
    uint64_t count = 0;      // since then
    // How many to log now; 0: not yet.
    uint64_t Take(uint64_t more, uint64_t now_ns);
  };
  romulus::v1::AuditStatus audit_;  // the last mismatches
  Unlogged mismatched_pages_;
  Unlogged mismatched_blocks_;
  std::vector<bool> drivers_failed_;  // by virtio device: whether it waits for a reset
  bool told_events_lost_ = false;
  bool told_unreadable_ = false;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_NODE_H_

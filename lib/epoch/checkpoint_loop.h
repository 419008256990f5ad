// The checkpoint thread: waits for the governor, runs checkpoints, hands epochs to the sink, and
// bounds how many are on their way. Three modes:
//
//   kIdle     nothing is protected; a full ring is emptied and forgotten
//   kSyncing  a full sync copies memory; TakeDirty() tells what was written meanwhile
//   kCutting  epochs are cut and submitted
//
// Threads: the loop owns one, and those that help to copy (epoch/page_copier.h). OnDirtyRingFull
// and OnAlarm come from vCPUs' and may do its work (CheckpointLoopOptions::cut_on_vcpu): one of
// them at a time is at a checkpoint. OnAcked from the link, the rest from the control loop
// (TakeDirty from the sync's thread). All are safe at any time.
#ifndef ROMULUS_EPOCH_CHECKPOINT_LOOP_H_
#define ROMULUS_EPOCH_CHECKPOINT_LOOP_H_

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/cond_var.h"
#include "epoch/checkpoint.h"
#include "epoch/governor.h"

namespace romulus::epoch {

// Owned by epoch, implemented by the daemon. From whichever thread was at the checkpoint, a vCPU's
// too; must not block.
class CheckpointListener {
 public:
  virtual ~CheckpointListener() = default;
  // A checkpoint failed; nothing was lost, the pages are in the next one.
  virtual void OnCheckpointFailed(EpochId epoch, CutReason reason, const absl::Status& why) = 0;
  // Checkpoints keep failing: the loop has left kCutting for kIdle. Protection is over.
  virtual void OnGaveUp(const absl::Status& why) = 0;
};

struct CheckpointLoopOptions {
  GovernorOptions governor;
  uint64_t max_unacked_epochs = 16;
  // This many failures in a row end protection.
  int max_failures = 8;
  // A wait at most as long spins: waking up from a sleep would take as long. Where a processor is
  // left for the guest only; 0: never.
  uint64_t spin_ns = 0;
  // A vCPU that stops by itself makes the checkpoint on its own thread: nobody is woken for it. The
  // guest allows it (GuestListener::OnDirtyRingFull).
  bool cut_on_vcpu = false;
  // vCPUs with an alarm look at the budget, too, and all stop at the same time: where no processor
  // is left for the loop's thread, which would wait for one of theirs. With cut_on_vcpu.
  bool look_on_vcpu = false;
  PageCopierOptions copying = {};
};

// What to spin beside so many vCPUs, and who looks; vCPUs on CPUs of their own (empty: on any of
// the caller's, base/spare_cpu.h).
uint64_t SpinNs(int vcpu_count, std::span<const int> vcpu_cpus);
bool LookOnVcpu(int vcpu_count, std::span<const int> vcpu_cpus);

class CheckpointLoop {
 public:
  CheckpointLoop(const CheckpointParts& parts, const CheckpointLoopOptions& options,
                 CheckpointListener* listener);
  ~CheckpointLoop();  // Stop()

  void Start();
  // Instead of Start(), for whoever has his own scheduler: what the thread would do now, once.
  // False if nothing is due. Never waits: TakeDirty() harvests by itself then, and a cut that would
  // wait for a slot is not due. One thread calls everything; Flush() and FlushLast() would wait.
  bool Turn();
  // Ends the thread; a checkpoint under way is finished first, a wait inside it is cancelled.
  void Stop();

  // kIdle -> kSyncing. What was dirty before is forgotten: the sync copies everything.
  absl::Status BeginSync();
  // Pages written since BeginSync or the last call. Errors: FailedPrecondition unless syncing.
  absl::StatusOr<memory::PageSet> TakeDirty();
  // kSyncing -> kCutting: the first epoch holds `remainder` and is cut at once. `sink` is used
  // until Halt() returns. Epoch numbers rise through the loop's life unless the term is new.
  absl::Status BeginCutting(Term term, memory::PageSet remainder, EpochSink* sink);
  // -> kIdle. When it returns the sink is not used any more.
  void Halt();

  // Asks for one epoch soon. Any mode; only kCutting answers.
  void Request();
  // Cuts an epoch now and waits until all epochs are acked. Errors: DeadlineExceeded, Cancelled by
  // Halt(), FailedPrecondition unless cutting, the checkpoint's error.
  absl::StatusOr<EpochId> Flush(absl::Duration timeout);
  // The same, and that epoch is the last: none is cut after it until the next BeginCutting. For a
  // guest that stands still and will not run here again.
  absl::StatusOr<EpochId> FlushLast(absl::Duration timeout);
  // It was not the last, after all, or there was none.
  void GoOn();

  void OnAcked(EpochId epoch);
  void OnDirtyRingFull();
  // GuestListener's: vCPUs with an alarm end an interval by themselves, unless nothing is written
  // (Governor::expects_rest()). Who asks while one lies ahead gets the same.
  uint64_t NextAlarmNs();
  void OnAlarm();
  void OnOutputWaiting();

  void SetGovernorOptions(const GovernorOptions& options);
  GovernorOptions governor_options() const;
  EpochId last_cut() const;
  EpochId last_acked() const;
  // For whoever watches this loop: differs from the last answer, unless since then its thread has
  // been at one and the same checkpoint, has not begun one that is due, has not woken up when it
  // should have, or whoever has the lock has not given it back. Waiting for the secondary is none
  // of these. Does not wait for that lock for long.
  uint64_t Progress();

  // Before Start().
  void SetObserver(PausedObserver observer) { checkpoint_.SetObserver(std::move(observer)); }

 private:
  enum class Mode { kIdle, kSyncing, kCutting };
  class PartsSink;

  void ThreadMain();
  // What there is to do, if it is a checkpoint and may be made on the thread of the calling vCPU,
  // which stands since then.
  bool CutHereLocked(uint64_t stands_since_ns) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AwaitNotBusy() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Lets others have the mutex, and comes back soon.
  void SpinLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Waits until there is something to do and says what. nullopt: stop.
  std::optional<CutReason> WaitForWork() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What there is to do now.
  std::optional<CutReason> DueLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NothingLeftToCutLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Work(CutReason reason) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  GovernorView ViewLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool AuditIsBehind() const;
  uint64_t ProgressLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool SlotFreeLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void DrainOnce() ABSL_LOCKS_EXCLUDED(mutex_);
  // False if the guest was not free (on a vCPU's thread).
  bool CutOnce(CutReason reason, const SelfStop& stop) ABSL_LOCKS_EXCLUDED(mutex_);
  // Behind the running guest, for as long as nothing else is to be done.
  void AuditBehindGuest() ABSL_LOCKS_EXCLUDED(mutex_);
  // With the guest paused: what was asked for until now is being answered; then waits for a slot.
  absl::Status OnPaused() ABSL_LOCKS_EXCLUDED(mutex_);
  // Right before any vCPU runs again; the epoch that ended lasted `interval_ns`.
  void OnResuming(const StagedEpoch& staged, uint64_t interval_ns) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<EpochId> FlushLocked(absl::Duration timeout, bool is_last)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetModeLocked(Mode mode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CheckpointParts parts_;
  CheckpointListener* const listener_;
  const uint64_t max_unacked_epochs_;
  const int max_failures_;
  const uint64_t spin_ns_;
  const bool cut_on_vcpu_;
  const bool look_on_vcpu_;
  Checkpoint checkpoint_;

  mutable absl::Mutex mutex_;
  base::CondVar changed_;
  Governor governor_ ABSL_GUARDED_BY(mutex_);
  Mode mode_ ABSL_GUARDED_BY(mutex_) = Mode::kIdle;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;  // somebody works without the mutex
  int await_not_busy_ ABSL_GUARDED_BY(mutex_) = 0;
  bool audit_owed_ ABSL_GUARDED_BY(mutex_) = false;  // a vCPU's thread has made a checkpoint
  bool in_parts_ ABSL_GUARDED_BY(mutex_) = false;    // parts of the epoch at hand are on their way
  uint64_t progress_ ABSL_GUARDED_BY(mutex_) = 0;
  std::atomic<uint64_t> told_progress_{0};    // by the last Progress()
  EpochId cut_seen_ ABSL_GUARDED_BY(mutex_);  // by the last Progress()
  // Until then the loop's own thread sleeps, whoever makes checkpoints meanwhile.
  static constexpr uint64_t kNotDue = ~uint64_t{0};
  uint64_t thread_due_ns_ ABSL_GUARDED_BY(mutex_) = kNotDue;
  bool ring_full_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t alarm_ns_ ABSL_GUARDED_BY(mutex_) = 0;      // vCPUs stop then by themselves; 0: never
  uint64_t ring_full_ns_ ABSL_GUARDED_BY(mutex_) = 0;  // the first vCPU stands since then
  bool requested_ ABSL_GUARDED_BY(mutex_) = false;
  bool output_waiting_ ABSL_GUARDED_BY(mutex_) = false;
  bool drain_requested_ ABSL_GUARDED_BY(mutex_) = false;
  Term term_ ABSL_GUARDED_BY(mutex_);
  EpochId last_cut_ ABSL_GUARDED_BY(mutex_);
  EpochId last_acked_ ABSL_GUARDED_BY(mutex_);
  std::optional<EpochId> cut_no_further_ ABSL_GUARDED_BY(mutex_);
  uint64_t epoch_began_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  EpochSink* sink_ ABSL_GUARDED_BY(mutex_) = nullptr;
  int failures_ ABSL_GUARDED_BY(mutex_) = 0;
  int flush_waiters_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<memory::PageSet> synced_dirty_ ABSL_GUARDED_BY(mutex_);  // kSyncing
  absl::Status drain_status_ ABSL_GUARDED_BY(mutex_);
  uint64_t hand_over_ns_ =
      0;  // of the last epoch to the sink, on a vCPU's thread; by whoever is busy
  std::thread thread_;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_CHECKPOINT_LOOP_H_

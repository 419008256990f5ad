#include "epoch/checkpoint_loop.h"

#include <pthread.h>
#include <sys/prctl.h>

#include <algorithm>
#include <numeric>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/check.h"
#include "base/spare_cpu.h"
#include "base/status.h"

namespace romulus::epoch {

constexpr uint64_t kSpinNs = 60'000;
constexpr uint64_t kShortWaitNs = 20 * kSpinNs;
constexpr uint64_t kAlarmLateNs = 2'000'000;
// A thread that wakes up so much later than it wanted does not get on.
constexpr uint64_t kThreadLateNs = 200'000'000;
// Of a lock that others hold for microseconds, with a way given to them in between.
constexpr int kProgressTries = 1000;
// While somebody else is at it a vCPU asks again no sooner.
constexpr uint64_t kSoonestAlarmNs = 20'000;
// Nor without a slot: it would find at most that the guest has to wait for one, for which the
// loop's thread stops it.
constexpr uint64_t kNoSlotAlarmNs = 200'000;

uint64_t SpinNs(int vcpu_count, std::span<const int> vcpu_cpus) {
  return base::LeavesACpu(vcpu_count, vcpu_cpus) ? kSpinNs : 0;
}

bool LookOnVcpu(int vcpu_count, std::span<const int> vcpu_cpus) {
  return vcpu_count > 1 && !base::LeavesACpu(vcpu_count, vcpu_cpus);
}

// Notices that an epoch leaves in parts: then a checkpoint waits for the secondary.
class CheckpointLoop::PartsSink final : public EpochSink {
 public:
  PartsSink(CheckpointLoop* loop, EpochSink* next) : loop_(loop), next_(next) {}
  void StagePages(Term term, EpochId epoch, PageBatch batch) override {
    {
      absl::MutexLock lock(&loop_->mutex_);
      loop_->in_parts_ = true;
    }
    next_->StagePages(term, epoch, std::move(batch));
  }
  void Submit(StagedEpoch epoch) override { next_->Submit(std::move(epoch)); }
  void Abort(Term term, EpochId epoch) override { next_->Abort(term, epoch); }

 private:
  CheckpointLoop* const loop_;
  EpochSink* const next_;
};

CheckpointLoop::CheckpointLoop(const CheckpointParts& parts, const CheckpointLoopOptions& options,
                               CheckpointListener* listener)
    : parts_(parts),
      listener_(listener),
      max_unacked_epochs_(options.max_unacked_epochs),
      max_failures_(options.max_failures),
      spin_ns_(options.spin_ns),
      cut_on_vcpu_(options.cut_on_vcpu),
      look_on_vcpu_(options.look_on_vcpu),
      checkpoint_(parts, options.copying),
      governor_(options.governor) {}

CheckpointLoop::~CheckpointLoop() { Stop(); }

void CheckpointLoop::Start() {
  ROMULUS_CHECK(!thread_.joinable());
  thread_ = std::thread([this] { ThreadMain(); });
}

void CheckpointLoop::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    SetModeLocked(Mode::kIdle);
  }
  parts_.staging->Close();
  if (thread_.joinable()) thread_.join();
  absl::MutexLock lock(&mutex_);
  AwaitNotBusy();  // a vCPU's thread may be at a checkpoint
}

void CheckpointLoop::SetModeLocked(Mode mode) {
  // The budget is that of epochs.
  if (mode != Mode::kCutting) parts_.tracker->SetBudget(0);
  mode_ = mode;
  changed_.SignalAll();
}

absl::Status CheckpointLoop::BeginSync() {
  absl::MutexLock lock(&mutex_);
  if (mode_ != Mode::kIdle) return absl::FailedPreconditionError("a sync or protection is on");
  synced_dirty_.emplace(parts_.memory->layout().gfn_end());
  drain_status_ = absl::OkStatus();
  SetModeLocked(Mode::kSyncing);
  return absl::OkStatus();
}

absl::StatusOr<memory::PageSet> CheckpointLoop::TakeDirty() {
  absl::MutexLock lock(&mutex_);
  if (mode_ != Mode::kSyncing) return absl::FailedPreconditionError("no full sync is on");
  drain_requested_ = true;
  changed_.SignalAll();
  if (!thread_.joinable()) Work(CutReason::kSync);
  while (drain_requested_ && mode_ == Mode::kSyncing) changed_.Wait(&mutex_);
  if (mode_ != Mode::kSyncing) return absl::CancelledError("the full sync was halted");
  ROMULUS_RETURN_IF_ERROR(drain_status_);
  memory::PageSet taken = *std::move(synced_dirty_);
  synced_dirty_.emplace(parts_.memory->layout().gfn_end());
  return taken;
}

absl::Status CheckpointLoop::BeginCutting(Term term, memory::PageSet remainder, EpochSink* sink) {
  absl::MutexLock lock(&mutex_);
  if (mode_ != Mode::kSyncing) return absl::FailedPreconditionError("no full sync is on");
  AwaitNotBusy();
  if (mode_ != Mode::kSyncing) return absl::CancelledError("the full sync was halted");
  remainder.InsertAll(*synced_dirty_);
  synced_dirty_.reset();
  parts_.tracker->Add(remainder);
  if (term != term_) {
    term_ = term;
    last_cut_ = EpochId(0);
  }
  last_acked_ = last_cut_;
  sink_ = sink;
  cut_no_further_.reset();
  failures_ = 0;
  requested_ = true;
  epoch_began_ns_ = parts_.clock->NowNs();
  alarm_ns_ = 0;
  if (parts_.auditor != nullptr) parts_.auditor->BeginStream();
  if (parts_.disk_auditor != nullptr) parts_.disk_auditor->BeginStream();
  parts_.gate->BeginStream();
  for (HeldOutput* const output : parts_.outputs) output->BeginStream();
  parts_.staging->Reopen();
  parts_.tracker->SetBudget(governor_.options().max_dirty_pages);
  SetModeLocked(Mode::kCutting);
  return absl::OkStatus();
}

void CheckpointLoop::Halt() {
  // A checkpoint that waits for staging memory or for an ack must not outlive the stream.
  parts_.staging->Close();
  absl::MutexLock lock(&mutex_);
  SetModeLocked(Mode::kIdle);
  AwaitNotBusy();
  if (parts_.disk_auditor != nullptr) parts_.disk_auditor->EndStream();
  sink_ = nullptr;
  synced_dirty_.reset();
}

void CheckpointLoop::Request() {
  absl::MutexLock lock(&mutex_);
  requested_ = true;
  changed_.SignalAll();
}

absl::StatusOr<EpochId> CheckpointLoop::Flush(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return FlushLocked(timeout, /*is_last=*/false);
}

absl::StatusOr<EpochId> CheckpointLoop::FlushLast(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return FlushLocked(timeout, /*is_last=*/true);
}

void CheckpointLoop::GoOn() {
  absl::MutexLock lock(&mutex_);
  cut_no_further_.reset();
  changed_.SignalAll();
}

absl::StatusOr<EpochId> CheckpointLoop::FlushLocked(absl::Duration timeout, bool is_last) {
  const base::CondVar::Deadline deadline = base::CondVar::After(timeout);
  if (mode_ != Mode::kCutting) return absl::FailedPreconditionError("not protected");
  ++flush_waiters_;
  absl::Cleanup leave = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { --flush_waiters_; };
  // A checkpoint under way may have paused the guest before this call: the one after it counts.
  while (busy_ && mode_ == Mode::kCutting) {
    if (changed_.WaitUntil(&mutex_, deadline)) {
      return absl::DeadlineExceededError("a checkpoint under way did not end in time");
    }
  }
  const EpochId wanted = last_cut_.Next();
  if (is_last) cut_no_further_ = wanted;
  while (last_acked_ < wanted) {
    if (mode_ != Mode::kCutting) return absl::CancelledError("protection ended");
    if (!busy_ && last_cut_ < wanted && !requested_) {
      requested_ = true;
      changed_.SignalAll();
    }
    if (changed_.WaitUntil(&mutex_, deadline) && last_acked_ < wanted) {
      return absl::DeadlineExceededError("the epoch was not acknowledged in time");
    }
  }
  return wanted;
}

void CheckpointLoop::OnAcked(EpochId epoch) {
  parts_.gate->Release(epoch);
  for (HeldOutput* const output : parts_.outputs) output->Release(epoch);
  if (parts_.disk_log != nullptr) parts_.disk_log->Release(epoch);
  absl::MutexLock lock(&mutex_);
  if (epoch <= last_acked_) return;
  const bool was_full = !SlotFreeLocked();
  last_acked_ = epoch;
  // Waking the thread for every ack would cost more than the ack itself.
  if (was_full || requested_ || flush_waiters_ > 0) changed_.SignalAll();
}

void CheckpointLoop::OnDirtyRingFull() {
  absl::MutexLock lock(&mutex_);
  if (!ring_full_) ring_full_ns_ = parts_.clock->NowNs();
  ring_full_ = true;
  if (!CutHereLocked(ring_full_ns_)) changed_.SignalAll();
}

uint64_t CheckpointLoop::NextAlarmNs() {
  absl::MutexLock lock(&mutex_);
  const bool wanted = cut_on_vcpu_ && mode_ == Mode::kCutting && !NothingLeftToCutLocked() &&
                      !governor_.expects_rest();
  if (!wanted) return alarm_ns_ = 0;
  if (alarm_ns_ > parts_.clock->NowNs()) return alarm_ns_;  // another vCPU's, and this one's too
  GovernorView view = ViewLocked();
  view.watches_budget = view.watches_budget && look_on_vcpu_;
  view.look_stops_guest = true;
  if (view.watches_budget) {
    view.likely_pages = parts_.tracker->LikelyCount(governor_.options().max_dirty_pages);
  }
  const uint64_t soonest_ns = view.slot_free ? kSoonestAlarmNs : kNoSlotAlarmNs;
  return alarm_ns_ = std::max(governor_.NextLookNs(view), view.now_ns + soonest_ns);
}

void CheckpointLoop::OnAlarm() {
  absl::MutexLock lock(&mutex_);
  const uint64_t now_ns = parts_.clock->NowNs();
  // Another vCPU may have one already that lies ahead.
  const uint64_t alarm_ns = alarm_ns_ <= now_ns ? std::exchange(alarm_ns_, 0) : 0;
  if (CutHereLocked(alarm_ns != 0 ? alarm_ns : now_ns)) return;
  // Where the loop's thread is busy it looks again itself; behind a vCPU's checkpoint the next
  // alarm comes soon.
  if (!busy_ && mode_ == Mode::kCutting && DueLocked()) changed_.SignalAll();
}

void CheckpointLoop::AwaitNotBusy() {
  ++await_not_busy_;
  while (busy_) changed_.Wait(&mutex_);
  --await_not_busy_;
}

bool CheckpointLoop::CutHereLocked(uint64_t stands_since_ns) {
  if (!cut_on_vcpu_ || mode_ != Mode::kCutting || busy_ || stopping_ || !SlotFreeLocked()) {
    return false;
  }
  const std::optional<CutReason> reason = DueLocked();
  if (!reason) return false;
  busy_ = true;
  mutex_.Unlock();
  const bool cut = CutOnce(*reason, {.since_ns = stands_since_ns, .is_here = true});
  mutex_.Lock();
  busy_ = false;
  audit_owed_ = parts_.auditor != nullptr;
  // Waking the loop's thread for nothing would cost as much as a checkpoint. Requested: it failed.
  // At rest the vCPU has no alarm, and that thread looks.
  if (!cut || await_not_busy_ > 0 || flush_waiters_ > 0 || requested_ || governor_.expects_rest()) {
    changed_.SignalAll();
  }
  return cut;
}

void CheckpointLoop::OnOutputWaiting() {
  absl::MutexLock lock(&mutex_);
  output_waiting_ = true;
  changed_.SignalAll();
}

void CheckpointLoop::SetGovernorOptions(const GovernorOptions& options) {
  absl::MutexLock lock(&mutex_);
  governor_.SetOptions(options);
  if (mode_ == Mode::kCutting) parts_.tracker->SetBudget(options.max_dirty_pages);
  alarm_ns_ = 0;  // the vCPU's was set by what was valid before
  changed_.SignalAll();
}

GovernorOptions CheckpointLoop::governor_options() const {
  absl::MutexLock lock(&mutex_);
  return governor_.options();
}

EpochId CheckpointLoop::last_cut() const {
  absl::MutexLock lock(&mutex_);
  return last_cut_;
}

EpochId CheckpointLoop::last_acked() const {
  absl::MutexLock lock(&mutex_);
  return last_acked_;
}

uint64_t CheckpointLoop::Progress() {
  // A thread that hangs with the lock must not have whoever watches it hang as well.
  for (int tries = 1; !mutex_.TryLock(); ++tries) {
    if (tries == kProgressTries) return told_progress_.load();
    std::this_thread::yield();
  }
  told_progress_ = ProgressLocked();
  mutex_.Unlock();
  return told_progress_.load();
}

uint64_t CheckpointLoop::ProgressLocked() {
  const bool waits_for_peer = in_parts_ || last_cut_ != last_acked_;
  const bool rests = !busy_ && (mode_ != Mode::kCutting || !DueLocked());
  const uint64_t now_ns = parts_.clock->NowNs();
  const bool sleeps_on = thread_due_ns_ < now_ns && now_ns - thread_due_ns_ > kThreadLateNs;
  // A vCPU that makes checkpoints counts none; each is one, and this may be in the middle of the
  // next.
  const bool has_cut = std::exchange(cut_seen_, last_cut_) != last_cut_;
  if ((waits_for_peer || rests || has_cut) && !sleeps_on) ++progress_;
  return progress_;
}

bool CheckpointLoop::SlotFreeLocked() const {
  return last_cut_.value() - last_acked_.value() < max_unacked_epochs_;
}

GovernorView CheckpointLoop::ViewLocked() const {
  GovernorView view;
  view.now_ns = parts_.clock->NowNs();
  view.epoch_began_ns = epoch_began_ns_;
  view.ring_full = ring_full_;
  view.requested = requested_;
  view.output_waiting = output_waiting_;
  view.slot_free = SlotFreeLocked();
  const uint64_t budget = governor_.options().max_dirty_pages;
  const bool stops_itself = parts_.tracker->StopsItselfAt(budget);
  view.budget_reached = stops_itself ? ring_full_ : parts_.tracker->LikelyAtLeast(budget);
  view.watches_budget =
      parts_.tracker->Tells() && (!stops_itself || (spin_ns_ > 0 && !cut_on_vcpu_));
  // Asked for only when it matters: it looks at everything that could be dirty.
  const bool is_long = view.now_ns - epoch_began_ns_ >= governor_.options().max_interval_ns;
  view.idle = is_long && parts_.tracker->LikelyNone() && !AuditIsBehind();
  return view;
}

bool CheckpointLoop::AuditIsBehind() const {
  return (parts_.auditor != nullptr && parts_.auditor->IsBehind()) ||
         (parts_.disk_auditor != nullptr && parts_.disk_auditor->IsBehind());
}

std::optional<CutReason> CheckpointLoop::DueLocked() const {
  switch (mode_) {
    case Mode::kIdle:
      return ring_full_ ? std::optional(CutReason::kRingFull) : std::nullopt;
    case Mode::kSyncing:
      return ring_full_ || drain_requested_ ? std::optional(CutReason::kSync) : std::nullopt;
    case Mode::kCutting:
      return NothingLeftToCutLocked() ? std::nullopt : governor_.Decide(ViewLocked());
  }
  return std::nullopt;
}

bool CheckpointLoop::NothingLeftToCutLocked() const {
  return cut_no_further_ && last_cut_ >= *cut_no_further_;
}

std::optional<CutReason> CheckpointLoop::WaitForWork() {
  while (!stopping_) {
    if (busy_) {
      AwaitNotBusy();
      continue;
    }
    const bool cutting = mode_ == Mode::kCutting && !NothingLeftToCutLocked();
    GovernorView view;
    if (cutting) view = ViewLocked();
    if (std::optional<CutReason> reason = cutting ? governor_.Decide(view) : DueLocked()) {
      return reason;
    }
    if (std::exchange(audit_owed_, false)) {
      busy_ = true;
      mutex_.Unlock();
      AuditBehindGuest();
      mutex_.Lock();
      busy_ = false;
      changed_.SignalAll();
      continue;
    }
    if (!cutting) {
      changed_.Wait(&mutex_);
      continue;
    }
    view.likely_pages = parts_.tracker->LikelyCount(governor_.options().max_dirty_pages);
    uint64_t wait_ns = governor_.NextLookNs(view) - view.now_ns;
    // What a sleep oversleeps matters to short epochs only, and to nobody if nothing is written.
    // Without a slot the ack wakes whoever waits here.
    const bool matters =
        view.slot_free && wait_ns < kShortWaitNs && (governor_.expects_pages() || output_waiting_);
    // A vCPU itself ends the interval; were it kept from that, this thread would have to.
    if (alarm_ns_ != 0 && (!view.watches_budget || look_on_vcpu_) && !output_waiting_) {
      wait_ns = std::max(alarm_ns_, view.now_ns) + kAlarmLateNs - view.now_ns;
    } else if (matters && wait_ns <= spin_ns_) {
      SpinLocked();
      continue;
    } else if (matters) {
      wait_ns -= std::min(spin_ns_, wait_ns / 2);
    }
    thread_due_ns_ = view.now_ns + wait_ns;
    changed_.WaitWithTimeout(&mutex_, absl::Nanoseconds(static_cast<int64_t>(wait_ns)));
    thread_due_ns_ = kNotDue;
  }
  return std::nullopt;
}

void CheckpointLoop::SpinLocked() {
  mutex_.Unlock();
  for (int i = 0; i < 32; ++i) __builtin_ia32_pause();
  mutex_.Lock();
}

void CheckpointLoop::ThreadMain() {
  ::pthread_setname_np(::pthread_self(), "checkpoint");
  // Epochs may be shorter than the 50 us by which the kernel may be late else. As an ordinary
  // timer, 1 ns is the least (prctl(2)); if it is refused, epochs last a little longer.
  ::prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
  // Here and not when the pool is made: at a promotion the guest would wait for it.
  parts_.staging->Populate();
  absl::MutexLock lock(&mutex_);
  while (std::optional<CutReason> reason = WaitForWork()) Work(*reason);
}

bool CheckpointLoop::Turn() {
  absl::MutexLock lock(&mutex_);
  if (stopping_ || (mode_ == Mode::kCutting && !SlotFreeLocked())) return false;
  const std::optional<CutReason> reason = DueLocked();
  if (reason) Work(*reason);
  return reason.has_value();
}

void CheckpointLoop::Work(CutReason reason) {
  const Mode mode = mode_;
  const uint64_t since_ns = ring_full_ ? ring_full_ns_ : parts_.clock->NowNs();
  busy_ = true;
  mutex_.Unlock();
  if (mode == Mode::kCutting) {
    CutOnce(reason, {.since_ns = since_ns});
    AuditBehindGuest();
  } else {
    DrainOnce();
  }
  mutex_.Lock();
  busy_ = false;
  changed_.SignalAll();
}

void CheckpointLoop::AuditBehindGuest() {
  if (parts_.auditor == nullptr) return;
  while (parts_.auditor->HashSome()) {
    absl::MutexLock lock(&mutex_);
    if (stopping_ || mode_ != Mode::kCutting || flush_waiters_ > 0 || DueLocked()) return;
  }
}

void CheckpointLoop::DrainOnce() {
  {
    absl::MutexLock lock(&mutex_);
    ring_full_ = false;  // before the pause: a vCPU that stops later says so anew
  }
  absl::StatusOr<memory::PageSet> pages = checkpoint_.Drain();
  absl::MutexLock lock(&mutex_);
  drain_requested_ = false;
  // One that has lost something is not made good by the next.
  drain_status_.Update(pages.status());
  // In kIdle nobody asks what was dirty.
  if (pages.ok() && synced_dirty_.has_value()) synced_dirty_->InsertAll(*pages);
}

absl::Status CheckpointLoop::OnPaused() {
  absl::MutexLock lock(&mutex_);
  ring_full_ = requested_ = output_waiting_ = false;
  alarm_ns_ = 0;
  while (mode_ == Mode::kCutting && !SlotFreeLocked()) changed_.Wait(&mutex_);
  if (mode_ != Mode::kCutting) return absl::CancelledError("protection ended");
  return absl::OkStatus();
}

// What a vCPU asks for when it runs again, which may be before the one that made the checkpoint
// does anything else (NextAlarmNs), is of the new epoch.
void CheckpointLoop::OnResuming(const StagedEpoch& staged, uint64_t interval_ns) {
  const auto& phases_ns = staged.phases.ns;
  const uint64_t worked_ns =
      std::accumulate(phases_ns.begin(), phases_ns.end(), uint64_t{0}) - staged.phases.waited_ns;
  absl::MutexLock lock(&mutex_);
  governor_.Learn(interval_ns, staged.page_count, worked_ns);
  epoch_began_ns_ = parts_.clock->NowNs();
}

bool CheckpointLoop::CutOnce(CutReason reason, const SelfStop& stop) {
  Term term;
  EpochId epoch;
  EpochSink* sink;
  uint64_t began_ns;
  {
    absl::MutexLock lock(&mutex_);
    term = term_;
    epoch = last_cut_.Next();
    sink = sink_;
    began_ns = epoch_began_ns_;
    in_parts_ = false;
  }
  PartsSink parts(this, sink);
  bool reached = false;  // the guest stood still
  const uint64_t stopped_ns = std::min(stop.since_ns, parts_.clock->NowNs());
  const uint64_t interval_ns = stopped_ns - std::min(began_ns, stopped_ns);
  absl::StatusOr<StagedEpoch> staged = checkpoint_.Run(
      term, epoch, reason, &parts,
      [this, &reached] {
        reached = true;
        return OnPaused();
      },
      stop, [this, interval_ns](const StagedEpoch& ended) { OnResuming(ended, interval_ns); });
  const uint64_t resumed_ns = parts_.clock->NowNs();
  if (staged.ok()) {
    staged->interval_ns = interval_ns;
    {
      absl::MutexLock lock(&mutex_);
      last_cut_ = epoch;
      if (!stop.is_here) ++progress_;
      in_parts_ = false;
      failures_ = 0;
    }
    // The vCPU goes on behind this only: its pause is longer by what the last one of these took.
    if (stop.is_here) staged->phases.pause_ns += hand_over_ns_;
    sink->Submit(*std::move(staged));
    if (stop.is_here) hand_over_ns_ = parts_.clock->NowNs() - resumed_ns;
    return true;
  }
  bool gave_up = false;
  {
    absl::MutexLock lock(&mutex_);
    if (mode_ != Mode::kCutting) return true;  // halted meanwhile: not a failure
    if (stop.is_here && !reached && absl::IsUnavailable(staged.status())) return false;
    epoch_began_ns_ = resumed_ns;
    ++progress_;
    in_parts_ = false;
    requested_ = true;  // its pages wait: try again at once
    gave_up = ++failures_ >= max_failures_ || absl::IsDataLoss(staged.status());
    if (gave_up) SetModeLocked(Mode::kIdle);
  }
  listener_->OnCheckpointFailed(epoch, reason, staged.status());
  if (gave_up) listener_->OnGaveUp(staged.status());
  return true;
}

}  // namespace romulus::epoch

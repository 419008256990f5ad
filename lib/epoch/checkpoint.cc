#include "epoch/checkpoint.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace romulus::epoch {
namespace {

// The longest that a paused guest waits for staging memory before the checkpoint gives up. A
// pipeline that frees nothing for so long has lost its peer; losing it is noticed sooner than this.
constexpr absl::Duration kStagingPatience = absl::Seconds(30);

}  // namespace

// Gives the time since the last phase ended to the one that ends now: what ends one begins the
// next, so that a checkpoint reads the clock once for each.
class Checkpoint::PhaseTimer {
 public:
  PhaseTimer(const base::Clock* clock, PhaseTimes& times, uint64_t began_ns)
      : clock_(clock), times_(times), ended_ns_(began_ns) {}
  PhaseTimer(const PhaseTimer&) = delete;
  PhaseTimer& operator=(const PhaseTimer&) = delete;

  void Ended(Phase phase) {
    const uint64_t before_ns = std::exchange(ended_ns_, clock_->NowNs());
    times_[phase] += ended_ns_ - before_ns;
  }
  // The time since then is of no phase.
  void Skip() { ended_ns_ = clock_->NowNs(); }
  // When the last phase ended.
  uint64_t ended_ns() const { return ended_ns_; }

 private:
  const base::Clock* clock_;
  PhaseTimes& times_;
  uint64_t ended_ns_;
};

// Undoes a checkpoint unless told that it succeeded. Declared after the pause guard, so it runs
// while the guest still stands.
class Checkpoint::Rollback {
 public:
  Rollback(const CheckpointParts& parts, StagedEpoch& staged, EpochSink* sink)
      : parts_(parts), staged_(staged), sink_(sink) {}
  ~Rollback() {
    if (done_) return;
    if (cut_) {
      parts_.gate->UndoCut(staged_.epoch);
      for (HeldOutput* const output : parts_.outputs) output->UndoCut(staged_.epoch);
      if (parts_.disk_log != nullptr) {
        parts_.disk_log->UndoCut(staged_.epoch, std::move(staged_.disk_writes));
      }
    }
    if (shipped_) sink_->Abort(staged_.term, staged_.epoch);
    parts_.tracker->PutBack();
  }
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;

  void Shipped() { shipped_ = true; }
  void Cut() { cut_ = true; }
  void Done() { done_ = true; }

 private:
  const CheckpointParts& parts_;
  StagedEpoch& staged_;
  EpochSink* const sink_;
  bool shipped_ = false;
  bool cut_ = false;
  bool done_ = false;
};

Checkpoint::Checkpoint(const CheckpointParts& parts, const PageCopierOptions& copying)
    : parts_(parts), copier_(parts.memory, copying) {}

absl::StatusOr<StagedEpoch> Checkpoint::Run(
    Term term, EpochId epoch, CutReason reason, EpochSink* sink,
    const std::function<absl::Status()>& may_submit, const SelfStop& stop,
    const std::function<void(const StagedEpoch&)>& on_resume) {
  StagedEpoch staged;
  staged.term = term;
  staged.epoch = epoch;
  staged.reason = reason;
  PhaseTimes& times = staged.phases;
  const uint64_t began_ns = std::min(stop.since_ns, parts_.clock->NowNs());

  // 1, 2. Stop every vCPU, finish half-done I/O, quiet the devices. State is read from here on.
  PhaseTimer timer(parts_.clock, times, began_ns);
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<vmm::PausedGuest> paused,
                           parts_.guest->Pause({.capture_state = true, .if_free = stop.is_here}));
  timer.Ended(Phase::kStop);
  Rollback rollback(parts_, staged, sink);
  ROMULUS_RETURN_IF_ERROR(may_submit());
  timer.Skip();

  // 3, 4. Harvest all rings, then reset them, before any page is read.
  ROMULUS_RETURN_IF_ERROR(HarvestAndReset(timer));

  // 5. With the pages that the VMM wrote. Once: what the audit has sent again, which needs no
  // quiet, may be marked at any time, and is the next epoch's then.
  const memory::PageSet& dirty = parts_.tracker->Union();
  staged.page_count = dirty.size();
  if (parts_.auditor != nullptr) parts_.auditor->OnHarvest(dirty);
  timer.Ended(Phase::kUnion);

  // 6. Copy pages, and take the state that the vCPU threads have been reading meanwhile.
  ROMULUS_RETURN_IF_ERROR(CopyPages(dirty, staged, sink, rollback));
  timer.Ended(Phase::kCopy);
  if (base::Fires(parts_.failpoints, "checkpoint.capture")) return absl::InternalError("failpoint");
  ROMULUS_ASSIGN_OR_RETURN(staged.machine, paused->TakeState());
  timer.Ended(Phase::kCapture);
  ROMULUS_RETURN_IF_ERROR(FillRings(*paused, timer));

  // 7. Cut the disk log and the output at this epoch.
  ROMULUS_RETURN_IF_ERROR(Cut(epoch, staged));
  rollback.Cut();
  if (base::Fires(parts_.failpoints, "checkpoint.cut")) return absl::InternalError("failpoint");
  timer.Ended(Phase::kCut);
  if (observer_) {
    observer_(staged);
    timer.Skip();
  }

  // 8. Resume. Encoding, sending and waiting for the ack happen behind the running guest.
  rollback.Done();
  parts_.tracker->Forget();
  if (on_resume) on_resume(staged);
  paused->Resume();
  timer.Ended(Phase::kResume);
  times.pause_ns = timer.ended_ns() - began_ns;
  if (parts_.auditor != nullptr) staged.audit = parts_.auditor->TakeRuns();
  if (parts_.disk_auditor != nullptr) staged.disk_audit = parts_.disk_auditor->TakeRuns();
  return staged;
}

absl::StatusOr<memory::PageSet> Checkpoint::Drain() {
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<vmm::PausedGuest> paused,
                           parts_.guest->Pause({.capture_state = false}));
  PhaseTimes times;
  PhaseTimer timer(parts_.clock, times, parts_.clock->NowNs());
  ROMULUS_RETURN_IF_ERROR(HarvestAndReset(timer));
  memory::PageSet pages = parts_.tracker->Union();
  parts_.tracker->Forget();
  return pages;
}

absl::Status Checkpoint::HarvestAndReset(PhaseTimer& timer) {
  ROMULUS_RETURN_IF_ERROR(parts_.tracker->Harvest());
  timer.Ended(Phase::kHarvest);
  ROMULUS_RETURN_IF_ERROR(parts_.tracker->Reset());
  timer.Ended(Phase::kReset);
  return absl::OkStatus();
}

// Now and then, and not at all where KVM or the guest cannot: rings work without, too.
absl::Status Checkpoint::FillRings(vmm::PausedGuest& paused, PhaseTimer& timer) {
  if (!may_fill_rings_ || !parts_.tracker->LacksBallast()) return absl::OkStatus();
  may_fill_rings_ = paused.FillRings().ok();
  ROMULUS_RETURN_IF_ERROR(parts_.tracker->Settle());
  timer.Ended(Phase::kReset);
  return absl::OkStatus();
}

absl::Status Checkpoint::Cut(EpochId epoch, StagedEpoch& staged) {
  if (parts_.disk_log != nullptr) {
    ROMULUS_RETURN_IF_ERROR(parts_.disk_log->status());
    staged.disk_writes = parts_.disk_log->Cut(epoch);
  }
  if (parts_.disk_auditor != nullptr) parts_.disk_auditor->OnCut();
  staged.console = parts_.gate->Cut(epoch);
  staged.console_released = parts_.gate->released_offset();
  staged.holds_output = !staged.console.bytes.empty();
  for (HeldOutput* const output : parts_.outputs) staged.holds_output |= output->CutAt(epoch);
  return absl::OkStatus();
}

absl::Status Checkpoint::CopyPages(const memory::PageSet& dirty, StagedEpoch& staged,
                                   EpochSink* sink, Rollback& rollback) {
  std::span<const Gfn> pages = dirty.pages();
  while (!pages.empty()) {
    ROMULUS_ASSIGN_OR_RETURN(StagingChunk chunk, NextChunk(staged, sink, rollback));
    // With all that the pool has: what is copied together is copied by several.
    const size_t first = staged.batches.size();
    for (std::optional<StagingChunk> next = std::move(chunk); next;) {
      if (base::Fires(parts_.failpoints, "checkpoint.copy")) {
        return absl::InternalError("failpoint");
      }
      staged.batches.push_back(TakeBatch(pages, *std::move(next)));
      next = pages.empty() ? std::nullopt : parts_.staging->TryAcquire();
    }
    copier_.Copy(std::span(staged.batches).subspan(first));
  }
  return absl::OkStatus();
}

PageBatch Checkpoint::TakeBatch(std::span<const Gfn>& pages, StagingChunk chunk) {
  const std::span<const Gfn> part = pages.first(std::min(pages.size(), StagingChunk::kPages));
  pages = pages.subspan(part.size());
  return PageBatch{{part.begin(), part.end()}, std::move(chunk)};
}

// An epoch larger than the pool leaves in parts while the guest waits: memory stays bounded (P6).
absl::StatusOr<StagingChunk> Checkpoint::NextChunk(StagedEpoch& staged, EpochSink* sink,
                                                   Rollback& rollback) {
  if (std::optional<StagingChunk> chunk = parts_.staging->TryAcquire()) return *std::move(chunk);
  const uint64_t began_ns = parts_.clock->NowNs();
  for (PageBatch& batch : staged.batches) {
    rollback.Shipped();
    sink->StagePages(staged.term, staged.epoch, std::move(batch));
  }
  staged.batches.clear();
  absl::StatusOr<StagingChunk> chunk = parts_.staging->Acquire(kStagingPatience);
  staged.phases.waited_ns += parts_.clock->NowNs() - began_ns;
  return chunk;
}

}  // namespace romulus::epoch

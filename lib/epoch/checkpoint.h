// One checkpoint: everything that happens while the guest stands still. Run() is the order of the
// design, written once; every phase is a function of this class. A failure before the guest resumes
// rolls back: dirty pages are put back, the output cut is undone, the guest resumes, the reason is
// the Status (P5).
//
// Checkpoint thread only. Does not log; the pause allocates only what its pages and state need.
#ifndef ROMULUS_EPOCH_CHECKPOINT_H_
#define ROMULUS_EPOCH_CHECKPOINT_H_

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/failpoints.h"
#include "base/types.h"
#include "epoch/auditor.h"
#include "epoch/disk_auditor.h"
#include "epoch/disk_log.h"
#include "epoch/held_output.h"
#include "epoch/output_gate.h"
#include "epoch/page_copier.h"
#include "epoch/phases.h"
#include "epoch/staged_epoch.h"
#include "epoch/staging_pool.h"
#include "memory/guest_memory.h"
#include "tracker/tracker.h"
#include "vmm/guest.h"

namespace romulus::epoch {

// What a checkpoint works on; all outlive it.
struct CheckpointParts {
  vmm::Guest* guest = nullptr;
  memory::GuestMemory* memory = nullptr;
  tracker::Tracker* tracker = nullptr;
  StagingPool* staging = nullptr;
  OutputGate* gate = nullptr;
  const base::Clock* clock = nullptr;
  base::Failpoints* failpoints = nullptr;  // may be null
  DiskLog* disk_log = nullptr;             // may be null: no disks
  std::vector<HeldOutput*> outputs = {};   // beside the gate: cut, undone and released with it
  Auditor* auditor = nullptr;              // may be null: memory is not audited
  DiskAuditor* disk_auditor = nullptr;     // may be null: nor are disks
};

// For tests: called with the guest still paused, all pages copied.
using PausedObserver = std::function<void(const StagedEpoch&)>;

// A vCPU that stands already, because its ring is full.
struct SelfStop {
  uint64_t since_ns = ~uint64_t{0};  // by the parts' clock: the pause counts from there
  bool is_here = false;              // Run() is called on its thread
};

class Checkpoint {
 public:
  explicit Checkpoint(const CheckpointParts& parts, const PageCopierOptions& copying = {});

  // Ends the running epoch and returns it staged. `sink` takes parts of an epoch that is larger
  // than the staging pool, and their Abort. `may_submit` is called with the guest paused and waits
  // until one more epoch may be on its way; an error from it aborts the checkpoint. `on_resume` is
  // called when nothing can fail any more, before any vCPU runs.
  absl::StatusOr<StagedEpoch> Run(
      Term term, EpochId epoch, CutReason reason, EpochSink* sink,
      const std::function<absl::Status()>& may_submit, const SelfStop& stop = {},
      const std::function<void(const StagedEpoch&)>& on_resume = nullptr);

  // Harvest alone (full sync): the pages written since the last Run or Drain.
  absl::StatusOr<memory::PageSet> Drain();

  void SetObserver(PausedObserver observer) { observer_ = std::move(observer); }

 private:
  class PhaseTimer;
  class Rollback;

  absl::Status HarvestAndReset(PhaseTimer& timer);
  absl::Status FillRings(vmm::PausedGuest& paused, PhaseTimer& timer);
  absl::Status Cut(EpochId epoch, StagedEpoch& staged);
  absl::Status CopyPages(const memory::PageSet& dirty, StagedEpoch& staged, EpochSink* sink,
                         Rollback& rollback);
  // The next pages, as many as a chunk takes, are to be copied to it.
  static PageBatch TakeBatch(std::span<const Gfn>& pages, StagingChunk chunk);
  absl::StatusOr<StagingChunk> NextChunk(StagedEpoch& staged, EpochSink* sink, Rollback& rollback);

  CheckpointParts parts_;
  PageCopier copier_;
  PausedObserver observer_;
  bool may_fill_rings_ = true;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_CHECKPOINT_H_

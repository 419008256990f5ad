// The primary's half of the audit of disks: walks over their blocks, in a time that is configured,
// and says which blocks have which hashes in an epoch. The secondary compares them with its copies
// at exactly that epoch (replica/disk_files.h).
//
// What an epoch makes of a disk is given by the log: all writes that were begun before its cut, in
// that order, which is also the order in which overlapping ones reach the disk. So a block that is
// read while no write to it is under way is, at that moment, what all writes to it that have been
// begun make of it; and if no other one is begun between the beginning of the read and the cut of
// an epoch, that is what the block is in this epoch. The read may be slow, and cuts may lie in it.
// Otherwise what was read is dropped, and the block read again; one that the guest writes all the
// time is left out of the pass after some tries, and counted. So a hash that is sent and not equal
// means that a copy has changed by itself, or that a write was lost: there are no false alarms.
//
// An aborted checkpoint changes nothing: what it would have named is judged anew at the next cut.
//
// Repair() sends a block again by the same rule: read while nobody writes it, and put into the log
// before anybody begins to. So the log still is what happens to the disk, in its order.
//
// Reading is done by a thread of this class, a few blocks at a time: never in the pause, never on a
// loop. OnCut() and TakeRuns() on the checkpoint thread; BeginStream() while that one rests;
// OnWrite*() under the lock of the log, which comes before this one's; the rest on any thread. All
// that is passed in outlives the auditor, and nothing is written to the disks once it is gone.
#ifndef ROMULUS_EPOCH_DISK_AUDITOR_H_
#define ROMULUS_EPOCH_DISK_AUDITOR_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/cond_var.h"
#include "epoch/disk_log.h"
#include "epoch/staged_epoch.h"

namespace romulus::epoch {

// Owned by epoch, implemented by the daemon: the disks' bytes, past the guest. May block.
class DiskBlockSource {
 public:
  virtual ~DiskBlockSource() = default;
  // A block of which nothing was ever written need not be read for that.
  virtual absl::StatusOr<DiskHash> Hash(const DiskBlock& block) = 0;
  virtual absl::StatusOr<std::vector<std::byte>> Read(const DiskBlock& block) = 0;
};

struct DiskAuditOptions {
  uint64_t pass_ns = 86'400'000'000'000;          // a whole pass of all disks
  size_t max_blocks_per_epoch = kMaxAuditBlocks;  // at most that; a pass takes longer if it must
  std::vector<uint64_t> disk_sizes;               // as DiskLog::Options
};

// Of the passes on this stream, but for `passes` and what is said of the last one.
struct DiskAuditProgress {
  uint64_t blocks_done = 0;       // of the pass under way; sent, or left out
  uint64_t blocks_total = 0;      // of all disks
  uint64_t blocks_left_out = 0;   // of all passes: written all the time, or unreadable
  uint64_t passes = 0;            // done since the guest came here
  uint64_t last_pass_ns = 0;      // how long the last one took
  uint64_t last_pass_end_ns = 0;  // by the clock; 0: none yet
};

class DiskAuditor final : public DiskWriteObserver {
 public:
  DiskAuditor(const DiskAuditOptions& options, DiskBlockSource* source, DiskLog* log,
              const base::Clock* clock);
  ~DiskAuditor() override;  // waits for a read under way

  // Its thread. Without it a test calls ReadSome().
  void Start();
  // A new stream, before its first epoch is cut: a pass begins. And no epoch is cut any more.
  void BeginStream();
  void EndStream();
  // Reads what is due, a bounded number of blocks, and what has to be repaired.
  void ReadSome();

  // In the pause, with the cut of the disk log.
  void OnCut();
  // The checkpoint has not failed: what is known of its epoch.
  std::vector<DiskAuditRun> TakeRuns();
  // The secondary has something else there. At most kMaxAuditBlocks wait; the next pass finds what
  // is beyond it.
  void Repair(std::span<const DiskBlock> blocks);

  // Like Auditor::IsBehind().
  bool IsBehind() const;
  DiskAuditProgress progress() const;

  void OnWriteBegun(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) override;
  void OnWriteDone(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) override;

 private:
  struct Range {
    uint32_t disk = 0;
    uint64_t begin = 0;
    uint64_t end = 0;
    bool Touches(const DiskBlock& block) const;
    friend bool operator==(const Range&, const Range&) = default;
  };
  // A block of the window.
  struct Watched {
    DiskBlock block;
    DiskHash hash;
    bool is_known = false;  // read, and no write begun since that read began
    bool is_cut = false;    // and the newest cut found it so
    int reads = 0;
  };

  void ThreadMain();
  uint64_t BlocksDueLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  DiskBlock BlockAt(uint64_t index) const;
  bool UnderWayLocked(const DiskBlock& block) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What to read now: what was read in vain, and what is due.
  std::vector<DiskBlock> PlanLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Watched* FindLocked(const DiskBlock& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReadOne(const DiskBlock& block) ABSL_LOCKS_EXCLUDED(mutex_);
  void RepairOne() ABSL_LOCKS_EXCLUDED(mutex_);
  // Begins the watch of what is read now; false if it cannot be read now.
  bool WatchLocked(const DiskBlock& block) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void LeftWindowLocked(uint64_t blocks) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const DiskAuditOptions options_;
  DiskBlockSource* const source_;
  DiskLog* const log_;
  const base::Clock* const clock_;
  const uint64_t total_;

  mutable absl::Mutex mutex_;
  base::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool streaming_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Range> under_way_ ABSL_GUARDED_BY(mutex_);  // writes; the devices bound them
  std::vector<Watched> window_ ABSL_GUARDED_BY(mutex_);
  std::optional<DiskBlock> reading_ ABSL_GUARDED_BY(mutex_);  // gone once a write to it is begun
  std::deque<DiskBlock> repairs_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 0;  // block of the pass, over all disks
  uint64_t pass_began_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  DiskAuditProgress progress_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_DISK_AUDITOR_H_

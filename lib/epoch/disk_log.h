// What the guest does to its disks, recorded for the secondary. Three modes:
//
//   kOff       nothing is recorded (solo)
//   kTracking  a full sync copies the disks; which blocks the guest wrote meanwhile is remembered
//   kLogging   every write is kept, in order, until the epoch that it belongs to is acked
//
// The step from tracking to logging loses nothing: writes under way at SwitchToLogging() are not in
// the log, so their blocks are dirty once they are done, and AwaitUnlogged() waits for that. A
// copy of those blocks, read after it, and then all logged writes in order, are the disk as it is
// when the first epoch ends, even if the copy has some of the logged writes already.
//
// Bounded (P6): over the cap Full() is true, the block devices take no more requests from the
// guest, and what they had taken is the overshoot.
//
// A write that fails leaves the primary's disk with old bytes, new bytes or some of each, and the
// guest is told so. The log has the new ones: so what is on the disk now is read back and logged
// too, before the guest is told and before anything else may write there. Where it cannot be read
// the guest cannot read it either, and a failing disk is no reason to lose the good copy: the log
// stays as it is. What is too large to be read back makes status() an error: the copies are not
// equal any more, checkpoints fail, and protection has to begin anew.
//
// Any thread.
#ifndef ROMULUS_EPOCH_DISK_LOG_H_
#define ROMULUS_EPOCH_DISK_LOG_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/cond_var.h"
#include "base/types.h"
#include "devices/virtio/block_backend.h"
#include "epoch/staged_epoch.h"

namespace romulus::epoch {

// Blocks of kDiskBlockBytes: [first, first + count).
struct DiskBlockRange {
  uint64_t first = 0;
  uint64_t count = 0;
  friend bool operator==(const DiskBlockRange&, const DiskBlockRange&) = default;
};

// Owned by epoch, implemented by the DiskAuditor: hears of every write, discard and write zeroes,
// in every mode. Under the log's lock: must not call it back.
class DiskWriteObserver {
 public:
  virtual ~DiskWriteObserver() = default;
  // Before any of it reaches the disk, and once all of it that ever will has.
  virtual void OnWriteBegun(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) = 0;
  virtual void OnWriteDone(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) = 0;
};

class DiskLog {
 public:
  enum class Mode : uint8_t { kOff, kTracking, kLogging };
  struct Options {
    uint64_t cap_bytes = 64u << 20;
    // By index in the configuration; 0 for a disk that is not replicated.
    std::vector<uint64_t> disk_sizes;
  };

  explicit DiskLog(const Options& options);

  // --- the full sync ---

  // Any mode -> kTracking: what was recorded is forgotten, nothing is dirty, status() is OK.
  void BeginTracking();
  // The blocks written since BeginTracking() or the last call, ascending. Also after
  // SwitchToLogging(): those of writes that were under way then.
  std::vector<DiskBlockRange> TakeDirtyBlocks(uint32_t disk);
  uint64_t dirty_blocks(uint32_t disk) const;
  // kTracking -> kLogging. Errors: FailedPrecondition in another mode.
  absl::Status SwitchToLogging();
  // Until no write is under way that is not in the log. Errors: DeadlineExceeded; Cancelled if the
  // mode changes meanwhile.
  absl::Status AwaitUnlogged(absl::Duration timeout);
  // Any mode -> kOff.
  void Stop();

  // --- epochs ---

  // Ends the epoch's share of the log and hands it over; what it occupies counts until the epoch is
  // acked. Empty unless logging.
  std::vector<DiskWrite> Cut(EpochId epoch);
  // The checkpoint that made the newest Cut failed: its writes, which are given back, belong to the
  // next epoch.
  void UndoCut(EpochId epoch, std::vector<DiskWrite> writes);
  // `epoch` and all before it are acked: what they occupied is free.
  void Release(EpochId epoch);

  // --- state ---

  Mode mode() const;
  // Not OK: the copies differ and the log cannot mend it; names the disk and the reason.
  absl::Status status() const;
  bool Full() const { return full_.load(std::memory_order_acquire); }
  uint64_t held_bytes() const;
  uint64_t cap_bytes() const { return options_.cap_bytes; }
  uint64_t failed_writes() const;
  // The guest is made to stand still: as if it were full, in any mode, until it is opened again.
  // What was submitted before belongs to the epoch that is cut next; the rest stays in the devices'
  // queues.
  void Close();
  void Open();
  // Told when the cap is reached, for the governor: cut soon. Must not block. Set before use.
  void SetOnFull(std::function<void()> callback);
  // Before use; outlives it.
  void SetObserver(DiskWriteObserver* observer) { observer_ = observer; }
  // Logs what is on the disk already, for a secondary whose disk has something else there, if
  // `is_current()`, asked while nothing can begin or be logged. Whether it did: not unless logging,
  // not when full.
  bool Repair(const DiskBlock& block, std::vector<std::byte> bytes,
              const std::function<bool()>& is_current);
  // Calls `ready` once, when it is not full: from whatever thread made it so, perhaps from within.
  void WhenRoom(std::function<void()> ready);

  // --- for LoggedDisk ---

  // A write, discard or write zeroes goes to the disk now. Returns a ticket for Done().
  struct Ticket {
    uint32_t disk = 0;
    uint64_t offset_bytes = 0;
    uint64_t size_bytes = 0;
    uint64_t recording = 0;  // which of the logs has it; 0: none
  };
  Ticket Begin(uint32_t disk, const devices::BlockRequest& request);
  // It is done, well or not; what a failed one left on the disk was given to Mend() before.
  void Done(const Ticket& ticket);
  // The same for a flush, which needs no Done().
  void Flush(uint32_t disk);
  // It failed. True: the log has it, so Mend() or Unequal() may have to follow, before Done().
  bool Failed(const Ticket& ticket);
  // A failed write left these bytes on the disk.
  void Mend(const Ticket& ticket, std::vector<std::byte> bytes);
  // What a failed write left is not looked at.
  void Unequal(const Ticket& ticket, const absl::Status& why);

 private:
  struct Held {
    EpochId epoch;
    uint64_t bytes = 0;
  };
  struct DirtyBits {
    std::vector<uint64_t> words;
    uint64_t blocks = 0;  // of the disk
    uint64_t count = 0;   // dirty ones
  };
  void MarkLocked(const Ticket& ticket) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void AppendLocked(DiskWrite write) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Both return what to call once the mutex is free.
  std::vector<std::function<void()>> ForgetLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<std::function<void()>> UpdateFullLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::function<void()> on_full_;
  DiskWriteObserver* observer_ = nullptr;

  mutable absl::Mutex mutex_;
  base::CondVar changed_;
  Mode mode_ ABSL_GUARDED_BY(mutex_) = Mode::kOff;
  uint64_t recording_ ABSL_GUARDED_BY(mutex_) = 1;  // rises with every log that is begun
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::vector<DirtyBits> dirty_ ABSL_GUARDED_BY(mutex_);
  std::vector<DiskWrite> open_ ABSL_GUARDED_BY(mutex_);  // of the running epoch
  uint64_t open_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Held> held_ ABSL_GUARDED_BY(mutex_);  // cut, not acked
  uint64_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t logged_ ABSL_GUARDED_BY(mutex_) = 0;    // writes under way that are in this log
  uint64_t unlogged_ ABSL_GUARDED_BY(mutex_) = 0;  // and that are not
  uint64_t failed_writes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::function<void()>> waiting_for_room_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<bool> full_{false};
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_DISK_LOG_H_

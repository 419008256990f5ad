// The disks' part of a full sync: copies every replicated disk to the secondary while the guest
// runs and writes. Holes and zeros travel as names only. What the secondary had before is compared
// first, by hashes, and only blocks that differ are sent: so a copy that was left behind costs what
// changed, and a sync that was interrupted goes on where it was. Then rounds over what the guest
// wrote meanwhile, and at the end the step to the log of writes, which loses nothing: blocks of
// writes that were under way then are sent last, and the first epoch does all later writes, in
// order, over them.
//
// Begin() to Finish() on one thread; Cancel() and OnHashes() on any. Reads one block at a time: the
// guest's own requests come in between. Owns nothing it is given.
#ifndef ROMULUS_WIRE_DISK_SYNC_H_
#define ROMULUS_WIRE_DISK_SYNC_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/cond_var.h"
#include "base/types.h"
#include "codec/disk_records.h"
#include "codec/frame.h"

namespace romulus::wire {

class FrameSender;

// Bytes [begin, end) of a disk.
struct DiskRange {
  uint64_t begin = 0;
  uint64_t end = 0;
};

// Owned by wire, implemented by the daemon on the guest's disks and their log.
class DiskSyncSource {
 public:
  virtual ~DiskSyncSource() = default;
  virtual codec::DiskLayout disks() const = 0;
  // From now on the blocks that the guest writes are remembered.
  virtual absl::Status BeginTracking() = 0;
  // Fills `into`. May block on the disk.
  virtual absl::Status Read(uint32_t disk, uint64_t offset_bytes, std::span<std::byte> into) = 0;
  // The first range at or after `offset_bytes` that is not known to read as zeros; begin is the
  // disk's size if there is none.
  virtual absl::StatusOr<DiskRange> NextData(uint32_t disk, uint64_t offset_bytes) = 0;
  // Written since the last call, ascending, within the disk; whole blocks of kDiskBlockBytes.
  virtual absl::StatusOr<std::vector<DiskRange>> TakeDirty(uint32_t disk) = 0;
  // From now on writes are logged for the first epoch. When this returns, those that were begun
  // before are done and TakeDirty() has them.
  virtual absl::Status SwitchToLogging() = 0;
};

struct DiskProgress {
  uint32_t disk = 0;
  uint64_t bytes_total = 0;
  uint64_t bytes_done = 0;   // of the first pass: sent, equal, or a hole on both sides
  uint64_t bytes_equal = 0;  // not sent, because they are there
  uint64_t bytes_sent = 0;   // all rounds
  uint64_t bytes_zero = 0;   // all rounds, named only
};

struct DiskSyncOptions {
  uint64_t max_rounds = 16;                // after the first pass
  uint64_t target_dirty_bytes = 4u << 20;  // a round this small is the last before the end
  double give_up_ratio = 0.9;              // as FullSyncOptions
  uint64_t progress_every_bytes = 8u << 20;
  absl::Duration answer_timeout = absl::Seconds(60);  // for one request's hashes
};

class DiskSync {
 public:
  // `all_zero`: disks of which the secondary says that its copy holds nothing but zeros.
  // `max_body_bytes`: of a frame, as the peer accepts. `on_progress`, on the caller's thread, may
  // be empty.
  DiskSync(const DiskSyncOptions& options, Term term, std::vector<uint32_t> all_zero,
           size_t max_body_bytes, DiskSyncSource* source, FrameSender* sender,
           std::function<void()> on_progress);

  // DiskSyncBegin and the first pass. Errors: Cancelled; DeadlineExceeded (no hashes came); the
  // source's; the link's.
  absl::Status Copy();
  // Rounds over what was written meanwhile, until little is left. Errors: as Copy().
  absl::Status Rounds();
  // The step to the log, what is left, DiskSyncEnd. Errors: as Copy().
  absl::Status Finish();

  void Cancel();
  // The body of a DiskHashes frame. Errors: InvalidArgument, if nobody asked for them.
  absl::Status OnHashes(absl::string_view body);

  const std::vector<DiskProgress>& progress() const { return progress_; }

 private:
  // A request for hashes that was sent.
  struct Asked {
    uint64_t first_block = 0;
    uint64_t count = 0;
  };
  // Where the data is, asked as the pass goes on.
  class DataMap;

  absl::Status CopyFresh(DiskProgress& disk);
  absl::Status CopyDifferent(DiskProgress& disk);
  absl::Status Compare(DiskProgress& disk, DataMap& data, const codec::DiskHashes& theirs);
  absl::Status SendRange(DiskProgress& disk, const DiskRange& range);
  // One block, or the disk's last piece; zeros of neighbours are gathered.
  absl::Status SendBlock(DiskProgress& disk, uint64_t offset, std::span<const std::byte> block);
  absl::Status AppendZeros(DiskProgress& disk, const DiskRange& range);
  absl::Status Ask(uint32_t disk, const Asked& asked);
  absl::StatusOr<codec::DiskHashes> AwaitHashes();
  absl::StatusOr<uint64_t> Round();  // bytes that were dirty
  absl::Status FlushZeros();
  absl::Status FlushBody();
  absl::Status SendFrame(codec::FrameKind kind, absl::string_view body);
  absl::Status Done(DiskProgress& disk, uint64_t bytes);
  bool cancelled() const;

  const DiskSyncOptions options_;
  const Term term_;
  const std::vector<uint32_t> all_zero_;
  const size_t max_body_bytes_;
  DiskSyncSource* const source_;
  FrameSender* const sender_;
  const std::function<void()> on_progress_;

  std::vector<DiskProgress> progress_;
  std::vector<std::byte> block_;
  std::string body_;  // of the DiskBlocks frame being filled
  uint32_t zeros_disk_ = 0;
  DiskRange zeros_;  // gathered, not yet in body_
  uint64_t told_at_bytes_ = 0;
  uint64_t done_bytes_ = 0;

  mutable absl::Mutex mutex_;
  base::CondVar changed_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  uint32_t asked_disk_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Asked> asked_ ABSL_GUARDED_BY(mutex_);  // not answered
  std::deque<codec::DiskHashes> answers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_DISK_SYNC_H_

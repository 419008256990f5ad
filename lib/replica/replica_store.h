// The secondary's copy of the guest: memory, machine state and the end of the console, by epoch.
//
//   Empty --BeginSync--> Syncing --first Commit--> Committed --TakeForPromotion--> Promoted
//                          ^                           |
//                          +------- BeginSync ---------+
//
// Full-sync pages go straight into memory, because while Syncing there is nothing to promote
// anyway; a new full sync over a committed replica gives that replica up, and status() says so. An
// epoch is staged beside the image; Commit() verifies it and from then on it counts (the ack may go
// out); ApplyCommitted() brings it into memory. TakeForPromotion() completes what is not applied
// yet, so a promoted guest is exactly the last committed epoch (P2), and every acked epoch is a
// committed one.
//
// With disks, an epoch is journaled before it counts as committed, and applied to them with the
// memory; a promotion brings them to the same epoch. Disks that cannot take what comes (full,
// broken) are no fault of the primary's: the store gives its replica up, so that the primary may go
// on alone, and the error says Fault::kDiskIo.
//
// Threads: the stream calls come from the session's thread, TakeForPromotion() and status() from
// any. One lock orders them: once TakeForPromotion() has returned an epoch, no frame changes
// anything here. The store shares the memory (a VM may be built on it ahead of time, but not run).
#ifndef ROMULUS_REPLICA_REPLICA_STORE_H_
#define ROMULUS_REPLICA_REPLICA_STORE_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/types.h"
#include "codec/frame.h"
#include "codec/page_encoding.h"
#include "memory/guest_memory.h"
#include "replica/assembler.h"
#include "replica/audit.h"
#include "replica/console_tail.h"
#include "replica/disk_replica.h"
#include "replica/epoch_key.h"
#include "replica/replica_status.h"
#include "state/machine_state.h"

namespace romulus::replica {

struct StoreOptions {
  // 0: the guest's memory size, the list's own cost, and disk_staging_bytes.
  uint64_t staging_cap_bytes = 0;
  uint64_t disk_staging_bytes = 0;
  uint64_t console_tail_cap_bytes = 16u << 20;
  // False if the memory may hold anything but zeros (it was a guest's before).
  bool memory_is_zero = true;
  // Outlives the store, or Retire(). Null: nothing is replicated but memory.
  DiskReplica* disks = nullptr;
};

// One bit per GFN.
class PageBits {
 public:
  PageBits(Gfn gfn_end, bool value)
      : words_((gfn_end.value() + 63) / 64, value ? ~uint64_t{0} : 0) {}
  bool Test(Gfn gfn) const { return (words_[gfn.value() / 64] >> (gfn.value() % 64) & 1) != 0; }
  // True if it was clear.
  bool Set(Gfn gfn) {
    const bool was = Test(gfn);
    words_[gfn.value() / 64] |= uint64_t{1} << (gfn.value() % 64);
    return !was;
  }
  void Reset(Gfn gfn) { words_[gfn.value() / 64] &= ~(uint64_t{1} << (gfn.value() % 64)); }
  void Clear() { std::fill(words_.begin(), words_.end(), 0); }

 private:
  std::vector<uint64_t> words_;
};

struct PromotableEpoch {
  EpochKey key;
  std::shared_ptr<memory::GuestMemory> memory;  // the replica's memory itself, not a copy
  state::MachineState machine;
  uint64_t console_offset = 0;  // of console_tail[0] in the guest's console stream
  std::string console_tail;     // to be said again: not known to be released by the primary
  uint64_t console_end = 0;     // where the guest goes on writing
};

struct CommitResult {
  EpochKey key;
  uint64_t sent_monotonic_ns = 0;  // for the ack's echo
  uint64_t page_count = 0;
  uint64_t disk_records = 0;
  uint64_t disk_bytes = 0;
  AuditFindings audit;  // of epochs before this one, on this stream: each is told once
};

class ReplicaStore {
 public:
  // Which stream may write; only the newest may.
  using StreamId = uint64_t;

  // `console` may be null; else it must outlive the store.
  ReplicaStore(std::shared_ptr<memory::GuestMemory> memory, const StoreOptions& options,
               CommittedConsole* console);

  // A stream in `term` was accepted; earlier streams may write no more. Errors: Fault::kTerm if the
  // store knows a newer term, Fault::kSuperseded after a promotion or Retire().
  absl::StatusOr<StreamId> OpenStream(Term term);

  // Frames of the stream, in order. Every error carries a Fault and ends the stream: open epochs
  // are dropped, what is committed stays, but for Fault::kDiskIo (above).
  absl::Status BeginSync(StreamId stream, Term term, uint64_t total_pages);
  absl::Status SyncPages(StreamId stream, const codec::Frame& frame);
  // The disks' part, between the two. `body`: of a DiskBlocks frame.
  absl::Status BeginDiskSync(StreamId stream, Term term, uint64_t disk_count);
  absl::StatusOr<std::vector<DiskHash>> HashDisk(StreamId stream, Term term, uint32_t disk,
                                                 uint64_t first_block, uint64_t count);
  absl::Status WriteDiskBlocks(StreamId stream, Term term, absl::string_view body);
  absl::Status EndDiskSync(StreamId stream, Term term);
  // Every page of memory must have been named by then, and the disks' part be over. Errors:
  // Fault::kCount.
  absl::Status EndSync(StreamId stream, Term term);
  absl::Status StagePages(StreamId stream, const codec::Frame& frame) {
    return Stage(stream, frame, &Assembler::AddPages);
  }
  absl::Status StageDisks(StreamId stream, const codec::Frame& frame) {
    return Stage(stream, frame, &Assembler::AddDisks);
  }
  absl::Status StageAudit(StreamId stream, const codec::Frame& frame) {
    return Stage(stream, frame, &Assembler::AddAudit);
  }
  // Verifies the epoch and makes it the newest committed one. All or nothing.
  absl::StatusOr<CommitResult> Commit(StreamId stream, const codec::Frame& frame);
  absl::Status Abort(StreamId stream, const codec::Frame& frame);
  // Brings what is committed into memory and to the disks; cheap if nothing waits. After the ack
  // went out, or before. Errors: Fault::kDiskIo.
  absl::Status ApplyCommitted(StreamId stream);
  // The primary has released the console stream up to here.
  absl::Status ConsoleReleased(StreamId stream, Term term, uint64_t offset);
  // Another store takes this one's place: no stream may begin here or write any more. Any thread.
  void Retire();
  // The guest ended for good on the primary: there is nothing to promote any more.
  absl::Status GuestFinished(StreamId stream, Term term, absl::string_view detail);
  // The primary goes on without this replica: nothing of it can be promoted, from before this
  // returns. Errors: as for frames, so Fault::kSuperseded after a promotion.
  absl::Status GiveUp(StreamId stream, Term term);
  // The stream ended: forgets its open epoch.
  void CloseStream(StreamId stream);

  // Hands the newest committed epoch over and seals the store; the disks are at that epoch and are
  // let go. `new_term`, if known, is the term in which it will run. Errors: FailedPrecondition
  // "nothing to promote: ...", the disks' (the store goes on unchanged), or because it was promoted
  // already.
  absl::StatusOr<PromotableEpoch> TakeForPromotion(Term new_term);
  // What took the epoch could not bring the guest to run, and did not touch the disks: they become
  // a secondary's copies of that epoch again, for the next store. Errors: the disks'.
  absl::Status TakeBackDisks();
  // Remembers a newer term; frames of older ones are refused from then on.
  void NoteTerm(Term term);

  ReplicaStatus status() const;
  // As of the last begin or end of a stream or of a full sync, or give-up; what is committed may be
  // newer.
  std::vector<DiskFacts> disk_facts() const;
  Term known_term() const;
  bool sealed() const { return sealed_.load(std::memory_order_acquire); }
  const memory::MemoryLayout& layout() const { return memory_->layout(); }

 private:
  class StreamLock;

  absl::Status CheckStream(StreamId stream, Term term);
  absl::Status Stage(StreamId stream, const codec::Frame& frame,
                     absl::Status (Assembler::*add)(const codec::Frame&));
  absl::Status Failed(absl::Status why);
  void PopulateNewPages(const codec::Frame& frame);
  absl::Status ApplySyncRecords(const codec::Frame& frame);
  absl::Status ApplySyncRecord(const codec::PageRecord& record, memory::PastCaches& many);
  absl::Status CheckDiskSync(StreamId stream, Term term, absl::string_view what);
  absl::Status WriteDiskRecord(const codec::DiskRecord& record);
  absl::Status ApplyPendingLocked();
  void ApplyMemoryLocked();
  // The disks said `why`: the replica is given up.
  absl::Status DiskFailedLocked(const absl::Status& why);
  void ForgetReplicaLocked();
  void PublishLocked();
  void PublishDisksLocked();

  const std::shared_ptr<memory::GuestMemory> memory_;
  CommittedConsole* const console_;
  const codec::DiskLayout disk_layout_;

  // Promotion must not starve behind a stream that never pauses: frames wait while it asks.
  std::atomic<int> takers_{0};
  std::atomic<bool> sealed_{false};
  bool retired_ = false;
  mutable std::mutex mutex_;
  std::condition_variable taken_;

  // All below: mutex_.
  StreamId stream_ = 0;
  bool stream_over_ = true;
  bool sync_begun_ = false;     // on this stream
  bool sync_complete_ = false;  // on this stream
  DiskReplica* disks_;          // null once retired
  enum class DiskSync : uint8_t { kNone, kRunning, kDone };
  DiskSync disk_sync_ = DiskSync::kNone;  // on this stream
  uint64_t sync_disk_bytes_ = 0;
  ReplicaState state_ = ReplicaState::kEmpty;
  Term known_term_;
  EpochKey newest_;
  EpochKey given_up_;  // the committed epoch that the full sync under way overwrites
  state::MachineState machine_;
  std::optional<AssembledEpoch> pending_;  // committed, not yet in memory
  AuditFindings findings_;                 // of this stream, not told yet
  Assembler assembler_;
  ConsoleTail tail_;
  PageBits touched_;  // may hold something else than zeros
  PageBits synced_;   // named in this full sync
  uint64_t synced_pages_ = 0;
  std::string finished_detail_;
  std::string disk_failure_;  // why the last replica was given up

  mutable std::mutex status_mutex_;
  ReplicaStatus status_;  // without detail
  std::vector<DiskFacts> disk_facts_;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_REPLICA_STORE_H_

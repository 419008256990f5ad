// The secondary's disks as files, with one journal for all of them beside the first one.
//
// A write reaches a disk only when its record in the journal, and all others of its segment, are
// durable; a segment is used again only when the disks are. So whatever stops this process or
// its host, the disks and the journal together are at exactly one epoch, and Open() brings the
// disks there. With Durability::kNever nothing is synced and only a crash of the process is
// survived: the stamp says so, and after a restart of the host the copy is not trusted.
//
// What is applied lags behind: the stream's thread only appends to one segment, while a thread of
// this class seals the other one, applies it, syncs the disks and frees it. Promote() does what is
// left. Space for an epoch's writes, in the journal and on the disks, is found before the epoch
// counts, so that what was acked can be applied (not on file systems that copy on write).
//
// Blocks that are to be compared with the primary's (Audit()) wait until all that was journaled by
// then is on the disks, and are given up when a later epoch writes to them: what the files have is
// then what the block is in its epoch, whatever else is journaled. The thread reads them, one at a
// time, between segments; if nothing else makes it apply what they wait for, they do.
//
// Epochs without disk writes cost no I/O: content does not change, so the newest record's epoch
// stands for them. Calls as DiskReplica says; the copies outlive this, and nobody else writes to
// them meanwhile.
#ifndef ROMULUS_REPLICA_DISK_FILES_H_
#define ROMULUS_REPLICA_DISK_FILES_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/cond_var.h"
#include "base/failpoints.h"
#include "base/work_mark.h"
#include "disk/copy.h"
#include "replica/disk_journal.h"
#include "replica/disk_replica.h"

namespace romulus::replica {

enum class Durability : uint8_t {
  kFlush,  // Journal() syncs an epoch in which the guest flushed
  kEpoch,  // ... and every other one that has writes
  kNever,  // nothing is synced until Promote()
};

struct DiskFilesOptions {
  Durability durability = Durability::kFlush;
  // Of each of the journal's two segments: what one epoch may hold.
  uint64_t segment_bytes = 128u << 20;
  // A segment this full is applied: what Promote() may still have to do.
  uint64_t apply_bytes = 16u << 20;
  // False: what the thread would do is done by the calls themselves (tests).
  bool own_thread = true;
  // How long blocks that are to be compared wait for the segment to be full.
  absl::Duration audit_patience = absl::Seconds(2);
  base::Failpoints* failpoints = nullptr;  // may be null
  // Open() found something in the journal, at `path`, that it did not take. May be empty.
  std::function<void(const std::string& path, const DroppedTail& tail)> on_dropped = {};
};

// Bytes of one segment for a cap on the primary's disk log, with what goes beyond the cap: what the
// devices had under way.
uint64_t JournalSegmentBytes(uint64_t disk_log_bytes, size_t disks);

class DiskFiles final : public DiskReplica {
 public:
  // `copies`: all that are replicated, by ascending index. Recovers what a crash left: applies the
  // journal if these are a secondary's copies. Copies that are not at one epoch are no error:
  // usable() says so, and a full sync mends it. Errors: those of the files.
  static absl::StatusOr<std::unique_ptr<DiskFiles>> Open(
      std::vector<std::shared_ptr<disk::DiskCopy>> copies, const DiskFilesOptions& options,
      disk::Files& files);
  // As a crash would leave it, which Open() mends; Close() is the better end.
  ~DiskFiles() override;

  // OK: the copies are at one epoch, newest(). Else why not, for a person.
  absl::Status usable() const;
  EpochKey newest() const;
  // Something went wrong outside a call; the next Journal() returns it.
  absl::Status health() const;
  // Of the thread that brings what is journaled to the disks. Any thread.
  base::WorkMark::Look work() const { return work_.look(); }

  std::vector<DiskFacts> facts() const override;
  absl::Status BeginSync(Term term) override;
  absl::StatusOr<std::vector<DiskHash>> HashBlocks(uint32_t disk, uint64_t first_block,
                                                   uint64_t count) override;
  absl::Status WriteBlocks(uint32_t disk, uint64_t offset_bytes,
                           std::span<const std::byte> bytes) override;
  absl::Status ZeroBlocks(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) override;
  absl::Status EndSync(Term term) override;
  absl::Status Journal(const EpochKey& epoch, std::span<const epoch::DiskWrite> writes) override;
  absl::Status Apply(const EpochKey& epoch) override;
  void Audit(const EpochKey& epoch, std::span<const epoch::DiskAuditRun> runs) override;
  DiskAuditFindings TakeAudited() override;
  absl::Status Promote(const EpochKey& epoch, Term term) override;
  absl::Status TakeBack(const EpochKey& epoch) override;
  absl::Status GiveUp() override;
  // GiveUp(), and the copies are closed in good order. Nothing may be called afterwards.
  absl::Status Close();

 private:
  enum class State : uint8_t {
    kIdle,      // nothing of a stream: never synced, a primary's, or given up
    kSyncing,   // from BeginSync() to EndSync()
    kSynced,    // until the first epoch
    kFollowing  // at epochs
  };
  struct Disk {
    std::shared_ptr<disk::DiskCopy> copy;
    std::vector<bool> reserved;   // blocks whose space is known to be there; reserved_mutex_
    uint64_t unsynced_bytes = 0;  // of the full sync
    Term covered;                 // by its stamp before Promote()
  };
  // A block that is to be compared.
  struct Compare {
    EpochKey epoch;
    EpochKey after;  // the record that has to be on the disks before
    epoch::DiskBlock block;
    codec::DiskHash hash;
  };
  class Target;
  static constexpr EpochKey kEverything{Term(UINT64_MAX), EpochId(UINT64_MAX)};

  DiskFiles(std::vector<std::shared_ptr<disk::DiskCopy>> copies, const DiskFilesOptions& options,
            disk::Files& files);
  void StartThread();
  void StopThread();

  absl::Status Recover() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status JudgeCopies() const;
  absl::Status CheckSyncing() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Errors: InvalidArgument for what is not within a replicated disk.
  absl::StatusOr<Disk*> Find(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes);
  absl::Status CheckWrites(std::span<const epoch::DiskWrite> writes);
  absl::Status Reserve(std::span<const epoch::DiskWrite> writes);
  void ForgetReserved(Disk& disk, uint64_t offset_bytes, uint64_t size_bytes);
  absl::Status MakeRoom(uint64_t record_bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status MakeDurable(const EpochKey& epoch, bool has_record, bool has_flush)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // `promoted`: the term of the epoch that the guest goes on from here; the other node's copies of
  // it and of older ones are contained from now on.
  absl::Status StampAll(disk::Mode mode, const EpochKey& key, Term promoted = Term());
  absl::Status SyncDisks();
  absl::Status GiveUpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // disk_files_audit.cc. Whether the next block may be compared now.
  bool MayCompare() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The thread's wait: closes the open segment when blocks have waited for it long enough.
  void AwaitWork() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Lets go of the mutex while it reads, if it is the thread's.
  void CompareNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsEqual(const Compare& compare);
  // They are written again.
  void ForgetCompares(std::span<const epoch::DiskWrite> writes)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // Whether a closed segment may be applied by now.
  bool MayApply() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Applies and frees the closed segment. Needs no lock: nobody else touches that one.
  absl::Status ApplyClosed(const EpochKey& last);
  // Everything up to `last`, and forgets the rest; after the thread is done with what it does.
  absl::Status ApplyAll(const EpochKey& last) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ThreadMain();

  const DiskFilesOptions options_;
  JournalOptions journal_options_;
  disk::Files& files_;
  std::vector<Disk> disks_;
  std::unique_ptr<DiskJournal> journal_;

  base::WorkMark work_;
  absl::Mutex reserved_mutex_;  // after mutex_
  mutable absl::Mutex mutex_;
  base::CondVar changed_;
  State state_ ABSL_GUARDED_BY(mutex_) = State::kIdle;
  absl::Status usable_ ABSL_GUARDED_BY(mutex_);
  absl::Status health_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;  // promoted or closed
  bool promoted_ ABSL_GUARDED_BY(mutex_) = false;
  bool busy_ ABSL_GUARDED_BY(mutex_) = false;  // the thread works on the closed segment
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  EpochKey journaled_ ABSL_GUARDED_BY(mutex_);
  EpochKey committed_ ABSL_GUARDED_BY(mutex_);  // may be applied
  Term sync_term_ ABSL_GUARDED_BY(mutex_);
  std::deque<Compare> compares_ ABSL_GUARDED_BY(mutex_);  // `after` never falls
  base::CondVar::Deadline compare_by_ ABSL_GUARDED_BY(mutex_);
  DiskAuditFindings audited_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_DISK_FILES_H_

// The journal of a secondary: what epochs wrote to the disks, before it reaches them.
//
// It is one file with two segments that take turns: while one takes the stream's epochs, the other,
// sealed, is applied to the disks and freed. A segment that was not sealed has never been applied
// in part: its end may be torn, and is dropped. One that was sealed was durable as a whole before
// the first of its writes reached a disk: damage in it is an error. That is what makes every crash
// leave the disks, with their journal, at exactly one epoch.
//
// A torn end is not taken on trust: every record says up to which one the file was synced when it
// was written, so a later one, or what is left of it, proves that a missing one is damage and not
// what a power loss may leave. While the host runs on, nothing that was written may be missing: any
// record behind a bad one proves that. Only of the last one nobody knows better.
//
// Format 2, little-endian. The first 4096 bytes are four blocks of 512 (header and seal of segment
// 0, header and seal of segment 1) and zeros. Segment i's records follow at
// 4096 + i * segment_bytes, each at a multiple of 512, with a block of zeros behind the last one if
// there is room. All checksums are XXH3-128 (low, high) over the journal's id, then what is
// checked, with the checksum's own bytes as zeros.
//
//   header  "RomJrnl1"; u32 format = 2; u32 in use; u64 generation; u64 id low, high;
//           u64 segment_bytes; u64 previous term, epoch: of the last record before this segment's
//           first; u64 applied term, epoch: of the last record that was on the disks, durably, when
//           the header was written; u64 durable term, epoch: of the last record that was durable
//           when the segment was begun; u64 boot: XXH3-64 of the boot id of the host then, 0 if not
//           known; u64 checksum low, high
//   seal    "RomSeal1"; u64 generation; u64 records; u64 end, in bytes from the segment's start;
//           u64 checksum low, high. Void unless its generation is the header's.
//   record  "RomEpoc1"; u64 generation; u64 term, epoch; u64 durable term, epoch: of the last
//           record that was durable when this was written; u64 body bytes; u64 writes; u64 checksum
//           of the body low, high; u64 checksum of the header low, high; then the body: for each
//           write u8 kind (1 data, 2 zeroes, 3 discard); 3 zeros; u32 disk; u64 offset; u64 size;
//           for kind 1 `size` bytes.
//
// Generations rise, so that what a segment held before is not taken for its records. One thread at
// a time, but ApplyClosed() and FreeClosed() may run on another one beside Append(), Sync() and
// Forget(). Shares the file.
#ifndef ROMULUS_REPLICA_DISK_JOURNAL_H_
#define ROMULUS_REPLICA_DISK_JOURNAL_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "disk/file.h"
#include "epoch/staged_epoch.h"
#include "replica/epoch_key.h"

namespace romulus::replica {

struct JournalOptions {
  uint64_t segment_bytes = 128u << 20;  // a multiple of 512: an epoch must fit
  // False: nothing is synced. A crash of the process harms nothing; a loss of power may do
  // anything.
  bool is_durable = true;
  std::vector<uint64_t> disk_sizes;  // what records may write to; by index, 0: not there
  std::string boot_id;               // of this start of the host; empty if not known
};

// What Load() found at the end of a segment and does not take.
struct DroppedTail {
  uint64_t offset_bytes = 0;  // in the file
  uint64_t size_bytes = 0;    // as far as can be seen
  EpochKey last_kept;         // of the last record before it, applied or not; {0, 0}: none
};

// Where the writes of a segment go. `data` is kWrite's; a long write comes in several calls.
class JournalTarget {
 public:
  virtual ~JournalTarget() = default;
  virtual absl::Status WriteTo(uint32_t disk, uint64_t offset_bytes,
                               std::span<const std::byte> data) = 0;
  virtual absl::Status ZeroOn(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) = 0;
};

class DiskJournal {
 public:
  DiskJournal(std::shared_ptr<disk::File> file, const JournalOptions& options);
  // Takes a journal over as it was left: what it holds is in closed segments, which are to be
  // applied before anything is appended. Reads each block of the file twice at most. Errors:
  // NotFound for an empty file; DataLoss if it is damaged where it must not be; Unimplemented for a
  // newer format, FailedPrecondition for an older one. Only Reset() helps then.
  absl::Status Load();
  // By Load(), whatever it returned: at most two.
  const std::vector<DroppedTail>& dropped() const { return dropped_; }
  // Makes it empty, with a new id, durably.
  absl::Status Reset();

  // As hexadecimal digits; empty before Load() or Reset().
  std::string id() const;
  // Of the newest record, applied or not; {0, 0}: there was none since Reset().
  EpochKey newest() const { return newest_; }
  // Of the newest record that is on the disks, as are all before it: FreeClosed() has been told.
  EpochKey applied() const;
  const std::string& path() const { return file_->path(); }

  // What a record of these writes occupies; 0 if there is nothing to record (flushes are not).
  static uint64_t RecordBytes(std::span<const epoch::DiskWrite> writes);
  // Writes a record into the open segment, which is begun if there is none. Errors leave the
  // journal as it was; ResourceExhausted: does not fit, or the file system is full.
  absl::Status Append(const EpochKey& key, std::span<const epoch::DiskWrite> writes);
  // What was appended survives a power loss.
  absl::Status Sync();
  bool has_unsynced() const { return has_unsynced_; }
  // The same, also where the options say that nothing is synced.
  absl::Status Harden() { return file_->Sync(); }

  uint64_t open_bytes() const;  // used in the open segment; 0: none is open
  uint64_t capacity_bytes() const { return segment_bytes_; }
  bool has_free_segment() const;

  // Takes back what the last Append() did, if it wrote a record, as far as the file lets us.
  void Forget();

  // --- the closed segment: at most one, but after Load() there may be two ---

  // Nothing goes into the open segment any more, if there is one with records. Requires that none
  // is closed, or that nothing is appended before all are free.
  void CloseOpen();
  bool has_closed() const { return Closed() >= 0; }
  EpochKey closed_end() const;  // the last record of the older one
  // Seals it, then hands its writes up to and including `last` to `target`, in order; each record
  // is verified before its first write.
  absl::Status ApplyClosed(const EpochKey& last, JournalTarget& target);
  // What it holds is durable on the disks: it is free, and says so durably.
  absl::Status FreeClosed();

 private:
  static constexpr int kSegments = 2;
  enum class State : uint8_t { kFree, kOpen, kClosed };
  struct Segment {
    std::atomic<State> state{State::kFree};  // what the other thread hands over
    uint64_t generation = 0;
    uint64_t begin = 0;  // in the file
    uint64_t used = 0;
    uint64_t reserved = 0;  // space that is known to be there
    uint64_t records = 0;
    uint64_t used_before = 0;  // the last record
    EpochKey last_before;
    EpochKey previous, applied, durable;  // see the format
    uint64_t boot = 0;                    // see the format
    EpochKey last;                        // of the last record, if there is one
    bool is_sealed = false;
  };
  struct Record {
    EpochKey key;
    EpochKey durable;  // see the format
    uint64_t body_bytes = 0;
    uint64_t writes = 0;
    uint64_t size = 0;  // with header and padding
  };

  int Open() const;
  int Closed() const;
  absl::Status BeginSegment();
  absl::Status WriteHeader(int index, bool in_use);
  absl::Status Seal(int index);
  absl::Status LoadSegment(int index, std::span<const std::byte> blocks);
  absl::Status LoadRecords(Segment& segment, uint64_t sealed_records, uint64_t sealed_end);
  // What lies in a segment behind its last good record, up to `limit`.
  absl::Status LookBehind(const Segment& segment, uint64_t limit);
  absl::Status CheckSequence();
  bool IsThisBoot(const Segment& segment) const { return boot_ != 0 && segment.boot == boot_; }
  // What was told is there: a record of this key, or a later one, was written for good.
  void Told(const EpochKey& key) { told_ = std::max(told_, key); }
  // The verified record at `at` of a segment, of which `limit` bytes may be looked at. Errors:
  // NotFound: there is no whole one of this generation; DataLoss: it writes where no disk is.
  absl::StatusOr<Record> ReadRecord(const Segment& segment, uint64_t at, uint64_t limit);
  // Walks over a record's body; `target` may be null. Errors: DataLoss for writes that cannot be.
  absl::Status WalkRecord(const Segment& segment, uint64_t at, const Record& record,
                          JournalTarget* target);
  absl::Status MaybeSync();

  const std::shared_ptr<disk::File> file_;
  const JournalOptions options_;
  const uint64_t boot_;
  uint64_t segment_bytes_;
  std::array<uint64_t, 2> id_{};
  std::array<Segment, kSegments> segments_;
  EpochKey newest_;
  EpochKey newest_before_;  // the last record
  EpochKey durable_;        // the newest record that is known to be durable
  EpochKey told_;           // Load(): that some record, or a header, says must be there
  std::vector<DroppedTail> dropped_;
  bool has_unsynced_ = false;
  bool is_damaged_ = true;  // until Load() or Reset()
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_DISK_JOURNAL_H_

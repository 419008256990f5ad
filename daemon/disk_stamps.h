// What the side files of this node's disks say while the guest runs here: in which term, whether a
// secondary may hold something newer, and which of the other node's copies this one contains.
// Written before what they say becomes true for anybody else: a primary's output leaves in a new
// mode only when the mode is on disk, so that after any crash of both hosts the newest copy is
// known.
//
// Any thread; calls wait for the disk. Shares the copies with the guest's devices.
#ifndef ROMULUS_DAEMON_DISK_STAMPS_H_
#define ROMULUS_DAEMON_DISK_STAMPS_H_

#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/lineage.h"
#include "base/types.h"
#include "daemon/guest_disks.h"
#include "disk/copy.h"
#include "replica/disk_files.h"
#include "replica/disk_replica.h"
#include "romulus/v1/config.pb.h"
#include "wire/handshake.h"

namespace romulus::daemon {

// Those of them that are replicated.
DiskCopies ReplicatedOf(const DiskCopies& copies);
replica::DiskFilesOptions DiskFilesOptionsFrom(const romulus::v1::Checkpoint& checkpoint,
                                               size_t disks);
// What one epoch's disk writes may cost on the secondary.
uint64_t DiskStagingBytes(const romulus::v1::Checkpoint& checkpoint, size_t disks);

// "primary", "secondary", "syncing" or "never".
absl::string_view DiskRoleName(romulus::v1::DiskCopyRole role);
wire::DiskCopy ToWire(const disk::DiskCopy& copy);
wire::DiskCopy ToWire(const replica::DiskFacts& facts);

class DiskStamps {
 public:
  // `copies`: those that are replicated; perhaps none, then everything succeeds.
  explicit DiskStamps(DiskCopies copies) : copies_(std::move(copies)) {}

  // Whether a guest may be booted on the copies as they are. A secondary's are brought to their
  // newest epoch. Errors, which name the file and the remedy: an unfinished full sync, content that
  // a restart of the host may have cost; those of DiskFiles.
  absl::Status MakeBootable(const replica::DiskFilesOptions& options, disk::Files& files);
  // The guest's term must be beyond it.
  Term newest_term() const;
  // Of a guest that is booted on the copies: before the first Record() what they say, then what was
  // last set.
  Lineage lineage() const;
  // The copies were a primary's, and its secondary may have been promoted since: until the other
  // node has said that it was not, output must not leave. Before the first Record().
  bool may_be_superseded() const;
  // Takes effect with the next Record().
  void SetLineage(const Lineage& lineage);

  // The guest runs here in `term`; `is_protected`: a secondary may hold an epoch of it. `covers`,
  // if given: the other node's copies of that term and of older ones are contained in these. What
  // is already so costs nothing; an older term than that of the last call is ignored. Errors:
  // DiskCopy's.
  absl::Status Record(Term term, bool is_protected, std::optional<Term> covers);
  // The guest runs here, and all that it says is held since it was started: the copies stay what
  // they were, whatever it writes, for nobody else can know of it. Errors: DiskCopy's.
  absl::Status RecordHeld();
  std::vector<wire::DiskCopy> ForHello() const;
  // Nobody writes to the disks any more.
  absl::Status Close();

  const DiskCopies& copies() const { return copies_; }

 private:
  const DiskCopies copies_;
  mutable std::mutex mutex_;  // one Record() at a time
  Term recorded_;
  bool recorded_protected_ = false;
  std::optional<Term> covers_;  // of copies that were a secondary's
  std::optional<Lineage> lineage_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_DISK_STAMPS_H_

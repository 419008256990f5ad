// The secondary's disks, as the replica store sees them. What it is told here is in the order of
// the stream: full sync, then epochs. An epoch is journaled before it counts as committed, so that
// a crash at any instant leaves each disk at exactly one committed epoch, and applied after.
//
// Calls come one at a time, under the store's lock; they may block on the disk. Errors name the
// file and the remedy. Implemented by DiskFiles; tests have one in memory.
#ifndef ROMULUS_REPLICA_DISK_REPLICA_H_
#define ROMULUS_REPLICA_DISK_REPLICA_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/types.h"
#include "codec/disk_records.h"
#include "epoch/staged_epoch.h"
#include "replica/audit.h"
#include "replica/epoch_key.h"

namespace romulus::replica {

using codec::DiskHash;
using codec::kDiskBlockBytes;

// Whose a copy is, as its side file says.
enum class CopyRole : uint8_t {
  kNever,      // no side file: nothing is known of it
  kPrimary,    // a guest ran on it
  kSecondary,  // it is a replica, at one epoch
  kSyncing,    // a full sync of it was begun and never ended: worth nothing
};
constexpr absl::string_view CopyRoleName(CopyRole role) {
  constexpr absl::string_view kNames[] = {"never", "primary", "secondary", "syncing"};
  return kNames[static_cast<size_t>(role)];
}

// One disk, for the handshake. Read-only disks are not here: they are not replicated.
struct DiskFacts {
  uint32_t disk = 0;  // index in the configuration
  std::string name;
  std::string path;  // of the image, for people
  uint64_t size_bytes = 0;
  CopyRole role = CopyRole::kNever;
  std::string unusable;  // why a secondary's copy cannot be used as it is; empty: it can
  EpochKey stamp;        // the epoch that the copy was last known to be at; {0, 0}: never stamped
  // Known to hold nothing but zeros (all of it is a hole). Believed of kNever copies only.
  bool all_zero = false;
};

class DiskReplica {
 public:
  virtual ~DiskReplica() = default;
  virtual std::vector<DiskFacts> facts() const = 0;

  // A full sync begins: what the copies are is unknown until the first Journal() after EndSync(),
  // and the side files say so, durably, before the first byte is overwritten. Any time but after
  // Promote(): after GiveUp() and after errors too.
  virtual absl::Status BeginSync(Term term) = 0;
  // What is there now, for rejoining. `count` blocks from `first_block` on, at most
  // codec::kMaxHashBlocks; within the disk.
  virtual absl::StatusOr<std::vector<DiskHash>> HashBlocks(uint32_t disk, uint64_t first_block,
                                                           uint64_t count) = 0;
  virtual absl::Status WriteBlocks(uint32_t disk, uint64_t offset_bytes,
                                   std::span<const std::byte> bytes) = 0;
  virtual absl::Status ZeroBlocks(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) = 0;
  // The sync is complete; what was written is durable when this returns. The copies become an
  // epoch's with the first Journal().
  virtual absl::Status EndSync(Term term) = 0;

  // Every epoch in turn, with disk writes or without: the journal has it when this returns, durably
  // if the configuration says so. Errors (no space, I/O) leave the journal as it was.
  virtual absl::Status Journal(const EpochKey& epoch, std::span<const epoch::DiskWrite> writes) = 0;
  // Applies what is journaled up to and including `epoch` to the disks, and stamps them.
  virtual absl::Status Apply(const EpochKey& epoch) = 0;
  // Compares blocks with what they are to be in `epoch`, the newest that was applied; some time
  // later, and those not at all that are written again before. TakeAudited(): what was found since
  // its last call, and since BeginSync().
  virtual void Audit(const EpochKey& epoch, std::span<const epoch::DiskAuditRun> runs) = 0;
  virtual DiskAuditFindings TakeAudited() = 0;
  // The guest will run here, in `term`, from `epoch`: applies what is journaled up to it, forgets
  // the rest, stamps the disks as a primary's, durably. Only facts() and TakeBack() may be called;
  // the guest's disks share the files, whose locks nobody lets go in between.
  virtual absl::Status Promote(const EpochKey& epoch, Term term) = 0;
  // The promotion from `epoch` failed before the guest could touch the disks: they are a
  // secondary's copies again, at that epoch. After Promote(); all but Journal() and Apply() may be
  // called again.
  virtual absl::Status TakeBack(const EpochKey& epoch) = 0;
  // The replica is given up (unprotect, a new full sync elsewhere): the copies stay at the last
  // applied epoch.
  virtual absl::Status GiveUp() = 0;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_DISK_REPLICA_H_

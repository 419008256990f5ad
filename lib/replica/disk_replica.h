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
#include "epoch/staged_epoch.h"
#include "replica/epoch_key.h"

namespace romulus::replica {

using epoch::kDiskBlockBytes;  // of full sync and of the hash exchange

struct DiskHash {  // XXH3-128 of a block's bytes
  uint64_t low = 0;
  uint64_t high = 0;
  friend bool operator==(const DiskHash&, const DiskHash&) = default;
};

// One disk, for the handshake. Read-only disks are not here: they are not replicated.
struct DiskFacts {
  uint32_t disk = 0;  // index in the configuration
  std::string name;
  uint64_t size_bytes = 0;
  EpochKey stamp;  // the epoch that the copy was last known to be at; {0, 0}: never stamped
};

class DiskReplica {
 public:
  virtual ~DiskReplica() = default;
  virtual std::vector<DiskFacts> facts() const = 0;

  // A full sync begins: what the copies are is unknown until EndSync(), and the side files say so,
  // durably, before the first byte is overwritten.
  virtual absl::Status BeginSync(Term term) = 0;
  // What is there now, for rejoining. `count` blocks from `first_block` on; within the disk.
  virtual absl::StatusOr<std::vector<DiskHash>> HashBlocks(uint32_t disk, uint64_t first_block,
                                                           uint64_t count) = 0;
  virtual absl::Status WriteBlocks(uint32_t disk, uint64_t offset_bytes,
                                   std::span<const std::byte> bytes) = 0;
  virtual absl::Status ZeroBlocks(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) = 0;
  // The sync is complete; what was written is durable when this returns. The copies become an
  // epoch's with the first Journal().
  virtual absl::Status EndSync(Term term) = 0;

  // An epoch with disk writes, or without: the journal has it when this returns, durably if the
  // configuration says so. Errors (no space, I/O) leave the journal as it was.
  virtual absl::Status Journal(const EpochKey& epoch, std::span<const epoch::DiskWrite> writes) = 0;
  // Applies what is journaled up to and including `epoch` to the disks, and stamps them.
  virtual absl::Status Apply(const EpochKey& epoch) = 0;
  // The guest will run here, in `term`, from `epoch`: applies what is journaled up to it, forgets
  // the rest, stamps the disks as a primary's, durably. Nothing may be called afterwards.
  virtual absl::Status Promote(const EpochKey& epoch, Term term) = 0;
  // The replica is given up (unprotect, a new full sync elsewhere): the copies stay at the last
  // applied epoch.
  virtual absl::Status GiveUp() = 0;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_DISK_REPLICA_H_

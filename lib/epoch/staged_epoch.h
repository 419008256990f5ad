// What a checkpoint hands to the pipeline behind it. Values that own their staging memory and give
// it back to the pool when destroyed; moved from thread to thread, one at a time.
#ifndef ROMULUS_EPOCH_STAGED_EPOCH_H_
#define ROMULUS_EPOCH_STAGED_EPOCH_H_

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/types.h"
#include "epoch/phases.h"
#include "epoch/staging_pool.h"
#include "memory/page_hash.h"
#include "state/machine_state.h"

namespace romulus::epoch {

// Copies of some pages: gfns[i] is at bytes [i * 4096, (i + 1) * 4096) of the chunk.
struct PageBatch {
  std::vector<Gfn> gfns;  // ascending, at most StagingChunk::kPages
  StagingChunk chunk;

  std::span<const std::byte, kPageSize> Page(size_t index) const {
    return std::span<const std::byte, kPageSize>(chunk.data() + index * kPageSize, kPageSize);
  }
};

// Console bytes that the guest wrote in one epoch.
struct ConsoleCut {
  uint64_t offset = 0;  // of bytes[0] in the guest's console stream, which starts at 0 at boot
  std::string bytes;
};

// The unit in which disks are compared and copied as a whole; a disk's last one may be shorter.
inline constexpr uint64_t kDiskBlockBytes = 64u << 10;

// One thing that the guest did to a disk. In an epoch they stand in the order in which they were
// begun; to do them again changes nothing.
struct DiskWrite {
  enum class Kind : uint8_t {
    kWrite,        // `data`
    kWriteZeroes,  // reads as zeros afterwards
    kDiscard,      // content undefined afterwards; both copies of the disk make it zeros
    kFlush,        // what was done before it must survive a power loss
  };
  Kind kind = Kind::kWrite;
  uint32_t disk = 0;          // index in the configuration's list of disks
  uint64_t offset_bytes = 0;  // multiples of a sector (512), within the disk; 0 for kFlush
  uint64_t size_bytes = 0;
  std::vector<std::byte> data;  // kWrite: size_bytes
};

// Pages that nobody wrote in an epoch, and what they are: hashes[i] is page `first` + i. For the
// secondary to compare with what it has (epoch/auditor.h).
struct AuditRun {
  Gfn first;
  std::vector<memory::PageHash128> hashes;
};
// Most pages that one epoch names so, and most that an ack reports of.
inline constexpr size_t kMaxAuditPages = 1024;

// XXH3-128 of a block's bytes, long enough that equal hashes are taken for equal blocks.
struct DiskHash {
  uint64_t low = 0;
  uint64_t high = 0;
  friend bool operator==(const DiskHash&, const DiskHash&) = default;
};

struct DiskBlock {
  uint32_t disk = 0;   // index in the configuration
  uint64_t block = 0;  // of kDiskBlockBytes

  uint64_t offset_bytes() const { return block * kDiskBlockBytes; }
  friend auto operator<=>(const DiskBlock&, const DiskBlock&) = default;
};

// What blocks of a disk are once the epoch's writes are done: hashes[i] is block `first_block` + i
// (epoch/disk_auditor.h).
struct DiskAuditRun {
  uint32_t disk = 0;
  uint64_t first_block = 0;
  std::vector<DiskHash> hashes;
};
// Most blocks that one epoch names so, and most that an ack reports of.
inline constexpr size_t kMaxAuditBlocks = 64;
// A pass may be behind its pace by one part in so many, before epochs come sooner for it.
inline constexpr uint64_t kAuditSlack = 16;

struct StagedEpoch {
  Term term;
  EpochId epoch;
  CutReason reason = CutReason::kRequest;
  std::vector<PageBatch> batches;  // pages not already handed over by EpochSink::StagePages
  uint64_t page_count = 0;         // of the whole epoch
  state::MachineState machine;
  std::vector<DiskWrite> disk_writes;
  std::vector<AuditRun> audit;           // ascending
  std::vector<DiskAuditRun> disk_audit;  // by disk, then block; ascending
  ConsoleCut console;
  bool holds_output = false;      // somebody outside waits for its ack
  uint64_t console_released = 0;  // stream offset released when the epoch was cut
  PhaseTimes phases;
  uint64_t interval_ns = 0;  // guest ran this long in this epoch
};

// Owned by epoch, implemented downstream (wire's sender; tests): the pipeline's entrance. Calls
// come from the checkpoint thread, in order, some of them inside the pause: an implementation
// queues and returns. What bounds the queue is the staging memory that the batches hold.
class EpochSink {
 public:
  virtual ~EpochSink() = default;
  // Part of an epoch too large for the staging pool, handed over before its end.
  virtual void StagePages(Term term, EpochId epoch, PageBatch batch) = 0;
  // The rest of the epoch; after this it is complete.
  virtual void Submit(StagedEpoch epoch) = 0;
  // The epoch failed before its end: whatever StagePages handed over for it is void.
  virtual void Abort(Term term, EpochId epoch) = 0;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_STAGED_EPOCH_H_

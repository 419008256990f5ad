// How what happened to disks travels. The body of an EpochDisks or DiskBlocks frame is a row of
// records, each a head of 24 bytes (little-endian) and a payload:
//
//   offset  size  field
//        0     1  kind: 1 write, 2 zeros, 3 discard, 4 flush
//        1     3  reserved, 0
//        4     4  disk: index in the configuration's list
//        8     8  offset in bytes, 0 for flush
//       16     8  size in bytes, 0 for flush
//
// The payload of a write is its bytes; the others have none. Offset and size are multiples of a
// sector and within the disk. A write that is too large for a frame travels as several, in order:
// to do them is to do it. DiskBlocks (full sync) has writes and zeros only.
//
// The body of a DiskHashes frame is u32 disk, u32 count, u64 first block, and per block two u64,
// low and high half of its XXH3-128.
//
// Functions are pure; readers and digests are values, one thread at a time.
#ifndef ROMULUS_CODEC_DISK_RECORDS_H_
#define ROMULUS_CODEC_DISK_RECORDS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "epoch/staged_epoch.h"

namespace romulus::codec {

inline constexpr uint64_t kDiskSectorBytes = 512;
// The unit of full sync and of the hash exchange; a disk's last block may be shorter.
using epoch::kDiskBlockBytes;
inline constexpr size_t kDiskRecordHeadBytes = 24;
// Blocks in one DiskHashRequest: what the secondary reads before it listens again (8 MiB).
inline constexpr uint64_t kMaxHashBlocks = 128;

constexpr uint64_t DiskBlockCount(uint64_t size_bytes) {
  return size_bytes / kDiskBlockBytes + (size_bytes % kDiskBlockBytes != 0 ? 1 : 0);
}

struct DiskSize {
  uint32_t disk = 0;        // index in the configuration
  uint64_t size_bytes = 0;  // a multiple of a sector
};
using DiskLayout = std::vector<DiskSize>;  // the replicated disks of a machine
// Null if `disk` is not one of them.
const DiskSize* FindDisk(const DiskLayout& layout, uint32_t disk);

// Numbers are permanent.
enum class DiskRecordKind : uint8_t { kWrite = 1, kZeros = 2, kDiscard = 3, kFlush = 4 };

struct DiskRecord {
  DiskRecordKind kind = DiskRecordKind::kWrite;
  uint32_t disk = 0;
  uint64_t offset_bytes = 0;
  uint64_t size_bytes = 0;
  absl::string_view payload;  // into the body; kWrite: size_bytes
  absl::string_view raw;      // the whole record, for the digest
};

// Appends one record; `payload` only for kWrite, then size_bytes is its size.
void AppendDiskRecord(DiskRecordKind kind, uint32_t disk, uint64_t offset_bytes,
                      uint64_t size_bytes, std::span<const std::byte> payload, std::string* body);
DiskRecordKind KindOf(epoch::DiskWrite::Kind kind);
epoch::DiskWrite ToDiskWrite(const DiskRecord& record);

// Takes a hostile body apart.
class DiskRecordReader {
 public:
  // Both must outlive the reader.
  DiskRecordReader(absl::string_view body, const DiskLayout& layout)
      : rest_(body), layout_(layout) {}

  bool done() const { return rest_.empty(); }
  // The next record; it lies within its disk. Errors: InvalidArgument, saying what is wrong.
  absl::StatusOr<DiskRecord> Next();

 private:
  absl::string_view rest_;
  const DiskLayout& layout_;
};

// EpochCommit.disk_digest: starts at 0; each record makes it XXH3-64(record, seeded with the digest
// so far).
class DiskDigest {
 public:
  void Add(absl::string_view record);
  uint64_t value() const { return value_; }
  void Reset() { value_ = 0; }

 private:
  uint64_t value_ = 0;
};

using epoch::DiskHash;
// XXH3-128 of a block's bytes.
DiskHash HashDiskBlock(std::span<const std::byte> block);
// The same of a block of `size_bytes` zeros, at most kDiskBlockBytes.
DiskHash ZeroDiskBlockHash(uint64_t size_bytes);
bool AllZero(std::span<const std::byte> bytes);

struct DiskHashes {
  uint32_t disk = 0;
  uint64_t first_block = 0;
  std::vector<DiskHash> hashes;  // 1 to kMaxHashBlocks
};
void AppendDiskHashes(const DiskHashes& hashes, std::string* body);
// Errors: InvalidArgument. Knows no disk: whoever asked compares it with the question.
absl::StatusOr<DiskHashes> ParseDiskHashes(absl::string_view body);

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_DISK_RECORDS_H_

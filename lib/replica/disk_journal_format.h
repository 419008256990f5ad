// The journal's bytes (disk_journal.h has the format) and what reads, writes and checks them.
// Private to the journal. One thread at a time.
#ifndef ROMULUS_REPLICA_DISK_JOURNAL_FORMAT_H_
#define ROMULUS_REPLICA_DISK_JOURNAL_FORMAT_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/check.h"
#include "base/status.h"
#include "base/xxh3.h"
#include "disk/file.h"
#include "epoch/staged_epoch.h"

namespace romulus::replica::journal {

using epoch::DiskWrite;
using JournalId = std::array<uint64_t, 2>;

inline constexpr uint64_t kBlockBytes = 512;  // what a disk writes whole or not at all
inline constexpr uint64_t kHeadBytes = 4096;
inline constexpr uint32_t kFormat = 2;
inline constexpr uint64_t kMaxSegmentBytes = uint64_t{1} << 40;
inline constexpr size_t kBufferBytes = 1u << 20;

constexpr uint64_t Magic(const char (&text)[9]) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = value << 8 | static_cast<uint8_t>(text[i]);
  return value;
}

struct Sum {
  uint64_t low = 0;
  uint64_t high = 0;
  friend bool operator==(const Sum&, const Sum&) = default;
};

struct Header {
  uint64_t magic = Magic("RomJrnl1");
  uint32_t format = kFormat;
  uint32_t in_use = 0;
  uint64_t generation = 0;
  JournalId id{};
  uint64_t segment_bytes = 0;
  uint64_t previous_term = 0;
  uint64_t previous_epoch = 0;
  uint64_t applied_term = 0;
  uint64_t applied_epoch = 0;
  uint64_t durable_term = 0;
  uint64_t durable_epoch = 0;
  uint64_t boot = 0;
  Sum sum;
};
static_assert(sizeof(Header) == 120);

struct SealBlock {
  uint64_t magic = Magic("RomSeal1");
  uint64_t generation = 0;
  uint64_t records = 0;
  uint64_t end = 0;
  Sum sum;
};
static_assert(sizeof(SealBlock) == 48);

struct RecordHeader {
  uint64_t magic = Magic("RomEpoc1");
  uint64_t generation = 0;
  uint64_t term = 0;
  uint64_t epoch = 0;
  uint64_t durable_term = 0;
  uint64_t durable_epoch = 0;
  uint64_t body_bytes = 0;
  uint64_t writes = 0;
  Sum body_sum;
  Sum sum;  // of the header alone: what it says counts even if its body is torn
};
static_assert(sizeof(RecordHeader) == 96);

struct WriteEntry {
  uint8_t kind = 0;
  uint8_t zeros[3] = {};
  uint32_t disk = 0;
  uint64_t offset = 0;
  uint64_t size = 0;
};
static_assert(sizeof(WriteEntry) == 24);

enum WriteKind : uint8_t { kData = 1, kZeroes = 2, kDiscard = 3 };

class Hasher {
 public:
  explicit Hasher(const JournalId& id) : state_(XXH3_createState()) {
    ROMULUS_CHECK(state_ != nullptr);
    XXH3_128bits_reset(state_);
    XXH3_128bits_update(state_, id.data(), sizeof(id));
  }
  ~Hasher() { XXH3_freeState(state_); }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;
  void Add(std::span<const std::byte> bytes) {
    XXH3_128bits_update(state_, bytes.data(), bytes.size());
  }
  template <typename T>
  void AddObject(const T& object) {
    Add(std::as_bytes(std::span<const T, 1>(&object, 1)));
  }
  Sum sum() const {
    const XXH128_hash_t hash = XXH3_128bits_digest(state_);
    return {hash.low64, hash.high64};
  }

 private:
  XXH3_state_t* const state_;
};

// The checksum of a header that has a `sum`.
template <typename T>
Sum SumOf(const JournalId& id, T object) {
  object.sum = {};
  Hasher hasher(id);
  hasher.AddObject(object);
  return hasher.sum();
}

// One block with an object at its start.
template <typename T>
std::vector<std::byte> Block(const T& object) {
  std::vector<std::byte> block(kBlockBytes);
  std::memcpy(block.data(), &object, sizeof(T));
  return block;
}

inline uint64_t Padded(uint64_t bytes) {
  return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

inline bool IsRecorded(const DiskWrite& write) { return write.kind != DiskWrite::Kind::kFlush; }

inline WriteEntry EntryOf(const DiskWrite& write) {
  WriteEntry header;
  header.kind = write.kind == DiskWrite::Kind::kWrite         ? kData
                : write.kind == DiskWrite::Kind::kWriteZeroes ? kZeroes
                                                              : kDiscard;
  header.disk = write.disk;
  header.offset = write.offset_bytes;
  header.size = write.size_bytes;
  return header;
}

// Reads a part of a file in order, a buffer at a time.
class Reader {
 public:
  Reader(disk::File& file, uint64_t begin, uint64_t size) : file_(file), at_(begin), left_(size) {}
  uint64_t left() const { return left_ + (filled_.size()); }
  // At most `most` of what follows; empty at the end.
  absl::StatusOr<std::span<const std::byte>> Take(uint64_t most) {
    if (filled_.empty() && left_ > 0) {
      buffer_.resize(std::min<uint64_t>(left_, kBufferBytes));
      ROMULUS_RETURN_IF_ERROR(file_.Read(at_, buffer_));
      at_ += buffer_.size();
      left_ -= buffer_.size();
      filled_ = buffer_;
    }
    const auto taken = filled_.first(std::min<uint64_t>(most, filled_.size()));
    filled_ = filled_.subspan(taken.size());
    return taken;
  }
  // All of `object`, or OutOfRange.
  template <typename T>
  absl::Status Read(T& object) {
    std::span<std::byte> out = std::as_writable_bytes(std::span<T, 1>(&object, 1));
    while (!out.empty()) {
      ROMULUS_ASSIGN_OR_RETURN(const std::span<const std::byte> part, Take(out.size()));
      if (part.empty()) return absl::OutOfRangeError("the end");
      std::copy(part.begin(), part.end(), out.begin());
      out = out.subspan(part.size());
    }
    return absl::OkStatus();
  }

 private:
  disk::File& file_;
  uint64_t at_;
  uint64_t left_;
  std::vector<std::byte> buffer_;
  std::span<const std::byte> filled_;
};

// Writes to a file in order, a buffer at a time.
class Writer {
 public:
  Writer(disk::File& file, uint64_t begin) : file_(file), at_(begin) {
    buffer_.reserve(kBufferBytes);
  }
  absl::Status Add(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const auto part = bytes.first(std::min(bytes.size(), kBufferBytes - buffer_.size()));
      buffer_.insert(buffer_.end(), part.begin(), part.end());
      bytes = bytes.subspan(part.size());
      if (buffer_.size() == kBufferBytes) ROMULUS_RETURN_IF_ERROR(Flush());
    }
    return absl::OkStatus();
  }
  // With zeros to the end of the block, and `more_zeros` behind it.
  absl::Status Finish(uint64_t more_zeros) {
    buffer_.resize(Padded(buffer_.size()) + more_zeros);
    return Flush();
  }

 private:
  absl::Status Flush() {
    ROMULUS_RETURN_IF_ERROR(file_.Write(at_, buffer_));
    at_ += buffer_.size();
    buffer_.clear();
    return absl::OkStatus();
  }
  disk::File& file_;
  uint64_t at_;
  std::vector<std::byte> buffer_;
};

}  // namespace romulus::replica::journal

#endif  // ROMULUS_REPLICA_DISK_JOURNAL_FORMAT_H_

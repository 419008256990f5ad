#include "codec/disk_records.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/xxh3.h"

namespace romulus::codec {
namespace {

struct Head {
  uint8_t kind = 0;
  uint8_t reserved[3] = {};
  uint32_t disk = 0;
  uint64_t offset_bytes = 0;
  uint64_t size_bytes = 0;
};
static_assert(sizeof(Head) == kDiskRecordHeadBytes);

struct HashesHead {
  uint32_t disk = 0;
  uint32_t count = 0;
  uint64_t first_block = 0;
};
static_assert(sizeof(HashesHead) == 16 && sizeof(DiskHash) == 16);

}  // namespace

const DiskSize* FindDisk(const DiskLayout& layout, uint32_t disk) {
  for (const DiskSize& one : layout) {
    if (one.disk == disk) return &one;
  }
  return nullptr;
}

void AppendDiskRecord(DiskRecordKind kind, uint32_t disk, uint64_t offset_bytes,
                      uint64_t size_bytes, std::span<const std::byte> payload, std::string* body) {
  ROMULUS_CHECK(payload.size() == (kind == DiskRecordKind::kWrite ? size_bytes : 0));
  Head head;
  head.kind = static_cast<uint8_t>(kind);
  head.disk = disk;
  head.offset_bytes = offset_bytes;
  head.size_bytes = size_bytes;
  base::ByteWriter writer(body);
  writer.Write(head);
  writer.Append(payload);
}

DiskRecordKind KindOf(epoch::DiskWrite::Kind kind) {
  switch (kind) {
    case epoch::DiskWrite::Kind::kWrite:
      return DiskRecordKind::kWrite;
    case epoch::DiskWrite::Kind::kWriteZeroes:
      return DiskRecordKind::kZeros;
    case epoch::DiskWrite::Kind::kDiscard:
      return DiskRecordKind::kDiscard;
    case epoch::DiskWrite::Kind::kFlush:
      return DiskRecordKind::kFlush;
  }
  return DiskRecordKind::kFlush;
}

epoch::DiskWrite ToDiskWrite(const DiskRecord& record) {
  epoch::DiskWrite write;
  switch (record.kind) {
    case DiskRecordKind::kWrite:
      write.kind = epoch::DiskWrite::Kind::kWrite;
      break;
    case DiskRecordKind::kZeros:
      write.kind = epoch::DiskWrite::Kind::kWriteZeroes;
      break;
    case DiskRecordKind::kDiscard:
      write.kind = epoch::DiskWrite::Kind::kDiscard;
      break;
    case DiskRecordKind::kFlush:
      write.kind = epoch::DiskWrite::Kind::kFlush;
      break;
  }
  write.disk = record.disk;
  write.offset_bytes = record.offset_bytes;
  write.size_bytes = record.size_bytes;
  const std::span<const std::byte> payload = base::AsBytes(record.payload);
  write.data.assign(payload.begin(), payload.end());
  return write;
}

absl::StatusOr<DiskRecord> DiskRecordReader::Next() {
  const auto wrong = [](auto... what) {
    return absl::InvalidArgumentError(absl::StrCat("disk record: ", what...));
  };
  if (rest_.size() < sizeof(Head)) return wrong("truncated in its head");
  Head head;
  std::memcpy(&head, rest_.data(), sizeof(Head));
  DiskRecord record;
  record.kind = static_cast<DiskRecordKind>(head.kind);
  record.disk = head.disk;
  record.offset_bytes = head.offset_bytes;
  record.size_bytes = head.size_bytes;
  if (head.kind < 1 || head.kind > static_cast<uint8_t>(DiskRecordKind::kFlush)) {
    return wrong("unknown kind ", int{head.kind});
  }
  if (head.reserved[0] != 0 || head.reserved[1] != 0 || head.reserved[2] != 0) {
    return wrong("unknown flags");
  }
  const DiskSize* disk = FindDisk(layout_, head.disk);
  if (disk == nullptr) return wrong("disk ", head.disk, " is not replicated");
  if (record.kind == DiskRecordKind::kFlush) {
    if (head.offset_bytes != 0 || head.size_bytes != 0) return wrong("a flush of a range");
  } else {
    if (head.size_bytes == 0 || head.size_bytes % kDiskSectorBytes != 0 ||
        head.offset_bytes % kDiskSectorBytes != 0) {
      return wrong(head.size_bytes, " bytes at ", head.offset_bytes, " are not whole sectors");
    }
    if (head.offset_bytes > disk->size_bytes ||
        head.size_bytes > disk->size_bytes - head.offset_bytes) {
      return wrong(head.size_bytes, " bytes at ", head.offset_bytes, " leave disk ", head.disk,
                   " of ", disk->size_bytes, " bytes");
    }
  }
  size_t record_bytes = sizeof(Head);
  if (record.kind == DiskRecordKind::kWrite) {
    if (head.size_bytes > rest_.size() - sizeof(Head)) return wrong("truncated in its payload");
    record_bytes += head.size_bytes;
  }
  record.raw = rest_.substr(0, record_bytes);
  record.payload = record.raw.substr(sizeof(Head));
  rest_.remove_prefix(record_bytes);
  return record;
}

void DiskDigest::Add(absl::string_view record) {
  value_ = XXH3_64bits_withSeed(record.data(), record.size(), value_);
}

DiskHash HashDiskBlock(std::span<const std::byte> block) {
  const XXH128_hash_t hash = XXH3_128bits(block.data(), block.size());
  return {hash.low64, hash.high64};
}

DiskHash ZeroDiskBlockHash(uint64_t size_bytes) {
  static constexpr std::byte kZeros[kDiskBlockBytes] = {};
  static const DiskHash kWhole = HashDiskBlock(kZeros);
  ROMULUS_CHECK(size_bytes <= kDiskBlockBytes);
  if (size_bytes == kDiskBlockBytes) return kWhole;
  return HashDiskBlock(std::span(kZeros).first(size_bytes));
}

bool AllZero(std::span<const std::byte> bytes) {
  return bytes.empty() || (bytes[0] == std::byte{0} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

void AppendDiskHashes(const DiskHashes& hashes, std::string* body) {
  base::ByteWriter writer(body);
  HashesHead head;
  head.disk = hashes.disk;
  head.count = static_cast<uint32_t>(hashes.hashes.size());
  head.first_block = hashes.first_block;
  writer.Write(head);
  for (const DiskHash& hash : hashes.hashes) writer.Write(hash);
}

absl::StatusOr<DiskHashes> ParseDiskHashes(absl::string_view body) {
  base::ByteReader reader(base::AsBytes(body));
  const auto head = reader.Read<HashesHead>();
  if (!reader.ok() || head.count == 0 || head.count > kMaxHashBlocks ||
      reader.remaining() != head.count * sizeof(DiskHash)) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk hashes: ", head.count, " in a body of ", body.size(), " bytes"));
  }
  DiskHashes hashes;
  hashes.disk = head.disk;
  hashes.first_block = head.first_block;
  for (uint32_t i = 0; i < head.count; ++i) hashes.hashes.push_back(reader.Read<DiskHash>());
  return hashes;
}

}  // namespace romulus::codec

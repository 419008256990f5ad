// Disk records and hashes as bytes: what is written is read, what is hostile is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/bytes.h"
#include "codec/disk_records.h"

namespace romulus::codec {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1u << 20;
const DiskLayout kLayout = {{0, 1 * kMiB}, {3, 4 * kMiB}};

std::string Record(uint8_t kind, uint32_t disk, uint64_t offset, uint64_t size,
                   absl::string_view payload = "") {
  std::string body;
  base::ByteWriter writer(&body);
  writer.Write(uint32_t{kind});
  writer.Write(disk);
  writer.Write(offset);
  writer.Write(size);
  body.append(payload.data(), payload.size());
  return body;
}

std::string WhyRefused(absl::string_view body) {
  DiskRecordReader reader(body, kLayout);
  while (!reader.done()) {
    const absl::StatusOr<DiskRecord> record = reader.Next();
    if (!record.ok()) {
      EXPECT_EQ(record.status().code(), absl::StatusCode::kInvalidArgument);
      return std::string(record.status().message());
    }
  }
  return "nothing";
}

TEST(DiskRecordsTest, RecordsComeBackAsTheyWere) {
  const std::string data(1024, 'd');
  std::string body;
  AppendDiskRecord(DiskRecordKind::kWrite, 3, 4 * kMiB - 1024, 1024, base::AsBytes(data), &body);
  AppendDiskRecord(DiskRecordKind::kZeros, 0, 512, kMiB - 512, {}, &body);
  AppendDiskRecord(DiskRecordKind::kDiscard, 3, 0, 4 * kMiB, {}, &body);
  AppendDiskRecord(DiskRecordKind::kFlush, 0, 0, 0, {}, &body);
  EXPECT_EQ(body.size(), 4 * kDiskRecordHeadBytes + 1024);
  EXPECT_EQ(body.substr(0, kDiskRecordHeadBytes + 1024), Record(1, 3, 4 * kMiB - 1024, 1024, data));
  DiskRecordReader reader(body, kLayout);
  std::vector<epoch::DiskWrite> writes;
  std::string again;
  while (!reader.done()) {
    const absl::StatusOr<DiskRecord> record = reader.Next();
    ASSERT_TRUE(record.ok()) << record.status();
    writes.push_back(ToDiskWrite(*record));
    again.append(record->raw.data(), record->raw.size());
  }
  EXPECT_EQ(again, body);
  ASSERT_EQ(writes.size(), 4u);
  using Kind = epoch::DiskWrite::Kind;
  EXPECT_EQ(writes[0].kind, Kind::kWrite);
  EXPECT_EQ(writes[0].disk, 3u);
  EXPECT_EQ(writes[0].offset_bytes, 4 * kMiB - 1024);
  EXPECT_EQ(writes[0].data.size(), 1024u);
  EXPECT_EQ(writes[1].kind, Kind::kWriteZeroes);
  EXPECT_EQ(writes[1].size_bytes, kMiB - 512);
  EXPECT_EQ(writes[2].kind, Kind::kDiscard);
  EXPECT_EQ(writes[3].kind, Kind::kFlush);
  for (const epoch::DiskWrite& write : writes) {
    EXPECT_EQ(static_cast<int>(KindOf(write.kind)),
              &write - writes.data() + 1);  // kinds 1 to 4, in order
  }
}

TEST(DiskRecordsTest, P7_WhatLeavesTheDiskIsRefused) {
  const std::string sector(512, 's');
  EXPECT_EQ(WhyRefused(Record(1, 0, kMiB - 512, 512, sector)), "nothing");
  EXPECT_THAT(WhyRefused(Record(1, 0, kMiB, 512, sector)), HasSubstr("leave disk 0"));
  EXPECT_THAT(WhyRefused(Record(2, 0, kMiB - 512, 1024)), HasSubstr("leave disk 0"));
  EXPECT_THAT(WhyRefused(Record(2, 0, ~uint64_t{511}, 1024)), HasSubstr("leave disk 0"));
  EXPECT_THAT(WhyRefused(Record(3, 0, 512, ~uint64_t{511})), HasSubstr("leave disk 0"));
  EXPECT_THAT(WhyRefused(Record(2, 1, 0, 512)), HasSubstr("disk 1 is not replicated"));
  EXPECT_THAT(WhyRefused(Record(4, 2, 0, 0)), HasSubstr("disk 2 is not replicated"));
}

TEST(DiskRecordsTest, P7_WhatIsMalformedIsRefused) {
  const std::string sector(512, 's');
  EXPECT_THAT(WhyRefused(Record(0, 0, 0, 512)), HasSubstr("unknown kind 0"));
  EXPECT_THAT(WhyRefused(Record(5, 0, 0, 512)), HasSubstr("unknown kind 5"));
  EXPECT_THAT(WhyRefused(Record(1, 0, 0, 0)), HasSubstr("whole sectors"));
  EXPECT_THAT(WhyRefused(Record(2, 0, 0, 100)), HasSubstr("whole sectors"));
  EXPECT_THAT(WhyRefused(Record(2, 0, 100, 512)), HasSubstr("whole sectors"));
  EXPECT_THAT(WhyRefused(Record(4, 0, 0, 512)), HasSubstr("flush"));
  EXPECT_THAT(WhyRefused(Record(4, 0, 512, 0)), HasSubstr("flush"));
  EXPECT_THAT(WhyRefused(Record(1, 0, 0, 1024, sector)), HasSubstr("truncated in its payload"));
  std::string flags = Record(4, 0, 0, 0);
  flags[2] = 1;
  EXPECT_THAT(WhyRefused(flags), HasSubstr("unknown flags"));
  const std::string whole = Record(4, 0, 0, 0);
  for (size_t size = 1; size < whole.size(); ++size) {
    EXPECT_THAT(WhyRefused(whole.substr(0, size)), HasSubstr("truncated in its head")) << size;
  }
}

TEST(DiskRecordsTest, P7_RandomBytesNeverLeaveTheBody) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string body = Record(static_cast<uint8_t>(random() % 6), random() % 5, random() % 4 * 512,
                              random() % 4 * 512, std::string(random() % 2000, 'x'));
    if (random() % 2 == 0) body[random() % body.size()] ^= static_cast<char>(1u << random() % 8);
    DiskRecordReader reader(body, kLayout);
    while (!reader.done()) {
      const absl::StatusOr<DiskRecord> record = reader.Next();
      if (!record.ok()) break;
      ASSERT_NE(FindDisk(kLayout, record->disk), nullptr);
      ASSERT_LE(record->offset_bytes + record->size_bytes,
                FindDisk(kLayout, record->disk)->size_bytes);
      ASSERT_LE(record->raw.data() + record->raw.size(), body.data() + body.size());
    }
  }
}

TEST(DiskRecordsTest, TheDigestDependsOnContentAndOrder) {
  const std::string a = Record(4, 0, 0, 0);
  const std::string b = Record(2, 0, 0, 512);
  DiskDigest ab, ba, one;
  ab.Add(a);
  ab.Add(b);
  ba.Add(b);
  ba.Add(a);
  one.Add(a + b);
  EXPECT_NE(ab.value(), ba.value());
  EXPECT_NE(ab.value(), one.value());
  ab.Reset();
  EXPECT_EQ(ab.value(), 0u);
}

TEST(DiskRecordsTest, HashesComeBackAsTheyWere) {
  DiskHashes hashes;
  hashes.disk = 3;
  hashes.first_block = 70000;
  for (uint64_t i = 0; i < kMaxHashBlocks; ++i) hashes.hashes.push_back({i, ~i});
  std::string body;
  AppendDiskHashes(hashes, &body);
  const absl::StatusOr<DiskHashes> read = ParseDiskHashes(body);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->disk, 3u);
  EXPECT_EQ(read->first_block, 70000u);
  EXPECT_EQ(read->hashes, hashes.hashes);
  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_FALSE(ParseDiskHashes(absl::string_view(body).substr(0, size)).ok()) << size;
  }
  EXPECT_FALSE(ParseDiskHashes(body + "x").ok());
  hashes.hashes.emplace_back();
  body.clear();
  AppendDiskHashes(hashes, &body);
  EXPECT_FALSE(ParseDiskHashes(body).ok()) << "more than a request may ask for";
  std::string lie(16, '\0');
  lie[7] = '\x10';  // 2^28 hashes
  EXPECT_FALSE(ParseDiskHashes(lie).ok());
}

TEST(DiskRecordsTest, ZerosAreKnown) {
  std::vector<std::byte> block(kDiskBlockBytes);
  EXPECT_TRUE(AllZero(block));
  EXPECT_TRUE(AllZero({}));
  EXPECT_EQ(HashDiskBlock(block), ZeroDiskBlockHash(kDiskBlockBytes));
  EXPECT_EQ(HashDiskBlock(std::span(block).first(512)), ZeroDiskBlockHash(512));
  EXPECT_FALSE(ZeroDiskBlockHash(512) == ZeroDiskBlockHash(1024));
  for (const size_t at : {size_t{0}, size_t{1}, block.size() - 1}) {
    block[at] = std::byte{1};
    EXPECT_FALSE(AllZero(block)) << at;
    block[at] = std::byte{0};
  }
  EXPECT_EQ(DiskBlockCount(0), 0u);
  EXPECT_EQ(DiskBlockCount(512), 1u);
  EXPECT_EQ(DiskBlockCount(kDiskBlockBytes), 1u);
  EXPECT_EQ(DiskBlockCount(kDiskBlockBytes + 512), 2u);
}

}  // namespace
}  // namespace romulus::codec

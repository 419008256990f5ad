// A secondary's disks in memory, with a journal as the real ones have it; may be told to fail.
// Checks that calls come in the order that the interface states. One thread at a time, as the store
// calls.
#ifndef ROMULUS_TESTS_SUPPORT_FAKE_DISK_REPLICA_H_
#define ROMULUS_TESTS_SUPPORT_FAKE_DISK_REPLICA_H_

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "replica/disk_replica.h"

namespace romulus::replica {

using DiskBytes = std::vector<std::byte>;

// What a write leaves on a disk.
inline void DoDiskWrite(const epoch::DiskWrite& write, DiskBytes* disk) {
  if (write.kind == epoch::DiskWrite::Kind::kFlush) return;
  ROMULUS_CHECK(write.offset_bytes + write.size_bytes <= disk->size());
  if (write.kind == epoch::DiskWrite::Kind::kWrite) {
    ROMULUS_CHECK(write.data.size() == write.size_bytes);
    std::memcpy(disk->data() + write.offset_bytes, write.data.data(), write.size_bytes);
  } else {
    std::memset(disk->data() + write.offset_bytes, 0, write.size_bytes);
  }
}

class FakeDiskReplica final : public DiskReplica {
 public:
  struct Disk {
    DiskFacts facts;
    DiskBytes bytes;
  };
  struct Journaled {
    EpochKey key;
    std::vector<epoch::DiskWrite> writes;
  };

  void Add(uint32_t disk, std::string name, uint64_t size_bytes) {
    Disk& added = disks.emplace_back();
    added.facts.disk = disk;
    added.facts.path = "/images/" + name;
    added.facts.name = std::move(name);
    added.facts.size_bytes = size_bytes;
    added.bytes.resize(size_bytes);
  }

  std::vector<DiskFacts> facts() const override {
    std::vector<DiskFacts> all;
    for (const Disk& disk : disks) all.push_back(disk.facts);
    return all;
  }

  absl::Status BeginSync(Term) override {
    ROMULUS_CHECK(!promoted);
    if (!fail_begin.ok()) return fail_begin;
    syncing = true;
    synced = false;
    journal.clear();
    Stamp(CopyRole::kSyncing, {});
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<DiskHash>> HashBlocks(uint32_t disk, uint64_t first_block,
                                                   uint64_t count) override {
    ROMULUS_CHECK(syncing && count >= 1 && count <= codec::kMaxHashBlocks);
    const DiskBytes& bytes = Find(disk).bytes;
    std::vector<DiskHash> hashes;
    for (uint64_t block = first_block; block < first_block + count; ++block) {
      const uint64_t at = block * kDiskBlockBytes;
      ROMULUS_CHECK(at < bytes.size());
      const size_t size = std::min<uint64_t>(kDiskBlockBytes, bytes.size() - at);
      hashes.push_back(codec::HashDiskBlock(std::span(bytes).subspan(at, size)));
    }
    hashed_blocks += count;
    return hashes;
  }
  absl::Status WriteBlocks(uint32_t disk, uint64_t offset_bytes,
                           std::span<const std::byte> from) override {
    ROMULUS_CHECK(syncing);
    if (!fail_write.ok()) return fail_write;
    DiskBytes& bytes = Find(disk).bytes;
    ROMULUS_CHECK(offset_bytes + from.size() <= bytes.size());
    std::memcpy(bytes.data() + offset_bytes, from.data(), from.size());
    written_bytes += from.size();
    return absl::OkStatus();
  }
  absl::Status ZeroBlocks(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) override {
    ROMULUS_CHECK(syncing);
    DiskBytes& bytes = Find(disk).bytes;
    ROMULUS_CHECK(offset_bytes + size_bytes <= bytes.size());
    std::memset(bytes.data() + offset_bytes, 0, size_bytes);
    zeroed_bytes += size_bytes;
    return absl::OkStatus();
  }
  absl::Status EndSync(Term) override {
    ROMULUS_CHECK(syncing);
    if (!fail_end.ok()) return fail_end;
    syncing = false;
    synced = true;
    return absl::OkStatus();
  }
  absl::Status Journal(const EpochKey& epoch, std::span<const epoch::DiskWrite> writes) override {
    ROMULUS_CHECK(synced && !promoted);
    if (!fail_journal.ok()) return fail_journal;
    if (journal_room-- == 0) return absl::ResourceExhaustedError("/images/journal: no space left");
    journal.push_back({epoch, {writes.begin(), writes.end()}});
    ++journaled;
    return absl::OkStatus();
  }
  absl::Status Apply(const EpochKey& epoch) override {
    ROMULUS_CHECK(synced && !promoted);
    if (!fail_apply.ok()) return fail_apply;
    ApplyThrough(epoch);
    Stamp(CopyRole::kSecondary, epoch);
    return absl::OkStatus();
  }
  void Audit(const EpochKey& epoch, std::span<const epoch::DiskAuditRun> runs) override {
    ROMULUS_CHECK(synced && !promoted && journal.empty());
    for (const epoch::DiskAuditRun& run : runs) {
      for (uint64_t i = 0; i < run.hashes.size(); ++i) {
        const DiskBytes& bytes = Find(run.disk).bytes;
        const epoch::DiskBlock block{run.disk, run.first_block + i};
        const uint64_t size = std::min(kDiskBlockBytes, bytes.size() - block.offset_bytes());
        const auto at = std::span(bytes).subspan(block.offset_bytes(), size);
        ++audited.compared;
        if (codec::HashDiskBlock(at) == run.hashes[i]) continue;
        ++audited.mismatched;
        audited.mismatches.push_back({epoch.epoch, block});
      }
    }
  }
  DiskAuditFindings TakeAudited() override { return std::exchange(audited, {}); }
  absl::Status Promote(const EpochKey& epoch, Term term) override {
    ROMULUS_CHECK(synced && !promoted);
    if (!fail_promote.ok()) return fail_promote;
    ApplyThrough(epoch);
    ROMULUS_CHECK(journal.empty());
    promoted = true;
    Stamp(CopyRole::kPrimary, {term, EpochId()});
    return absl::OkStatus();
  }
  absl::Status TakeBack(const EpochKey& epoch) override {
    ROMULUS_CHECK(promoted);
    promoted = false;
    synced = false;
    Stamp(CopyRole::kSecondary, epoch);
    return absl::OkStatus();
  }
  absl::Status GiveUp() override {
    ROMULUS_CHECK(!promoted);
    given_up = true;
    synced = false;
    journal.clear();
    return absl::OkStatus();
  }

  Disk& Find(uint32_t disk) {
    for (Disk& one : disks) {
      if (one.facts.disk == disk) return one;
    }
    ROMULUS_CHECK(false);
    return disks.front();
  }

  std::vector<Disk> disks;
  std::vector<Journaled> journal;  // not applied
  uint64_t journaled = 0;
  DiskAuditFindings audited;
  uint64_t journal_room = UINT64_MAX;  // epochs
  uint64_t hashed_blocks = 0;
  uint64_t written_bytes = 0;  // by syncs
  uint64_t zeroed_bytes = 0;
  bool syncing = false;
  bool synced = false;
  bool promoted = false;
  bool given_up = false;
  absl::Status fail_begin, fail_write, fail_end, fail_journal, fail_apply, fail_promote;

 private:
  void ApplyThrough(const EpochKey& epoch) {
    while (!journal.empty() && journal.front().key <= epoch) {
      for (const epoch::DiskWrite& write : journal.front().writes) {
        if (write.kind != epoch::DiskWrite::Kind::kFlush) {
          DoDiskWrite(write, &Find(write.disk).bytes);
        }
      }
      journal.erase(journal.begin());
    }
  }
  void Stamp(CopyRole role, const EpochKey& key) {
    for (Disk& disk : disks) {
      disk.facts.role = role;
      disk.facts.stamp = key;
    }
  }
};

}  // namespace romulus::replica

#endif  // ROMULUS_TESTS_SUPPORT_FAKE_DISK_REPLICA_H_

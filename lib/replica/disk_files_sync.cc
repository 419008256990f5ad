// The full sync's half of the secondary's disks.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "replica/disk_files.h"

namespace romulus::replica {
namespace {

// Of a full sync, on one disk, before it is synced: what bounds the page cache, and the last sync.
constexpr uint64_t kSyncEveryBytes = 64u << 20;

}  // namespace

absl::Status DiskFiles::BeginSync(Term term) {
  absl::MutexLock lock(&mutex_);
  if (over_) {
    return absl::FailedPreconditionError(
        "the disks were handed over to a guest: romulusd has to be started again");
  }
  while (busy_) changed_.Wait(&mutex_);
  const bool was_following = state_ == State::kFollowing;
  state_ = State::kIdle;
  usable_ = absl::DataLossError(
      absl::StrCat(disks_.front().copy->spec().path, ": a full sync onto it has begun"));
  ROMULUS_RETURN_IF_ERROR(StampAll(disk::Mode::kSyncing, {term, EpochId(0)}));
  // The more of it is there, the less has to be copied; if it fails, more has to be.
  if (was_following) ApplyAll(kEverything).IgnoreError();
  ROMULUS_RETURN_IF_ERROR(journal_->Reset());
  health_ = absl::OkStatus();
  journaled_ = committed_ = {};
  compares_.clear();
  audited_ = {};
  sync_term_ = term;
  for (Disk& disk : disks_) {
    ForgetReserved(disk, 0, disk.copy->size_bytes());
    disk.unsynced_bytes = 0;
  }
  state_ = State::kSyncing;
  return absl::OkStatus();
}

absl::Status DiskFiles::CheckSyncing() const {
  if (state_ == State::kSyncing) return absl::OkStatus();
  return absl::FailedPreconditionError("no full sync of the disks is on");
}

absl::StatusOr<std::vector<DiskHash>> DiskFiles::HashBlocks(uint32_t disk, uint64_t first_block,
                                                            uint64_t count) {
  absl::MutexLock lock(&mutex_);
  ROMULUS_RETURN_IF_ERROR(CheckSyncing());
  ROMULUS_ASSIGN_OR_RETURN(Disk * found, Find(disk, 0, 0));
  const uint64_t size = found->copy->size_bytes();
  const uint64_t blocks = found->reserved.size();
  if (first_block > blocks || count > blocks - first_block) {
    return absl::InvalidArgumentError(
        absl::StrCat(found->copy->spec().path, ": has no block ", first_block, " + ", count));
  }
  disk::File& file = *found->copy->file();
  std::vector<std::byte> buffer(kDiskBlockBytes);
  std::vector<DiskHash> hashes;
  hashes.reserve(count);
  disk::Extent data{0, 0};  // the newest known: nothing lies between where it was asked and it
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t begin = (first_block + i) * kDiskBlockBytes;
    const uint64_t end = std::min(size, begin + kDiskBlockBytes);
    if (i == 0 || data.offset_bytes + data.size_bytes <= begin) {
      ROMULUS_ASSIGN_OR_RETURN(data, file.NextData(begin));
      if (data.size_bytes == 0) data.offset_bytes = size;
    }
    if (data.offset_bytes >= end) {
      hashes.push_back(codec::ZeroDiskBlockHash(end - begin));
      continue;
    }
    const std::span<std::byte> block = std::span(buffer).first(end - begin);
    ROMULUS_RETURN_IF_ERROR(file.Read(begin, block));
    hashes.push_back(codec::HashDiskBlock(block));
  }
  return hashes;
}

absl::Status DiskFiles::WriteBlocks(uint32_t disk, uint64_t offset_bytes,
                                    std::span<const std::byte> bytes) {
  absl::MutexLock lock(&mutex_);
  ROMULUS_RETURN_IF_ERROR(CheckSyncing());
  ROMULUS_ASSIGN_OR_RETURN(Disk * found, Find(disk, offset_bytes, bytes.size()));
  ROMULUS_RETURN_IF_ERROR(found->copy->file()->Write(offset_bytes, bytes));
  found->unsynced_bytes += bytes.size();
  if (found->unsynced_bytes < kSyncEveryBytes) return absl::OkStatus();
  found->unsynced_bytes = 0;
  return found->copy->file()->Sync();
}

absl::Status DiskFiles::ZeroBlocks(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) {
  absl::MutexLock lock(&mutex_);
  ROMULUS_RETURN_IF_ERROR(CheckSyncing());
  ROMULUS_ASSIGN_OR_RETURN(Disk * found, Find(disk, offset_bytes, size_bytes));
  if (size_bytes == 0) return absl::OkStatus();
  return found->copy->file()->Zero(offset_bytes, size_bytes, /*unmap=*/true);
}

absl::Status DiskFiles::EndSync(Term term) {
  absl::MutexLock lock(&mutex_);
  ROMULUS_RETURN_IF_ERROR(CheckSyncing());
  if (term != sync_term_) {
    return absl::FailedPreconditionError(absl::StrCat("the full sync of the disks is of term ",
                                                      sync_term_.value(), ", not ", term.value()));
  }
  ROMULUS_RETURN_IF_ERROR(SyncDisks());
  state_ = State::kSynced;
  return absl::OkStatus();
}

}  // namespace romulus::replica

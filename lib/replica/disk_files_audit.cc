// The audit's half of the secondary's disks.
#include <algorithm>
#include <utility>

#include "replica/disk_files.h"

namespace romulus::replica {
namespace {

// What waits beyond it is not compared in this pass.
constexpr size_t kMaxCompares = 4 * epoch::kMaxAuditBlocks;
// So many do not wait for the segment to be full.
constexpr size_t kManyCompares = kMaxCompares / 4;

}  // namespace

void DiskFiles::Audit(const EpochKey& epoch, std::span<const epoch::DiskAuditRun> runs) {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kFollowing || epoch != journaled_) return;
  if (compares_.empty()) compare_by_ = base::CondVar::After(options_.audit_patience);
  for (const epoch::DiskAuditRun& run : runs) {
    for (uint64_t i = 0; i < run.hashes.size() && compares_.size() < kMaxCompares; ++i) {
      const epoch::DiskBlock block{run.disk, run.first_block + i};
      compares_.push_back({epoch, journal_->newest(), block, run.hashes[i]});
    }
  }
  if (options_.own_thread) {
    changed_.SignalAll();
  } else {
    while (MayCompare()) CompareNext();
  }
}

DiskAuditFindings DiskFiles::TakeAudited() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(audited_, {});
}

bool DiskFiles::MayCompare() const {
  return state_ == State::kFollowing && !compares_.empty() &&
         compares_.front().after <= journal_->applied();
}

void DiskFiles::AwaitWork() {
  // What is closed is applied once it is committed, and somebody says so.
  const bool may_close =
      state_ == State::kFollowing && !compares_.empty() && !journal_->has_closed() && health_.ok();
  if (!may_close) return changed_.Wait(&mutex_);
  const bool is_time =
      compares_.size() >= kManyCompares || base::CondVar::Left(compare_by_) == absl::ZeroDuration();
  if (is_time) {
    journal_->CloseOpen();
  } else {
    changed_.WaitUntil(&mutex_, compare_by_);
  }
}

void DiskFiles::CompareNext() {
  const Compare compare = compares_.front();
  compares_.pop_front();
  compare_by_ = base::CondVar::After(options_.audit_patience);
  bool is_equal = false;
  if (options_.own_thread) {
    busy_ = true;
    mutex_.Unlock();
    is_equal = IsEqual(compare);
    mutex_.Lock();
    busy_ = false;
    changed_.SignalAll();
  } else {
    is_equal = IsEqual(compare);
  }
  DiskAuditFindings found;
  found.compared = 1;
  if (!is_equal) {
    found.mismatched = 1;
    found.mismatches.push_back({compare.epoch.epoch, compare.block});
  }
  audited_.Add(std::move(found));
}

bool DiskFiles::IsEqual(const Compare& compare) {
  const absl::StatusOr<Disk*> disk = Find(compare.block.disk, compare.block.offset_bytes(), 0);
  if (!disk.ok()) return true;  // no such block: nothing to be compared
  const absl::StatusOr<codec::DiskHash> hash =
      HashFileBlock(*(*disk)->copy->file(), compare.block.block);
  // What cannot be read could not be promoted either, and writing it again may mend it.
  return hash.ok() && *hash == compare.hash;
}

void DiskFiles::ForgetCompares(std::span<const epoch::DiskWrite> writes) {
  if (compares_.empty()) return;
  std::erase_if(compares_, [&](const Compare& compare) {
    const uint64_t begin = compare.block.offset_bytes();
    return std::any_of(writes.begin(), writes.end(), [&](const epoch::DiskWrite& write) {
      return write.kind != epoch::DiskWrite::Kind::kFlush && write.disk == compare.block.disk &&
             write.offset_bytes < begin + kDiskBlockBytes &&
             begin < write.offset_bytes + write.size_bytes;
    });
  });
}

}  // namespace romulus::replica

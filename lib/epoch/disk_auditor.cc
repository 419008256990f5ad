#include "epoch/disk_auditor.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace romulus::epoch {
namespace {

// What one turn reads: together at most 20 MiB of disk in a second, beside repairs.
constexpr absl::Duration kTurn = absl::Milliseconds(100);
constexpr size_t kBlocksPerTurn = 32;
// A block that the guest has written during so many reads, or before the cut after them.
constexpr int kMaxReads = 8;
// The pace aims at a bit less than the time of a pass, of which epochs that come late cost some.
constexpr double kPace = 0.875;

uint64_t BlocksOf(uint64_t size_bytes) {
  return (size_bytes + kDiskBlockBytes - 1) / kDiskBlockBytes;
}

uint64_t BlocksOf(const std::vector<uint64_t>& disk_sizes) {
  uint64_t blocks = 0;
  for (const uint64_t size : disk_sizes) blocks += BlocksOf(size);
  return blocks;
}

}  // namespace

bool DiskAuditor::Range::Touches(const DiskBlock& block) const {
  return disk == block.disk && begin < block.offset_bytes() + kDiskBlockBytes &&
         block.offset_bytes() < end;
}

DiskAuditor::DiskAuditor(const DiskAuditOptions& options, DiskBlockSource* source, DiskLog* log,
                         const base::Clock* clock)
    : options_(options),
      source_(source),
      log_(log),
      clock_(clock),
      total_(BlocksOf(options.disk_sizes)) {
  absl::MutexLock lock(&mutex_);
  window_.reserve(options_.max_blocks_per_epoch);
  progress_.blocks_total = total_;
}

DiskAuditor::~DiskAuditor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

void DiskAuditor::Start() {
  thread_ = std::thread([this] { ThreadMain(); });
}

void DiskAuditor::ThreadMain() {
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    if (!streaming_) {
      changed_.Wait(&mutex_);
      continue;
    }
    mutex_.Unlock();
    ReadSome();
    mutex_.Lock();
    if (!stopping_) changed_.WaitWithTimeout(&mutex_, kTurn);
  }
}

void DiskAuditor::BeginStream() {
  absl::MutexLock lock(&mutex_);
  window_.clear();
  repairs_.clear();
  reading_.reset();
  next_ = progress_.blocks_done = 0;
  pass_began_ns_ = clock_->NowNs();
  streaming_ = total_ > 0;
  changed_.SignalAll();
}

void DiskAuditor::EndStream() {
  absl::MutexLock lock(&mutex_);
  streaming_ = false;
  window_.clear();
  repairs_.clear();
  reading_.reset();
}

uint64_t DiskAuditor::BlocksDueLocked() const {
  const double share = static_cast<double>(clock_->NowNs() - pass_began_ns_) /
                       (static_cast<double>(std::max<uint64_t>(options_.pass_ns, 1)) * kPace);
  return share >= 1 ? total_ : static_cast<uint64_t>(share * static_cast<double>(total_));
}

DiskBlock DiskAuditor::BlockAt(uint64_t index) const {
  for (size_t disk = 0; disk < options_.disk_sizes.size(); ++disk) {
    const uint64_t blocks = BlocksOf(options_.disk_sizes[disk]);
    if (index < blocks) return {static_cast<uint32_t>(disk), index};
    index -= blocks;
  }
  ROMULUS_CHECK(false);
}

bool DiskAuditor::UnderWayLocked(const DiskBlock& block) const {
  return std::any_of(under_way_.begin(), under_way_.end(),
                     [&](const Range& range) { return range.Touches(block); });
}

DiskAuditor::Watched* DiskAuditor::FindLocked(const DiskBlock& block) {
  for (Watched& watched : window_) {
    if (watched.block == block) return &watched;
  }
  return nullptr;
}

std::vector<DiskBlock> DiskAuditor::PlanLocked() {
  const auto hopeless = [](const Watched& watched) {
    return !watched.is_known && !watched.is_cut && watched.reads >= kMaxReads;
  };
  const uint64_t left_out = std::erase_if(window_, hopeless);
  progress_.blocks_left_out += left_out;
  LeftWindowLocked(left_out);
  std::vector<DiskBlock> plan;
  for (const Watched& watched : window_) {
    // What the newest cut has found is the epoch's until that is given up.
    if (!watched.is_known && !watched.is_cut) plan.push_back(watched.block);
  }
  const uint64_t due = BlocksDueLocked();
  while (next_ < due && plan.size() < kBlocksPerTurn &&
         window_.size() < options_.max_blocks_per_epoch) {
    plan.push_back(BlockAt(next_++));
    window_.emplace_back().block = plan.back();
  }
  plan.resize(std::min(plan.size(), kBlocksPerTurn));
  return plan;
}

void DiskAuditor::ReadSome() {
  std::vector<DiskBlock> plan;
  size_t repairs = 0;
  {
    absl::MutexLock lock(&mutex_);
    if (!streaming_) return;
    plan = PlanLocked();
    repairs = repairs_.size();
  }
  for (const DiskBlock& block : plan) ReadOne(block);
  for (; repairs > 0; --repairs) RepairOne();
}

bool DiskAuditor::WatchLocked(const DiskBlock& block) {
  if (stopping_ || !streaming_ || UnderWayLocked(block)) return false;
  reading_ = block;
  return true;
}

void DiskAuditor::ReadOne(const DiskBlock& block) {
  {
    absl::MutexLock lock(&mutex_);
    Watched* const watched = FindLocked(block);
    if (watched == nullptr) return;
    ++watched->reads;
    if (!WatchLocked(block)) return;
  }
  const absl::StatusOr<DiskHash> hash = source_->Hash(block);
  absl::MutexLock lock(&mutex_);
  // Gone: a write has begun, or another stream, in which it may be watched again but was not read.
  if (std::exchange(reading_, std::nullopt) != block) return;
  Watched* const watched = FindLocked(block);
  if (watched == nullptr) return;
  watched->is_known = hash.ok();
  if (hash.ok()) watched->hash = *hash;
}

void DiskAuditor::RepairOne() {
  DiskBlock block;
  {
    absl::MutexLock lock(&mutex_);
    if (repairs_.empty()) return;
    block = repairs_.front();
    repairs_.pop_front();
    if (!WatchLocked(block)) {
      if (streaming_) repairs_.push_back(block);
      return;
    }
  }
  absl::StatusOr<std::vector<std::byte>> bytes = source_->Read(block);
  // The primary's disk has nothing that could be sent: the next pass will say so again.
  const bool is_logged = bytes.ok() && log_->Repair(block, *std::move(bytes), [&] {
    absl::MutexLock lock(&mutex_);
    return reading_ == block;
  });
  absl::MutexLock lock(&mutex_);
  reading_.reset();
  if (bytes.status().ok() && !is_logged && streaming_) repairs_.push_back(block);
}

void DiskAuditor::OnCut() {
  absl::MutexLock lock(&mutex_);
  for (Watched& watched : window_) watched.is_cut = watched.is_known;
}

std::vector<DiskAuditRun> DiskAuditor::TakeRuns() {
  std::vector<Watched> taken;
  {
    absl::MutexLock lock(&mutex_);
    for (const Watched& watched : window_) {
      if (watched.is_cut) taken.push_back(watched);
    }
    std::erase_if(window_, [](const Watched& watched) { return watched.is_cut; });
    LeftWindowLocked(taken.size());
  }
  std::sort(taken.begin(), taken.end(),
            [](const Watched& a, const Watched& b) { return a.block < b.block; });
  std::vector<DiskAuditRun> runs;
  for (const Watched& watched : taken) {
    const auto [disk, block] = watched.block;
    const bool joins = !runs.empty() && runs.back().disk == disk &&
                       runs.back().first_block + runs.back().hashes.size() == block;
    if (!joins) runs.push_back({disk, block, {}});
    runs.back().hashes.push_back(watched.hash);
  }
  return runs;
}

void DiskAuditor::LeftWindowLocked(uint64_t blocks) {
  progress_.blocks_done += blocks;
  if (blocks == 0 || progress_.blocks_done < total_) return;
  const uint64_t now_ns = clock_->NowNs();
  progress_.last_pass_ns = now_ns - pass_began_ns_;
  progress_.last_pass_end_ns = now_ns;
  ++progress_.passes;
  next_ = progress_.blocks_done = 0;
  pass_began_ns_ = now_ns;
}

void DiskAuditor::Repair(std::span<const DiskBlock> blocks) {
  absl::MutexLock lock(&mutex_);
  for (const DiskBlock& block : blocks) {
    if (!streaming_ || repairs_.size() >= kMaxAuditBlocks) return;
    if (std::find(repairs_.begin(), repairs_.end(), block) == repairs_.end()) {
      repairs_.push_back(block);
    }
  }
}

bool DiskAuditor::IsBehind() const {
  absl::MutexLock lock(&mutex_);
  if (!streaming_) return false;
  const uint64_t due = BlocksDueLocked();
  return due == total_ || due > progress_.blocks_done + total_ / kAuditSlack;
}

DiskAuditProgress DiskAuditor::progress() const {
  absl::MutexLock lock(&mutex_);
  return progress_;
}

void DiskAuditor::OnWriteBegun(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) {
  const Range range{disk, offset_bytes, offset_bytes + size_bytes};
  absl::MutexLock lock(&mutex_);
  under_way_.push_back(range);
  for (Watched& watched : window_) {
    if (range.Touches(watched.block)) watched.is_known = false;
  }
  if (reading_.has_value() && range.Touches(*reading_)) reading_.reset();
}

void DiskAuditor::OnWriteDone(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) {
  absl::MutexLock lock(&mutex_);
  const auto done = std::find(under_way_.begin(), under_way_.end(),
                              Range{disk, offset_bytes, offset_bytes + size_bytes});
  if (done != under_way_.end()) under_way_.erase(done);
}

}  // namespace romulus::epoch

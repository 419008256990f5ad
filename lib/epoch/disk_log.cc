#include "epoch/disk_log.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace romulus::epoch {
namespace {

// What a write costs apart from its bytes, so that requests without any are bounded too.
constexpr uint64_t kEntryBytes = sizeof(DiskWrite);

uint64_t CostOf(const DiskWrite& write) { return kEntryBytes + write.data.size(); }

DiskWrite::Kind KindOf(devices::BlockRequest::Kind kind) {
  switch (kind) {
    case devices::BlockRequest::Kind::kWrite:
      return DiskWrite::Kind::kWrite;
    case devices::BlockRequest::Kind::kDiscard:
      return DiskWrite::Kind::kDiscard;
    case devices::BlockRequest::Kind::kWriteZeroes:
      return DiskWrite::Kind::kWriteZeroes;
    case devices::BlockRequest::Kind::kRead:
    case devices::BlockRequest::Kind::kFlush:
      break;
  }
  ROMULUS_CHECK(false);
}

void CallAll(const std::vector<std::function<void()>>& callbacks) {
  for (const std::function<void()>& callback : callbacks) callback();
}

}  // namespace

DiskLog::DiskLog(const Options& options) : options_(options) {
  absl::MutexLock lock(&mutex_);
  for (const uint64_t size : options_.disk_sizes) {
    DirtyBits bits;
    bits.blocks = (size + kDiskBlockBytes - 1) / kDiskBlockBytes;
    bits.words.resize((bits.blocks + 63) / 64);
    dirty_.push_back(std::move(bits));
  }
}

void DiskLog::BeginTracking() {
  std::vector<std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    calls = ForgetLocked();
    mode_ = Mode::kTracking;
    for (DirtyBits& bits : dirty_) {
      std::fill(bits.words.begin(), bits.words.end(), 0);
      bits.count = 0;
    }
  }
  CallAll(calls);
}

void DiskLog::Stop() {
  std::vector<std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    calls = ForgetLocked();
    mode_ = Mode::kOff;
  }
  CallAll(calls);
}

// Who is under way, logged in what is forgotten here, is in no log any more.
std::vector<std::function<void()>> DiskLog::ForgetLocked() {
  unlogged_ += std::exchange(logged_, 0);
  ++recording_;
  status_ = absl::OkStatus();
  open_.clear();
  open_bytes_ = 0;
  held_.clear();
  held_bytes_ = 0;
  changed_.SignalAll();
  return UpdateFullLocked();
}

std::vector<DiskBlockRange> DiskLog::TakeDirtyBlocks(uint32_t disk) {
  absl::MutexLock lock(&mutex_);
  ROMULUS_CHECK(disk < dirty_.size());
  DirtyBits& bits = dirty_[disk];
  std::vector<DiskBlockRange> ranges;
  if (bits.count == 0) return ranges;
  for (size_t i = 0; i < bits.words.size(); ++i) {
    for (uint64_t word = std::exchange(bits.words[i], 0); word != 0; word &= word - 1) {
      const uint64_t block = i * 64 + static_cast<uint64_t>(std::countr_zero(word));
      if (!ranges.empty() && ranges.back().first + ranges.back().count == block) {
        ++ranges.back().count;
      } else {
        ranges.push_back({block, 1});
      }
    }
  }
  bits.count = 0;
  return ranges;
}

uint64_t DiskLog::dirty_blocks(uint32_t disk) const {
  absl::MutexLock lock(&mutex_);
  ROMULUS_CHECK(disk < dirty_.size());
  return dirty_[disk].count;
}

absl::Status DiskLog::SwitchToLogging() {
  absl::MutexLock lock(&mutex_);
  if (mode_ != Mode::kTracking) {
    return absl::FailedPreconditionError("the disk log is not tracking a full sync");
  }
  mode_ = Mode::kLogging;
  return absl::OkStatus();
}

absl::Status DiskLog::AwaitUnlogged(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const base::CondVar::Deadline deadline = base::CondVar::After(timeout);
  const uint64_t recording = recording_;
  while (unlogged_ > 0 && recording_ == recording) {
    if (changed_.WaitUntil(&mutex_, deadline) && unlogged_ > 0 && recording_ == recording) {
      return absl::DeadlineExceededError(
          absl::StrCat(unlogged_, " writes to the disks are not done yet"));
    }
  }
  if (recording_ != recording) return absl::CancelledError("the disk log was begun anew");
  return absl::OkStatus();
}

std::vector<DiskWrite> DiskLog::Cut(EpochId epoch) {
  absl::MutexLock lock(&mutex_);
  if (open_.empty()) return {};
  held_.push_back({epoch, std::exchange(open_bytes_, 0)});
  return std::exchange(open_, {});
}

void DiskLog::UndoCut(EpochId epoch, std::vector<DiskWrite> writes) {
  absl::MutexLock lock(&mutex_);
  if (held_.empty() || held_.back().epoch != epoch) return;
  open_bytes_ += held_.back().bytes;
  held_.pop_back();
  writes.insert(writes.end(), std::make_move_iterator(open_.begin()),
                std::make_move_iterator(open_.end()));
  open_ = std::move(writes);
}

void DiskLog::Release(EpochId epoch) {
  std::vector<std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    while (!held_.empty() && held_.front().epoch <= epoch) {
      held_bytes_ -= held_.front().bytes;
      held_.pop_front();
    }
    calls = UpdateFullLocked();
  }
  CallAll(calls);
}

DiskLog::Mode DiskLog::mode() const {
  absl::MutexLock lock(&mutex_);
  return mode_;
}

absl::Status DiskLog::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

uint64_t DiskLog::held_bytes() const {
  absl::MutexLock lock(&mutex_);
  return held_bytes_;
}

uint64_t DiskLog::failed_writes() const {
  absl::MutexLock lock(&mutex_);
  return failed_writes_;
}

void DiskLog::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  UpdateFullLocked();  // nobody is called: there is no room, and no epoch would make some
}

void DiskLog::Open() {
  std::vector<std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    closed_ = false;
    calls = UpdateFullLocked();
  }
  CallAll(calls);
}

void DiskLog::SetOnFull(std::function<void()> callback) { on_full_ = std::move(callback); }

void DiskLog::WhenRoom(std::function<void()> ready) {
  {
    absl::MutexLock lock(&mutex_);
    if (full_.load(std::memory_order_relaxed)) {
      waiting_for_room_.push_back(std::move(ready));
      return;
    }
  }
  ready();
}

DiskLog::Ticket DiskLog::Begin(uint32_t disk, const devices::BlockRequest& request) {
  Ticket ticket{disk, request.offset_bytes, request.size_bytes, 0};
  std::vector<std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(disk < dirty_.size());
    if (observer_ != nullptr) {
      observer_->OnWriteBegun(disk, request.offset_bytes, request.size_bytes);
    }
    if (mode_ != Mode::kLogging) {
      ++unlogged_;
      // Now too, not only when it is done: some of it may be on the disk by the next look.
      if (mode_ == Mode::kTracking) MarkLocked(ticket);
      return ticket;
    }
    ++logged_;
    ticket.recording = recording_;
    AppendLocked(
        {KindOf(request.kind), disk, request.offset_bytes, request.size_bytes, request.data});
    // A flush of its own: the guest may count on it once it is told.
    if (request.durable) AppendLocked({DiskWrite::Kind::kFlush, disk, 0, 0, {}});
    calls = UpdateFullLocked();
  }
  CallAll(calls);
  return ticket;
}

void DiskLog::Flush(uint32_t disk) {
  std::vector<std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    if (mode_ != Mode::kLogging) return;
    AppendLocked({DiskWrite::Kind::kFlush, disk, 0, 0, {}});
    calls = UpdateFullLocked();
  }
  CallAll(calls);
}

void DiskLog::Done(const Ticket& ticket) {
  absl::MutexLock lock(&mutex_);
  if (observer_ != nullptr) {
    observer_->OnWriteDone(ticket.disk, ticket.offset_bytes, ticket.size_bytes);
  }
  if (ticket.recording == recording_) {
    --logged_;
    return;
  }
  --unlogged_;
  if (mode_ != Mode::kOff) MarkLocked(ticket);
  if (unlogged_ == 0) changed_.SignalAll();
}

bool DiskLog::Failed(const Ticket& ticket) {
  absl::MutexLock lock(&mutex_);
  ++failed_writes_;
  return ticket.recording == recording_;
}

void DiskLog::Mend(const Ticket& ticket, std::vector<std::byte> bytes) {
  std::vector<std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    if (ticket.recording != recording_) return;
    AppendLocked({DiskWrite::Kind::kWrite, ticket.disk, ticket.offset_bytes, ticket.size_bytes,
                  std::move(bytes)});
    calls = UpdateFullLocked();
  }
  CallAll(calls);
}

bool DiskLog::Repair(const DiskBlock& block, std::vector<std::byte> bytes,
                     const std::function<bool()>& is_current) {
  std::vector<std::function<void()>> calls;
  {
    absl::MutexLock lock(&mutex_);
    if (mode_ != Mode::kLogging || Full() || !is_current()) return false;
    const uint64_t size = bytes.size();
    AppendLocked(
        {DiskWrite::Kind::kWrite, block.disk, block.offset_bytes(), size, std::move(bytes)});
    calls = UpdateFullLocked();
  }
  CallAll(calls);
  return true;
}

void DiskLog::Unequal(const Ticket& ticket, const absl::Status& why) {
  absl::MutexLock lock(&mutex_);
  if (ticket.recording != recording_ || !status_.ok()) return;
  status_ = absl::DataLossError(absl::StrCat(
      "disk ", ticket.disk, ": ", ticket.size_bytes, " bytes at ", ticket.offset_bytes,
      " could not be zeroed and are too many to be compared: the secondary's copy may differ: ",
      why.message()));
}

void DiskLog::MarkLocked(const Ticket& ticket) {
  DirtyBits& bits = dirty_[ticket.disk];
  if (ticket.size_bytes == 0) return;
  const uint64_t first = ticket.offset_bytes / kDiskBlockBytes;
  const uint64_t last = (ticket.offset_bytes + ticket.size_bytes - 1) / kDiskBlockBytes;
  ROMULUS_CHECK(last < bits.blocks);
  for (uint64_t block = first; block <= last; ++block) {
    uint64_t& word = bits.words[block / 64];
    const uint64_t bit = uint64_t{1} << (block % 64);
    bits.count += (word & bit) == 0 ? 1 : 0;
    word |= bit;
  }
}

void DiskLog::AppendLocked(DiskWrite write) {
  open_bytes_ += CostOf(write);
  held_bytes_ += CostOf(write);
  open_.push_back(std::move(write));
}

std::vector<std::function<void()>> DiskLog::UpdateFullLocked() {
  const bool full = closed_ || held_bytes_ >= options_.cap_bytes;
  if (full_.exchange(full, std::memory_order_acq_rel) == full) return {};
  if (!full) return std::exchange(waiting_for_room_, {});
  if (!on_full_ || closed_) return {};
  return {on_full_};
}

}  // namespace romulus::epoch

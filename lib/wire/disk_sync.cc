#include "wire/disk_sync.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "romulus/v1/replication.pb.h"
#include "wire/frame_sender.h"

namespace romulus::wire {
namespace {

using codec::DiskHash;
using codec::DiskRecordKind;
using codec::kDiskBlockBytes;
using codec::kDiskRecordHeadBytes;
using codec::kDiskSectorBytes;

// Requests for hashes under way: while one is answered, the next travels.
constexpr size_t kAsked = 2;
// Where zeros cannot be punched they are written, and the secondary does not listen meanwhile.
constexpr uint64_t kMaxZeros = 64u << 20;

}  // namespace

// Answers whether a block is a hole; asked in ascending order.
class DiskSync::DataMap {
 public:
  DataMap(DiskSyncSource* source, const DiskProgress& disk) : source_(source), disk_(disk) {}

  // The first data at or after `offset`; {size, size} if there is none.
  absl::StatusOr<DiskRange> At(uint64_t offset) {
    if (known_ && offset < next_.end) return DiskRange{std::max(offset, next_.begin), next_.end};
    const uint64_t size = disk_.bytes_total;
    if (known_ && next_.begin >= size) return DiskRange{size, size};
    ROMULUS_ASSIGN_OR_RETURN(next_, source_->NextData(disk_.disk, offset));
    known_ = true;
    next_.begin = std::clamp(next_.begin, offset, size);
    next_.end = std::clamp(next_.end, next_.begin, size);
    if (next_.begin == next_.end) next_ = {size, size};
    return next_;
  }

 private:
  DiskSyncSource* const source_;
  const DiskProgress& disk_;
  bool known_ = false;
  DiskRange next_;
};

DiskSync::DiskSync(const DiskSyncOptions& options, Term term, std::vector<uint32_t> all_zero,
                   size_t max_body_bytes, DiskSyncSource* source, FrameSender* sender,
                   std::function<void()> on_progress)
    : options_(options),
      term_(term),
      all_zero_(std::move(all_zero)),
      max_body_bytes_(std::min(max_body_bytes, codec::kPageBodyBytes + 4 * kDiskRecordHeadBytes)),
      source_(source),
      sender_(sender),
      on_progress_(std::move(on_progress)),
      block_(kDiskBlockBytes) {
  for (const codec::DiskSize& disk : source_->disks()) {
    progress_.emplace_back();
    progress_.back().disk = disk.disk;
    progress_.back().bytes_total = disk.size_bytes;
  }
}

absl::Status DiskSync::Copy() {
  if (max_body_bytes_ < kDiskRecordHeadBytes + kDiskSectorBytes) {
    return absl::FailedPreconditionError(
        absl::StrCat("the peer accepts frames of ", max_body_bytes_, " bytes only"));
  }
  ROMULUS_RETURN_IF_ERROR(source_->BeginTracking());
  v1::DiskSyncBegin begin;
  begin.set_disk_count(static_cast<uint32_t>(progress_.size()));
  ROMULUS_RETURN_IF_ERROR(SendFrame(codec::FrameKind::kDiskSyncBegin, begin.SerializeAsString()));
  for (DiskProgress& disk : progress_) {
    const bool fresh = std::find(all_zero_.begin(), all_zero_.end(), disk.disk) != all_zero_.end();
    ROMULUS_RETURN_IF_ERROR(fresh ? CopyFresh(disk) : CopyDifferent(disk));
    ROMULUS_RETURN_IF_ERROR(FlushBody());
  }
  if (on_progress_) on_progress_();
  return absl::OkStatus();
}

// The secondary has zeros: what is a hole here is there already.
absl::Status DiskSync::CopyFresh(DiskProgress& disk) {
  DataMap data(source_, disk);
  uint64_t at = 0;
  while (at < disk.bytes_total) {
    ROMULUS_ASSIGN_OR_RETURN(const DiskRange found, data.At(at));
    const uint64_t block = found.begin / kDiskBlockBytes * kDiskBlockBytes;
    const uint64_t begin = std::max(at, block);
    ROMULUS_RETURN_IF_ERROR(Done(disk, begin - at));
    at = begin;
    if (at >= disk.bytes_total) break;
    const uint64_t size = std::min(kDiskBlockBytes, disk.bytes_total - at);
    const std::span<std::byte> bytes = std::span(block_).first(size);
    ROMULUS_RETURN_IF_ERROR(source_->Read(disk.disk, at, bytes));
    if (!codec::AllZero(bytes)) ROMULUS_RETURN_IF_ERROR(SendBlock(disk, at, bytes));
    at += size;
    ROMULUS_RETURN_IF_ERROR(Done(disk, size));
  }
  return absl::OkStatus();
}

absl::Status DiskSync::CopyDifferent(DiskProgress& disk) {
  const uint64_t blocks = codec::DiskBlockCount(disk.bytes_total);
  DataMap data(source_, disk);
  uint64_t to_ask = 0;
  uint64_t answered = 0;
  size_t under_way = 0;
  while (answered < blocks) {
    while (under_way < kAsked && to_ask < blocks) {
      const Asked next{to_ask, std::min(codec::kMaxHashBlocks, blocks - to_ask)};
      ROMULUS_RETURN_IF_ERROR(Ask(disk.disk, next));
      to_ask += next.count;
      ++under_way;
    }
    ROMULUS_ASSIGN_OR_RETURN(const codec::DiskHashes theirs, AwaitHashes());
    --under_way;
    ROMULUS_RETURN_IF_ERROR(Compare(disk, data, theirs));
    answered += theirs.hashes.size();
  }
  return absl::OkStatus();
}

absl::Status DiskSync::Compare(DiskProgress& disk, DataMap& data, const codec::DiskHashes& theirs) {
  for (size_t i = 0; i < theirs.hashes.size(); ++i) {
    const uint64_t at = (theirs.first_block + i) * kDiskBlockBytes;
    const uint64_t size = std::min(kDiskBlockBytes, disk.bytes_total - at);
    ROMULUS_ASSIGN_OR_RETURN(const DiskRange found, data.At(at));
    const bool hole = found.begin >= at + size;
    const std::span<std::byte> bytes = std::span(block_).first(size);
    DiskHash ours;
    if (hole) {
      ours = codec::ZeroDiskBlockHash(size);
    } else {
      ROMULUS_RETURN_IF_ERROR(source_->Read(disk.disk, at, bytes));
      ours = codec::HashDiskBlock(bytes);
    }
    if (ours == theirs.hashes[i]) {
      disk.bytes_equal += size;
    } else if (hole || codec::AllZero(bytes)) {
      ROMULUS_RETURN_IF_ERROR(AppendZeros(disk, {at, at + size}));
    } else {
      ROMULUS_RETURN_IF_ERROR(SendBlock(disk, at, bytes));
    }
    ROMULUS_RETURN_IF_ERROR(Done(disk, size));
  }
  return absl::OkStatus();
}

absl::Status DiskSync::Rounds() {
  uint64_t before = UINT64_MAX;
  for (uint64_t round = 0; round < options_.max_rounds; ++round) {
    ROMULUS_ASSIGN_OR_RETURN(const uint64_t bytes, Round());
    if (bytes <= options_.target_dirty_bytes) break;
    const bool converges =
        static_cast<double>(bytes) <= options_.give_up_ratio * static_cast<double>(before);
    if (!converges) break;
    before = bytes;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> DiskSync::Round() {
  uint64_t bytes = 0;
  for (DiskProgress& disk : progress_) {
    ROMULUS_ASSIGN_OR_RETURN(const std::vector<DiskRange> dirty, source_->TakeDirty(disk.disk));
    for (const DiskRange& range : dirty) {
      ROMULUS_RETURN_IF_ERROR(SendRange(disk, range));
      bytes += range.end - range.begin;
    }
  }
  ROMULUS_RETURN_IF_ERROR(FlushBody());
  if (on_progress_) on_progress_();
  return bytes;
}

absl::Status DiskSync::Finish() {
  ROMULUS_RETURN_IF_ERROR(source_->SwitchToLogging());
  ROMULUS_RETURN_IF_ERROR(Round().status());
  v1::DiskSyncEnd end;
  for (const DiskProgress& disk : progress_) {
    end.set_bytes_sent(end.bytes_sent() + disk.bytes_sent);
    end.set_bytes_equal(end.bytes_equal() + disk.bytes_equal);
  }
  return SendFrame(codec::FrameKind::kDiskSyncEnd, end.SerializeAsString());
}

absl::Status DiskSync::SendRange(DiskProgress& disk, const DiskRange& range) {
  for (uint64_t at = range.begin; at < range.end; at += kDiskBlockBytes) {
    if (cancelled()) return absl::CancelledError("full sync cancelled");
    const uint64_t size = std::min(kDiskBlockBytes, range.end - at);
    const std::span<std::byte> bytes = std::span(block_).first(size);
    ROMULUS_RETURN_IF_ERROR(source_->Read(disk.disk, at, bytes));
    if (codec::AllZero(bytes)) {
      ROMULUS_RETURN_IF_ERROR(AppendZeros(disk, {at, at + size}));
    } else {
      ROMULUS_RETURN_IF_ERROR(SendBlock(disk, at, bytes));
    }
  }
  return absl::OkStatus();
}

absl::Status DiskSync::SendBlock(DiskProgress& disk, uint64_t offset,
                                 std::span<const std::byte> block) {
  ROMULUS_RETURN_IF_ERROR(FlushZeros());
  while (!block.empty()) {
    const size_t room = max_body_bytes_ - std::min(max_body_bytes_, body_.size());
    if (room < kDiskRecordHeadBytes + std::min<size_t>(block.size(), kDiskSectorBytes)) {
      ROMULUS_RETURN_IF_ERROR(FlushBody());
      continue;
    }
    const size_t size =
        std::min(block.size(), (room - kDiskRecordHeadBytes) & ~(kDiskSectorBytes - 1));
    codec::AppendDiskRecord(DiskRecordKind::kWrite, disk.disk, offset, size, block.first(size),
                            &body_);
    disk.bytes_sent += size;
    offset += size;
    block = block.subspan(size);
  }
  return absl::OkStatus();
}

absl::Status DiskSync::AppendZeros(DiskProgress& disk, const DiskRange& range) {
  disk.bytes_zero += range.end - range.begin;
  const bool joins = zeros_.begin < zeros_.end && zeros_disk_ == disk.disk &&
                     zeros_.end == range.begin && zeros_.end - zeros_.begin < kMaxZeros;
  if (joins) {
    zeros_.end = range.end;
    return absl::OkStatus();
  }
  ROMULUS_RETURN_IF_ERROR(FlushZeros());
  zeros_disk_ = disk.disk;
  zeros_ = range;
  return absl::OkStatus();
}

absl::Status DiskSync::FlushZeros() {
  if (zeros_.begin == zeros_.end) return absl::OkStatus();
  const DiskRange zeros = std::exchange(zeros_, {});
  if (body_.size() + kDiskRecordHeadBytes > max_body_bytes_) ROMULUS_RETURN_IF_ERROR(FlushBody());
  codec::AppendDiskRecord(DiskRecordKind::kZeros, zeros_disk_, zeros.begin, zeros.end - zeros.begin,
                          {}, &body_);
  return absl::OkStatus();
}

absl::Status DiskSync::FlushBody() {
  ROMULUS_RETURN_IF_ERROR(FlushZeros());
  if (body_.empty()) return absl::OkStatus();
  const std::string body = std::exchange(body_, {});
  return SendFrame(codec::FrameKind::kDiskBlocks, body);
}

absl::Status DiskSync::SendFrame(codec::FrameKind kind, absl::string_view body) {
  if (cancelled()) return absl::CancelledError("full sync cancelled");
  return sender_->WithEncoder(0, [&](codec::EpochEncoder& encoder, FrameSender::Send send) {
    return encoder.AddSyncFrame(kind, body, send);
  });
}

absl::Status DiskSync::Ask(uint32_t disk, const Asked& asked) {
  {
    absl::MutexLock lock(&mutex_);
    asked_disk_ = disk;
    asked_.push_back(asked);
  }
  v1::DiskHashRequest request;
  request.set_disk(disk);
  request.set_first_block(asked.first_block);
  request.set_count(asked.count);
  return SendFrame(codec::FrameKind::kDiskHashRequest, request.SerializeAsString());
}

absl::Status DiskSync::OnHashes(absl::string_view body) {
  ROMULUS_ASSIGN_OR_RETURN(codec::DiskHashes hashes, codec::ParseDiskHashes(body));
  absl::MutexLock lock(&mutex_);
  if (asked_.empty() || hashes.disk != asked_disk_ ||
      hashes.first_block != asked_.front().first_block ||
      hashes.hashes.size() != asked_.front().count) {
    return absl::InvalidArgumentError(
        absl::StrCat("hashes of ", hashes.hashes.size(), " blocks of disk ", hashes.disk, " from ",
                     hashes.first_block, " on, for which nobody asked"));
  }
  asked_.pop_front();
  answers_.push_back(std::move(hashes));
  changed_.SignalAll();
  return absl::OkStatus();
}

absl::StatusOr<codec::DiskHashes> DiskSync::AwaitHashes() {
  absl::MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return cancelled_ || !answers_.empty();
  };
  if (!ready() &&
      !changed_.AwaitUntil(&mutex_, base::CondVar::After(options_.answer_timeout), ready)) {
    return absl::DeadlineExceededError("the secondary does not say what its disks hold");
  }
  if (cancelled_) return absl::CancelledError("full sync cancelled");
  codec::DiskHashes hashes = std::move(answers_.front());
  answers_.pop_front();
  return hashes;
}

absl::Status DiskSync::Done(DiskProgress& disk, uint64_t bytes) {
  disk.bytes_done += bytes;
  done_bytes_ += bytes;
  if (on_progress_ && done_bytes_ - told_at_bytes_ >= options_.progress_every_bytes) {
    told_at_bytes_ = done_bytes_;
    on_progress_();
  }
  return cancelled() ? absl::CancelledError("full sync cancelled") : absl::OkStatus();
}

void DiskSync::Cancel() {
  absl::MutexLock lock(&mutex_);
  cancelled_ = true;
  changed_.SignalAll();
}

bool DiskSync::cancelled() const {
  absl::MutexLock lock(&mutex_);
  return cancelled_;
}

}  // namespace romulus::wire

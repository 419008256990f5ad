#include "devices/virtio/block.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace romulus::devices {
namespace {

// 5.2.6
constexpr uint32_t kTypeIn = 0;
constexpr uint32_t kTypeOut = 1;
constexpr uint32_t kTypeFlush = 4;
constexpr uint32_t kTypeGetId = 8;
constexpr uint32_t kTypeDiscard = 11;
constexpr uint32_t kTypeWriteZeroes = 13;
constexpr uint32_t kUnmap = 1;

struct RequestHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};
static_assert(sizeof(RequestHeader) == 16);

struct RangeSegment {  // virtio_blk_discard_write_zeroes
  uint64_t sector;
  uint32_t sectors;
  uint32_t flags;
};
static_assert(sizeof(RangeSegment) == 16);

// What must be the same on the host that restores.
struct BlockState {
  uint64_t size_bytes = 0;
  uint64_t read_only = 0;
};

template <typename T>
bool ReadAt(const memory::GuestMemory& memory, std::span<const Segment> segments, uint64_t offset,
            T& value) {
  const absl::StatusOr<size_t> got =
      Gather(memory, segments, offset, std::as_writable_bytes(std::span<T, 1>(&value, 1)));
  return got.ok() && *got == sizeof(T);
}

uint64_t Cost(const Chain& chain) {
  return std::min(chain.readable_bytes + chain.writable_bytes, VirtioBlock::kMaxRequestBytes);
}

}  // namespace

VirtioBlock::VirtioBlock(BlockBackend& backend, absl::string_view serial)
    : backend_(backend), serial_(serial.substr(0, kSerialBytes)) {
  ROMULUS_CHECK(backend.size_bytes() % kSectorBytes == 0);
  const auto put = [&](size_t offset, auto value) {
    std::memcpy(config_.data() + offset, &value, sizeof(value));
  };
  put(0, uint64_t{backend.size_bytes() / kSectorBytes});  // capacity
  put(8, uint32_t{kMaxSegmentBytes});                     // size_max
  put(12, uint32_t{kMaxSegments});                        // seg_max
  put(20, static_cast<uint32_t>(kSectorBytes));           // blk_size
  put(36, uint32_t{kMaxRangeSectors});                    // max_discard_sectors
  put(40, uint32_t{1});                                   // max_discard_seg
  put(44, uint32_t{1});                                   // discard_sector_alignment
  put(48, uint32_t{kMaxRangeSectors});                    // max_write_zeroes_sectors
  put(52, uint32_t{1});                                   // max_write_zeroes_seg
  put(56, uint8_t{1});                                    // write_zeroes_may_unmap
}

uint64_t VirtioBlock::features() const {
  return virtio::kBlockSizeMax | virtio::kBlockSegMax | virtio::kBlockBlkSize |
         virtio::kBlockFlush | virtio::kBlockDiscard | virtio::kBlockWriteZeroes |
         (backend_.read_only() ? virtio::kBlockReadOnly : 0);
}

// A write of before that is still under way could land on one of after: so those of after wait.
void VirtioBlock::OnQueueStopped(int /*queue*/) {
  ++generation_;
  stale_ += std::exchange(in_flight_, 0);
  waiting_.reset();
  stalled_ = false;
}

void VirtioBlock::Reset() {
  OnQueueStopped(0);
  features_ = 0;
}

Progress VirtioBlock::Process(int queue) {
  uint64_t copied = 0;
  for (;;) {
    stalled_ = stale_ > 0 || in_flight_ >= kMaxInFlight;
    if (stalled_) return Progress::kStalled;
    if (backend_.Full()) {
      AwaitRoom(queue);
      return Progress::kStalled;
    }
    if (copied >= kBytesPerTurn) return Progress::kAgain;
    if (!waiting_) waiting_ = host().Pop(queue);
    if (!waiting_) return Progress::kDrained;
    if (in_flight_ > 0 && in_flight_bytes_ + Cost(*waiting_) > kMaxInFlightBytes) {
      stalled_ = true;
      return Progress::kStalled;
    }
    copied += Begin(*std::exchange(waiting_, std::nullopt));
  }
}

void VirtioBlock::AwaitRoom(int queue) {
  if (std::exchange(awaiting_room_, true)) return;
  backend_.WhenRoom(host().Bind([this, queue] {
    awaiting_room_ = false;
    host().Kick(queue);
  }));
}

uint64_t VirtioBlock::Begin(const Chain& chain) {
  RequestHeader header;
  if (chain.writable_bytes == 0 || !ReadAt(host().memory(), chain.readable, 0, header)) {
    host().Fail(VirtioFault::kRequest);  // not even a place to say so
    return 0;
  }
  if (header.type == kTypeGetId) return AnswerId(chain);
  BlockRequest request;
  if (const Status status = Translate(chain, header.type, header.sector, request);
      status != Status::kOk) {
    Finish(chain, status, 0);
    return 0;
  }
  const uint64_t bytes = Cost(chain);
  const uint64_t copied = request.data.size();
  const uint64_t read_bytes = request.kind == BlockRequest::Kind::kRead ? request.size_bytes : 0;
  ++in_flight_;
  in_flight_bytes_ += bytes;
  auto result = std::make_shared<BlockResult>();
  std::function<void()> complete =
      host().Bind([this, chain, bytes, read_bytes, generation = generation_, result] {
        in_flight_bytes_ -= bytes;
        Complete(chain, read_bytes, generation, *result);
      });
  backend_.Submit(std::move(request), [result, complete = std::move(complete)](BlockResult done) {
    *result = std::move(done);
    complete();
  });
  return copied;
}

bool VirtioBlock::InDisk(uint64_t sector, uint64_t size_bytes) const {
  const uint64_t sectors = backend_.size_bytes() / kSectorBytes;
  return size_bytes > 0 && size_bytes % kSectorBytes == 0 && sector < sectors &&
         size_bytes / kSectorBytes <= sectors - sector;
}

VirtioBlock::Status VirtioBlock::Translate(const Chain& chain, uint32_t type, uint64_t sector,
                                           BlockRequest& request) {
  switch (type) {
    case kTypeIn:
      request.kind = BlockRequest::Kind::kRead;
      request.size_bytes = chain.writable_bytes - 1;
      break;
    case kTypeOut:
      request.kind = BlockRequest::Kind::kWrite;
      request.size_bytes = chain.readable_bytes - sizeof(RequestHeader);
      // Without the flush command every write must be stable when it is done (5.2.6.2).
      request.durable = (features_ & virtio::kBlockFlush) == 0;
      break;
    case kTypeFlush:
      request.kind = BlockRequest::Kind::kFlush;
      return Status::kOk;
    case kTypeDiscard:
      if ((features_ & virtio::kBlockDiscard) == 0) return Status::kUnsupported;
      request.kind = BlockRequest::Kind::kDiscard;
      return TranslateRange(chain, request);
    case kTypeWriteZeroes:
      if ((features_ & virtio::kBlockWriteZeroes) == 0) return Status::kUnsupported;
      request.kind = BlockRequest::Kind::kWriteZeroes;
      return TranslateRange(chain, request);
    default:
      return Status::kUnsupported;
  }
  if (request.size_bytes > kMaxRequestBytes || !InDisk(sector, request.size_bytes)) {
    return Status::kIoError;
  }
  request.offset_bytes = sector * kSectorBytes;
  if (request.kind == BlockRequest::Kind::kRead) return Status::kOk;
  if (backend_.read_only()) return Status::kIoError;
  request.data.resize(request.size_bytes);
  const absl::StatusOr<size_t> got =
      Gather(host().memory(), chain.readable, sizeof(RequestHeader), request.data);
  return got.ok() && *got == request.size_bytes ? Status::kOk : Status::kIoError;
}

VirtioBlock::Status VirtioBlock::TranslateRange(const Chain& chain, BlockRequest& request) {
  RangeSegment range;
  if (chain.readable_bytes != sizeof(RequestHeader) + sizeof(range) ||
      !ReadAt(host().memory(), chain.readable, sizeof(RequestHeader), range)) {
    return Status::kIoError;  // one segment, as max_discard_seg says
  }
  const bool unmap = (range.flags & kUnmap) != 0;
  if ((range.flags & ~kUnmap) != 0 || (unmap && request.kind == BlockRequest::Kind::kDiscard)) {
    return Status::kUnsupported;  // 5.2.6.2
  }
  request.offset_bytes = range.sector * kSectorBytes;
  request.size_bytes = range.sectors * kSectorBytes;
  request.may_unmap = unmap;
  const bool fits = range.sectors <= kMaxRangeSectors && InDisk(range.sector, request.size_bytes);
  return fits && !backend_.read_only() ? Status::kOk : Status::kIoError;
}

uint64_t VirtioBlock::AnswerId(const Chain& chain) {
  std::array<std::byte, kSerialBytes> id{};
  std::memcpy(id.data(), serial_.data(), serial_.size());
  const size_t size = std::min<uint64_t>(id.size(), chain.writable_bytes - 1);
  const bool ok = Scatter(host().memory(), chain.writable, 0, std::span(id).first(size)).ok();
  Finish(chain, ok ? Status::kOk : Status::kIoError, size);
  return size;
}

void VirtioBlock::Complete(const Chain& chain, uint64_t read_bytes, uint32_t generation,
                           const BlockResult& result) {
  --(generation == generation_ ? in_flight_ : stale_);
  if (stale_ == 0 && std::exchange(stalled_, false)) host().Kick(0);
  if (generation != generation_ || !host().Holds(0, chain)) return;
  bool ok = result.status.ok() && result.data.size() == read_bytes;
  if (ok && read_bytes > 0) ok = Scatter(host().memory(), chain.writable, 0, result.data).ok();
  Finish(chain, ok ? Status::kOk : Status::kIoError, ok ? read_bytes : 0);
}

// The status is the last byte that the device may write, wherever the driver put it (5.2.6).
void VirtioBlock::Finish(const Chain& chain, Status status, uint64_t data_bytes) {
  const std::byte byte{static_cast<uint8_t>(status)};
  const bool ok = Scatter(host().memory(), chain.writable, chain.writable_bytes - 1,
                          std::span<const std::byte, 1>(&byte, 1))
                      .ok();
  // Bytes from the first on that were written without a gap (2.7.8.2).
  const bool whole = ok && data_bytes == chain.writable_bytes - 1;
  host().Push(0, chain, static_cast<uint32_t>(data_bytes + (whole ? 1 : 0)));
}

void VirtioBlock::Save(base::ByteWriter& out) const {
  out.Write(BlockState{backend_.size_bytes(), backend_.read_only() ? 1u : 0u});
}

absl::Status VirtioBlock::Restore(base::ByteReader& in, uint64_t features) {
  const auto saved = in.Read<BlockState>();
  if (!in.ok() || saved.read_only > 1) {
    return absl::InvalidArgumentError("the block device's state is malformed");
  }
  if (saved.size_bytes != backend_.size_bytes() || (saved.read_only != 0) != backend_.read_only()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the guest's disk has ", saved.size_bytes, " bytes",
                     saved.read_only != 0 ? ", read-only" : "", "; the one here has ",
                     backend_.size_bytes(), backend_.read_only() ? ", read-only" : ""));
  }
  OnQueueStopped(0);
  awaiting_room_ = false;  // what was bound before is never called
  features_ = features;
  return absl::OkStatus();
}

}  // namespace romulus::devices

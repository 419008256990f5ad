#include "wire/full_sync.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/status.h"
#include "codec/epoch_encoder.h"
#include "wire/frame_sender.h"

namespace romulus::wire {
namespace {

// Pages per turn with the encoder: heartbeats and goodbyes come in between.
constexpr uint64_t kPagesPerTurn = 256;  // 1 MiB
// A link is judged by more than what buffers on the way take at once, and is fast if it takes a
// large frame in 10 ms: little beside a heartbeat_timeout_ms of some hundreds.
constexpr uint64_t kMeasuredBytes = 32u << 20;
constexpr uint64_t kFastBytesPerMs = 100'000;
constexpr uint64_t kNsPerMs = 1'000'000;

}  // namespace

FullSync::FullSync(const FullSyncOptions& options, const memory::GuestMemory* guest_memory,
                   SyncSource* source, FrameSender* sender, DiskSyncSource* disks,
                   std::vector<uint32_t> disks_all_zero, size_t max_body_bytes)
    : options_(options), guest_memory_(guest_memory), source_(source), sender_(sender) {
  if (disks == nullptr || disks->disks().empty()) return;
  disks_.emplace(options_.disks, options_.term, std::move(disks_all_zero), max_body_bytes, disks,
                 sender_, [this] {
                   progress_.disks = disks_->progress();
                   if (options_.on_progress) options_.on_progress(progress_);
                 });
}

void FullSync::Cancel() {
  cancelled_.store(true, std::memory_order_relaxed);
  if (disks_) disks_->Cancel();
}

absl::Status FullSync::OnDiskHashes(absl::string_view body) {
  if (!disks_) return absl::InvalidArgumentError("disk hashes, for which nobody asked");
  return disks_->OnHashes(body);
}

absl::StatusOr<SyncProgress> FullSync::Run() {
  const uint64_t total = guest_memory_->layout().page_count();
  ROMULUS_RETURN_IF_ERROR(
      sender_->WithEncoder(0, [&](codec::EpochEncoder& encoder, FrameSender::Send send) {
        return encoder.BeginSync(options_.term, total, send);
      }));
  // Disks first: they take the longest, and memory changes faster.
  if (disks_) ROMULUS_RETURN_IF_ERROR(disks_->Copy());
  ROMULUS_RETURN_IF_ERROR(source_->BeginTracking());
  ROMULUS_RETURN_IF_ERROR(PassOverMemory());
  ROMULUS_RETURN_IF_ERROR(MemoryRounds());
  if (disks_) {
    ROMULUS_RETURN_IF_ERROR(disks_->Rounds());
    // From here on the log fills: only what is quick may follow.
    ROMULUS_RETURN_IF_ERROR(disks_->Finish());
    progress_.disks = disks_->progress();
    uint64_t pages = 0;
    ROMULUS_RETURN_IF_ERROR(DirtyRound(&pages));
  }
  ROMULUS_RETURN_IF_ERROR(
      sender_->WithEncoder(0, [&](codec::EpochEncoder& encoder, FrameSender::Send send) {
        absl::Status ended = encoder.EndSync(progress_.round, send);
        Count(encoder.TakeStats());  // the rest; the first epoch's numbers begin after it
        return ended;
      }));
  if (options_.on_progress) options_.on_progress(progress_);
  return progress_;
}

absl::Status FullSync::MemoryRounds() {
  uint64_t sent_before = guest_memory_->layout().page_count();
  while (true) {
    uint64_t dirty = 0;
    ROMULUS_RETURN_IF_ERROR(DirtyRound(&dirty));
    const bool little_left = dirty <= options_.target_dirty_pages;
    const bool converges =
        static_cast<double>(dirty) <= options_.give_up_ratio * static_cast<double>(sent_before);
    if (little_left || !converges || progress_.round >= options_.max_rounds) break;
    sent_before = dirty;
  }
  return absl::OkStatus();
}

absl::Status FullSync::DirtyRound(uint64_t* pages) {
  ROMULUS_ASSIGN_OR_RETURN(memory::PageSet dirty, source_->TakeDirty());
  dirty.Sort();
  *pages = dirty.size();
  ++progress_.round;
  return Round(dirty);
}

absl::Status FullSync::PassOverMemory() {
  progress_.pages_total = guest_memory_->layout().page_count();
  for (const memory::Region& region : guest_memory_->layout().regions()) {
    const uint64_t end = region.file_offset + region.size_bytes;
    uint64_t at = region.file_offset;
    auto gfn_at = [&region](uint64_t offset) {
      return GfnOf(Gpa(region.gpa.value() + offset - region.file_offset));
    };
    while (at < end) {
      // Pages that nobody ever touched are holes in the memfd: zero without being read, and without
      // being made to exist by reading. lseek(2), SEEK_DATA; offsets are whole pages.
      const off_t found = ::lseek(guest_memory_->fd(), static_cast<off_t>(at), SEEK_DATA);
      if (found < 0 && errno != ENXIO) return base::ErrnoStatus(errno, "lseek(SEEK_DATA)");
      const uint64_t data = found < 0 ? end : std::min(end, static_cast<uint64_t>(found));
      if (data > at) ROMULUS_RETURN_IF_ERROR(SendZeros(gfn_at(at), (data - at) >> kPageShift));
      at = data;
      if (at == end) break;
      const off_t hole = ::lseek(guest_memory_->fd(), static_cast<off_t>(at), SEEK_HOLE);
      if (hole < 0) return base::ErrnoStatus(errno, "lseek(SEEK_HOLE)");
      const uint64_t data_end =
          std::min(end, (static_cast<uint64_t>(hole) + kPageSize - 1) & ~(kPageSize - 1));
      ROMULUS_RETURN_IF_ERROR(SendRange(gfn_at(at), (data_end - at) >> kPageShift));
      at = data_end;
    }
  }
  return absl::OkStatus();
}

absl::Status FullSync::Round(const memory::PageSet& dirty) {
  progress_.pages_done = 0;
  progress_.pages_total = dirty.size();
  told_at_pages_ = 0;
  ROMULUS_RETURN_IF_ERROR(sender_->WithEncoder(0, [](codec::EpochEncoder& encoder, auto) {
    encoder.BeginSyncRound();
    return absl::OkStatus();
  }));
  std::span<const Gfn> rest = dirty.pages();
  while (!rest.empty()) {
    const size_t take = std::min<size_t>(rest.size(), kPagesPerTurn);
    ROMULUS_RETURN_IF_ERROR(SendPages(rest.first(take)));
    rest = rest.subspan(take);
  }
  return absl::OkStatus();
}

absl::Status FullSync::SendPages(std::span<const Gfn> pages) {
  uint64_t bytes = 0;
  const auto work = [&](codec::EpochEncoder& encoder, FrameSender::Send send) -> absl::Status {
    encoder.UseLargeSyncFrames(link_is_fast_);
    for (const Gfn gfn : pages) {
      ROMULUS_RETURN_IF_ERROR(encoder.AddSyncPage(gfn, guest_memory_->Page(gfn), send));
    }
    const codec::EncodeStats stats = encoder.TakeStats();
    Count(stats);
    bytes = stats.message_bytes;
    return absl::OkStatus();
  };
  uint64_t send_ns = 0;
  ROMULUS_RETURN_IF_ERROR(sender_->WithEncoder(0, work, &send_ns));
  MeasureLink(bytes, send_ns);
  return Took(pages.size());
}

absl::Status FullSync::SendRange(Gfn first, uint64_t count) {
  std::vector<Gfn> pages;
  while (count > 0) {
    const uint64_t take = std::min(count, kPagesPerTurn);
    pages.clear();
    for (uint64_t i = 0; i < take; ++i) pages.push_back(Gfn(first.value() + i));
    ROMULUS_RETURN_IF_ERROR(SendPages(pages));
    first = Gfn(first.value() + take);
    count -= take;
  }
  return absl::OkStatus();
}

absl::Status FullSync::SendZeros(Gfn first, uint64_t count) {
  ROMULUS_RETURN_IF_ERROR(
      sender_->WithEncoder(0, [&](codec::EpochEncoder& encoder, FrameSender::Send send) {
        return encoder.AddSyncZeroRun(first, count, send);
      }));
  return Took(count);
}

// The other node hears nothing of us until a message is there as a whole, and takes long silence
// for our death.
void FullSync::MeasureLink(uint64_t bytes, uint64_t send_ns) {
  measured_bytes_ += bytes;
  measured_ns_ += send_ns;
  if (measured_bytes_ < kMeasuredBytes) return;
  link_is_fast_ = measured_bytes_ / kFastBytesPerMs * kNsPerMs >= measured_ns_;
  measured_bytes_ = 0;
  measured_ns_ = 0;
}

void FullSync::Count(const codec::EncodeStats& stats) {
  progress_.bytes_sent += stats.message_bytes;
  progress_.compression += stats.compression;
  progress_.pages_zero += stats.pages[static_cast<size_t>(codec::PageEncoding::kZero)] +
                          stats.pages[static_cast<size_t>(codec::PageEncoding::kZeroRun)];
}

absl::Status FullSync::Took(uint64_t pages) {
  progress_.pages_done += pages;
  progress_.pages_sent += pages;
  if (options_.on_progress &&
      progress_.pages_done - told_at_pages_ >= options_.progress_every_pages) {
    told_at_pages_ = progress_.pages_done;
    options_.on_progress(progress_);
  }
  if (cancelled_.load(std::memory_order_relaxed)) {
    return absl::CancelledError("full sync cancelled");
  }
  return absl::OkStatus();
}

}  // namespace romulus::wire

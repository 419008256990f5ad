#include "replica/disk_journal.h"

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status.h"
#include "replica/disk_journal_format.h"

namespace romulus::replica {

using namespace journal;  // NOLINT: its own format
using epoch::DiskWrite;

namespace {

constexpr uint64_t kReserveBytes = 4u << 20;

// 0: not known.
uint64_t BootTag(const std::string& boot_id) {
  return boot_id.empty() ? 0 : XXH3_64bits(boot_id.data(), boot_id.size()) | 1;
}

}  // namespace

DiskJournal::DiskJournal(std::shared_ptr<disk::File> file, const JournalOptions& options)
    : file_(std::move(file)),
      options_(options),
      boot_(BootTag(options.boot_id)),
      segment_bytes_(options.segment_bytes) {
  ROMULUS_CHECK(segment_bytes_ % kBlockBytes == 0 && segment_bytes_ >= kBlockBytes);
  ROMULUS_CHECK(segment_bytes_ <= kMaxSegmentBytes);
}

std::string DiskJournal::id() const {
  return is_damaged_ ? "" : absl::StrFormat("%016x%016x", id_[1], id_[0]);
}

absl::Status DiskJournal::Reset() {
  is_damaged_ = true;
  std::random_device random;
  for (uint64_t& word : id_) word = uint64_t{random()} << 32 | random();
  segment_bytes_ = options_.segment_bytes;
  newest_ = durable_ = {};
  dropped_.clear();
  has_unsynced_ = false;
  for (int i = 0; i < kSegments; ++i) {
    Segment& segment = segments_[i];
    segment.state = State::kFree;
    segment.generation = 0;
    segment.begin = kHeadBytes + static_cast<uint64_t>(i) * segment_bytes_;
    segment.used = segment.reserved = segment.records = 0;
    segment.previous = segment.applied = segment.durable = segment.last = {};
    segment.boot = boot_;
    segment.is_sealed = false;
    ROMULUS_RETURN_IF_ERROR(WriteHeader(i, /*in_use=*/false));
  }
  const std::vector<std::byte> zeros(kHeadBytes - 2 * kSegments * kBlockBytes);
  ROMULUS_RETURN_IF_ERROR(file_->Write(kHeadBytes - zeros.size(), zeros));
  ROMULUS_RETURN_IF_ERROR(file_->Sync());
  is_damaged_ = false;
  return absl::OkStatus();
}

// --- appending ----------------------------------------------------------------------------------

uint64_t DiskJournal::RecordBytes(std::span<const DiskWrite> writes) {
  uint64_t bytes = 0;
  for (const DiskWrite& write : writes) {
    if (IsRecorded(write)) bytes += sizeof(WriteEntry) + write.data.size();
  }
  return bytes == 0 ? 0 : Padded(sizeof(RecordHeader) + bytes);
}

absl::Status DiskJournal::Append(const EpochKey& key, std::span<const DiskWrite> writes) {
  if (is_damaged_) return absl::FailedPreconditionError(absl::StrCat(path(), ": was not loaded"));
  const uint64_t size = RecordBytes(writes);
  if (size == 0) return absl::OkStatus();
  if (size > segment_bytes_) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path(), ": an epoch needs ", size, " bytes, and there is room for ",
                     segment_bytes_, "; `disk_log_mib` must be the same on both nodes"));
  }
  if (Open() < 0) ROMULUS_RETURN_IF_ERROR(BeginSegment());
  Segment& segment = segments_[Open()];
  if (size > segment_bytes_ - segment.used) {
    return absl::ResourceExhaustedError(absl::StrCat(path(), ": the segment is full"));
  }
  // So that the end of the records is seen to be one, and not a torn record.
  const uint64_t zeros = std::min(kBlockBytes, segment_bytes_ - segment.used - size);
  if (segment.used + size + zeros > segment.reserved) {
    // In steps, so that a full file system is found before anything is written.
    const uint64_t needed = segment.used + size + zeros;
    const uint64_t end =
        std::min(segment_bytes_, (needed + kReserveBytes - 1) / kReserveBytes * kReserveBytes);
    ROMULUS_RETURN_IF_ERROR(
        file_->Reserve(segment.begin + segment.reserved, end - segment.reserved));
    segment.reserved = end;
  }
  RecordHeader header;
  header.generation = segment.generation;
  header.term = key.term.value();
  header.epoch = key.epoch.value();
  header.durable_term = durable_.term.value();
  header.durable_epoch = durable_.epoch.value();
  for (const DiskWrite& write : writes) {
    if (!IsRecorded(write)) continue;
    ++header.writes;
    header.body_bytes += sizeof(WriteEntry) + write.data.size();
  }
  Hasher hasher(id_);
  const auto for_each_part = [&](const auto& use) -> absl::Status {
    for (const DiskWrite& write : writes) {
      if (!IsRecorded(write)) continue;
      const WriteEntry entry = EntryOf(write);
      ROMULUS_RETURN_IF_ERROR(use(std::as_bytes(std::span<const WriteEntry, 1>(&entry, 1))));
      ROMULUS_RETURN_IF_ERROR(use(std::span<const std::byte>(write.data)));
    }
    return absl::OkStatus();
  };
  ROMULUS_RETURN_IF_ERROR(for_each_part([&](std::span<const std::byte> part) {
    hasher.Add(part);
    return absl::OkStatus();
  }));
  header.body_sum = hasher.sum();
  header.sum = SumOf(id_, header);
  Writer writer(*file_, segment.begin + segment.used);
  has_unsynced_ = true;
  ROMULUS_RETURN_IF_ERROR(writer.Add(std::as_bytes(std::span<const RecordHeader, 1>(&header, 1))));
  ROMULUS_RETURN_IF_ERROR(
      for_each_part([&](std::span<const std::byte> part) { return writer.Add(part); }));
  ROMULUS_RETURN_IF_ERROR(writer.Finish(zeros));
  segment.used_before = segment.used;
  segment.last_before = segment.last;
  newest_before_ = newest_;
  segment.used += size;
  segment.last = newest_ = key;
  ++segment.records;
  return absl::OkStatus();
}

void DiskJournal::Forget() {
  if (Open() < 0) return;
  Segment& segment = segments_[Open()];
  if (segment.records == 0 || segment.last != newest_ || segment.used_before == segment.used) {
    return;
  }
  segment.used = segment.used_before;
  segment.last = segment.last_before;
  newest_ = newest_before_;
  durable_ = std::min(durable_, newest_);  // or what is written later would miss it
  --segment.records;
  // Else a restart would find it; it is whole.
  const std::vector<std::byte> zeros(kBlockBytes);
  file_->Write(segment.begin + segment.used, zeros).IgnoreError();
}

absl::Status DiskJournal::Sync() {
  if (options_.is_durable) {
    ROMULUS_RETURN_IF_ERROR(file_->Sync());
    durable_ = newest_;
  }
  has_unsynced_ = false;
  return absl::OkStatus();
}

absl::Status DiskJournal::MaybeSync() {
  return options_.is_durable ? file_->Sync() : absl::OkStatus();
}

uint64_t DiskJournal::open_bytes() const { return Open() < 0 ? 0 : segments_[Open()].used; }

EpochKey DiskJournal::applied() const {
  const Segment* oldest = nullptr;
  for (const Segment& segment : segments_) {
    if (segment.state == State::kFree || segment.records == 0) continue;
    if (oldest == nullptr || segment.generation < oldest->generation) oldest = &segment;
  }
  return oldest == nullptr ? newest_ : oldest->previous;
}

bool DiskJournal::has_free_segment() const {
  return std::any_of(segments_.begin(), segments_.end(),
                     [](const Segment& segment) { return segment.state == State::kFree; });
}

int DiskJournal::Open() const {
  for (int i = 0; i < kSegments; ++i) {
    if (segments_[i].state == State::kOpen) return i;
  }
  return -1;
}

int DiskJournal::Closed() const {
  int found = -1;
  for (int i = 0; i < kSegments; ++i) {
    if (segments_[i].state != State::kClosed) continue;
    if (found < 0 || segments_[i].generation < segments_[found].generation) found = i;
  }
  return found;
}

absl::Status DiskJournal::BeginSegment() {
  int index = -1;
  uint64_t newest_generation = 0;
  EpochKey applied;
  for (int i = 0; i < kSegments; ++i) {
    newest_generation = std::max(newest_generation, segments_[i].generation);
    if (segments_[i].state != State::kFree) continue;
    applied = std::max(applied, segments_[i].applied);
    if (index < 0 || segments_[i].generation < segments_[index].generation) index = i;
  }
  if (index < 0) {
    return absl::ResourceExhaustedError(absl::StrCat(path(), ": both segments are full"));
  }
  Segment& segment = segments_[index];
  const uint64_t generation = std::exchange(segment.generation, newest_generation + 1);
  const EpochKey previous = std::exchange(segment.previous, newest_);
  segment.applied = applied;
  segment.durable = durable_;
  segment.boot = boot_;
  segment.used = segment.used_before = segment.records = 0;
  segment.last = segment.last_before = {};
  segment.is_sealed = false;
  segment.state = State::kOpen;
  has_unsynced_ = true;
  const absl::Status written = WriteHeader(index, /*in_use=*/true);
  if (!written.ok()) {
    segment.state = State::kFree;
    segment.generation = generation;
    segment.previous = previous;
  }
  return written;
}

absl::Status DiskJournal::WriteHeader(int index, bool in_use) {
  const Segment& segment = segments_[index];
  Header header;
  header.in_use = in_use ? 1 : 0;
  header.generation = segment.generation;
  header.id[0] = id_[0];
  header.id[1] = id_[1];
  header.segment_bytes = segment_bytes_;
  header.previous_term = segment.previous.term.value();
  header.previous_epoch = segment.previous.epoch.value();
  header.applied_term = segment.applied.term.value();
  header.applied_epoch = segment.applied.epoch.value();
  header.durable_term = segment.durable.term.value();
  header.durable_epoch = segment.durable.epoch.value();
  header.boot = segment.boot;
  header.sum = SumOf(id_, header);
  return file_->Write(2 * kBlockBytes * static_cast<uint64_t>(index), Block(header));
}

// --- the closed segment -------------------------------------------------------------------------

void DiskJournal::CloseOpen() {
  if (Open() >= 0 && segments_[Open()].records > 0) segments_[Open()].state = State::kClosed;
}

EpochKey DiskJournal::closed_end() const {
  const int index = Closed();  // once: it may be freed meanwhile
  return index < 0 ? EpochKey() : segments_[index].last;
}

absl::Status DiskJournal::Seal(int index) {
  Segment& segment = segments_[index];
  if (segment.is_sealed) return absl::OkStatus();
  // First the records, then the word that they are all there: never the other way round.
  ROMULUS_RETURN_IF_ERROR(MaybeSync());
  SealBlock seal;
  seal.generation = segment.generation;
  seal.records = segment.records;
  seal.end = segment.used;
  seal.sum = SumOf(id_, seal);
  ROMULUS_RETURN_IF_ERROR(
      file_->Write((2 * static_cast<uint64_t>(index) + 1) * kBlockBytes, Block(seal)));
  ROMULUS_RETURN_IF_ERROR(MaybeSync());
  segment.is_sealed = true;
  return absl::OkStatus();
}

absl::Status DiskJournal::ApplyClosed(const EpochKey& last, JournalTarget& target) {
  const int index = Closed();
  if (index < 0) return absl::OkStatus();
  ROMULUS_RETURN_IF_ERROR(Seal(index));
  const Segment& segment = segments_[index];
  for (uint64_t at = 0; at < segment.used;) {
    const absl::StatusOr<Record> record = ReadRecord(segment, at, segment.used);
    if (absl::IsNotFound(record.status())) {
      return absl::DataLossError(absl::StrCat(path(), ": is damaged at byte ", segment.begin + at));
    }
    if (!record.ok()) return base::Annotate(record.status(), path());
    if (record->key > last) break;
    ROMULUS_RETURN_IF_ERROR(WalkRecord(segment, at, *record, &target));
    at += record->size;
  }
  return absl::OkStatus();
}

absl::Status DiskJournal::FreeClosed() {
  const int index = Closed();
  if (index < 0) return absl::OkStatus();
  Segment& segment = segments_[index];
  segment.applied = segment.last;
  ROMULUS_RETURN_IF_ERROR(WriteHeader(index, /*in_use=*/false));
  ROMULUS_RETURN_IF_ERROR(MaybeSync());
  segment.state = State::kFree;
  return absl::OkStatus();
}

}  // namespace romulus::replica

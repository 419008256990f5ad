// How a journal is taken over and its records are read.
#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "codec/disk_records.h"
#include "replica/disk_journal.h"
#include "replica/disk_journal_format.h"

namespace romulus::replica {

using namespace journal;  // NOLINT: its own format

absl::Status DiskJournal::Load() {
  is_damaged_ = true;
  told_ = {};
  dropped_.clear();
  const uint64_t size = file_->size_bytes();
  if (size == 0) return absl::NotFoundError(absl::StrCat(path(), ": is empty"));
  if (size < kHeadBytes) return absl::DataLossError(absl::StrCat(path(), ": is cut short"));
  std::vector<std::byte> head(kHeadBytes);
  ROMULUS_RETURN_IF_ERROR(file_->Read(0, head));
  for (int i = 0; i < kSegments; ++i) {
    const auto blocks = std::span<const std::byte>(head).subspan(2 * kBlockBytes * i);
    ROMULUS_RETURN_IF_ERROR(base::Annotate(LoadSegment(i, blocks.first(2 * kBlockBytes)), path()));
  }
  ROMULUS_RETURN_IF_ERROR(base::Annotate(CheckSequence(), path()));
  is_damaged_ = false;
  return absl::OkStatus();
}

absl::Status DiskJournal::LoadSegment(int index, std::span<const std::byte> blocks) {
  Header header;
  SealBlock seal;
  std::memcpy(&header, blocks.data(), sizeof(header));
  std::memcpy(&seal, blocks.data() + kBlockBytes, sizeof(seal));
  if (header.magic != Magic("RomJrnl1")) return absl::DataLossError("is not a journal");
  if (header.format > kFormat) {
    return absl::UnimplementedError(
        absl::StrCat("has format ", header.format, ", of a newer romulusd"));
  }
  if (header.format < kFormat) {
    return absl::FailedPreconditionError(
        absl::StrCat("has format ", header.format,
                     ", of an older romulusd: start that one once more and stop it in good order, "
                     "or remove the file, and the disks have to be copied again"));
  }
  if (header.sum != SumOf(header.id, header) || header.in_use > 1 ||
      header.segment_bytes % kBlockBytes != 0 || header.segment_bytes == 0 ||
      header.segment_bytes > kMaxSegmentBytes || header.generation >= UINT64_MAX / 2) {
    return absl::DataLossError("has a damaged head");
  }
  if (index == 0) {
    id_ = {header.id[0], header.id[1]};
    segment_bytes_ = header.segment_bytes;
    newest_ = {};
  } else if (header.id[0] != id_[0] || header.id[1] != id_[1] ||
             header.segment_bytes != segment_bytes_) {
    return absl::DataLossError("has two heads that do not belong together");
  }
  Segment& segment = segments_[index];
  segment.state = State::kFree;
  segment.generation = header.generation;
  segment.begin = kHeadBytes + static_cast<uint64_t>(index) * segment_bytes_;
  segment.used = segment.reserved = segment.records = 0;
  segment.previous = {Term(header.previous_term), EpochId(header.previous_epoch)};
  segment.applied = {Term(header.applied_term), EpochId(header.applied_epoch)};
  segment.durable = {Term(header.durable_term), EpochId(header.durable_epoch)};
  segment.boot = header.boot;
  segment.last = {};
  Told(segment.durable);
  segment.is_sealed = seal.magic == Magic("RomSeal1") && seal.generation == segment.generation &&
                      seal.sum == SumOf(id_, seal);
  if (header.in_use == 0) {
    segment.is_sealed = false;
    return absl::OkStatus();
  }
  return LoadRecords(segment, seal.records, seal.end);
}

absl::Status DiskJournal::LoadRecords(Segment& segment, uint64_t sealed_records,
                                      uint64_t sealed_end) {
  const uint64_t size = file_->size_bytes();
  const uint64_t there = size > segment.begin ? size - segment.begin : 0;
  const uint64_t limit = std::min({segment_bytes_, there / kBlockBytes * kBlockBytes,
                                   segment.is_sealed ? sealed_end : UINT64_MAX});
  EpochKey last = segment.previous;
  while (segment.used < limit) {
    const absl::StatusOr<Record> record = ReadRecord(segment, segment.used, limit);
    if (!record.ok() && !absl::IsNotFound(record.status())) return record.status();
    if (!record.ok() || record->key <= last) break;  // the end, or a bad one
    Told(record->durable);
    last = segment.last = record->key;
    segment.used += record->size;
    ++segment.records;
  }
  if (segment.is_sealed && (segment.records != sealed_records || segment.used != sealed_end)) {
    return absl::DataLossError(absl::StrCat("is damaged after ", segment.records, " of ",
                                            sealed_records, " sealed records, at byte ",
                                            segment.begin + segment.used));
  }
  if (segment.records > 0) segment.state = State::kClosed;
  return segment.is_sealed ? absl::OkStatus() : LookBehind(segment, limit);
}

absl::Status DiskJournal::LookBehind(const Segment& segment, uint64_t limit) {
  uint64_t end = segment.used;  // of what can be seen to have been written here
  disk::Extent data{0, 0};
  std::optional<Reader> reader;
  for (uint64_t at = segment.used; at < limit; at += kBlockBytes) {
    if (const uint64_t in_file = segment.begin + at;
        !reader || in_file >= data.offset_bytes + data.size_bytes) {
      ROMULUS_ASSIGN_OR_RETURN(data, file_->NextData(in_file));
      if (data.size_bytes == 0) break;
      if (data.offset_bytes > in_file) {
        at = (data.offset_bytes - segment.begin) / kBlockBytes * kBlockBytes;
        if (at >= limit) break;
      }
      const uint64_t stop = data.offset_bytes + data.size_bytes - segment.begin;
      reader.emplace(*file_, segment.begin + at, std::min(limit, Padded(stop)) - at);
    }
    std::array<std::byte, kBlockBytes> block;
    ROMULUS_RETURN_IF_ERROR(reader->Read(block));
    const bool is_first = at == segment.used;
    if (is_first &&
        std::any_of(block.begin(), block.end(), [](std::byte b) { return b != std::byte(); })) {
      end = at + kBlockBytes;
    }
    RecordHeader header;
    std::memcpy(&header, block.data(), sizeof(header));
    if (header.magic != Magic("RomEpoc1") || header.generation != segment.generation ||
        header.sum != SumOf(id_, header)) {
      continue;
    }
    Told({Term(header.durable_term), EpochId(header.durable_epoch)});
    // The bad one itself may have been cut short by a crash of the process, those behind it not.
    if (!is_first && IsThisBoot(segment)) Told({Term(header.term), EpochId(header.epoch)});
    const uint64_t room = limit - at - sizeof(header);
    end = std::max(
        end, std::min(limit, at + Padded(sizeof(header) + std::min(room, header.body_bytes))));
  }
  if (end > segment.used) {
    dropped_.push_back({segment.begin + segment.used, end - segment.used,
                        segment.records > 0 ? segment.last : segment.previous});
  }
  return absl::OkStatus();
}

// What a segment holds must follow on what is applied, or on the older segment. As long as it was
// not sealed it may not: then something before it was lost with a power loss, and it is void.
absl::Status DiskJournal::CheckSequence() {
  const int newer = segments_[0].generation < segments_[1].generation ? 1 : 0;
  newest_ = std::max(segments_[0].applied, segments_[1].applied);
  const EpochKey applied = newest_;
  std::array<bool, kSegments> is_void{};
  for (const int index : {1 - newer, newer}) {
    Segment& segment = segments_[index];
    if (segment.state == State::kClosed && segment.previous == newest_) {
      newest_ = segment.last;
      continue;
    }
    if (segment.is_sealed) return absl::DataLossError("lacks records before its sealed ones");
    is_void[index] = segment.state == State::kClosed;
    if (!is_void[index]) continue;
    if (IsThisBoot(segment)) Told(segment.last);
    dropped_.push_back({segment.begin, segment.used, newest_});
  }
  // Before anything is changed: whoever looks again must find the same.
  if (told_ > newest_) {
    return absl::DataLossError(absl::StrCat(
        "is damaged", dropped_.empty() ? "" : absl::StrCat(" at byte ", dropped_[0].offset_bytes),
        ": its last good record is of epoch ", newest_.epoch.value(), " of term ",
        newest_.term.value(), ", and epoch ", told_.epoch.value(), " of term ", told_.term.value(),
        " was written for good"));
  }
  durable_ = told_;
  for (const int index : {1 - newer, newer}) {
    Segment& segment = segments_[index];
    if (segment.state == State::kClosed && !is_void[index]) continue;
    segment.state = State::kFree;
    segment.used = segment.records = 0;
    segment.applied = applied;
    segment.last = {};
    // Or it would be taken for a continuation later.
    if (is_void[index]) ROMULUS_RETURN_IF_ERROR(WriteHeader(index, /*in_use=*/false));
  }
  return MaybeSync();
}

absl::StatusOr<DiskJournal::Record> DiskJournal::ReadRecord(const Segment& segment, uint64_t at,
                                                            uint64_t limit) {
  const auto bad = [] { return absl::NotFoundError("there is no whole record"); };
  if (at > limit || limit - at < sizeof(RecordHeader)) return bad();
  Reader reader(*file_, segment.begin + at, limit - at);
  RecordHeader header;
  ROMULUS_RETURN_IF_ERROR(reader.Read(header));
  if (header.magic != Magic("RomEpoc1") || header.generation != segment.generation ||
      header.body_bytes > limit - at - sizeof(header)) {
    return bad();
  }
  if (header.sum != SumOf(id_, header)) return bad();
  Hasher hasher(id_);
  for (uint64_t left = header.body_bytes; left > 0;) {
    ROMULUS_ASSIGN_OR_RETURN(const std::span<const std::byte> part, reader.Take(left));
    hasher.Add(part);
    left -= part.size();
  }
  if (hasher.sum() != header.body_sum) return bad();
  Record record{{Term(header.term), EpochId(header.epoch)},
                {Term(header.durable_term), EpochId(header.durable_epoch)},
                header.body_bytes,
                header.writes,
                Padded(sizeof(header) + header.body_bytes)};
  if (record.size > limit - at) return bad();
  // Its checksum says that it is ours; that it fits these disks must be seen.
  ROMULUS_RETURN_IF_ERROR(WalkRecord(segment, at, record, nullptr));
  return record;
}

absl::Status DiskJournal::WalkRecord(const Segment& segment, uint64_t at, const Record& record,
                                     JournalTarget* target) {
  // Not torn, as its checksums are right: it was not written for these disks.
  const auto bad = [&] {
    return absl::DataLossError(
        absl::StrCat("a record at byte ", segment.begin + at, " writes where no disk is"));
  };
  Reader reader(*file_, segment.begin + at + sizeof(RecordHeader), record.body_bytes);
  for (uint64_t i = 0; i < record.writes; ++i) {
    WriteEntry header;
    if (reader.left() < sizeof(header)) return bad();
    ROMULUS_RETURN_IF_ERROR(reader.Read(header));
    if (header.disk >= options_.disk_sizes.size()) return bad();
    const uint64_t disk_size = options_.disk_sizes[header.disk];
    if (header.kind < kData || header.kind > kDiscard || header.size == 0 ||
        header.size % codec::kDiskSectorBytes != 0 ||
        header.offset % codec::kDiskSectorBytes != 0 || header.offset > disk_size ||
        header.size > disk_size - header.offset) {
      return bad();
    }
    if (header.kind != kData) {
      if (target == nullptr) continue;
      ROMULUS_RETURN_IF_ERROR(target->ZeroOn(header.disk, header.offset, header.size));
      continue;
    }
    if (header.size > reader.left()) return bad();
    for (uint64_t done = 0; done < header.size;) {
      ROMULUS_ASSIGN_OR_RETURN(const std::span<const std::byte> part,
                               reader.Take(header.size - done));
      if (target != nullptr) {
        ROMULUS_RETURN_IF_ERROR(target->WriteTo(header.disk, header.offset + done, part));
      }
      done += part.size();
    }
  }
  return reader.left() == 0 ? absl::OkStatus() : bad();
}

}  // namespace romulus::replica

#include "codec/epoch_encoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "codec/audit_records.h"
#include "google/protobuf/message_lite.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::codec {

absl::StatusOr<std::unique_ptr<EpochEncoder>> EpochEncoder::Create(Gfn gfn_end, FrameWriter* frames,
                                                                   const EncoderOptions& options) {
  ROMULUS_ASSIGN_OR_RETURN(PreviousCache cache,
                           PreviousCache::Create(gfn_end, options.previous_cache_bytes));
  return std::unique_ptr<EpochEncoder>(new EpochEncoder(std::move(cache), frames, options));
}

EpochEncoder::EpochEncoder(PreviousCache cache, FrameWriter* frames, const EncoderOptions& options)
    : cache_(std::move(cache)),
      compressor_(options.compression, options.clock),
      frames_(frames),
      options_(options) {
  StartStream(options.max_body_bytes);
  mode_ = Mode::kOver;
}

void EpochEncoder::StartStream(size_t max_body_bytes) {
  cache_.Clear();
  machine_.Reset();
  options_.max_body_bytes = max_body_bytes;
  // A record may begin just below the limit, and before it a run of zeros that was gathered.
  constexpr size_t kBeyond = kZeroRunRecordBytes + kMaxRecordBytes;
  const size_t most = max_body_bytes > kBeyond ? max_body_bytes - kBeyond : size_t{0};
  page_body_bytes_ = std::min(options_.page_body_bytes, most);
  sync_body_bytes_ = std::min(options_.sync_body_bytes, most);
  message_.clear();
  frame_open_ = false;
  mode_ = Mode::kIdle;
  epoch_gfns_.clear();
  zero_run_count_ = 0;
}

absl::Status EpochEncoder::Broken(absl::Status why) {
  cache_.Clear();
  message_.clear();
  frame_open_ = false;
  mode_ = Mode::kOver;
  return why;
}

void EpochEncoder::Count(PageEncoding encoding, uint64_t pages, size_t bytes) {
  stats_.pages[static_cast<size_t>(encoding)] += pages;
  stats_.bytes[static_cast<size_t>(encoding)] += bytes;
}

EncodeStats EpochEncoder::TakeStats() {
  stats_.compression = compressor_.TakeStats();
  return std::exchange(stats_, EncodeStats{});
}

Compression EpochEncoder::compression() const {
  return frames_->dialect().version() >= kCompressionSince ? compressor_.method()
                                                           : Compression::kNone;
}

void EpochEncoder::EndBulkFrame(size_t begin) {
  Packed packed;
  raw_message_bytes_ += message_.size() - begin;
  if (frames_->dialect().version() >= kCompressionSince) {
    packed = compressor_.Shrink(begin + kFrameHeaderBytes, &message_);
  }
  frames_->End(begin, &message_, packed);
}

absl::Status EpochEncoder::Flush(Send send) {
  if (message_.empty()) return absl::OkStatus();
  stats_.message_bytes += message_.size();
  // The next message is likely to be as long: grown once, not by doubling.
  std::string next;
  next.reserve(message_.size() + kMaxRecordBytes);
  raw_message_bytes_ = 0;
  absl::Status sent = send(std::exchange(message_, std::move(next)));
  if (!sent.ok()) return Broken(std::move(sent));
  return absl::OkStatus();
}

void EpochEncoder::OpenPageFrame(FrameKind kind) {
  if (frame_open_) return;
  frame_begin_ = FrameWriter::Begin(kind, term_, epoch_, &message_);
  frame_open_ = true;
  ++stats_.frames;
}

absl::Status EpochEncoder::ClosePageFrame(Send send) {
  if (frame_open_) {
    EndBulkFrame(frame_begin_);
    frame_open_ = false;
  }
  // A full sync is called page by page, with other frames between: nothing numbered may wait.
  // Before compression, which may take long enough to fill a message.
  const size_t bytes = std::max(raw_message_bytes_, message_.size());
  const bool full = bytes >= options_.message_bytes || mode_ == Mode::kSyncing;
  return full ? Flush(send) : absl::OkStatus();
}

absl::Status EpochEncoder::RoomForRecord(FrameKind kind, Send send) {
  const size_t limit =
      mode_ == Mode::kSyncing && large_sync_frames_ ? sync_body_bytes_ : page_body_bytes_;
  if (frame_open_ && message_.size() - frame_begin_ - kFrameHeaderBytes >= limit) {
    ROMULUS_RETURN_IF_ERROR(ClosePageFrame(send));
  }
  OpenPageFrame(kind);
  return absl::OkStatus();
}

absl::Status EpochEncoder::CheckBody(FrameKind kind, size_t bytes) {
  if (bytes <= options_.max_body_bytes) return absl::OkStatus();
  return Broken(absl::ResourceExhaustedError(absl::StrCat(FrameKindName(kind), " frame of ", bytes,
                                                          " bytes: the peer accepts at most ",
                                                          options_.max_body_bytes)));
}

absl::Status EpochEncoder::AppendControl(FrameKind kind,
                                         const google::protobuf::MessageLite& body) {
  ROMULUS_RETURN_IF_ERROR(CheckBody(kind, body.ByteSizeLong()));
  frames_->Append(kind, term_, epoch_, body, &message_);
  ++stats_.frames;
  return absl::OkStatus();
}

absl::Status EpochEncoder::BeginSync(Term term, uint64_t total_pages, Send send) {
  if (mode_ != Mode::kIdle) {
    return Broken(absl::FailedPreconditionError("full sync begun outside a fresh stream"));
  }
  mode_ = Mode::kSyncing;
  term_ = term;
  epoch_ = EpochId();
  sync_pages_ = 0;
  cache_.Clear();  // whatever the secondary held before, this stream has not put there
  machine_.Reset();
  sync_evicts_ = false;
  large_sync_frames_ = false;
  v1::SyncBegin body;
  body.set_total_pages(total_pages);
  ROMULUS_RETURN_IF_ERROR(AppendControl(FrameKind::kSyncBegin, body));
  return Flush(send);
}

void EpochEncoder::FlushZeroRun() {
  if (zero_run_count_ == 0) return;
  const size_t at = message_.size();
  AppendZeroRun(zero_run_first_, zero_run_count_, &message_);
  Count(zero_run_count_ == 1 ? PageEncoding::kZero : PageEncoding::kZeroRun, zero_run_count_,
        message_.size() - at);
  zero_run_count_ = 0;
}

absl::Status EpochEncoder::AddSyncPage(Gfn gfn, PageBytes page, Send send) {
  if (mode_ != Mode::kSyncing) {
    return Broken(absl::FailedPreconditionError("sync page outside a full sync"));
  }
  if (IsZeroPage(page)) return AddSyncZeroRun(gfn, 1, send);
  // The guest may be writing: only what was copied is encoded and remembered.
  alignas(64) std::byte copy[kPageSize];
  std::memcpy(copy, page.data(), kPageSize);
  ROMULUS_RETURN_IF_ERROR(RoomForRecord(FrameKind::kSyncPages, send));
  FlushZeroRun();
  const size_t at = message_.size();
  const std::byte* before = cache_.Find(gfn);
  const PageEncoding encoding = AppendPage(frames_->dialect(), gfn, copy, before, &message_);
  Count(encoding, 1, message_.size() - at);
  if (before != nullptr || sync_evicts_ || cache_.pages() < cache_.capacity_pages()) {
    if (std::byte* cached = cache_.Put(gfn); cached != nullptr) many_.CopyPage(cached, copy);
  }
  ++sync_pages_;
  return absl::OkStatus();
}

absl::Status EpochEncoder::AddSyncZeroRun(Gfn first, uint64_t count, Send send) {
  if (mode_ != Mode::kSyncing) {
    return Broken(absl::FailedPreconditionError("sync page outside a full sync"));
  }
  sync_pages_ += count;
  for (uint64_t i = 0; i < count && cache_.pages() > 0; ++i) cache_.Erase(Gfn(first.value() + i));
  while (count > 0) {
    const bool joins = zero_run_count_ > 0 &&
                       first.value() == zero_run_first_.value() + zero_run_count_ &&
                       // Runs do not cross the hole at 3 GiB: regions are that far apart.
                       zero_run_count_ < UINT32_MAX;
    if (!joins) {
      ROMULUS_RETURN_IF_ERROR(RoomForRecord(FrameKind::kSyncPages, send));
      FlushZeroRun();
      zero_run_first_ = first;
    }
    const uint64_t taken = std::min<uint64_t>(count, UINT32_MAX - zero_run_count_);
    zero_run_count_ += static_cast<uint32_t>(taken);
    first = Gfn(first.value() + taken);
    count -= taken;
  }
  return absl::OkStatus();
}

absl::Status EpochEncoder::AddSyncFrame(FrameKind kind, absl::string_view body, Send send) {
  if (mode_ != Mode::kSyncing) {
    return Broken(absl::FailedPreconditionError("sync frame outside a full sync"));
  }
  ROMULUS_RETURN_IF_ERROR(CheckBody(kind, body.size()));
  if (zero_run_count_ > 0) {
    ROMULUS_RETURN_IF_ERROR(RoomForRecord(FrameKind::kSyncPages, send));
    FlushZeroRun();
  }
  ROMULUS_RETURN_IF_ERROR(ClosePageFrame(send));
  const size_t begin = FrameWriter::Begin(kind, term_, epoch_, &message_);
  message_.append(body.data(), body.size());
  if (MayBeCompressed(kind)) {
    EndBulkFrame(begin);
  } else {
    frames_->End(begin, &message_);
  }
  ++stats_.frames;
  return Flush(send);
}

absl::Status EpochEncoder::EndSync(uint64_t rounds, Send send) {
  if (mode_ != Mode::kSyncing) {
    return Broken(absl::FailedPreconditionError("full sync ended without having begun"));
  }
  if (zero_run_count_ > 0) {
    ROMULUS_RETURN_IF_ERROR(RoomForRecord(FrameKind::kSyncPages, send));
    FlushZeroRun();
  }
  ROMULUS_RETURN_IF_ERROR(ClosePageFrame(send));
  v1::SyncEnd body;
  body.set_pages_sent(sync_pages_);
  body.set_rounds(rounds);
  ROMULUS_RETURN_IF_ERROR(AppendControl(FrameKind::kSyncEnd, body));
  mode_ = Mode::kIdle;
  return Flush(send);
}

absl::Status EpochEncoder::CheckEpoch(Term term, EpochId epoch) {
  if (mode_ == Mode::kIdle) {
    mode_ = Mode::kEpochOpen;
    term_ = term;
    epoch_ = epoch;
    digest_.Reset();
    disk_digest_.Reset();
    disk_records_ = 0;
    disk_bytes_ = 0;
    epoch_gfns_.clear();
    return absl::OkStatus();
  }
  if (mode_ != Mode::kEpochOpen || term != term_ || epoch != epoch_) {
    return Broken(absl::FailedPreconditionError(
        absl::StrCat("epoch ", epoch.value(), " of term ", term.value(),
                     " has no place in the stream now (open: epoch ", epoch_.value(), ")")));
  }
  return absl::OkStatus();
}

absl::Status EpochEncoder::AppendBatch(const epoch::PageBatch& batch, Send send) {
  for (size_t i = 0; i < batch.gfns.size(); ++i) {
    const Gfn gfn = batch.gfns[i];
    const PageBytes page = batch.Page(i);
    ROMULUS_RETURN_IF_ERROR(RoomForRecord(FrameKind::kEpochPages, send));
    const size_t at = message_.size();
    std::byte* cached = cache_.Find(gfn);
    const PageEncoding encoding = AppendPage(frames_->dialect(), gfn, page, cached, &message_);
    Count(encoding, 1, message_.size() - at);
    digest_.Add(gfn, encoding == PageEncoding::kZero ? ZeroPageHash() : PageHash(page));
    if (cached == nullptr) {
      // Nobody looks at it before the page is written again.
      if (cached = cache_.Put(gfn); cached != nullptr) many_.CopyPage(cached, page.data());
    } else if (encoding != PageEncoding::kSame) {
      std::memcpy(cached, page.data(), kPageSize);
    }
    epoch_gfns_.push_back(gfn);
  }
  return absl::OkStatus();
}

absl::Status EpochEncoder::AppendDiskPiece(const epoch::DiskWrite& write, uint64_t at,
                                           uint64_t size, Send send) {
  ROMULUS_RETURN_IF_ERROR(RoomForRecord(FrameKind::kEpochDisks, send));
  const size_t begin = message_.size();
  const bool has_data = write.kind == epoch::DiskWrite::Kind::kWrite;
  AppendDiskRecord(
      KindOf(write.kind), write.disk, write.offset_bytes + at, size,
      has_data ? std::span(write.data).subspan(at, size) : std::span<const std::byte>(), &message_);
  disk_digest_.Add(absl::string_view(message_).substr(begin));
  ++disk_records_;
  disk_bytes_ += size;
  return absl::OkStatus();
}

absl::Status EpochEncoder::AppendDiskWrites(const std::vector<epoch::DiskWrite>& writes,
                                            Send send) {
  // A frame is never larger than page_body_bytes_, which is at most what the peer accepts.
  const uint64_t piece_bytes =
      kDiskRecordHeadBytes + kDiskSectorBytes > page_body_bytes_
          ? uint64_t{0}
          : (page_body_bytes_ - kDiskRecordHeadBytes) & ~(kDiskSectorBytes - 1);
  for (const epoch::DiskWrite& write : writes) {
    if (write.kind != epoch::DiskWrite::Kind::kWrite) {
      ROMULUS_RETURN_IF_ERROR(AppendDiskPiece(write, 0, write.size_bytes, send));
      continue;
    }
    if (write.data.size() != write.size_bytes || piece_bytes == 0) {
      return Broken(absl::InternalError(
          absl::StrCat("disk write of ", write.size_bytes, " bytes has ", write.data.size(),
                       " and would travel in pieces of ", piece_bytes)));
    }
    for (uint64_t at = 0; at < write.size_bytes; at += piece_bytes) {
      // Too large for what is left of the frame: into the next one.
      const uint64_t size = std::min(piece_bytes, write.size_bytes - at);
      const size_t used = frame_open_ ? message_.size() - frame_begin_ - kFrameHeaderBytes : 0;
      if (used > 0 && used + kDiskRecordHeadBytes + size > page_body_bytes_) {
        ROMULUS_RETURN_IF_ERROR(ClosePageFrame(send));
      }
      ROMULUS_RETURN_IF_ERROR(AppendDiskPiece(write, at, size, send));
    }
  }
  return ClosePageFrame(send);
}

absl::Status EpochEncoder::AppendAudit(const epoch::StagedEpoch& epoch) {
  if (epoch.audit.empty() && epoch.disk_audit.empty()) return absl::OkStatus();
  const size_t begin = FrameWriter::Begin(FrameKind::kEpochAudit, term_, epoch_, &message_);
  std::vector<AuditedPages> pages;
  for (const epoch::AuditRun& run : epoch.audit) {
    pages.push_back(ToAuditedPages(run, epoch_, frames_->dialect()));
  }
  AppendAuditRuns(pages, &message_);
  AppendAuditRuns(epoch.disk_audit, &message_);
  ROMULUS_RETURN_IF_ERROR(
      CheckBody(FrameKind::kEpochAudit, message_.size() - begin - kFrameHeaderBytes));
  frames_->End(begin, &message_);
  ++stats_.frames;
  return absl::OkStatus();
}

void EpochEncoder::ForgetPrevious(const std::vector<Gfn>& gfns) {
  for (const Gfn gfn : gfns) cache_.Erase(gfn);
}

absl::Status EpochEncoder::AddPages(Term term, EpochId epoch, const epoch::PageBatch& batch,
                                    Send send) {
  ROMULUS_RETURN_IF_ERROR(CheckEpoch(term, epoch));
  ROMULUS_RETURN_IF_ERROR(AppendBatch(batch, send));
  ROMULUS_RETURN_IF_ERROR(ClosePageFrame(send));
  return Flush(send);
}

absl::Status EpochEncoder::Finish(const epoch::StagedEpoch& epoch, uint64_t sent_monotonic_ns,
                                  uint64_t console_released, Send send) {
  ROMULUS_RETURN_IF_ERROR(CheckEpoch(epoch.term, epoch.epoch));
  for (const epoch::PageBatch& batch : epoch.batches) {
    ROMULUS_RETURN_IF_ERROR(AppendBatch(batch, send));
  }
  ROMULUS_RETURN_IF_ERROR(ClosePageFrame(send));
  ROMULUS_RETURN_IF_ERROR(AppendDiskWrites(epoch.disk_writes, send));
  ROMULUS_RETURN_IF_ERROR(AppendAudit(epoch));
  if (epoch.page_count != epoch_gfns_.size()) {
    return Broken(
        absl::InternalError(absl::StrCat("epoch ", epoch.epoch.value(), " announces ",
                                         epoch.page_count, " pages and has ", epoch_gfns_.size())));
  }
  v1::EpochCommit commit;
  commit.set_page_count(epoch.page_count);
  commit.set_pages_digest(digest_.value());
  machine_.Put(epoch.machine.Serialize(), frames_->dialect(), &commit);
  commit.set_console_offset(epoch.console.offset);
  commit.set_console_bytes(epoch.console.bytes);
  commit.set_console_released(std::max(console_released, epoch.console_released));
  commit.set_sent_monotonic_ns(sent_monotonic_ns);
  commit.set_disk_record_count(disk_records_);
  commit.set_disk_bytes(disk_bytes_);
  commit.set_disk_digest(disk_digest_.value());
  stats_.disk_records += disk_records_;
  stats_.disk_bytes += disk_bytes_;
  ROMULUS_RETURN_IF_ERROR(AppendControl(FrameKind::kEpochCommit, commit));
  mode_ = Mode::kIdle;
  epoch_gfns_.clear();
  return Flush(send);
}

absl::Status EpochEncoder::Abort(Term term, EpochId epoch, absl::string_view reason, Send send) {
  ROMULUS_RETURN_IF_ERROR(CheckEpoch(term, epoch));
  // The secondary forgets these pages, so it keeps versions that are not in the cache any more.
  for (Gfn gfn : epoch_gfns_) cache_.Erase(gfn);
  epoch_gfns_.clear();
  v1::EpochAbort body;
  body.set_reason(std::string(reason));
  ROMULUS_RETURN_IF_ERROR(AppendControl(FrameKind::kEpochAbort, body));
  mode_ = Mode::kIdle;
  return Flush(send);
}

}  // namespace romulus::codec

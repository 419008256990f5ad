#include "replica/replica_store.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/status.h"
#include "replica/fault.h"

namespace romulus::replica {
namespace {

constexpr std::byte kZeroPage[kPageSize] = {};
// An epoch of so many, 4 MiB, leaves nothing else in a processor's cache.
constexpr size_t kManyPages = 1024;

uint64_t StagingCap(const StoreOptions& options, const memory::MemoryLayout& layout) {
  if (options.staging_cap_bytes != 0) return options.staging_cap_bytes;
  return layout.size_bytes() + layout.page_count() * sizeof(StagedPage) +
         options.disk_staging_bytes;
}

codec::DiskLayout LayoutOf(const DiskReplica* disks) {
  codec::DiskLayout layout;
  if (disks == nullptr) return layout;
  for (const DiskFacts& disk : disks->facts()) layout.push_back({disk.disk, disk.size_bytes});
  return layout;
}

}  // namespace

// Holds the lock for one frame, after any promotion that asked for it.
class ReplicaStore::StreamLock {
 public:
  explicit StreamLock(ReplicaStore& store) : lock_(store.mutex_) {
    store.taken_.wait(lock_, [&store] { return store.takers_.load() == 0; });
  }

 private:
  std::unique_lock<std::mutex> lock_;
};

ReplicaStore::ReplicaStore(std::shared_ptr<memory::GuestMemory> memory, const StoreOptions& options,
                           CommittedConsole* console)
    : memory_(std::move(memory)),
      console_(console),
      disk_layout_(LayoutOf(options.disks)),
      disks_(options.disks),
      assembler_(memory_.get(), StagingCap(options, memory_->layout()), disk_layout_),
      tail_(options.console_tail_cap_bytes),
      touched_(memory_->layout().gfn_end(), !options.memory_is_zero),
      synced_(memory_->layout().gfn_end(), false) {
  PublishLocked();
  PublishDisksLocked();
}

absl::StatusOr<ReplicaStore::StreamId> ReplicaStore::OpenStream(Term term) {
  StreamLock lock(*this);
  if (sealed_) {
    return FaultStatus(Fault::kSuperseded,
                       absl::StrCat("the replica was promoted; newest term ", known_term_.value()));
  }
  if (retired_) return FaultStatus(Fault::kSuperseded, "this replica was given up: come again");
  if (term < known_term_) {
    return FaultStatus(Fault::kTerm, absl::StrCat("term ", term.value(), " is over: term ",
                                                  known_term_.value(), " is known"));
  }
  known_term_ = term;
  ++stream_;
  stream_over_ = false;
  sync_begun_ = false;
  sync_complete_ = false;
  disk_sync_ = DiskSync::kNone;
  assembler_.Stop();
  ROMULUS_RETURN_IF_ERROR(ApplyPendingLocked());
  findings_ = {};
  PublishLocked();
  PublishDisksLocked();
  return stream_;
}

absl::Status ReplicaStore::CheckStream(StreamId stream, Term term) {
  if (sealed_) {
    return FaultStatus(Fault::kSuperseded,
                       absl::StrCat("the replica was promoted; newest term ", known_term_.value()));
  }
  if (stream != stream_ || stream_over_) {
    return FaultStatus(Fault::kSuperseded, "the stream is over");
  }
  if (term < known_term_) {
    return Failed(FaultStatus(Fault::kTerm, absl::StrCat("term ", term.value(), " is over: term ",
                                                         known_term_.value(), " is known")));
  }
  known_term_ = term;
  return absl::OkStatus();
}

absl::Status ReplicaStore::Failed(absl::Status why) {
  stream_over_ = true;
  assembler_.Stop();
  PublishLocked();
  return why;
}

absl::Status ReplicaStore::BeginSync(StreamId stream, Term term, uint64_t total_pages) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, term));
  if (total_pages != layout().page_count()) {
    return Failed(FaultStatus(
        Fault::kCount,
        absl::StrCat("full sync of ", total_pages, " pages, memory has ", layout().page_count())));
  }
  ROMULUS_RETURN_IF_ERROR(ApplyPendingLocked());
  assembler_.Stop();
  tail_.Reset();
  if (state_ == ReplicaState::kCommitted) given_up_ = newest_;
  newest_ = {};
  machine_ = {};
  synced_.Clear();
  synced_pages_ = 0;
  sync_begun_ = true;
  sync_complete_ = false;
  disk_sync_ = DiskSync::kNone;
  sync_disk_bytes_ = 0;
  disk_failure_.clear();
  state_ = ReplicaState::kSyncing;
  PublishLocked();
  return absl::OkStatus();
}

absl::Status ReplicaStore::SyncPages(StreamId stream, const codec::Frame& frame) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, frame.term));
  if (!sync_begun_ || sync_complete_) {
    return Failed(FaultStatus(Fault::kUnexpected, "sync pages outside a full sync"));
  }
  if (absl::Status status = ApplySyncRecords(frame); !status.ok()) return Failed(std::move(status));
  PublishLocked();
  return absl::OkStatus();
}

// Memory for the pages that come whole and were zero so far, run by run: a page fault for each
// would take longer than copying it.
void ReplicaStore::PopulateNewPages(const codec::Frame& frame) {
  codec::PageRecordReader records(frame.body, layout(), frame.dialect);
  Gfn first;
  uint64_t count = 0;
  while (!records.done()) {
    const absl::StatusOr<codec::PageRecord> record = records.Next();
    if (!record.ok()) break;  // whoever applies them will say so
    if (record->encoding != codec::PageEncoding::kRaw || touched_.Test(record->gfn)) continue;
    if (record->gfn.value() != first.value() + count) {
      if (count > 1) memory_->PopulatePages(first, count);
      first = record->gfn;
      count = 0;
    }
    ++count;
  }
  if (count > 1) memory_->PopulatePages(first, count);
}

absl::Status ReplicaStore::ApplySyncRecords(const codec::Frame& frame) {
  if (frame.body.empty()) return FaultStatus(Fault::kPages, "page frame without pages");
  PopulateNewPages(frame);
  codec::PageRecordReader records(frame.body, layout(), frame.dialect);
  // One round may end in a frame and the next begin: a page comes twice. Runs could name all anew.
  uint64_t left = 2 * layout().page_count();
  memory::PastCaches many;
  while (!records.done()) {
    absl::StatusOr<codec::PageRecord> record = records.Next();
    if (!record.ok()) return WithFault(Fault::kPages, record.status());
    if (record->count > left) {
      return FaultStatus(Fault::kPages, "one frame names more pages than twice the guest's");
    }
    left -= record->count;
    ROMULUS_RETURN_IF_ERROR(ApplySyncRecord(*record, many));
  }
  return absl::OkStatus();
}

absl::Status ReplicaStore::ApplySyncRecord(const codec::PageRecord& record,
                                           memory::PastCaches& many) {
  const Gfn gfn = record.gfn;  // in the layout, as the reader has checked: nothing below can fail
  switch (record.encoding) {
    case codec::PageEncoding::kZero:
    case codec::PageEncoding::kZeroRun:
      for (uint64_t i = 0; i < record.count; ++i) {
        const Gfn zero(gfn.value() + i);
        synced_pages_ += synced_.Set(zero);
        if (!touched_.Test(zero)) continue;
        ROMULUS_CHECK(memory_->ApplyZeroPage(zero).ok());
        touched_.Reset(zero);
      }
      return absl::OkStatus();
    case codec::PageEncoding::kRaw:
      ROMULUS_CHECK(
          memory_->ApplyPage(gfn, base::AsBytes(record.payload).first<kPageSize>(), &many).ok());
      break;
    case codec::PageEncoding::kSame:
    case codec::PageEncoding::kDelta:
    case codec::PageEncoding::kSparse: {
      if (!synced_.Test(gfn)) {
        return FaultStatus(
            Fault::kPages,
            absl::StrFormat("page %#x comes as changes to a version never sent", gfn.value()));
      }
      std::byte page[kPageSize];
      codec::DecodePage(record, memory_->Page(gfn), page);
      ROMULUS_CHECK(memory_->ApplyPage(gfn, page).ok());
      break;
    }
  }
  touched_.Set(gfn);
  synced_pages_ += synced_.Set(gfn);
  return absl::OkStatus();
}

absl::Status ReplicaStore::BeginDiskSync(StreamId stream, Term term, uint64_t disk_count) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, term));
  if (!sync_begun_ || sync_complete_ || disk_sync_ != DiskSync::kNone || disks_ == nullptr) {
    return Failed(FaultStatus(Fault::kUnexpected, "full sync of disks has no place here"));
  }
  if (disk_count != disk_layout_.size()) {
    return Failed(FaultStatus(Fault::kCount, absl::StrCat("full sync of ", disk_count, " disks, ",
                                                          disk_layout_.size(), " are here")));
  }
  if (absl::Status begun = disks_->BeginSync(term); !begun.ok()) return DiskFailedLocked(begun);
  disk_sync_ = DiskSync::kRunning;
  PublishLocked();
  PublishDisksLocked();
  return absl::OkStatus();
}

absl::Status ReplicaStore::CheckDiskSync(StreamId stream, Term term, absl::string_view what) {
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, term));
  if (disk_sync_ == DiskSync::kRunning) return absl::OkStatus();
  return Failed(FaultStatus(Fault::kUnexpected, absl::StrCat(what, " outside a full sync")));
}

absl::StatusOr<std::vector<DiskHash>> ReplicaStore::HashDisk(StreamId stream, Term term,
                                                             uint32_t disk, uint64_t first_block,
                                                             uint64_t count) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckDiskSync(stream, term, "hash request"));
  const codec::DiskSize* size = codec::FindDisk(disk_layout_, disk);
  const uint64_t blocks = size == nullptr ? 0 : codec::DiskBlockCount(size->size_bytes);
  if (count == 0 || count > codec::kMaxHashBlocks || first_block >= blocks ||
      count > blocks - first_block) {
    return Failed(FaultStatus(
        Fault::kDisks, absl::StrCat("hashes of ", count, " blocks from ", first_block,
                                    " on are wanted of disk ", disk, ", which has ", blocks)));
  }
  absl::StatusOr<std::vector<DiskHash>> hashes = disks_->HashBlocks(disk, first_block, count);
  if (!hashes.ok()) return DiskFailedLocked(hashes.status());
  return hashes;
}

absl::Status ReplicaStore::WriteDiskBlocks(StreamId stream, Term term, absl::string_view body) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckDiskSync(stream, term, "disk blocks"));
  if (body.empty()) return Failed(FaultStatus(Fault::kDisks, "disk frame without records"));
  codec::DiskRecordReader records(body, disk_layout_);
  while (!records.done()) {
    absl::StatusOr<codec::DiskRecord> record = records.Next();
    if (!record.ok()) return Failed(WithFault(Fault::kDisks, record.status()));
    ROMULUS_RETURN_IF_ERROR(WriteDiskRecord(*record));
  }
  PublishLocked();
  return absl::OkStatus();
}

absl::Status ReplicaStore::WriteDiskRecord(const codec::DiskRecord& record) {
  absl::Status written;
  switch (record.kind) {
    case codec::DiskRecordKind::kWrite:
      written =
          disks_->WriteBlocks(record.disk, record.offset_bytes, base::AsBytes(record.payload));
      break;
    case codec::DiskRecordKind::kZeros:
      written = disks_->ZeroBlocks(record.disk, record.offset_bytes, record.size_bytes);
      break;
    default:
      return Failed(FaultStatus(Fault::kDisks, "a full sync writes and zeroes, nothing else"));
  }
  sync_disk_bytes_ += record.size_bytes;
  return written.ok() ? written : DiskFailedLocked(written);
}

absl::Status ReplicaStore::EndDiskSync(StreamId stream, Term term) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckDiskSync(stream, term, "end of a full sync of disks"));
  if (absl::Status ended = disks_->EndSync(term); !ended.ok()) return DiskFailedLocked(ended);
  disk_sync_ = DiskSync::kDone;
  PublishLocked();
  PublishDisksLocked();
  return absl::OkStatus();
}

absl::Status ReplicaStore::EndSync(StreamId stream, Term term) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, term));
  if (!sync_begun_ || sync_complete_) {
    return Failed(FaultStatus(Fault::kUnexpected, "end of a full sync that is not under way"));
  }
  if (synced_pages_ != layout().page_count()) {
    return Failed(
        FaultStatus(Fault::kCount, absl::StrCat("full sync ended after ", synced_pages_, " of ",
                                                layout().page_count(), " pages")));
  }
  if (!disk_layout_.empty() && disk_sync_ != DiskSync::kDone) {
    return Failed(FaultStatus(Fault::kCount, absl::StrCat("full sync ended without that of the ",
                                                          disk_layout_.size(), " disks")));
  }
  sync_complete_ = true;
  assembler_.Start();
  PublishLocked();
  return absl::OkStatus();
}

absl::Status ReplicaStore::Stage(StreamId stream, const codec::Frame& frame,
                                 absl::Status (Assembler::*add)(const codec::Frame&)) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, frame.term));
  ROMULUS_RETURN_IF_ERROR(ApplyPendingLocked());  // deltas refer to it
  if (absl::Status status = (assembler_.*add)(frame); !status.ok()) {
    return Failed(std::move(status));
  }
  PublishLocked();
  return absl::OkStatus();
}

absl::StatusOr<CommitResult> ReplicaStore::Commit(StreamId stream, const codec::Frame& frame) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, frame.term));
  ROMULUS_RETURN_IF_ERROR(ApplyPendingLocked());
  absl::StatusOr<AssembledEpoch> epoch = assembler_.Commit(frame);
  if (!epoch.ok()) return Failed(std::move(epoch).status());
  if (absl::Status status =
          tail_.Check(epoch->console_offset, epoch->console_bytes.size(), epoch->console_released);
      !status.ok()) {
    return Failed(WithFault(FaultOf(status), base::Annotate(status, NameOf(epoch->key))));
  }
  if (disks_ != nullptr) {
    // Before it counts: from the ack on it must survive what happens to this node.
    if (absl::Status kept = disks_->Journal(epoch->key, epoch->disk_writes); !kept.ok()) {
      return DiskFailedLocked(kept);
    }
  }
  // From here on nothing fails: the epoch is committed.
  const bool is_first = state_ != ReplicaState::kCommitted;
  tail_.Append(epoch->console_offset, epoch->console_bytes, epoch->console_released);
  newest_ = epoch->key;
  machine_ = std::move(epoch->machine);
  given_up_ = {};
  state_ = ReplicaState::kCommitted;
  CommitResult result;
  result.key = epoch->key;
  result.sent_monotonic_ns = epoch->sent_monotonic_ns;
  result.page_count = epoch->page_count;
  result.disk_records = epoch->disk_writes.size();
  result.disk_bytes = epoch->disk_bytes;
  result.audit = std::exchange(findings_, {});
  if (disks_ != nullptr) result.audit.disks = disks_->TakeAudited();
  epoch->disk_writes = {};  // the journal has them
  pending_ = *std::move(epoch);
  PublishLocked();
  if (is_first) PublishDisksLocked();
  return result;
}

absl::Status ReplicaStore::Abort(StreamId stream, const codec::Frame& frame) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, frame.term));
  if (absl::Status status = assembler_.Abort(frame); !status.ok()) {
    return Failed(std::move(status));
  }
  PublishLocked();
  return absl::OkStatus();
}

absl::Status ReplicaStore::ApplyCommitted(StreamId stream) {
  StreamLock lock(*this);
  return stream == stream_ ? ApplyPendingLocked() : absl::OkStatus();
}

absl::Status ReplicaStore::ApplyPendingLocked() {
  if (!pending_.has_value()) return absl::OkStatus();
  const EpochKey key = pending_->key;
  const codec::AuditHashes audit = std::move(pending_->audit);
  ApplyMemoryLocked();
  MemoryComparison compared = CompareMemory(*memory_, key.epoch, audit.pages);
  // What it holds may not be what was written here, but anything.
  for (const Gfn gfn : compared.suspects) touched_.Set(gfn);
  findings_.Add(std::move(compared.findings));
  if (disks_ == nullptr) return absl::OkStatus();
  absl::Status applied = disks_->Apply(key);
  if (!applied.ok()) return DiskFailedLocked(applied);
  if (!audit.blocks.empty()) disks_->Audit(key, audit.blocks);
  return absl::OkStatus();
}

// Disks that cannot be written hold an epoch that memory has left behind, and the journal grows: no
// promotion could be trusted to end well, and the primary is there to be told.
absl::Status ReplicaStore::DiskFailedLocked(const absl::Status& why) {
  ForgetReplicaLocked();
  disk_failure_ = absl::StrCat("the replica was given up: ", why.message());
  disks_->GiveUp().IgnoreError();  // the first error says more
  PublishLocked();
  PublishDisksLocked();
  return FaultStatus(Fault::kDiskIo, why.message());
}

void ReplicaStore::ForgetReplicaLocked() {
  assembler_.Stop();
  stream_over_ = true;
  newest_ = {};
  machine_ = {};
  pending_.reset();
  state_ = ReplicaState::kEmpty;
}

void ReplicaStore::ApplyMemoryLocked() {
  if (!pending_.has_value()) return;
  // Of few pages it is likely that the next epoch changes the same.
  memory::PastCaches past_caches;
  memory::PastCaches* const many =
      pending_->pages.pages().size() >= kManyPages ? &past_caches : nullptr;
  for (const StagedPage& page : pending_->pages.pages()) {
    if (page.bytes != nullptr) {
      touched_.Set(page.gfn);
      ROMULUS_CHECK(
          memory_->ApplyPage(page.gfn, memory::PageBytes(page.bytes, kPageSize), many).ok());
    } else if (touched_.Test(page.gfn)) {
      // Written, not punched out: an epoch's page is in use and will be touched again soon.
      ROMULUS_CHECK(memory_->ApplyPage(page.gfn, kZeroPage, many).ok());
    }
  }
  if (console_ != nullptr && !pending_->console_bytes.empty()) {
    console_->OnCommitted(pending_->console_offset, pending_->console_bytes);
  }
  assembler_.Recycle(std::move(pending_->pages));
  pending_.reset();
}

absl::Status ReplicaStore::ConsoleReleased(StreamId stream, Term term, uint64_t offset) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, term));
  tail_.Released(offset);
  PublishLocked();
  return absl::OkStatus();
}

absl::Status ReplicaStore::GuestFinished(StreamId stream, Term term, absl::string_view detail) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, term));
  ROMULUS_RETURN_IF_ERROR(ApplyPendingLocked());
  assembler_.Stop();
  stream_over_ = true;
  state_ = ReplicaState::kGuestFinished;
  finished_detail_ = std::string(detail);
  PublishLocked();
  return absl::OkStatus();
}

absl::Status ReplicaStore::GiveUp(StreamId stream, Term term) {
  StreamLock lock(*this);
  ROMULUS_RETURN_IF_ERROR(CheckStream(stream, term));
  ROMULUS_RETURN_IF_ERROR(ApplyPendingLocked());
  ForgetReplicaLocked();
  // What the side files still say changes nothing: nobody promotes this replica any more.
  if (disks_ != nullptr) disks_->GiveUp().IgnoreError();
  PublishLocked();
  PublishDisksLocked();
  return absl::OkStatus();
}

void ReplicaStore::Retire() {
  StreamLock lock(*this);
  retired_ = true;
  stream_over_ = true;
  assembler_.Stop();
  ApplyMemoryLocked();
  disks_ = nullptr;  // the next store's
  PublishLocked();
}

void ReplicaStore::CloseStream(StreamId stream) {
  StreamLock lock(*this);
  if (stream != stream_) return;
  stream_over_ = true;
  assembler_.Stop();
  ApplyPendingLocked().IgnoreError();  // status() says so
  PublishLocked();
  PublishDisksLocked();
}

absl::StatusOr<PromotableEpoch> ReplicaStore::TakeForPromotion(Term new_term) {
  takers_.fetch_add(1);
  absl::StatusOr<PromotableEpoch> taken = [&]() -> absl::StatusOr<PromotableEpoch> {
    std::unique_lock<std::mutex> lock(mutex_);
    if (state_ != ReplicaState::kCommitted) {
      return absl::FailedPreconditionError(absl::StrCat("nothing to promote: ", status().detail));
    }
    // The disks' own way to the same epoch is the promotion.
    ApplyMemoryLocked();
    if (disks_ != nullptr) {
      if (absl::Status ready = disks_->Promote(newest_, new_term); !ready.ok()) {
        return base::Annotate(ready, "the disks cannot be brought to the epoch");
      }
    }
    assembler_.Stop();
    stream_over_ = true;
    state_ = ReplicaState::kPromoted;
    known_term_ = std::max(known_term_, new_term);
    sealed_.store(true, std::memory_order_release);
    PublishLocked();
    PublishDisksLocked();
    PromotableEpoch epoch;
    epoch.key = newest_;
    epoch.memory = memory_;
    epoch.machine = std::move(machine_);
    epoch.console_offset = tail_.offset();
    epoch.console_tail = tail_.tail();
    epoch.console_end = tail_.end();
    return epoch;
  }();
  {
    std::unique_lock<std::mutex> lock(mutex_);
    takers_.fetch_sub(1);
  }
  taken_.notify_all();
  return taken;
}

absl::Status ReplicaStore::TakeBackDisks() {
  std::unique_lock<std::mutex> lock(mutex_);
  if (disks_ == nullptr) return absl::OkStatus();
  if (!sealed_) return absl::FailedPreconditionError("nothing was promoted");
  const absl::Status taken = disks_->TakeBack(newest_);
  PublishDisksLocked();
  return taken;
}

void ReplicaStore::NoteTerm(Term term) {
  StreamLock lock(*this);
  known_term_ = std::max(known_term_, term);
  PublishLocked();
}

void ReplicaStore::PublishLocked() {
  std::unique_lock<std::mutex> lock(status_mutex_);
  status_.state = state_;
  status_.newest = newest_;
  status_.given_up = given_up_;
  status_.known_term = known_term_;
  status_.sync_pages_done = synced_pages_;
  status_.sync_pages_total = layout().page_count();
  status_.sync_complete = sync_complete_;
  status_.console_end = tail_.end();
  status_.console_tail_bytes = tail_.tail().size();
  status_.staged_bytes = assembler_.staged_bytes();
  status_.sync_disk_bytes = sync_disk_bytes_;
  status_.detail = state_ == ReplicaState::kGuestFinished ? finished_detail_ : disk_failure_;
}

void ReplicaStore::PublishDisksLocked() {
  if (disks_ == nullptr) return;
  std::vector<DiskFacts> facts = disks_->facts();
  std::unique_lock<std::mutex> lock(status_mutex_);
  disk_facts_ = std::move(facts);
}

std::vector<DiskFacts> ReplicaStore::disk_facts() const {
  std::unique_lock<std::mutex> lock(status_mutex_);
  return disk_facts_;
}

ReplicaStatus ReplicaStore::status() const {
  ReplicaStatus copy;
  {
    std::unique_lock<std::mutex> lock(status_mutex_);
    copy = status_;
  }
  copy.detail = DetailOf(copy, copy.detail);
  return copy;
}

Term ReplicaStore::known_term() const {
  std::unique_lock<std::mutex> lock(status_mutex_);
  return status_.known_term;
}

}  // namespace romulus::replica

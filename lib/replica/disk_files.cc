#include "replica/disk_files.h"

#include <pthread.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace romulus::replica {
namespace {

using epoch::DiskWrite;

// What a primary's device may have under way beyond the cap: requests that wait for others, one
// that crosses the cap, what failed ones left on the disk.
constexpr uint64_t kOvershootBytes = 48u << 20;

bool HasFlush(std::span<const DiskWrite> writes) {
  return std::any_of(writes.begin(), writes.end(),
                     [](const DiskWrite& write) { return write.kind == DiskWrite::Kind::kFlush; });
}

CopyRole RoleOf(disk::Mode mode) {
  switch (mode) {
    case disk::Mode::kNever:
      return CopyRole::kNever;
    case disk::Mode::kPrimarySolo:
    case disk::Mode::kPrimaryProtected:
      return CopyRole::kPrimary;
    case disk::Mode::kSecondary:
      return CopyRole::kSecondary;
    case disk::Mode::kSyncing:
      break;
  }
  return CopyRole::kSyncing;
}

}  // namespace

uint64_t JournalSegmentBytes(uint64_t disk_log_bytes, size_t disks) {
  const uint64_t bytes = disk_log_bytes + disks * kOvershootBytes;
  return (bytes + codec::kDiskSectorBytes - 1) / codec::kDiskSectorBytes * codec::kDiskSectorBytes;
}

// Where the journal's writes go.
class DiskFiles::Target final : public JournalTarget {
 public:
  explicit Target(DiskFiles& files) : files_(files) {}
  absl::Status WriteTo(uint32_t disk, uint64_t offset_bytes,
                       std::span<const std::byte> data) override {
    files_.work_.Step();
    ROMULUS_ASSIGN_OR_RETURN(Disk * found, files_.Find(disk, offset_bytes, data.size()));
    return found->copy->file()->Write(offset_bytes, data);
  }
  absl::Status ZeroOn(uint32_t disk, uint64_t offset_bytes, uint64_t size_bytes) override {
    files_.work_.Step();
    ROMULUS_ASSIGN_OR_RETURN(Disk * found, files_.Find(disk, offset_bytes, size_bytes));
    // A hole needs no space, whatever the guest wanted of the primary's disk.
    ROMULUS_RETURN_IF_ERROR(found->copy->file()->Zero(offset_bytes, size_bytes, /*unmap=*/true));
    files_.ForgetReserved(*found, offset_bytes, size_bytes);
    return absl::OkStatus();
  }

 private:
  DiskFiles& files_;
};

DiskFiles::DiskFiles(std::vector<std::shared_ptr<disk::DiskCopy>> copies,
                     const DiskFilesOptions& options, disk::Files& files)
    : options_(options), files_(files) {
  for (std::shared_ptr<disk::DiskCopy>& copy : copies) {
    const uint64_t blocks = (copy->size_bytes() + kDiskBlockBytes - 1) / kDiskBlockBytes;
    disks_.push_back({std::move(copy), std::vector<bool>(blocks), 0, Term()});
  }
}

absl::StatusOr<std::unique_ptr<DiskFiles>> DiskFiles::Open(
    std::vector<std::shared_ptr<disk::DiskCopy>> copies, const DiskFilesOptions& options,
    disk::Files& files) {
  if (copies.empty()) return absl::InvalidArgumentError("there are no disks to replicate");
  JournalOptions journal_options;
  journal_options.segment_bytes = options.segment_bytes;
  journal_options.is_durable = options.durability != Durability::kNever;
  for (const std::shared_ptr<disk::DiskCopy>& copy : copies) {
    const uint32_t disk = copy->spec().disk;
    ROMULUS_CHECK(!copy->spec().read_only && disk >= journal_options.disk_sizes.size());
    journal_options.disk_sizes.resize(disk + 1);
    journal_options.disk_sizes[disk] = copy->size_bytes();
  }
  journal_options.boot_id = files.boot_id();
  const std::string journal_path = copies.front()->journal_path();
  ROMULUS_ASSIGN_OR_RETURN(std::shared_ptr<disk::File> journal, files.OpenJournal(journal_path));
  std::unique_ptr<DiskFiles> opened(new DiskFiles(std::move(copies), options, files));
  opened->journal_options_ = journal_options;
  opened->journal_ = std::make_unique<DiskJournal>(std::move(journal), journal_options);
  {
    absl::MutexLock lock(&opened->mutex_);
    ROMULUS_RETURN_IF_ERROR(opened->Recover());
  }
  opened->StartThread();
  return opened;
}

DiskFiles::~DiskFiles() { StopThread(); }

void DiskFiles::StartThread() {
  if (options_.own_thread) thread_ = std::thread([this] { ThreadMain(); });
}

void DiskFiles::StopThread() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

// --- recovery -----------------------------------------------------------------------------------

absl::Status DiskFiles::Recover() {
  usable_ = JudgeCopies();
  if (!usable_.ok()) return absl::OkStatus();
  bool all_clean = true;
  EpochKey stamped;
  for (const Disk& disk : disks_) {
    const disk::Stamp stamp = disk.copy->stamp();
    all_clean = all_clean && stamp.is_clean;
    if (stamp.mode != disk::Mode::kSecondary) continue;
    stamped = std::max(stamped, EpochKey{stamp.term, stamp.epoch});
  }
  const absl::Status loaded = journal_->Load();
  if (options_.on_dropped) {
    for (const DroppedTail& tail : journal_->dropped()) options_.on_dropped(journal_->path(), tail);
  }
  const bool is_lost = absl::IsDataLoss(loaded) || absl::IsNotFound(loaded);
  // Nobody needs the journal of copies that were closed.
  const bool is_older = absl::IsFailedPrecondition(loaded) && all_clean;
  if (!loaded.ok() && !is_lost && !is_older) return loaded;
  if (!loaded.ok() && !all_clean) {
    usable_ =
        absl::DataLossError(absl::StrCat(loaded.message(),
                                         "; without it nobody knows which epoch the disks are at, "
                                         "and they have to be copied again (by a full sync)"));
    return absl::OkStatus();
  }
  if (loaded.ok()) {
    for (const Disk& disk : disks_) {
      const disk::Stamp stamp = disk.copy->stamp();
      if (stamp.mode != disk::Mode::kSecondary || stamp.journal_id == journal_->id()) continue;
      usable_ = absl::DataLossError(
          absl::StrCat(journal_->path(), ": belongs to other disks than ", disk.copy->spec().path,
                       "; put the right one there, or the disks have to be copied again"));
      return absl::OkStatus();
    }
    const bool had_records = journal_->has_closed();
    ROMULUS_RETURN_IF_ERROR(ApplyAll(kEverything));
    journaled_ = std::max(stamped, journal_->newest());
    if (had_records) ROMULUS_RETURN_IF_ERROR(StampAll(disk::Mode::kSecondary, journaled_));
  }
  journaled_ = committed_ = std::max(stamped, journaled_);
  return absl::OkStatus();
}

// Not OK: they are not a secondary's, or were caught between two states.
absl::Status DiskFiles::JudgeCopies() const {
  bool any_secondary = false;
  for (const Disk& disk : disks_) {
    const std::string& path = disk.copy->spec().path;
    const disk::Stamp stamp = disk.copy->stamp();
    ROMULUS_RETURN_IF_ERROR(disk.copy->trusted());
    if (stamp.mode == disk::Mode::kNever) {
      return absl::FailedPreconditionError(absl::StrCat(path, ": has never been a secondary's"));
    }
    if (stamp.mode == disk::Mode::kSyncing) {
      return absl::DataLossError(
          absl::StrCat(path, ": a full sync onto it was not finished; it has to be copied again"));
    }
    any_secondary |= stamp.mode == disk::Mode::kSecondary;
  }
  // Some a primary's, some not: a promotion was cut short, after everything had been applied.
  if (any_secondary) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(disks_.front().copy->spec().path,
                                                    ": is a primary's copy, of term ",
                                                    disks_.front().copy->stamp().term.value()));
}

absl::Status DiskFiles::usable() const {
  absl::MutexLock lock(&mutex_);
  return usable_;
}

EpochKey DiskFiles::newest() const {
  absl::MutexLock lock(&mutex_);
  return journaled_;
}

absl::Status DiskFiles::health() const {
  absl::MutexLock lock(&mutex_);
  return health_;
}

absl::StatusOr<DiskFiles::Disk*> DiskFiles::Find(uint32_t disk, uint64_t offset_bytes,
                                                 uint64_t size_bytes) {
  for (Disk& candidate : disks_) {
    if (candidate.copy->spec().disk != disk) continue;
    const uint64_t size = candidate.copy->size_bytes();
    if (offset_bytes > size || size_bytes > size - offset_bytes) {
      return absl::InvalidArgumentError(absl::StrCat(candidate.copy->spec().path, ": has no byte ",
                                                     offset_bytes, " + ", size_bytes));
    }
    return &candidate;
  }
  return absl::InvalidArgumentError(absl::StrCat("there is no replicated disk ", disk));
}

std::vector<DiskFacts> DiskFiles::facts() const {
  absl::MutexLock lock(&mutex_);
  std::vector<DiskFacts> facts;
  for (const Disk& disk : disks_) {
    DiskFacts fact;
    fact.disk = disk.copy->spec().disk;
    fact.name = disk.copy->spec().name;
    fact.path = disk.copy->spec().path;
    fact.size_bytes = disk.copy->size_bytes();
    const disk::Stamp stamp = disk.copy->stamp();
    fact.role = RoleOf(stamp.mode);
    fact.stamp = {stamp.term, stamp.epoch};
    if (fact.role == CopyRole::kSecondary) {
      // One that cannot be used may still hold what nobody else has: whose it is, counts.
      if (usable_.ok()) fact.stamp = journaled_;
      fact.unusable = std::string(usable_.message());
    }
    const absl::StatusOr<disk::Extent> data = disk.copy->file()->NextData(0);
    fact.all_zero = data.ok() && data->size_bytes == 0;
    facts.push_back(std::move(fact));
  }
  return facts;
}

// --- epochs -------------------------------------------------------------------------------------

absl::Status DiskFiles::Journal(const EpochKey& epoch, std::span<const DiskWrite> writes) {
  absl::MutexLock lock(&mutex_);
  ROMULUS_RETURN_IF_ERROR(health_);
  if (state_ != State::kSynced && state_ != State::kFollowing) {
    return absl::FailedPreconditionError(
        "the disks are not in step: a full sync has to come first");
  }
  if (epoch <= journaled_) {
    return absl::InvalidArgumentError(absl::StrCat("epoch ", epoch.epoch.value(), " of term ",
                                                   epoch.term.value(), " was journaled before"));
  }
  ROMULUS_RETURN_IF_ERROR(CheckWrites(writes));
  committed_ = journaled_;  // else this one would not come
  if (base::Fires(options_.failpoints, "disk_files.journal")) {
    return absl::ResourceExhaustedError(absl::StrCat(journal_->path(), ": failpoint"));
  }
  const uint64_t record_bytes = DiskJournal::RecordBytes(writes);
  if (record_bytes > 0) {
    ROMULUS_RETURN_IF_ERROR(Reserve(writes));
    ROMULUS_RETURN_IF_ERROR(MakeRoom(record_bytes));
    ROMULUS_RETURN_IF_ERROR(journal_->Append(epoch, writes));
  }
  if (absl::Status made = MakeDurable(epoch, record_bytes > 0, HasFlush(writes)); !made.ok()) {
    if (record_bytes > 0) journal_->Forget();
    health_ = made;
    return made;
  }
  state_ = State::kFollowing;
  journaled_ = epoch;
  ForgetCompares(writes);
  if (journal_->open_bytes() >= options_.apply_bytes && !journal_->has_closed()) {
    journal_->CloseOpen();
  }
  return absl::OkStatus();
}

absl::Status DiskFiles::CheckWrites(std::span<const DiskWrite> writes) {
  for (const DiskWrite& write : writes) {
    if (write.kind == DiskWrite::Kind::kFlush) continue;
    ROMULUS_RETURN_IF_ERROR(Find(write.disk, write.offset_bytes, write.size_bytes).status());
    if (write.size_bytes == 0 || write.size_bytes % codec::kDiskSectorBytes != 0 ||
        write.offset_bytes % codec::kDiskSectorBytes != 0 ||
        write.data.size() != (write.kind == DiskWrite::Kind::kWrite ? write.size_bytes : 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a write to disk ", write.disk, " is malformed"));
    }
  }
  return absl::OkStatus();
}

absl::Status DiskFiles::MakeDurable(const EpochKey& epoch, bool has_record, bool has_flush) {
  // With the first epoch the copies become an epoch's: that is told only when it is so.
  const bool is_first = state_ == State::kSynced;
  const bool wants_sync =
      options_.durability == Durability::kEpoch ? has_record || has_flush : has_flush;
  if (journal_->has_unsynced() && (is_first || wants_sync)) {
    ROMULUS_RETURN_IF_ERROR(journal_->Sync());
  }
  if (!is_first && epoch.term == journaled_.term) return absl::OkStatus();
  ROMULUS_RETURN_IF_ERROR(StampAll(disk::Mode::kSecondary, epoch));
  usable_ = absl::OkStatus();
  return absl::OkStatus();
}

absl::Status DiskFiles::Reserve(std::span<const DiskWrite> writes) {
  for (const DiskWrite& write : writes) {
    if (write.kind == DiskWrite::Kind::kFlush) continue;
    ROMULUS_ASSIGN_OR_RETURN(Disk * disk, Find(write.disk, write.offset_bytes, write.size_bytes));
    if (write.kind != DiskWrite::Kind::kWrite) {
      ForgetReserved(*disk, write.offset_bytes, write.size_bytes);
      continue;
    }
    const uint64_t last = (write.offset_bytes + write.size_bytes - 1) / kDiskBlockBytes;
    for (uint64_t block = write.offset_bytes / kDiskBlockBytes; block <= last; ++block) {
      absl::MutexLock lock(&reserved_mutex_);
      if (disk->reserved[block]) continue;
      const uint64_t begin = block * kDiskBlockBytes;
      ROMULUS_RETURN_IF_ERROR(disk->copy->file()->Reserve(
          begin, std::min(kDiskBlockBytes, disk->copy->size_bytes() - begin)));
      disk->reserved[block] = true;
    }
  }
  return absl::OkStatus();
}

void DiskFiles::ForgetReserved(Disk& disk, uint64_t offset_bytes, uint64_t size_bytes) {
  if (size_bytes == 0) return;
  absl::MutexLock lock(&reserved_mutex_);
  const uint64_t last = (offset_bytes + size_bytes - 1) / kDiskBlockBytes;
  for (uint64_t block = offset_bytes / kDiskBlockBytes; block <= last; ++block) {
    disk.reserved[block] = false;
  }
}

// An epoch that does not fit beside what is there waits for the other segment.
absl::Status DiskFiles::MakeRoom(uint64_t record_bytes) {
  if (record_bytes > journal_->capacity_bytes() ||
      journal_->open_bytes() + record_bytes <= journal_->capacity_bytes()) {
    return absl::OkStatus();  // or it never fits, and Append() says so
  }
  while (journal_->has_closed()) {
    if (!options_.own_thread) {
      ROMULUS_RETURN_IF_ERROR(health_ = ApplyClosed(kEverything));
      continue;
    }
    changed_.SignalAll();
    changed_.Wait(&mutex_);
    ROMULUS_RETURN_IF_ERROR(health_);
  }
  journal_->CloseOpen();
  return absl::OkStatus();
}

absl::Status DiskFiles::Apply(const EpochKey& epoch) {
  absl::MutexLock lock(&mutex_);
  if (state_ != State::kFollowing || epoch > journaled_) {
    return absl::FailedPreconditionError("that epoch was not journaled");
  }
  committed_ = std::max(committed_, epoch);
  if (options_.own_thread) {
    if (MayApply()) changed_.SignalAll();
  } else {
    while (health_.ok() && MayApply()) health_ = ApplyClosed(kEverything);
    while (health_.ok() && MayCompare()) CompareNext();
  }
  return health_;
}

bool DiskFiles::MayApply() const {
  return journal_->has_closed() && journal_->closed_end() <= committed_;
}

absl::Status DiskFiles::ApplyClosed(const EpochKey& last) {
  if (base::Fires(options_.failpoints, "disk_files.apply")) {
    return absl::DataLossError(absl::StrCat(disks_.front().copy->spec().path, ": failpoint"));
  }
  Target target(*this);
  ROMULUS_RETURN_IF_ERROR(journal_->ApplyClosed(last, target));
  if (options_.durability != Durability::kNever) ROMULUS_RETURN_IF_ERROR(SyncDisks());
  return journal_->FreeClosed();
}

absl::Status DiskFiles::ApplyAll(const EpochKey& last) {
  while (busy_) changed_.Wait(&mutex_);
  while (journal_->has_closed()) ROMULUS_RETURN_IF_ERROR(ApplyClosed(last));
  journal_->CloseOpen();
  while (journal_->has_closed()) ROMULUS_RETURN_IF_ERROR(ApplyClosed(last));
  return absl::OkStatus();
}

void DiskFiles::ThreadMain() {
  ::pthread_setname_np(::pthread_self(), "journal");
  absl::MutexLock lock(&mutex_);
  for (;;) {
    while (!stopping_ && !(health_.ok() && (MayApply() || MayCompare()))) AwaitWork();
    if (stopping_) return;
    if (!MayApply()) {
      CompareNext();
      continue;
    }
    busy_ = true;
    mutex_.Unlock();
    const absl::Status applied = [&] {
      base::WorkMark::Scope at_work(work_);
      return ApplyClosed(kEverything);
    }();
    mutex_.Lock();
    busy_ = false;
    if (!applied.ok()) health_ = applied;
    changed_.SignalAll();
  }
}

absl::Status DiskFiles::SyncDisks() {
  for (const Disk& disk : disks_) ROMULUS_RETURN_IF_ERROR(disk.copy->file()->Sync());
  return absl::OkStatus();
}

absl::Status DiskFiles::StampAll(disk::Mode mode, const EpochKey& key, Term promoted) {
  if (base::Fires(options_.failpoints, "disk_files.stamp")) {
    return absl::ResourceExhaustedError(
        absl::StrCat(disks_.front().copy->stamp_path(), ": failpoint"));
  }
  for (const Disk& disk : disks_) {
    disk::Stamp stamp = disk.copy->stamp();
    const bool is_secondary = mode == disk::Mode::kSecondary;
    stamp.mode = mode;
    stamp.term = key.term;
    stamp.epoch = key.epoch;
    stamp.is_volatile = is_secondary && options_.durability == Durability::kNever;
    stamp.journal_id = is_secondary ? journal_->id() : "";
    stamp.covers_term = std::max(stamp.covers_term, promoted);
    // A replica's content is the other node's: where this copy's own guest came from is over.
    stamp.lineage = promoted == Term() ? Lineage{} : Lineage{key.term, promoted, promoted};
    ROMULUS_RETURN_IF_ERROR(disk.copy->SetStamp(stamp));
  }
  return absl::OkStatus();
}

// --- the end ------------------------------------------------------------------------------------

absl::Status DiskFiles::Promote(const EpochKey& epoch, Term term) {
  {
    absl::MutexLock lock(&mutex_);
    if (over_) return absl::FailedPreconditionError("the disks were handed over before");
    ROMULUS_RETURN_IF_ERROR(usable_);
    if (epoch > journaled_ || epoch < committed_) {
      return absl::FailedPreconditionError(
          absl::StrCat(disks_.front().copy->spec().path, ": is at epoch ", journaled_.epoch.value(),
                       " of term ", journaled_.term.value(), ", not at ", epoch.epoch.value(),
                       " of term ", epoch.term.value()));
    }
    // Whatever failed before is tried again: everything is still in the journal.
    ROMULUS_RETURN_IF_ERROR(ApplyAll(epoch));
    // The guest was told that what it flushed is safe, and the journal goes.
    ROMULUS_RETURN_IF_ERROR(SyncDisks());
    for (Disk& disk : disks_) disk.covered = disk.copy->stamp().covers_term;
    // The old primary may have gone on alone in a term above the epoch's and below this one: what
    // it wrote then, and told, is not in these copies.
    ROMULUS_RETURN_IF_ERROR(
        StampAll(disk::Mode::kPrimarySolo, {term, EpochId(0)}, /*promoted=*/epoch.term));
    // A primary's copy is not looked at with a journal: it may stay if it cannot be removed.
    files_.Remove(journal_->path()).IgnoreError();
    over_ = promoted_ = true;
    state_ = State::kIdle;
  }
  StopThread();
  return absl::OkStatus();
}

absl::Status DiskFiles::TakeBack(const EpochKey& epoch) {
  absl::MutexLock lock(&mutex_);
  if (!promoted_) return absl::FailedPreconditionError("the disks were not handed over");
  // What is on the disks is that epoch, all of it durable: an empty journal goes with it.
  const std::string journal_path = journal_->path();
  journal_.reset();  // its lock
  ROMULUS_ASSIGN_OR_RETURN(std::shared_ptr<disk::File> file, files_.OpenJournal(journal_path));
  journal_ = std::make_unique<DiskJournal>(std::move(file), journal_options_);
  ROMULUS_RETURN_IF_ERROR(journal_->Reset());
  ROMULUS_RETURN_IF_ERROR(StampAll(disk::Mode::kSecondary, epoch));
  for (const Disk& disk : disks_) {
    disk::Stamp stamp = disk.copy->stamp();
    stamp.covers_term = disk.covered;
    ROMULUS_RETURN_IF_ERROR(disk.copy->SetStamp(stamp));
  }
  journaled_ = committed_ = epoch;
  health_ = absl::OkStatus();
  over_ = promoted_ = stopping_ = false;
  StartThread();
  return absl::OkStatus();
}

absl::Status DiskFiles::GiveUp() {
  absl::MutexLock lock(&mutex_);
  return GiveUpLocked();
}

absl::Status DiskFiles::GiveUpLocked() {
  if (over_) return absl::OkStatus();
  const bool was_following = std::exchange(state_, State::kIdle) == State::kFollowing;
  compares_.clear();
  if (!was_following) return absl::OkStatus();
  ROMULUS_RETURN_IF_ERROR(ApplyAll(kEverything));
  return StampAll(disk::Mode::kSecondary, journaled_);
}

absl::Status DiskFiles::Close() {
  {
    absl::MutexLock lock(&mutex_);
    if (over_) return absl::OkStatus();
    ROMULUS_RETURN_IF_ERROR(GiveUpLocked());
    // A clean copy outlives a power loss, whatever the durability: its journal must be empty then.
    ROMULUS_RETURN_IF_ERROR(journal_->Harden());
    for (const Disk& disk : disks_) ROMULUS_RETURN_IF_ERROR(disk.copy->Close());
    over_ = true;
  }
  StopThread();
  return absl::OkStatus();
}

}  // namespace romulus::replica

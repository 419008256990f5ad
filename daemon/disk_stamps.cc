#include "daemon/disk_stamps.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

replica::Durability DurabilityFrom(v1::Checkpoint::DiskDurability durability) {
  switch (durability) {
    case v1::Checkpoint::DISK_DURABILITY_EPOCH:
      return replica::Durability::kEpoch;
    case v1::Checkpoint::DISK_DURABILITY_NEVER:
      return replica::Durability::kNever;
    default:
      return replica::Durability::kFlush;
  }
}

v1::DiskCopyRole RoleOf(disk::Mode mode) {
  switch (mode) {
    case disk::Mode::kPrimarySolo:
    case disk::Mode::kPrimaryProtected:
      return v1::DISK_COPY_ROLE_PRIMARY;
    case disk::Mode::kSecondary:
      return v1::DISK_COPY_ROLE_SECONDARY;
    case disk::Mode::kSyncing:
      return v1::DISK_COPY_ROLE_SYNCING;
    case disk::Mode::kNever:
      break;
  }
  return v1::DISK_COPY_ROLE_UNSPECIFIED;
}

v1::DiskCopyRole RoleOf(replica::CopyRole role) {
  switch (role) {
    case replica::CopyRole::kPrimary:
      return v1::DISK_COPY_ROLE_PRIMARY;
    case replica::CopyRole::kSecondary:
      return v1::DISK_COPY_ROLE_SECONDARY;
    case replica::CopyRole::kSyncing:
      return v1::DISK_COPY_ROLE_SYNCING;
    case replica::CopyRole::kNever:
      break;
  }
  return v1::DISK_COPY_ROLE_UNSPECIFIED;
}

}  // namespace

DiskCopies ReplicatedOf(const DiskCopies& copies) {
  DiskCopies replicated;
  for (const auto& copy : copies) {
    if (!copy->spec().read_only) replicated.push_back(copy);
  }
  return replicated;
}

replica::DiskFilesOptions DiskFilesOptionsFrom(const v1::Checkpoint& checkpoint, size_t disks) {
  replica::DiskFilesOptions options;
  options.durability = DurabilityFrom(checkpoint.disk_durability());
  options.segment_bytes = DiskStagingBytes(checkpoint, disks);
  return options;
}

uint64_t DiskStagingBytes(const v1::Checkpoint& checkpoint, size_t disks) {
  return replica::JournalSegmentBytes(uint64_t{checkpoint.disk_log_mib()} << 20, disks);
}

absl::string_view DiskRoleName(v1::DiskCopyRole role) {
  switch (role) {
    case v1::DISK_COPY_ROLE_PRIMARY:
      return "primary";
    case v1::DISK_COPY_ROLE_SECONDARY:
      return "secondary";
    case v1::DISK_COPY_ROLE_SYNCING:
      return "syncing";
    default:
      return "never";
  }
}

wire::DiskCopy ToWire(const disk::DiskCopy& copy) {
  const disk::Stamp stamp = copy.stamp();
  wire::DiskCopy disk;
  disk.disk = copy.spec().disk;
  disk.name = copy.spec().name;
  disk.path = copy.spec().path;
  disk.size_bytes = copy.size_bytes();
  disk.role = RoleOf(stamp.mode);
  disk.term = stamp.term;
  disk.epoch = stamp.epoch;
  disk.covers_term = stamp.covers_term;
  return disk;
}

wire::DiskCopy ToWire(const replica::DiskFacts& facts) {
  wire::DiskCopy disk;
  disk.disk = facts.disk;
  disk.name = facts.name;
  disk.path = facts.path;
  disk.size_bytes = facts.size_bytes;
  disk.role = RoleOf(facts.role);
  disk.unusable = facts.unusable;
  disk.term = facts.stamp.term;
  disk.epoch = facts.stamp.epoch;
  disk.all_zero = facts.all_zero;
  return disk;
}

absl::Status DiskStamps::MakeBootable(const replica::DiskFilesOptions& options,
                                      disk::Files& files) {
  bool was_secondary = false;
  for (const auto& copy : copies_) {
    const std::string& path = copy->spec().path;
    ROMULUS_RETURN_IF_ERROR(copy->trusted());
    const disk::Mode mode = copy->stamp().mode;
    if (mode == disk::Mode::kSyncing) {
      return absl::FailedPreconditionError(absl::StrCat(
          path,
          ": a full sync was overwriting it and never ended, so it is no whole disk; start "
          "the other node as the primary and this one as the secondary, or put a good image here "
          "and remove ",
          copy->stamp_path()));
    }
    was_secondary |= mode == disk::Mode::kSecondary;
  }
  if (!was_secondary) return absl::OkStatus();
  ROMULUS_ASSIGN_OR_RETURN(auto replica, replica::DiskFiles::Open(copies_, options, files));
  ROMULUS_RETURN_IF_ERROR(replica->usable());
  const Term term = replica->newest().term;
  ROMULUS_RETURN_IF_ERROR(replica->Close());
  // The primary that it followed may have gone on in that same term: its copies of older ones are
  // in this one, those of that term need not be.
  std::lock_guard lock(mutex_);
  covers_ = Term(term.value() == 0 ? 0 : term.value() - 1);
  return absl::OkStatus();
}

Term DiskStamps::newest_term() const {
  Term newest;
  for (const auto& copy : copies_) {
    const disk::Stamp stamp = copy->stamp();
    newest = std::max({newest, stamp.term, stamp.covers_term});
  }
  return newest;
}

Lineage DiskStamps::lineage() const {
  std::lock_guard lock(mutex_);
  if (lineage_) return *lineage_;
  std::optional<Lineage> all;
  Term shared;
  for (const auto& copy : copies_) {
    const disk::Stamp stamp = copy->stamp();
    if (stamp.mode == disk::Mode::kNever) continue;  // new in the configuration
    shared = std::max(shared, stamp.lineage.shared);
    if (stamp.mode == disk::Mode::kSecondary) shared = std::max(shared, stamp.term);
    Lineage promotion = stamp.lineage;
    promotion.shared = Term();
    // A promotion that did not get to all of them was none.
    all = !all || *all == promotion ? promotion : Lineage{};
  }
  Lineage lineage = all.value_or(Lineage{});
  lineage.shared = shared;
  return lineage;
}

bool DiskStamps::may_be_superseded() const {
  return std::any_of(copies_.begin(), copies_.end(), [](const auto& copy) {
    return copy->stamp().mode == disk::Mode::kPrimaryProtected;
  });
}

void DiskStamps::SetLineage(const Lineage& lineage) {
  std::lock_guard lock(mutex_);
  lineage_ = lineage;
}

absl::Status DiskStamps::RecordHeld() {
  std::lock_guard lock(mutex_);
  for (const auto& copy : copies_) {
    const disk::Stamp now = copy->stamp();
    // SetStamp() says that it is in use.
    if (now.mode != disk::Mode::kNever && now.is_clean)
      ROMULUS_RETURN_IF_ERROR(copy->SetStamp(now));
  }
  return absl::OkStatus();
}

absl::Status DiskStamps::Record(Term term, bool is_protected, std::optional<Term> covers) {
  std::lock_guard lock(mutex_);
  if (term < recorded_) return absl::OkStatus();
  // A term in which a secondary may hold an epoch ends before the guest is solo again.
  is_protected |= term == recorded_ && recorded_protected_;
  for (const auto& copy : copies_) {
    const disk::Stamp now = copy->stamp();
    disk::Stamp wanted = now;
    wanted.mode = is_protected ? disk::Mode::kPrimaryProtected : disk::Mode::kPrimarySolo;
    wanted.term = term;
    wanted.epoch = EpochId();
    wanted.is_volatile = false;
    wanted.journal_id.clear();
    if (covers_ && now.mode == disk::Mode::kSecondary) wanted.covers_term = *covers_;
    if (lineage_) wanted.lineage = *lineage_;
    if (covers) wanted.covers_term = std::max(wanted.covers_term, *covers);
    const bool equal = now.mode == wanted.mode && now.term == wanted.term &&
                       now.covers_term == wanted.covers_term && now.lineage == wanted.lineage &&
                       !now.is_clean;
    if (!equal) ROMULUS_RETURN_IF_ERROR(copy->SetStamp(wanted));
  }
  recorded_ = term;
  recorded_protected_ = is_protected;
  return absl::OkStatus();
}

std::vector<wire::DiskCopy> DiskStamps::ForHello() const {
  std::vector<wire::DiskCopy> disks;
  for (const auto& copy : copies_) disks.push_back(ToWire(*copy));
  return disks;
}

absl::Status DiskStamps::Close() {
  absl::Status closed;
  for (const auto& copy : copies_) closed.Update(copy->Close());
  return closed;
}

}  // namespace romulus::daemon

#include "disk/copy.h"

#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::disk {
namespace {

std::string Beside(const CopySpec& spec, absl::string_view suffix) {
  if (spec.state_dir.empty()) return absl::StrCat(spec.path, suffix);
  const std::filesystem::path name = std::filesystem::path(spec.path).filename();
  return (std::filesystem::path(spec.state_dir) / name).string() + std::string(suffix);
}

std::string Named(const CopySpec& spec) {
  return absl::StrCat("disk \"", spec.name, "\" (", spec.path, ")");
}

// What makes the stamp that of another disk than the one that was opened.
absl::Status CheckIdentity(const CopySpec& spec, const Stamp& stamp, uint64_t size_bytes,
                           const FileIdentity& identity, const std::string& stamp_path) {
  const auto refuse = [&](absl::string_view what) {
    return absl::FailedPreconditionError(absl::StrCat(spec.path, ": ", what));
  };
  if (stamp.vm_uuid != spec.vm_uuid) {
    return refuse(absl::StrCat(stamp_path, " says that it is a disk of the VM ", stamp.vm_uuid,
                               ", not of ", spec.vm_uuid,
                               "; correct the path, or remove that file to give the disk away"));
  }
  if (stamp.disk_name != spec.name) {
    return refuse(absl::StrCat(stamp_path, " says that it is the disk \"", stamp.disk_name,
                               "\", not \"", spec.name,
                               "\"; correct the path or the name, or remove that file"));
  }
  if (stamp.size_bytes != size_bytes) {
    return refuse(absl::StrCat("has ", size_bytes, " bytes, and had ", stamp.size_bytes,
                               " according to ", stamp_path,
                               "; give it its size back, or remove that file if it was resized on "
                               "purpose (on both nodes)"));
  }
  if (identity.is_block_device || stamp.inode == 0) return absl::OkStatus();
  if (stamp.inode != identity.inode) {
    return refuse(absl::StrCat("is another file than the one that ", stamp_path,
                               " is about; put that one back, or remove ", stamp_path,
                               " if this one shall be used from now on"));
  }
  if (stamp.is_clean && stamp.mtime_ns != identity.mtime_ns) {
    return refuse(absl::StrCat("was written to by somebody else since romulusd closed it; remove ",
                               stamp_path, " if this is how the guest shall see it from now on"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string StampPath(const CopySpec& spec) { return Beside(spec, ".romulus"); }
std::string JournalPath(const CopySpec& spec) { return Beside(spec, ".journal"); }

absl::StatusOr<Stamp> ReadStamp(const CopySpec& spec, Files& files) {
  const std::string path = StampPath(spec);
  const auto refuse = [&](const absl::Status& why, absl::string_view of_path) {
    absl::string_view remedy = "; if you know that the disk is good, remove the side file";
    if (absl::IsUnimplemented(why)) {
      remedy = "; use that romulusd, or remove the side file if the disk shall begin anew";
    }
    // Nothing is wrong with a file that may only not be read, and the error has its remedy.
    if (absl::IsPermissionDenied(why)) remedy = "";
    return absl::Status(
        why.code(), absl::StrCat(Named(spec), ", its side file ", of_path, why.message(), remedy));
  };
  const absl::StatusOr<std::optional<std::string>> text = files.ReadText(path, kMaxStampBytes);
  if (!text.ok()) return refuse(text.status(), "");
  if (!*text) return Stamp();
  absl::StatusOr<Stamp> stamp = ParseStamp(**text);
  if (!stamp.ok()) return refuse(stamp.status(), absl::StrCat(path, ": "));
  return stamp;
}

Inspection Inspect(const CopySpec& spec, Files& files) {
  // Whoever begins to use the disk between the two looks takes the word "clean" back: then what was
  // seen does not belong together. It is looked at again, as often as anybody does that in earnest.
  constexpr int kLooks = 3;
  Inspection found;
  for (int i = 0; i < kLooks; ++i) {
    const absl::StatusOr<Stamp> stamp = ReadStamp(spec, files);
    if (!stamp.ok()) return {Stamp(), stamp.status()};
    if (i > 0 && FormatStamp(*stamp) == FormatStamp(found.stamp)) return found;
    found = {*stamp, absl::OkStatus()};
    const absl::StatusOr<DiskLook> disk = files.LookAtDisk(spec.path);
    if (!disk.ok()) {
      found.status = disk.status();
    } else if (stamp->mode != Mode::kNever) {
      found.status = CheckIdentity(spec, *stamp, disk->size_bytes, disk->identity, StampPath(spec));
    }
    if (found.status.ok()) return found;
  }
  return found;
}

DiskCopy::DiskCopy(const CopySpec& spec, Files& files, std::shared_ptr<File> file)
    : spec_(spec),
      files_(files),
      file_(std::move(file)),
      stamp_path_(StampPath(spec)),
      journal_path_(JournalPath(spec)) {}

absl::StatusOr<std::unique_ptr<DiskCopy>> DiskCopy::Open(const CopySpec& spec, Files& files) {
  ROMULUS_ASSIGN_OR_RETURN(std::shared_ptr<File> file, files.OpenDisk(spec.path, spec.read_only));
  std::unique_ptr<DiskCopy> copy(new DiskCopy(spec, files, std::move(file)));
  if (spec.read_only) return copy;
  ROMULUS_ASSIGN_OR_RETURN(const FileIdentity identity, copy->file_->Identify());
  if (identity.is_block_device && spec.state_dir.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        spec.path, ": is a block device, whose folder is no place for files; set `state_dir`"));
  }
  ROMULUS_ASSIGN_OR_RETURN(const Stamp stamp, ReadStamp(spec, files));
  absl::MutexLock lock(&copy->mutex_);
  copy->stamp_ = stamp;
  if (stamp.mode == Mode::kNever) return copy;
  ROMULUS_RETURN_IF_ERROR(
      CheckIdentity(spec, stamp, copy->size_bytes(), identity, copy->stamp_path_));
  if (stamp.is_volatile && !stamp.is_clean &&
      (stamp.boot_id.empty() || stamp.boot_id != files.boot_id())) {
    copy->trusted_ = absl::DataLossError(
        absl::StrCat(spec.path,
                     ": this host was restarted, and with DISK_DURABILITY_NEVER nobody "
                     "knows what of the disk survived; it has to be copied again"));
  }
  return copy;
}

Stamp DiskCopy::stamp() const {
  absl::MutexLock lock(&mutex_);
  return stamp_;
}

absl::Status DiskCopy::trusted() const {
  absl::MutexLock lock(&mutex_);
  return trusted_;
}

absl::Status DiskCopy::SetStamp(const Stamp& wanted) {
  if (spec_.read_only) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  return WriteLocked(wanted, /*is_clean=*/false);
}

absl::Status DiskCopy::Close() {
  if (spec_.read_only) return absl::OkStatus();
  absl::MutexLock lock(&mutex_);
  if (stamp_.mode == Mode::kNever || stamp_.mode == Mode::kSyncing || !trusted_.ok()) {
    return absl::OkStatus();  // there is nothing to be sure of
  }
  return WriteLocked(stamp_, /*is_clean=*/true);
}

absl::Status DiskCopy::WriteLocked(const Stamp& wanted, bool is_clean) {
  // Only a clean stamp says what the file looks like: looking means a sync of the whole file.
  if (is_clean || stamp_.inode == 0) {
    ROMULUS_ASSIGN_OR_RETURN(const FileIdentity identity, file_->Identify());
    stamp_.inode = identity.inode;
    stamp_.mtime_ns = identity.mtime_ns;
  }
  Stamp stamp = wanted;
  stamp.vm_uuid = spec_.vm_uuid;
  stamp.node = spec_.node;
  stamp.disk_name = spec_.name;
  stamp.size_bytes = size_bytes();
  stamp.is_clean = is_clean;
  stamp.inode = stamp_.inode;
  stamp.mtime_ns = is_clean ? stamp_.mtime_ns : 0;
  stamp.boot_id = files_.boot_id();
  if (const absl::Status written = files_.Replace(stamp_path_, FormatStamp(stamp)); !written.ok()) {
    return absl::Status(written.code(),
                        absl::StrCat(Named(spec_), ", its side file ", written.message(),
                                     absl::IsPermissionDenied(written)
                                         ? ", or set `state_dir` to a folder that may be written"
                                         : ""));
  }
  stamp_ = std::move(stamp);
  trusted_ = absl::OkStatus();
  return absl::OkStatus();
}

}  // namespace romulus::disk

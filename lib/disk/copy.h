// One node's copy of one of the guest's disks: its file, and beside it the stamp that says whose
// copy it is and how old. Opening a copy compares the two, and refuses on doubt: nothing is
// overwritten before somebody who knows has said so.
//
// The stamp follows what the node does: whoever begins to use the copy in another way stamps it
// first. Any thread.
#ifndef ROMULUS_DISK_COPY_H_
#define ROMULUS_DISK_COPY_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "disk/file.h"
#include "disk/stamp.h"

namespace romulus::disk {

struct CopySpec {
  std::string vm_uuid;
  std::string node;
  uint32_t disk = 0;  // index in the configuration
  std::string name;
  std::string path;
  std::string state_dir;  // of stamp and journal; empty: the folder of `path`
  bool read_only = false;
};

// Where the side files are, and what the stamp says (Mode::kNever: there is none), without opening
// the disk, which may be in use. Errors name the disk, the file and the remedy.
std::string StampPath(const CopySpec& spec);
std::string JournalPath(const CopySpec& spec);
absl::StatusOr<Stamp> ReadStamp(const CopySpec& spec, Files& files);

// What Open() would find, also while another process has the disk: `status` is what it would be
// refused for, apart from that; `stamp` is Mode::kNever where it could not be read.
struct Inspection {
  Stamp stamp;
  absl::Status status;
};
Inspection Inspect(const CopySpec& spec, Files& files);

class DiskCopy {
 public:
  // Opens and locks the file and reads its stamp. A disk that was never stamped has Mode::kNever.
  // Errors: those of Files::OpenDisk; of ParseStamp; FailedPrecondition for a stamp of another VM
  // or disk, of another size, or of a file that was exchanged or written to since it was closed.
  static absl::StatusOr<std::unique_ptr<DiskCopy>> Open(const CopySpec& spec, Files& files);

  const CopySpec& spec() const { return spec_; }
  const std::shared_ptr<File>& file() const { return file_; }
  uint64_t size_bytes() const { return file_->size_bytes(); }
  const std::string& stamp_path() const { return stamp_path_; }
  const std::string& journal_path() const { return journal_path_; }

  // What the side file says.
  Stamp stamp() const;
  // Not OK: content and stamp need not belong together, because the host was restarted while
  // nothing of the copy was kept safe from that (DISK_DURABILITY_NEVER).
  absl::Status trusted() const;

  // Writes the side file, durably. Of `wanted`: mode, term, epoch, covers_term, lineage,
  // is_volatile and journal_id; the rest is filled in. Begin with stamp() to change only some of
  // them. Nothing is done for a read-only disk. Errors: those of Files::Replace; the old stamp
  // holds then.
  absl::Status SetStamp(const Stamp& wanted);
  // This process writes to the disk no more. Syncs it and stamps it clean, with what the file looks
  // like, so that a change behind our back is found. Any later SetStamp() takes that back.
  absl::Status Close();

 private:
  DiskCopy(const CopySpec& spec, Files& files, std::shared_ptr<File> file);
  absl::Status WriteLocked(const Stamp& wanted, bool is_clean)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const CopySpec spec_;
  Files& files_;
  const std::shared_ptr<File> file_;
  const std::string stamp_path_;
  const std::string journal_path_;
  mutable absl::Mutex mutex_;
  Stamp stamp_ ABSL_GUARDED_BY(mutex_);
  absl::Status trusted_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace romulus::disk

#endif  // ROMULUS_DISK_COPY_H_

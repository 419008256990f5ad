// Files that know what is being waited for: a disk that hangs, hangs whoever uses it, and cannot be
// let go without losing what it was to hold; so it must at least be seen, and by name.
//
// Hands every call on. Any thread; oldest() never waits for a disk. Outlives the files that it
// opened; so do `files` and `clock` it.
#ifndef ROMULUS_DISK_WATCHED_FILES_H_
#define ROMULUS_DISK_WATCHED_FILES_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "disk/file.h"

namespace romulus::disk {

// One operation under way.
struct DiskWait {
  std::string path;
  absl::string_view what;  // "read", "sync", ...
  uint64_t since_ns = 0;   // of the clock
};

class WatchedFiles final : public Files {
 public:
  WatchedFiles(Files& files, const base::Clock& clock) : files_(files), clock_(clock) {}

  // Of the operations under way the one that was begun first.
  std::optional<DiskWait> oldest() const;

  absl::StatusOr<std::shared_ptr<File>> OpenDisk(const std::string& path, bool read_only) override;
  absl::StatusOr<DiskLook> LookAtDisk(const std::string& path) override {
    return files_.LookAtDisk(path);
  }
  absl::StatusOr<std::shared_ptr<File>> OpenJournal(const std::string& path) override;
  absl::StatusOr<std::optional<std::string>> ReadText(const std::string& path,
                                                      uint64_t max_bytes) override;
  absl::Status Replace(const std::string& path, absl::string_view text) override;
  absl::Status Remove(const std::string& path) override;
  std::string boot_id() override { return files_.boot_id(); }

 private:
  class Operation;
  class WatchedFile;

  Files& files_;
  const base::Clock& clock_;
  mutable absl::Mutex mutex_;
  // Those under way, by age, from the oldest on; each lives on its thread's stack.
  Operation* first_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Operation* last_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace romulus::disk

#endif  // ROMULUS_DISK_WATCHED_FILES_H_

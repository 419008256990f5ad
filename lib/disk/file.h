// A file that holds a disk, or what belongs to one, and the folder operations beside it: the only
// door of this project to a disk's bytes. Behind an interface so that a test can lose power: what
// was not made durable by Sync() or Replace() may be gone, in part, in any order.
//
// Files and File: any thread, several at once; who overlaps reads and writes orders them. A File is
// shared by those who work on the same disk (the guest's device, the full sync, the replica),
// because its lock is the open file's: nobody can open it twice, in this process or another.
#ifndef ROMULUS_DISK_FILE_H_
#define ROMULUS_DISK_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace romulus::disk {

struct Extent {
  uint64_t offset_bytes = 0;
  uint64_t size_bytes = 0;  // 0: there is none
  friend bool operator==(const Extent&, const Extent&) = default;
};

// What tells whether a file was exchanged or written to by somebody else. A block device has none.
struct FileIdentity {
  uint64_t inode = 0;
  int64_t mtime_ns = 0;
  bool is_block_device = false;
};

// What a disk is found to be.
struct DiskLook {
  uint64_t size_bytes = 0;
  FileIdentity identity;
};

// Errors name the file. ResourceExhausted: no space (or a quota, or a size limit); DataLoss: the
// device could not read or write; else as errno says.
class File {
 public:
  virtual ~File() = default;
  virtual const std::string& path() const = 0;
  virtual uint64_t size_bytes() const = 0;  // a disk's is constant
  virtual bool read_only() const = 0;

  // All of `bytes` or an error; OutOfRange: the file ends before.
  virtual absl::Status Read(uint64_t offset_bytes, std::span<std::byte> bytes) = 0;
  // After an error any part may have been written.
  virtual absl::Status Write(uint64_t offset_bytes, std::span<const std::byte> bytes) = 0;
  // The range reads as zeros afterwards. `unmap`: and its blocks go back to the file system, where
  // that can be done.
  virtual absl::Status Zero(uint64_t offset_bytes, uint64_t size_bytes, bool unmap) = 0;
  // Finds the space for the range now, so that Write() does not lack it later; what it reads as
  // does not change. OK where a file system cannot promise that.
  virtual absl::Status Reserve(uint64_t offset_bytes, uint64_t size_bytes) = 0;
  // What was written before this call survives a power loss. After an error nothing may be believed
  // of what was written since the last success: the kernel forgets what it could not write.
  virtual absl::Status Sync() = 0;
  // The first range at or after `offset_bytes` that is not known to be a hole: holes read as zeros.
  virtual absl::StatusOr<Extent> NextData(uint64_t offset_bytes) = 0;
  // As it is after everything, times too, has been made durable.
  virtual absl::StatusOr<FileIdentity> Identify() = 0;
};

class Files {
 public:
  virtual ~Files() = default;
  // Opens a disk, which must exist, and locks it: for others too if it is not read-only. Errors say
  // what is wrong and what to do: missing, a folder, no permission, empty, not whole sectors, in
  // use.
  virtual absl::StatusOr<std::shared_ptr<File>> OpenDisk(const std::string& path,
                                                         bool read_only) = 0;
  // The same look without the lock, and without making anything durable: for a disk that may be in
  // use. Errors as above.
  virtual absl::StatusOr<DiskLook> LookAtDisk(const std::string& path) = 0;
  // Opens or creates a file of any size, which grows when it is written to, and locks it. Its name
  // is durable.
  virtual absl::StatusOr<std::shared_ptr<File>> OpenJournal(const std::string& path) = 0;
  // The whole text of a small file; nothing if there is no such file. Errors: OutOfRange if it is
  // larger than `max_bytes`.
  virtual absl::StatusOr<std::optional<std::string>> ReadText(const std::string& path,
                                                              uint64_t max_bytes) = 0;
  // Makes `text` the content of the file, durably, all or nothing.
  virtual absl::Status Replace(const std::string& path, absl::string_view text) = 0;
  // OK if there is no such file. Not durable before the folder's next change is.
  virtual absl::Status Remove(const std::string& path) = 0;
  // Another one after each start of this host; empty if that cannot be known.
  virtual std::string boot_id() = 0;
};

// The real one. A process has one; it has no state.
Files& PosixFiles();

}  // namespace romulus::disk

#endif  // ROMULUS_DISK_FILE_H_

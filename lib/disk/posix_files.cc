// Files on the host. fallocate(2) works on block devices too, where punched ranges read as zeros.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "devices/virtio/block_backend.h"
#include "disk/file.h"

namespace romulus::disk {
namespace {

constexpr size_t kZerosBytes = 1u << 20;

template <typename Call>
auto Retry(const Call& call) {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

absl::Status FileError(int error_number, absl::string_view what, const std::string& path) {
  const std::string message =
      absl::StrCat(path, ": cannot ", what, ": ", std::strerror(error_number));
  switch (error_number) {
    case ENOSPC:
    case EDQUOT:
      return absl::ResourceExhaustedError(absl::StrCat(message, "; make room there"));
    case EFBIG:
      return absl::ResourceExhaustedError(absl::StrCat(message, "; raise the limit of file sizes"));
    case EIO:
      return absl::DataLossError(absl::StrCat(message, "; see the host's log of its devices"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(message, "; give the daemon's user the permission"));
    case EROFS:
      return absl::PermissionDeniedError(absl::StrCat(message, "; mount it for writing"));
    default:
      return absl::Status(absl::ErrnoToStatusCode(error_number), message);
  }
}

bool Unsupported(int error_number) {
  return error_number == EOPNOTSUPP || error_number == ENOSYS || error_number == ENODEV ||
         error_number == EINVAL;
}

absl::StatusOr<FileIdentity> IdentityOf(int fd, const std::string& path) {
  struct stat facts;
  if (::fstat(fd, &facts) != 0) return FileError(errno, "look at it", path);
  FileIdentity identity;
  identity.is_block_device = S_ISBLK(facts.st_mode);
  if (identity.is_block_device) return identity;
  identity.inode = facts.st_ino;
  identity.mtime_ns = facts.st_mtim.tv_sec * int64_t{1'000'000'000} + facts.st_mtim.tv_nsec;
  return identity;
}

class PosixFile final : public File {
 public:
  PosixFile(base::UniqueFd fd, std::string path, bool read_only, std::optional<uint64_t> disk_size)
      : fd_(std::move(fd)), path_(std::move(path)), read_only_(read_only), disk_size_(disk_size) {}

  const std::string& path() const override { return path_; }
  bool read_only() const override { return read_only_; }
  uint64_t size_bytes() const override {
    if (disk_size_) return *disk_size_;
    struct stat facts;
    return ::fstat(fd_.get(), &facts) == 0 ? static_cast<uint64_t>(facts.st_size) : 0;
  }

  absl::Status Read(uint64_t offset, std::span<std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t got = Retry([&] {
        return ::pread(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      });
      if (got < 0) return FileError(errno, absl::StrCat("read at ", offset), path_);
      if (got == 0) return absl::OutOfRangeError(absl::StrCat(path_, ": ends at byte ", offset));
      bytes = bytes.subspan(static_cast<size_t>(got));
      offset += static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

  absl::Status Write(uint64_t offset, std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t put = Retry([&] {
        return ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      });
      if (put < 0) return FileError(errno, absl::StrCat("write at ", offset), path_);
      if (put == 0) return FileError(ENOSPC, absl::StrCat("write at ", offset), path_);
      bytes = bytes.subspan(static_cast<size_t>(put));
      offset += static_cast<uint64_t>(put);
    }
    return absl::OkStatus();
  }

  absl::Status Zero(uint64_t offset, uint64_t size, bool unmap) override {
    if (unmap && can_punch_) {
      if (Allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size)) {
        return absl::OkStatus();
      }
      if (!Unsupported(errno)) return FileError(errno, absl::StrCat("discard at ", offset), path_);
      can_punch_ = false;
    }
    if (can_zero_) {
      if (Allocate(FALLOC_FL_ZERO_RANGE, offset, size)) return absl::OkStatus();
      if (!Unsupported(errno)) return FileError(errno, absl::StrCat("zero at ", offset), path_);
      can_zero_ = false;
    }
    static const std::vector<std::byte> kZeros(kZerosBytes);
    while (size > 0) {
      const uint64_t part = std::min<uint64_t>(size, kZerosBytes);
      ROMULUS_RETURN_IF_ERROR(Write(offset, std::span(kZeros).first(part)));
      offset += part;
      size -= part;
    }
    return absl::OkStatus();
  }

  absl::Status Reserve(uint64_t offset, uint64_t size) override {
    if (!can_reserve_ || Allocate(0, offset, size)) return absl::OkStatus();
    if (!Unsupported(errno)) return FileError(errno, absl::StrCat("reserve at ", offset), path_);
    can_reserve_ = false;
    return absl::OkStatus();
  }

  absl::Status Sync() override {
    if (Retry([&] { return ::fdatasync(fd_.get()); }) == 0) return absl::OkStatus();
    return FileError(errno, "sync", path_);
  }

  absl::StatusOr<Extent> NextData(uint64_t offset) override {
    const uint64_t end = size_bytes();
    if (offset >= end) return Extent{end, 0};
    const off_t data = ::lseek(fd_.get(), static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return Extent{end, 0};
    if (data < 0 && Unsupported(errno)) return Extent{offset, end - offset};
    if (data < 0) return FileError(errno, absl::StrCat("look for data at ", offset), path_);
    const off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
    // It may have become a hole in between.
    const uint64_t stop = hole < data ? end : std::min(end, static_cast<uint64_t>(hole));
    const uint64_t start = std::min(end, static_cast<uint64_t>(data));
    return Extent{start, stop - start};
  }

  absl::StatusOr<FileIdentity> Identify() override {
    if (!read_only_ && Retry([&] { return ::fsync(fd_.get()); }) != 0) {
      return FileError(errno, "sync", path_);
    }
    return IdentityOf(fd_.get(), path_);
  }

 private:
  bool Allocate(int mode, uint64_t offset, uint64_t size) {
    return Retry([&] {
             return ::fallocate(fd_.get(), mode, static_cast<off_t>(offset),
                                static_cast<off_t>(size));
           }) == 0;
  }

  const base::UniqueFd fd_;
  const std::string path_;
  const bool read_only_;
  const std::optional<uint64_t> disk_size_;
  std::atomic<bool> can_punch_{true};
  std::atomic<bool> can_zero_{true};
  std::atomic<bool> can_reserve_{true};
};

// The lock of an open file description (fcntl(2)): gone with the process, whatever it dies of.
absl::Status Lock(int fd, bool read_only, const std::string& path) {
  struct flock lock = {};
  lock.l_type = read_only ? F_RDLCK : F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (Retry([&] { return ::fcntl(fd, F_OFD_SETLK, &lock); }) == 0) return absl::OkStatus();
  if (errno == EAGAIN || errno == EACCES) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": is in use by another process; stop that one (`fuser -v ", path, "` names it)"));
  }
  return FileError(errno, "lock it", path);
}

absl::Status OpenError(int error_number, bool read_only, const std::string& path) {
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(absl::StrCat(
          path, ": there is no such disk; correct the path, or make one (truncate -s SIZE FILE)"));
    case EISDIR:
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": is a folder; a disk is a raw image or a block device"));
    case EACCES:
    case EPERM:
    case EROFS:
    case ETXTBSY:
      return absl::PermissionDeniedError(absl::StrCat(
          path, ": may not be ", read_only ? "read" : "written", ": ", std::strerror(error_number),
          read_only ? "; give the daemon's user the permission"
                    : "; give the daemon's user the permission, or set `read_only: true`"));
    default:
      return FileError(error_number, "open it", path);
  }
}

struct OpenedDisk {
  base::UniqueFd fd;
  uint64_t size_bytes = 0;
};

absl::StatusOr<OpenedDisk> OpenUnlocked(const std::string& path, bool read_only) {
  // O_NONBLOCK: a FIFO must not make us wait before it is refused.
  base::UniqueFd fd(
      ::open(path.c_str(), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd.valid()) return OpenError(errno, read_only, path);
  struct stat facts;
  if (::fstat(fd.get(), &facts) != 0) return FileError(errno, "look at it", path);
  if (S_ISDIR(facts.st_mode)) return OpenError(EISDIR, read_only, path);
  if (!S_ISREG(facts.st_mode) && !S_ISBLK(facts.st_mode)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is neither a file nor a block device; correct the path"));
  }
  const off_t size = ::lseek(fd.get(), 0, SEEK_END);
  if (size < 0) return FileError(errno, "find its size", path);
  if (size == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is empty; give it a size (truncate -s SIZE FILE)"));
  }
  if (static_cast<uint64_t>(size) % devices::kSectorBytes != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        path, ": has ", size, " bytes, which are not whole sectors of 512; is it a raw image?"));
  }
  return OpenedDisk{std::move(fd), static_cast<uint64_t>(size)};
}

absl::Status SyncFolderOf(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const std::string folder = parent.empty() ? "." : parent.string();
  const base::UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return FileError(errno, "open it", folder);
  // Some file systems know no fsync of a folder.
  if (Retry([&] { return ::fsync(fd.get()); }) != 0 && errno != EINVAL) {
    return FileError(errno, "sync", folder);
  }
  return absl::OkStatus();
}

class RealFiles final : public Files {
 public:
  absl::StatusOr<std::shared_ptr<File>> OpenDisk(const std::string& path, bool read_only) override {
    ROMULUS_ASSIGN_OR_RETURN(OpenedDisk disk, OpenUnlocked(path, read_only));
    ROMULUS_RETURN_IF_ERROR(Lock(disk.fd.get(), read_only, path));
    return std::make_shared<PosixFile>(std::move(disk.fd), path, read_only, disk.size_bytes);
  }

  absl::StatusOr<DiskLook> LookAtDisk(const std::string& path) override {
    ROMULUS_ASSIGN_OR_RETURN(const OpenedDisk disk, OpenUnlocked(path, /*read_only=*/true));
    ROMULUS_ASSIGN_OR_RETURN(const FileIdentity identity, IdentityOf(disk.fd.get(), path));
    return DiskLook{disk.size_bytes, identity};
  }

  absl::StatusOr<std::shared_ptr<File>> OpenJournal(const std::string& path) override {
    base::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0600));
    if (!fd.valid()) return FileError(errno, "open or make it", path);
    struct stat facts;
    if (::fstat(fd.get(), &facts) != 0) return FileError(errno, "look at it", path);
    if (!S_ISREG(facts.st_mode)) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": is not a file; remove it"));
    }
    ROMULUS_RETURN_IF_ERROR(Lock(fd.get(), /*read_only=*/false, path));
    ROMULUS_RETURN_IF_ERROR(SyncFolderOf(path));
    return std::make_shared<PosixFile>(std::move(fd), path, /*read_only=*/false, std::nullopt);
  }

  absl::StatusOr<std::optional<std::string>> ReadText(const std::string& path,
                                                      uint64_t max_bytes) override {
    const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd.valid() && errno == ENOENT) return std::nullopt;
    if (!fd.valid()) return FileError(errno, "open it", path);
    std::string text(max_bytes + 1, '\0');
    size_t size = 0;
    for (;;) {
      const ssize_t got =
          Retry([&] { return ::read(fd.get(), text.data() + size, text.size() - size); });
      if (got < 0) return FileError(errno, "read it", path);
      size += static_cast<size_t>(got);
      if (size > max_bytes) {
        return absl::OutOfRangeError(absl::StrCat(path, ": is larger than ", max_bytes, " bytes"));
      }
      if (got == 0) break;
    }
    text.resize(size);
    return text;
  }

  absl::Status Replace(const std::string& path, absl::string_view text) override {
    const std::string temporary = absl::StrCat(path, ".tmp");
    base::UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    if (!fd.valid()) return FileError(errno, "make it", temporary);
    for (absl::string_view left = text; !left.empty();) {
      const ssize_t put = Retry([&] { return ::write(fd.get(), left.data(), left.size()); });
      if (put <= 0) return FileError(put < 0 ? errno : ENOSPC, "write it", temporary);
      left.remove_prefix(static_cast<size_t>(put));
    }
    if (Retry([&] { return ::fsync(fd.get()); }) != 0) return FileError(errno, "sync", temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      return FileError(errno, "put the new version there", path);
    }
    return SyncFolderOf(path);
  }

  absl::Status Remove(const std::string& path) override {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return absl::OkStatus();
    return FileError(errno, "remove it", path);
  }

  std::string boot_id() override {
    const auto text = ReadText("/proc/sys/kernel/random/boot_id", 64);
    if (!text.ok() || !text->has_value()) return "";
    return std::string(absl::StripSuffix(**text, "\n"));
  }
};

}  // namespace

Files& PosixFiles() {
  static RealFiles files;
  return files;
}

}  // namespace romulus::disk

#include "daemon/event_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status.h"

namespace romulus::daemon {
namespace {

// A link or a pipe in the journal's place is no journal, and must neither be followed nor waited
// for.
constexpr int kFlags = O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;

absl::StatusOr<uint64_t> SizeOf(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return base::ErrnoStatus(errno, path);
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is no regular file"));
  }
  return static_cast<uint64_t>(info.st_size);
}

// The last `max_bytes` of it; without what is left of a line that begins before.
absl::StatusOr<std::string> ReadEnd(int fd, uint64_t size, uint64_t max_bytes,
                                    const std::string& path) {
  const uint64_t length = std::min(size, max_bytes);
  std::string text(length, '\0');
  uint64_t done = 0;
  while (done < length) {
    const ssize_t got =
        ::pread(fd, text.data() + done, length - done, static_cast<off_t>(size - length + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, path);
    if (got == 0) break;
    done += static_cast<uint64_t>(got);
  }
  text.resize(done);
  if (length < size) text.erase(0, text.find('\n') == std::string::npos ? done : text.find('\n'));
  return text;
}

void AddLines(const std::string& text, std::vector<std::string>* lines) {
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    lines->emplace_back(line);
  }
}

absl::Status ReadOld(const std::string& path, uint64_t max_bytes, std::vector<std::string>* lines) {
  const base::UniqueFd fd(::open(path.c_str(), O_RDONLY | kFlags));
  if (!fd.valid()) return errno == ENOENT ? absl::OkStatus() : base::ErrnoStatus(errno, path);
  ROMULUS_ASSIGN_OR_RETURN(const uint64_t size, SizeOf(fd.get(), path));
  ROMULUS_ASSIGN_OR_RETURN(const std::string text, ReadEnd(fd.get(), size, max_bytes, path));
  AddLines(text, lines);
  return absl::OkStatus();
}

void SyncFolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  const base::UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) ::fsync(fd.get());  // without it a rotation may be forgotten, and nothing else
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventFile>> EventFile::Open(const std::string& path,
                                                           uint64_t max_bytes,
                                                           std::vector<std::string>* lines) {
  std::unique_ptr<EventFile> file(new EventFile(path, max_bytes));
  ROMULUS_RETURN_IF_ERROR(file->OpenCurrent());
  ROMULUS_RETURN_IF_ERROR(ReadOld(absl::StrCat(path, ".1"), max_bytes, lines));
  ROMULUS_ASSIGN_OR_RETURN(const std::string text,
                           ReadEnd(file->fd_.get(), file->size_bytes_, max_bytes, path));
  file->torn_ = file->size_bytes_ != 0 && (text.empty() || text.back() != '\n');
  AddLines(text, lines);
  return file;
}

absl::Status EventFile::OpenCurrent() {
  fd_.Reset(::open(path_.c_str(), O_RDWR | O_APPEND | O_CREAT | kFlags, 0600));
  if (!fd_.valid()) return base::ErrnoStatus(errno, path_);
  absl::StatusOr<uint64_t> size = SizeOf(fd_.get(), path_);
  if (size.ok() && ::flock(fd_.get(), LOCK_EX | LOCK_NB) != 0) {
    size = absl::FailedPreconditionError(absl::StrCat(path_, ": another process has it"));
  }
  if (!size.ok()) {
    fd_.Reset();
    return size.status();
  }
  size_bytes_ = *size;
  torn_ = false;
  return absl::OkStatus();
}

absl::Status EventFile::Rotate() {
  if (::rename(path_.c_str(), absl::StrCat(path_, ".1").c_str()) != 0) {
    return base::ErrnoStatus(errno, path_);
  }
  ROMULUS_RETURN_IF_ERROR(OpenCurrent());
  SyncFolderOf(path_);
  return absl::OkStatus();
}

absl::Status EventFile::Append(const std::string& lines) {
  if (!fd_.valid()) ROMULUS_RETURN_IF_ERROR(OpenCurrent());
  if (size_bytes_ != 0 && size_bytes_ + lines.size() > max_bytes_)
    ROMULUS_RETURN_IF_ERROR(Rotate());
  const std::string bytes = torn_ ? absl::StrCat("\n", lines) : lines;
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t put = ::write(fd_.get(), bytes.data() + done, bytes.size() - done);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return base::ErrnoStatus(errno, path_);
    done += static_cast<size_t>(put);
    size_bytes_ += static_cast<uint64_t>(put);
    torn_ = bytes[done - 1] != '\n';
  }
  if (::fdatasync(fd_.get()) != 0) return base::ErrnoStatus(errno, path_);
  return absl::OkStatus();
}

}  // namespace romulus::daemon

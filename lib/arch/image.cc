#include "arch/image.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace romulus::arch {
namespace {

class FileImage final : public Image {
 public:
  FileImage(std::string name, uint64_t size_bytes, base::UniqueFd fd)
      : Image(std::move(name), size_bytes), fd_(std::move(fd)) {}

 private:
  absl::Status DoRead(uint64_t offset, std::span<std::byte> into) const override {
    while (!into.empty()) {
      const ssize_t got = ::pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return base::ErrnoStatus(errno, absl::StrCat("read ", name()));
      if (got == 0) return Bad("file shrank while it was read");
      into = into.subspan(static_cast<size_t>(got));
      offset += static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

  base::UniqueFd fd_;
};

class BytesImage final : public Image {
 public:
  BytesImage(std::string name, std::span<const std::byte> bytes)
      : Image(std::move(name), bytes.size()), bytes_(bytes) {}

 private:
  absl::Status DoRead(uint64_t offset, std::span<std::byte> into) const override {
    std::memcpy(into.data(), bytes_.data() + offset, into.size());
    return absl::OkStatus();
  }

  std::span<const std::byte> bytes_;
};

}  // namespace

absl::Status Image::ReadAt(uint64_t offset, std::span<std::byte> into) const {
  if (offset > size_bytes_ || into.size() > size_bytes_ - offset) {
    return Bad(absl::StrCat("truncated: ", into.size(), " bytes wanted at offset ", offset,
                            ", the file has ", size_bytes_));
  }
  if (into.empty()) return absl::OkStatus();
  return DoRead(offset, into);
}

absl::Status Image::Bad(absl::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(name_, ": ", what));
}

absl::StatusOr<std::unique_ptr<Image>> OpenImage(const std::string& path) {
  // O_NONBLOCK: a FIFO in place of the file must not block the open; fstat then refuses it.
  base::UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return base::ErrnoStatus(errno, absl::StrCat("open ", path));
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return base::ErrnoStatus(errno, absl::StrCat("stat ", path));
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  if (info.st_size == 0) return absl::InvalidArgumentError(absl::StrCat(path, ": file is empty"));
  return std::make_unique<FileImage>(path, static_cast<uint64_t>(info.st_size), std::move(fd));
}

std::unique_ptr<Image> ImageOfBytes(std::string name, std::span<const std::byte> bytes) {
  return std::make_unique<BytesImage>(std::move(name), bytes);
}

}  // namespace romulus::arch

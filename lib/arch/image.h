// A file that a loader reads: kernel or initrd. Its bytes are hostile. One thread at a time.
#ifndef ROMULUS_ARCH_IMAGE_H_
#define ROMULUS_ARCH_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace romulus::arch {

class Image {
 public:
  virtual ~Image() = default;
  // For messages: the path.
  const std::string& name() const { return name_; }
  uint64_t size_bytes() const { return size_bytes_; }

  // Fills `into` from `offset`. Errors: InvalidArgument "<name>: ..." beyond the end (also when the
  // file shrank meanwhile); errno of pread.
  absl::Status ReadAt(uint64_t offset, std::span<std::byte> into) const;

  template <typename T>
  requires std::is_trivially_copyable_v<T> absl::StatusOr<T> ReadObjectAt(uint64_t offset)
  const {
    T value;
    absl::Status status = ReadAt(offset, std::as_writable_bytes(std::span<T, 1>(&value, 1)));
    if (!status.ok()) return status;
    return value;
  }

  // InvalidArgument "<name>: <what>".
  absl::Status Bad(absl::string_view what) const;

 protected:
  Image(std::string name, uint64_t size_bytes) : name_(std::move(name)), size_bytes_(size_bytes) {}

 private:
  virtual absl::Status DoRead(uint64_t offset, std::span<std::byte> into) const = 0;

  std::string name_;
  uint64_t size_bytes_;
};

// A regular file. Errors: NotFound, PermissionDenied... with the path; InvalidArgument if it is
// empty or no regular file.
absl::StatusOr<std::unique_ptr<Image>> OpenImage(const std::string& path);

// Bytes in memory, which must outlive the image.
std::unique_ptr<Image> ImageOfBytes(std::string name, std::span<const std::byte> bytes);

}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_IMAGE_H_

#include "base/mapped_region.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace romulus::base {
namespace {

absl::StatusOr<std::byte*> Map(size_t size_bytes, int flags, int fd, uint64_t offset_bytes) {
  void* address = ::mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, flags, fd,
                         static_cast<off_t>(offset_bytes));
  if (address == MAP_FAILED) return ErrnoStatus(errno, "mmap");
  return static_cast<std::byte*>(address);
}

}  // namespace

MappedRegion::MappedRegion(MappedRegion&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MappedRegion& MappedRegion::operator=(MappedRegion&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

MappedRegion::~MappedRegion() {
  if (data_ != nullptr) ::munmap(data_, size_bytes_);
}

absl::StatusOr<MappedRegion> MappedRegion::MapShared(int fd, uint64_t offset_bytes,
                                                     size_t size_bytes) {
  ROMULUS_ASSIGN_OR_RETURN(std::byte * data, Map(size_bytes, MAP_SHARED, fd, offset_bytes));
  return MappedRegion(data, size_bytes);
}

absl::StatusOr<MappedRegion> MappedRegion::MapAnonymous(size_t size_bytes) {
  ROMULUS_ASSIGN_OR_RETURN(std::byte * data, Map(size_bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  return MappedRegion(data, size_bytes);
}

void MappedRegion::Populate(size_t offset_bytes, size_t size_bytes) const {
  ROMULUS_CHECK(offset_bytes <= size_bytes_ && size_bytes <= size_bytes_ - offset_bytes);
  ::madvise(data_ + offset_bytes, size_bytes, MADV_POPULATE_WRITE);
}

}  // namespace romulus::base

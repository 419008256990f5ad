// Owns one mmap()ed range; unmaps it when destroyed. Move-only; the bytes may be used by any
// thread.
#ifndef ROMULUS_BASE_MAPPED_REGION_H_
#define ROMULUS_BASE_MAPPED_REGION_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace romulus::base {

class MappedRegion {
 public:
  MappedRegion() = default;
  MappedRegion(MappedRegion&& other) noexcept;
  MappedRegion& operator=(MappedRegion&& other) noexcept;
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;
  ~MappedRegion();

  // mmap() of `size_bytes` of `fd` at `offset_bytes`, read and write, shared.
  // Errors: errno of mmap.
  static absl::StatusOr<MappedRegion> MapShared(int fd, uint64_t offset_bytes, size_t size_bytes);
  // Private zeroed memory, whose pages come when they are first touched.
  static absl::StatusOr<MappedRegion> MapAnonymous(size_t size_bytes);

  // Gives pages to this part of it now; others may use it meanwhile. Best effort: what fails here
  // (Linux before 5.14) comes at the first touch. MADV_POPULATE_WRITE, madvise(2).
  void Populate(size_t offset_bytes, size_t size_bytes) const;

  std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }
  std::span<std::byte> bytes() const { return {data_, size_bytes_}; }
  bool valid() const { return data_ != nullptr; }

 private:
  MappedRegion(std::byte* data, size_t size_bytes) : data_(data), size_bytes_(size_bytes) {}

  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace romulus::base

#endif  // ROMULUS_BASE_MAPPED_REGION_H_

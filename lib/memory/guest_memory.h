// Guest RAM: one memfd, mapped once, behind checked accessors. Everything that the VMM writes on
// the guest's behalf goes through Write()/Fill() and is marked in the write log (P4); the replica,
// whose pages nobody harvests, uses ApplyPage().
//
// Any thread may read and write; bytes race with the guest as they do on real hardware, so a caller
// copies a value once and checks the copy, never the original. The object owns memfd and mapping.
#ifndef ROMULUS_MEMORY_GUEST_MEMORY_H_
#define ROMULUS_MEMORY_GUEST_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mapped_region.h"
#include "base/types.h"
#include "base/unique_fd.h"
#include "memory/memory_layout.h"
#include "memory/page_copy.h"
#include "memory/write_log.h"

namespace romulus::memory {

using PageBytes = std::span<const std::byte, kPageSize>;

class GuestMemory {
 public:
  // Zeroed memory; pages appear when first touched. Errors: errno of memfd_create, ftruncate, mmap.
  static absl::StatusOr<std::unique_ptr<GuestMemory>> Create(const MemoryLayout& layout);

  const MemoryLayout& layout() const { return layout_; }
  WriteLog& write_log() { return write_log_; }
  int fd() const { return fd_.get(); }

  // Errors of all accessors: OutOfRange unless [gpa, gpa + size) lies within one region.
  absl::Status Read(Gpa gpa, std::span<std::byte> into) const;
  absl::Status Write(Gpa gpa, std::span<const std::byte> from);
  absl::Status Fill(Gpa gpa, std::byte value, uint64_t size_bytes);

  template <typename T>
  requires std::is_trivially_copyable_v<T> absl::StatusOr<T> ReadObject(Gpa gpa)
  const {
    T value;
    absl::Status status = Read(gpa, std::as_writable_bytes(std::span<T, 1>(&value, 1)));
    if (!status.ok()) return status;
    return value;
  }
  template <typename T>
  requires std::is_trivially_copyable_v<T> absl::Status WriteObject(Gpa gpa, const T& value) {
    return Write(gpa, std::as_bytes(std::span<const T, 1>(&value, 1)));
  }

  // The page's bytes as they lie in memory. `gfn` must be in the layout (a page that KVM or the
  // layout itself named), else a broken invariant.
  PageBytes Page(Gfn gfn) const;

  // Replica only: sets a whole page without marking it. `many`: as one of many. Errors: OutOfRange.
  absl::Status ApplyPage(Gfn gfn, PageBytes bytes, PastCaches* many = nullptr);
  // Replica only: gives memory to pages that ApplyPage() will write, at once instead of by a page
  // fault each. Best effort, as MappedRegion::Populate.
  void PopulatePages(Gfn first, uint64_t count) const;
  // Replica only: makes a page zero and gives its memory back. Errors: OutOfRange, errno.
  absl::Status ApplyZeroPage(Gfn gfn);

  // Writable bytes for devices' scatter lists (readv and the like). The caller says how much it
  // wrote by MarkWritten(). Errors: OutOfRange.
  absl::StatusOr<std::span<std::byte>> WritableSpan(Gpa gpa, uint64_t size_bytes);
  absl::StatusOr<std::span<const std::byte>> ReadableSpan(Gpa gpa, uint64_t size_bytes) const;
  absl::Status MarkWritten(Gpa gpa, uint64_t size_bytes);

  // For KVM_SET_USER_MEMORY_REGION: where the region starts in our address space.
  uint64_t HostAddress(const Region& region) const;

  // Test only: writes made as if the VMM had forgotten to mark them.
  void SkipMarkingForTest(bool skip) { skip_marking_ = skip; }

 private:
  GuestMemory(MemoryLayout layout, base::UniqueFd fd, base::MappedRegion mapping);

  absl::StatusOr<std::byte*> Resolve(Gpa gpa, uint64_t size_bytes) const;
  void Mark(Gpa gpa, uint64_t size_bytes);

  MemoryLayout layout_;
  base::UniqueFd fd_;
  base::MappedRegion mapping_;
  WriteLog write_log_;
  std::atomic<bool> skip_marking_{false};
};

}  // namespace romulus::memory

#endif  // ROMULUS_MEMORY_GUEST_MEMORY_H_

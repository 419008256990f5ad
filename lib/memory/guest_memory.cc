#include "memory/guest_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status.h"

namespace romulus::memory {

absl::StatusOr<std::unique_ptr<GuestMemory>> GuestMemory::Create(const MemoryLayout& layout) {
  base::UniqueFd fd(::memfd_create("romulus-guest", MFD_CLOEXEC));
  if (!fd.valid()) return base::ErrnoStatus(errno, "memfd_create for guest memory");
  if (::ftruncate(fd.get(), static_cast<off_t>(layout.size_bytes())) != 0) {
    return base::ErrnoStatus(errno,
                             absl::StrCat("guest memory of ", layout.size_bytes(), " bytes"));
  }
  ROMULUS_ASSIGN_OR_RETURN(
      base::MappedRegion mapping,
      base::MappedRegion::MapShared(fd.get(), 0, static_cast<size_t>(layout.size_bytes())));
  return std::unique_ptr<GuestMemory>(new GuestMemory(layout, std::move(fd), std::move(mapping)));
}

GuestMemory::GuestMemory(MemoryLayout layout, base::UniqueFd fd, base::MappedRegion mapping)
    : layout_(std::move(layout)),
      fd_(std::move(fd)),
      mapping_(std::move(mapping)),
      write_log_(layout_.gfn_end()) {}

absl::StatusOr<std::byte*> GuestMemory::Resolve(Gpa gpa, uint64_t size_bytes) const {
  const Region* region = layout_.Find(gpa, size_bytes);
  if (region == nullptr) {
    return absl::OutOfRangeError(
        absl::StrFormat("guest address %#x + %#x is not in guest memory", gpa.value(), size_bytes));
  }
  // SAFETY: Find() has checked that the whole range lies in the region, and the regions tile the
  // mapping.
  return mapping_.data() + region->file_offset + (gpa.value() - region->gpa.value());
}

void GuestMemory::Mark(Gpa gpa, uint64_t size_bytes) {
  if (size_bytes == 0 || skip_marking_.load(std::memory_order_relaxed)) return;
  const uint64_t last = GfnOf(Gpa(gpa.value() + size_bytes - 1)).value();
  for (uint64_t gfn = GfnOf(gpa).value(); gfn <= last; ++gfn) write_log_.Mark(Gfn(gfn));
}

absl::Status GuestMemory::Read(Gpa gpa, std::span<std::byte> into) const {
  ROMULUS_ASSIGN_OR_RETURN(const std::byte* from, Resolve(gpa, into.size()));
  if (!into.empty()) std::memcpy(into.data(), from, into.size());
  return absl::OkStatus();
}

absl::Status GuestMemory::Write(Gpa gpa, std::span<const std::byte> from) {
  ROMULUS_ASSIGN_OR_RETURN(std::byte * into, Resolve(gpa, from.size()));
  if (!from.empty()) std::memcpy(into, from.data(), from.size());
  Mark(gpa, from.size());
  return absl::OkStatus();
}

absl::Status GuestMemory::Fill(Gpa gpa, std::byte value, uint64_t size_bytes) {
  ROMULUS_ASSIGN_OR_RETURN(std::byte * into, Resolve(gpa, size_bytes));
  std::memset(into, static_cast<int>(value), size_bytes);
  Mark(gpa, size_bytes);
  return absl::OkStatus();
}

PageBytes GuestMemory::Page(Gfn gfn) const {
  absl::StatusOr<std::byte*> page = Resolve(GpaOf(gfn), kPageSize);
  ROMULUS_CHECK(page.ok());
  return PageBytes(*page, kPageSize);
}

absl::Status GuestMemory::ApplyPage(Gfn gfn, PageBytes bytes, PastCaches* many) {
  if (!layout_.Contains(gfn)) {
    return absl::OutOfRangeError(absl::StrFormat("page %#x is not in guest memory", gfn.value()));
  }
  ROMULUS_ASSIGN_OR_RETURN(std::byte * into, Resolve(GpaOf(gfn), kPageSize));
  if (many != nullptr) {
    many->CopyPage(into, bytes.data());
  } else {
    std::memcpy(into, bytes.data(), kPageSize);
  }
  return absl::OkStatus();
}

void GuestMemory::PopulatePages(Gfn first, uint64_t count) const {
  const uint64_t size_bytes = count << kPageShift;
  const absl::StatusOr<std::byte*> begin = Resolve(GpaOf(first), size_bytes);
  if (!begin.ok()) return;
  mapping_.Populate(static_cast<size_t>(*begin - mapping_.data()), size_bytes);
}

absl::Status GuestMemory::ApplyZeroPage(Gfn gfn) {
  if (!layout_.Contains(gfn)) {
    return absl::OutOfRangeError(absl::StrFormat("page %#x is not in guest memory", gfn.value()));
  }
  ROMULUS_ASSIGN_OR_RETURN(std::byte * page, Resolve(GpaOf(gfn), kPageSize));
  // MADV_REMOVE frees the memfd's page: the next touch reads zeros.
  if (::madvise(page, kPageSize, MADV_REMOVE) != 0) std::memset(page, 0, kPageSize);
  return absl::OkStatus();
}

absl::StatusOr<std::span<std::byte>> GuestMemory::WritableSpan(Gpa gpa, uint64_t size_bytes) {
  ROMULUS_ASSIGN_OR_RETURN(std::byte * data, Resolve(gpa, size_bytes));
  return std::span<std::byte>(data, size_bytes);
}

absl::StatusOr<std::span<const std::byte>> GuestMemory::ReadableSpan(Gpa gpa,
                                                                     uint64_t size_bytes) const {
  ROMULUS_ASSIGN_OR_RETURN(const std::byte* data, Resolve(gpa, size_bytes));
  return std::span<const std::byte>(data, size_bytes);
}

absl::Status GuestMemory::MarkWritten(Gpa gpa, uint64_t size_bytes) {
  ROMULUS_RETURN_IF_ERROR(Resolve(gpa, size_bytes).status());
  Mark(gpa, size_bytes);
  return absl::OkStatus();
}

uint64_t GuestMemory::HostAddress(const Region& region) const {
  // SAFETY: the address leaves as a number for KVM only, which maps it; nobody here follows it.
  return reinterpret_cast<uint64_t>(mapping_.data() + region.file_offset);
}

}  // namespace romulus::memory

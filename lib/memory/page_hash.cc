#include "memory/page_hash.h"

#include <unistd.h>

#include <bit>
#include <cerrno>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/xxh3.h"

namespace romulus::memory {

PageHash128 HashPage128(PageBytes page) {
  const XXH128_hash_t hash = XXH3_128bits(page.data(), page.size());
  return {hash.low64, hash.high64};
}

PageHash128 HashOfHashes(std::span<const PageHash128> pages) {
  static_assert(sizeof(PageHash128) == 16 && std::endian::native == std::endian::little);
  const XXH128_hash_t hash = XXH3_128bits(pages.data(), pages.size_bytes());
  return {hash.low64, hash.high64};
}

absl::Status ReadPages(const GuestMemory& memory, Gfn first, std::span<std::byte> into) {
  const Region* region =
      memory.layout().Contains(first) ? memory.layout().Find(GpaOf(first), into.size()) : nullptr;
  if (region == nullptr || into.size() % kPageSize != 0) {
    return absl::OutOfRangeError(absl::StrFormat("pages %#x + %d bytes are not in guest memory",
                                                 first.value(), into.size()));
  }
  uint64_t at = region->file_offset + (GpaOf(first).value() - region->gpa.value());
  while (!into.empty()) {
    const ssize_t got = ::pread(memory.fd(), into.data(), into.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return base::ErrnoStatus(errno, "pread of guest memory");
    if (got == 0) return absl::InternalError("guest memory is shorter than its layout");
    into = into.subspan(static_cast<size_t>(got));
    at += static_cast<uint64_t>(got);
  }
  return absl::OkStatus();
}

}  // namespace romulus::memory

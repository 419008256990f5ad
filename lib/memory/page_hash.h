// The hash by which two copies of a page are compared without being sent: XXH3-128 (libxxhash),
// long enough that equal hashes are taken for equal pages. And how pages are read that need not
// exist yet. Any thread.
#ifndef ROMULUS_MEMORY_PAGE_HASH_H_
#define ROMULUS_MEMORY_PAGE_HASH_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "base/types.h"
#include "memory/guest_memory.h"

namespace romulus::memory {

struct PageHash128 {
  uint64_t low = 0;
  uint64_t high = 0;

  friend bool operator==(const PageHash128&, const PageHash128&) = default;
};

PageHash128 HashPage128(PageBytes page);
// One for many pages: the hash of theirs, in this order, each as its low and its high half
// (little-endian).
PageHash128 HashOfHashes(std::span<const PageHash128> pages);

// Copies whole pages from `first` on, through the memfd: a page that nobody touched reads as zeros
// and, unlike by a look at the mapping, is not made to exist by it. Races with the guest as
// GuestMemory's accessors do. `into` is a multiple of the page size. Errors: OutOfRange unless all
// pages lie within one region; errno of pread.
absl::Status ReadPages(const GuestMemory& memory, Gfn first, std::span<std::byte> into);

}  // namespace romulus::memory

#endif  // ROMULUS_MEMORY_PAGE_HASH_H_

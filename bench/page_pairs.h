// A corpus: pages of a real guest as they were at one checkpoint and at the next one that had them,
// 4096 bytes before and 4096 bytes now, pair after pair in a file.
#ifndef ROMULUS_BENCH_PAGE_PAIRS_H_
#define ROMULUS_BENCH_PAGE_PAIRS_H_

#include <array>
#include <cstddef>

#include "memory/memory_layout.h"

namespace romulus::bench {

// Aligned, as a guest's pages and the copies of them are.
struct alignas(kPageSize) PagePair {
  std::array<std::byte, kPageSize> before;
  std::array<std::byte, kPageSize> now;
};
static_assert(sizeof(PagePair) == 2 * kPageSize);

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_PAGE_PAIRS_H_

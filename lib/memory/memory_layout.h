// Where guest memory lies: RAM from 0 up to the 32-bit hole at 3 GiB, the rest from 4 GiB on, and
// where each piece is in the one memfd behind it. A value; any thread.
#ifndef ROMULUS_MEMORY_MEMORY_LAYOUT_H_
#define ROMULUS_MEMORY_MEMORY_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/types.h"

namespace romulus::memory {

inline constexpr uint64_t kHoleStart = 3ull << 30;  // bytes; MMIO, APICs and firmware live above
inline constexpr uint64_t kHoleEnd = 4ull << 30;    // bytes
inline constexpr uint64_t kMinMemoryMib = 4;
inline constexpr uint64_t kMaxMemoryMib = 1ull << 20;

struct Region {
  Gpa gpa;                   // page aligned
  uint64_t size_bytes = 0;   // a multiple of the page size
  uint64_t file_offset = 0;  // bytes into the memfd

  friend bool operator==(const Region&, const Region&) = default;
};

class MemoryLayout {
 public:
  // Errors: InvalidArgument outside [kMinMemoryMib, kMaxMemoryMib].
  static absl::StatusOr<MemoryLayout> ForMib(uint64_t memory_mib);

  const std::vector<Region>& regions() const { return regions_; }
  uint64_t size_bytes() const { return size_bytes_; }
  uint64_t page_count() const { return size_bytes_ >> kPageShift; }
  // One past the highest GFN; bitmaps over GFNs have this many bits.
  Gfn gfn_end() const { return gfn_end_; }

  // The region that holds all of [gpa, gpa + size_bytes), or null.
  const Region* Find(Gpa gpa, uint64_t size_bytes) const;
  // Any number may be asked for: one whose address would not fit into 64 bits is not in memory.
  bool Contains(Gfn gfn) const { return gfn < gfn_end_ && Find(GpaOf(gfn), kPageSize) != nullptr; }

  // Pages in ascending order: the n-th page's GFN, n < page_count(), and back.
  Gfn GfnAt(uint64_t page_index) const;

  friend bool operator==(const MemoryLayout&, const MemoryLayout&) = default;

 private:
  std::vector<Region> regions_;
  uint64_t size_bytes_ = 0;
  Gfn gfn_end_;
};

}  // namespace romulus::memory

#endif  // ROMULUS_MEMORY_MEMORY_LAYOUT_H_

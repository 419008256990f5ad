#include "memory/memory_layout.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace romulus::memory {

absl::StatusOr<MemoryLayout> MemoryLayout::ForMib(uint64_t memory_mib) {
  if (memory_mib < kMinMemoryMib || memory_mib > kMaxMemoryMib) {
    return absl::InvalidArgumentError(absl::StrCat("memory of ", memory_mib, " MiB is not in [",
                                                   kMinMemoryMib, ", ", kMaxMemoryMib, "]"));
  }
  MemoryLayout layout;
  layout.size_bytes_ = memory_mib << 20;
  const uint64_t low_bytes = std::min(layout.size_bytes_, kHoleStart);
  layout.regions_.push_back({Gpa(0), low_bytes, 0});
  if (layout.size_bytes_ > low_bytes) {
    layout.regions_.push_back({Gpa(kHoleEnd), layout.size_bytes_ - low_bytes, low_bytes});
  }
  const Region& last = layout.regions_.back();
  layout.gfn_end_ = Gfn((last.gpa.value() + last.size_bytes) >> kPageShift);
  return layout;
}

const Region* MemoryLayout::Find(Gpa gpa, uint64_t size_bytes) const {
  for (const Region& region : regions_) {
    if (gpa < region.gpa) continue;
    const uint64_t offset = gpa.value() - region.gpa.value();
    if (offset <= region.size_bytes && size_bytes <= region.size_bytes - offset) return &region;
  }
  return nullptr;
}

Gfn MemoryLayout::GfnAt(uint64_t page_index) const {
  for (const Region& region : regions_) {
    const uint64_t pages = region.size_bytes >> kPageShift;
    if (page_index < pages) return Gfn(GfnOf(region.gpa).value() + page_index);
    page_index -= pages;
  }
  base::CheckFailed(__FILE__, __LINE__, "page index past the end of memory");
}

}  // namespace romulus::memory

#include "tracker/bitmap_source.h"

#include <algorithm>
#include <bit>

#include "base/status.h"

namespace romulus::tracker {

BitmapSource::BitmapSource(kvm::Vm* vm, const memory::MemoryLayout& layout, bool manual_protect)
    : vm_(vm), layout_(layout), manual_protect_(manual_protect) {
  for (const memory::Region& region : layout_.regions()) {
    harvested_.emplace_back(((region.size_bytes >> kPageShift) + 63) / 64);
  }
}

absl::Status BitmapSource::Harvest(memory::PageSet& into) {
  for (size_t slot = 0; slot < harvested_.size(); ++slot) {
    std::vector<uint64_t>& bitmap = harvested_[slot];
    ROMULUS_RETURN_IF_ERROR(vm_->GetDirtyLog(static_cast<uint32_t>(slot), bitmap));
    const uint64_t first = GfnOf(layout_.regions()[slot].gpa).value();
    for (size_t word = 0; word < bitmap.size(); ++word) {
      for (uint64_t bits = bitmap[word]; bits != 0; bits &= bits - 1) {
        into.Insert(Gfn(first + word * 64 + static_cast<uint64_t>(std::countr_zero(bits))));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status BitmapSource::Reset() {
  if (!manual_protect_) return absl::OkStatus();  // KVM_GET_DIRTY_LOG has cleared and protected
  for (size_t slot = 0; slot < harvested_.size(); ++slot) {
    std::vector<uint64_t>& bitmap = harvested_[slot];
    const uint64_t pages = layout_.regions()[slot].size_bytes >> kPageShift;
    // Only runs of words that hold something: clearing costs by the pages looked at.
    for (size_t word = 0; word < bitmap.size();) {
      if (bitmap[word] == 0) {
        ++word;
        continue;
      }
      size_t end = word;
      while (end < bitmap.size() && bitmap[end] != 0) ++end;
      const uint64_t first_page = word * 64;
      const uint64_t num_pages = std::min<uint64_t>((end - word) * 64, pages - first_page);
      ROMULUS_RETURN_IF_ERROR(vm_->ClearDirtyLog(
          static_cast<uint32_t>(slot), first_page, static_cast<uint32_t>(num_pages),
          std::span<const uint64_t>(bitmap).subspan(word, end - word)));
      std::fill(bitmap.begin() + static_cast<ptrdiff_t>(word),
                bitmap.begin() + static_cast<ptrdiff_t>(end), 0);
      word = end;
    }
  }
  return absl::OkStatus();
}

}  // namespace romulus::tracker

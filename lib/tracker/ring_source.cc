#include "tracker/ring_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::tracker {
namespace {

// KVM_RESET_DIRTY_RINGS may return early when a signal is pending; every call that returns 0 with
// entries outstanding makes no progress, and so many of them mean that none will come.
constexpr int kMaxFruitlessResets = 1000;

}  // namespace

RingSource::RingSource(kvm::Vm* vm, std::vector<kvm::DirtyRing*> rings,
                       const memory::MemoryLayout& layout)
    : vm_(vm), rings_(std::move(rings)), layout_(layout) {}

absl::Status RingSource::Harvest(memory::PageSet& into) {
  uint64_t strangers = 0;
  for (kvm::DirtyRing* ring : rings_) {
    to_reset_ += ring->Harvest([&](uint32_t slot, uint64_t offset_pages) {
      const auto& regions = layout_.regions();
      if (slot >= regions.size() || offset_pages >= regions[slot].size_bytes >> kPageShift) {
        ++strangers;
        return;
      }
      into.Insert(Gfn(GfnOf(regions[slot].gpa).value() + offset_pages));
    });
  }
  if (strangers != 0) {
    return absl::InternalError(
        absl::StrCat(strangers, " dirty ring entries name pages outside guest memory"));
  }
  return absl::OkStatus();
}

absl::Status RingSource::Reset() {
  int fruitless = 0;
  while (to_reset_ > 0) {
    ROMULUS_ASSIGN_OR_RETURN(const uint32_t reset, vm_->ResetDirtyRings());
    if (reset > to_reset_) {
      return absl::InternalError(absl::StrCat("KVM reset ", reset, " dirty ring entries, but only ",
                                              to_reset_, " were harvested"));
    }
    to_reset_ -= reset;
    if (reset == 0 && ++fruitless == kMaxFruitlessResets) {
      return absl::InternalError(
          absl::StrCat("KVM does not reset ", to_reset_, " harvested dirty ring entries"));
    }
  }
  return absl::OkStatus();
}

uint64_t RingSource::LikelyCount(uint64_t most) const {
  uint64_t count = 0;
  for (const kvm::DirtyRing* ring : rings_) count += ring->LikelyCount();
  return std::min(count, most);
}

}  // namespace romulus::tracker

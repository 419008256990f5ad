// Dirt from KVM's bitmap log: the fallback where there is no dirty ring. Its cost follows the size
// of memory; dense dirtying is where it wins. Checkpoint thread only.
#ifndef ROMULUS_TRACKER_BITMAP_SOURCE_H_
#define ROMULUS_TRACKER_BITMAP_SOURCE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kvm/vm.h"
#include "memory/memory_layout.h"
#include "tracker/dirty_source.h"

namespace romulus::tracker {

class BitmapSource final : public DirtySource {
 public:
  // The slots of `layout`'s regions are 0, 1, ... in order. `manual_protect` says that the VM has
  // KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 on: GET does not clear, CLEAR does, by 64 pages.
  BitmapSource(kvm::Vm* vm, const memory::MemoryLayout& layout, bool manual_protect);

  absl::string_view name() const override { return "bitmap"; }
  absl::Status Harvest(memory::PageSet& into) override;
  absl::Status Reset() override;
  // The bitmap cannot be looked at without an ioctl that costs as much as a harvest.
  bool Tells() const override { return false; }
  uint64_t LikelyCount(uint64_t) const override { return 0; }
  bool LikelyNone() const override { return false; }

 private:
  kvm::Vm* vm_;
  const memory::MemoryLayout layout_;
  const bool manual_protect_;
  std::vector<std::vector<uint64_t>> harvested_;  // per slot; what Reset() still has to clear
};

}  // namespace romulus::tracker

#endif  // ROMULUS_TRACKER_BITMAP_SOURCE_H_

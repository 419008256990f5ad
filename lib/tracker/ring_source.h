// Dirt from KVM's dirty rings, one per vCPU: its cost follows the number of dirty pages, not the
// size of memory. Checkpoint thread only, but the hints.
#ifndef ROMULUS_TRACKER_RING_SOURCE_H_
#define ROMULUS_TRACKER_RING_SOURCE_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kvm/dirty_ring.h"
#include "kvm/vm.h"
#include "memory/memory_layout.h"
#include "tracker/dirty_source.h"

namespace romulus::tracker {

class RingSource final : public DirtySource {
 public:
  // The slots of `layout`'s regions are 0, 1, ... in order. All outlive the source; `rings` has one
  // for every vCPU that exists.
  RingSource(kvm::Vm* vm, std::vector<kvm::DirtyRing*> rings, const memory::MemoryLayout& layout);

  absl::string_view name() const override { return "ring"; }
  absl::Status Harvest(memory::PageSet& into) override;
  absl::Status Reset() override;
  uint64_t LikelyCount(uint64_t most) const override;
  bool LikelyNone() const override { return !LikelyAtLeast(1); }

 private:
  kvm::Vm* vm_;
  std::vector<kvm::DirtyRing*> rings_;
  const memory::MemoryLayout layout_;
  uint64_t to_reset_ = 0;  // harvested, not yet reset
};

}  // namespace romulus::tracker

#endif  // ROMULUS_TRACKER_RING_SOURCE_H_

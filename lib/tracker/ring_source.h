// Dirt from KVM's dirty rings, one per vCPU: its cost follows the number of dirty pages, not the
// size of memory. Whichever thread is at the checkpoint, but the hints and SetBudget().
//
// Where the rings may be steered, two things are gained from entries that are left outstanding
// (kvm/dirty_ring.h):
//   - The vCPU stops by itself at the budget: after each reset so many entries stay outstanding
//     that the ring is full when the epoch has its pages. The ballast that this takes is put in by
//     whoever pauses the guest when LacksBallast(); too much of it is given back.
//   - Pages may stay writable ("open"): they are not protected again, part of every epoch, written
//     or not, and cost the guest no first write. Pages written in nearly every epoch are
//     (HotPages); and for one epoch the page that filled the ring, since its write is not done yet:
//     protected again, it would fill a ring of one page again, and the guest would never get on.
#ifndef ROMULUS_TRACKER_RING_SOURCE_H_
#define ROMULUS_TRACKER_RING_SOURCE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kvm/dirty_ring.h"
#include "kvm/vm.h"
#include "memory/memory_layout.h"
#include "tracker/dirty_source.h"
#include "tracker/hot_pages.h"

namespace romulus::tracker {

struct RingSourceOptions {
  // Only where kvm::RingResetsWhatEntriesSay().
  bool steer = false;
  // Most pages that stay open, if steered, and at most half of the budget.
  uint64_t max_hot_pages = 0;
};

class RingSource final : public DirtySource {
 public:
  // The slots of `layout`'s regions are 0, 1, ... in order. All outlive the source; `rings` has one
  // for every vCPU that exists.
  RingSource(kvm::Vm* vm, std::vector<kvm::DirtyRing*> rings, const memory::MemoryLayout& layout,
             const RingSourceOptions& options = {});

  absl::string_view name() const override { return "ring"; }
  absl::Status Harvest(memory::PageSet& into) override;
  absl::Status Reset() override;
  void SetBudget(uint64_t pages) override { budget_ = pages; }
  bool StopsItselfAt(uint64_t pages) const override { return stops_at_ <= pages; }
  // Of one vCPU only: two that share a budget stop each other sooner by being looked at.
  bool LacksBallast() const override;
  absl::Status Settle() override;
  uint64_t LikelyCount(uint64_t most) const override;
  bool LikelyNone() const override { return open_ == 0 && !LikelyAtLeast(1); }

 private:
  // As KVM names it.
  struct Page {
    uint32_t slot;
    uint64_t offset_pages;
    bool is_known;  // false: no page of memory
  };
  struct OpenPage {
    Page page;
    uint64_t closes;  // by that reset
    bool is_hot;      // else: its first write may not be done
  };
  struct Ring {
    kvm::DirtyRing* ring;
    std::vector<Page> fresh;  // harvested, not yet reset
    std::vector<OpenPage> open;
  };

  Gfn GfnOfPage(const Page& page) const;
  void ResetRing(Ring& ring, uint64_t* hot);
  // After so much was given back.
  void Count();
  absl::Status ResetInKvm();
  // Of a page written since the last reset, when `hot` others stay open already.
  bool TurnsHot(const Page& page, uint64_t hot);
  uint64_t MaxHot() const;  // of all rings
  static bool Holds(const std::vector<OpenPage>& open, const Page& page);
  void GiveBallastBack(Ring& ring);
  void GiveBack(kvm::DirtyRing& ring, const Page& page);
  // The budget, of which a page at least is to be written: the one that fills a ring is not yet.
  uint64_t Budget() const { return std::max<uint64_t>(budget_, 2); }
  // How many more pages may be written until the ring is full.
  static uint32_t Room(const kvm::DirtyRing& ring) {
    return ring.soft_limit() - std::min(ring.soft_limit(), ring.outstanding());
  }

  kvm::Vm* vm_;
  std::vector<Ring> rings_;
  const memory::MemoryLayout layout_;
  const RingSourceOptions options_;
  HotPages hot_pages_;
  uint64_t resets_ = 0;
  uint64_t to_reset_ = 0;  // given back, not yet reset
  std::atomic<uint64_t> budget_{0};
  // After the last reset; of all rings:
  std::atomic<uint64_t> open_{0};
  std::atomic<uint64_t> hot_{0};  // of them
  std::atomic<uint64_t> stops_at_{~uint64_t{0}};
};

}  // namespace romulus::tracker

#endif  // ROMULUS_TRACKER_RING_SOURCE_H_

// One vCPU's dirty ring: 16-byte entries that KVM fills and userspace gives back in sequence
// (Documentation/virt/kvm/api.rst, KVM_CAP_DIRTY_LOG_RING). Owns its mapping of the ring, which
// stays valid without the vCPU. One thread at a time; the vCPU may run beside EntryDirty(), but a
// harvest is complete only with every vCPU out of KVM_RUN (an entry may come before its write).
//
//      given back       outstanding: read, not given back      waiting        free
//   ...............|......................................|................|.........
//                  KVM resets up to here                   next to harvest
//
// KVM counts outstanding and waiting entries together, and stops the vCPU when they are
// soft_limit() many. What an entry that is given back says is KVM's order: it logs that page again.
// So the oldest entry can carry the order for any page (see RingResetsWhatEntriesSay()), and the
// number that is left outstanding decides after how many more pages the vCPU stops.
#ifndef ROMULUS_KVM_DIRTY_RING_H_
#define ROMULUS_KVM_DIRTY_RING_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "base/check.h"
#include "base/mapped_region.h"
#include "kvm/abi.h"

namespace romulus::kvm {

// Entries that KVM keeps back: KVM_DIRTY_RING_RSVD_ENTRIES, virt/kvm/dirty_ring.c.
inline constexpr uint32_t kRingReservedEntries = 64;
// More of them where the CPU has page-modification logging: PML_ENTITY_NUM, arch/x86/kvm/vmx.
inline constexpr uint32_t kPmlEntries = 512;

class DirtyRing {
 public:
  // For tests: a ring in memory that is not KVM's. `memory` must outlive it.
  DirtyRing(std::span<std::byte> memory, uint32_t entries, uint32_t soft_limit);

  // Maps the ring of the vCPU behind `vcpu_fd`. Errors: errno of mmap.
  static absl::StatusOr<DirtyRing> Map(int vcpu_fd, uint32_t entries, uint32_t soft_limit);

  // Hands every waiting entry to `callback(uint32_t slot, uint64_t offset_pages)` in order; they
  // are outstanding then. Slot (its upper 16 bits are the address space) and offset are KVM's
  // words: the callback checks that they lie in the layout. Returns the number of entries.
  template <typename Callback>
  uint32_t Harvest(Callback&& callback) {
    uint32_t count = 0;
    while (outstanding() < entries_) {
      kvm_dirty_gfn& entry = At(next_);
      // SAFETY: aligned u32 shared with the kernel; the acquire load orders slot and offset after
      // it (api.rst, 8.29).
      std::atomic_ref<uint32_t> flags(entry.flags);
      if ((flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_MASK) != KVM_DIRTY_GFN_F_DIRTY) {
        break;
      }
      callback(static_cast<uint32_t>(entry.slot), static_cast<uint64_t>(entry.offset));
      ++next_;
      ++count;
    }
    return count;
  }

  // Gives the oldest outstanding entry back (01 -> 1X), for KVM to log page `offset_pages` of
  // `slot` again at its next reset. There must be one.
  void GiveBack(uint32_t slot, uint64_t offset_pages) {
    ROMULUS_CHECK(outstanding() > 0);
    kvm_dirty_gfn& entry = At(given_back_++);
    entry.slot = slot;
    entry.offset = offset_pages;
    // SAFETY: as in Harvest; the release store orders slot and offset before KVM's reset.
    std::atomic_ref<uint32_t>(entry.flags).store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
  }
  // The same, for no page: KVM passes over entries of slots that do not exist.
  void GiveBackUnused() { GiveBack(kNoSlot, 0); }

  // The vCPU was stopped by the full ring; `progressed`: it has executed something since the last
  // time. With it out of KVM_RUN.
  void NoteFull(bool progressed) { stalls_ = progressed ? 0 : stalls_ + 1; }
  // How often in a row it had not: its next instruction needs more pages than it could get.
  uint32_t stalls() const { return stalls_; }

  uint32_t outstanding() const { return next_ - given_back_; }

  // Whether the entry `n_ahead` of the next one to harvest is dirty, that is, whether more than
  // `n_ahead` pages are waiting: an estimate without stopping anybody. False beyond the ring.
  bool EntryDirty(uint32_t n_ahead) const {
    if (n_ahead >= entries_ - outstanding()) return false;  // an outstanding one, once around
    // SAFETY: as in Harvest; relaxed, because it is only a hint.
    std::atomic_ref<uint32_t> flags(At(next_ + n_ahead).flags);
    return (flags.load(std::memory_order_relaxed) & KVM_DIRTY_GFN_F_MASK) == KVM_DIRTY_GFN_F_DIRTY;
  }

  // How many entries wait, as far as can be seen: a search for the first that is not dirty.
  uint32_t LikelyCount() const {
    uint32_t dirty = 0, clean = 1;  // [0, dirty) are, `clean` is not known to be
    while (clean <= entries_ && EntryDirty(clean - 1)) {
      dirty = clean;
      clean *= 2;
    }
    clean = std::min(clean, entries_ + 1);
    while (clean - dirty > 1) {
      const uint32_t middle = dirty + (clean - dirty) / 2;
      (EntryDirty(middle - 1) ? dirty : clean) = middle;
    }
    return dirty;
  }

  uint32_t entries() const { return entries_; }
  // KVM exits with KVM_EXIT_DIRTY_RING_FULL when this many entries are not free; never more than
  // KVM's own limit (PML is assumed where it cannot be excluded).
  uint32_t soft_limit() const { return soft_limit_; }

 private:
  DirtyRing(base::MappedRegion mapping, uint32_t entries, uint32_t soft_limit);
  // Of address space 0, which has far fewer slots (KVM_USER_MEM_SLOTS).
  static constexpr uint32_t kNoSlot = 0xffff;
  kvm_dirty_gfn& At(uint32_t index) const { return ring_[index & (entries_ - 1)]; }

  base::MappedRegion mapping_;
  kvm_dirty_gfn* ring_ = nullptr;
  uint32_t entries_ = 0;
  uint32_t soft_limit_ = 0;
  // Both wrap at 2^32, a multiple of the ring's size.
  uint32_t next_ = 0;
  uint32_t given_back_ = 0;
  uint32_t stalls_ = 0;
};

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_DIRTY_RING_H_

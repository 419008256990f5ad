// One vCPU's dirty ring: 16-byte entries that KVM fills and userspace harvests in sequence
// (Documentation/virt/kvm/api.rst, KVM_CAP_DIRTY_LOG_RING). Owns its mapping of the ring, which
// stays valid without the vCPU. One thread at a time; the vCPU may run beside EntryDirty(), but a
// harvest is complete only with every vCPU out of KVM_RUN (an entry may come before its write).
#ifndef ROMULUS_KVM_DIRTY_RING_H_
#define ROMULUS_KVM_DIRTY_RING_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
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

  // Hands every dirty entry to `callback(uint32_t slot, uint64_t offset_pages)` in order and marks
  // it harvested (01 -> 1X). Slot (its upper 16 bits are the address space) and offset are KVM's
  // words: the callback checks that they lie in the layout. Returns the number of entries.
  template <typename Callback>
  uint32_t Harvest(Callback&& callback) {
    uint32_t count = 0;
    while (count < entries_) {
      kvm_dirty_gfn& entry = At(next_);
      // SAFETY: aligned u32 shared with the kernel; the flag's acquire load orders slot and offset
      // after it, the release store orders them before the reset (api.rst, 8.29).
      std::atomic_ref<uint32_t> flags(entry.flags);
      if ((flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_MASK) != KVM_DIRTY_GFN_F_DIRTY) {
        break;
      }
      callback(static_cast<uint32_t>(entry.slot), static_cast<uint64_t>(entry.offset));
      flags.store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
      ++next_;
      ++count;
    }
    return count;
  }

  // Whether the entry `n_ahead` of the next one to harvest is dirty, that is, whether more than
  // `n_ahead` pages are waiting: an estimate without stopping anybody. False for n_ahead >=
  // entries().
  bool EntryDirty(uint32_t n_ahead) const {
    if (n_ahead >= entries_) return false;
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
  // KVM exits with KVM_EXIT_DIRTY_RING_FULL when this many entries wait; never more than KVM's own
  // limit (PML is assumed where it cannot be excluded).
  uint32_t soft_limit() const { return soft_limit_; }

 private:
  DirtyRing(base::MappedRegion mapping, uint32_t entries, uint32_t soft_limit);
  kvm_dirty_gfn& At(uint32_t index) const { return ring_[index & (entries_ - 1)]; }

  base::MappedRegion mapping_;
  kvm_dirty_gfn* ring_ = nullptr;
  uint32_t entries_ = 0;
  uint32_t soft_limit_ = 0;
  uint32_t next_ = 0;  // wraps at 2^32, a multiple of the ring's size
};

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_DIRTY_RING_H_

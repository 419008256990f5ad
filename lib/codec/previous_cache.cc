#include "codec/previous_cache.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace romulus::codec {

absl::StatusOr<PreviousCache> PreviousCache::Create(Gfn gfn_end, uint64_t cap_bytes) {
  const uint64_t capacity = std::min<uint64_t>(
      {cap_bytes / kPageSize, gfn_end.value(), UINT32_MAX - 1});  // slot numbers are 32 bits
  base::MappedRegion memory;
  if (capacity > 0) {
    ROMULUS_ASSIGN_OR_RETURN(
        memory, base::MappedRegion::MapAnonymous(static_cast<size_t>(capacity * kPageSize)));
  }
  return PreviousCache(gfn_end, static_cast<size_t>(capacity), std::move(memory));
}

PreviousCache::PreviousCache(Gfn gfn_end, size_t capacity_pages, base::MappedRegion memory)
    : memory_(std::move(memory)),
      slot_of_gfn_(capacity_pages > 0 ? gfn_end.value() : 0),
      slots_(capacity_pages) {
  Clear();
}

std::byte* PreviousCache::SlotBytes(size_t slot) const { return memory_.data() + slot * kPageSize; }

std::byte* PreviousCache::Find(Gfn gfn) {
  if (gfn.value() >= slot_of_gfn_.size()) return nullptr;
  const uint32_t slot = slot_of_gfn_[gfn.value()];
  if (slot == 0) return nullptr;
  slots_[slot - 1].referenced = true;
  return SlotBytes(slot - 1);
}

std::byte* PreviousCache::Put(Gfn gfn) {
  if (std::byte* cached = Find(gfn); cached != nullptr) return cached;
  if (gfn.value() >= slot_of_gfn_.size()) return nullptr;
  const size_t slot = TakeSlot();
  slots_[slot] = {gfn, true, false};
  slot_of_gfn_[gfn.value()] = static_cast<uint32_t>(slot + 1);
  ++used_;
  return SlotBytes(slot);
}

size_t PreviousCache::TakeSlot() {
  if (!free_.empty()) {
    const size_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  // All slots are used. Clearing the marks on the way bounds this to two rounds.
  for (;; hand_ = (hand_ + 1) % slots_.size()) {
    Slot& slot = slots_[hand_];
    if (std::exchange(slot.referenced, false)) continue;
    slot_of_gfn_[slot.gfn.value()] = 0;
    slot.used = false;
    --used_;
    ++evictions_;
    const size_t taken = hand_;
    hand_ = (hand_ + 1) % slots_.size();
    return taken;
  }
}

void PreviousCache::Erase(Gfn gfn) {
  if (gfn.value() >= slot_of_gfn_.size()) return;
  const uint32_t slot = std::exchange(slot_of_gfn_[gfn.value()], 0);
  if (slot == 0) return;
  slots_[slot - 1] = {};
  free_.push_back(slot - 1);
  --used_;
}

void PreviousCache::Clear() {
  std::fill(slot_of_gfn_.begin(), slot_of_gfn_.end(), 0);
  std::fill(slots_.begin(), slots_.end(), Slot{});
  free_.clear();
  // Low slots first: memory that was touched is used again.
  for (size_t slot = slots_.size(); slot > 0; --slot) {
    free_.push_back(static_cast<uint32_t>(slot - 1));
  }
  hand_ = 0;
  used_ = 0;
}

}  // namespace romulus::codec

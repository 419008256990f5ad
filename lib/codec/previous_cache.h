// Previous versions of pages on the primary, bounded (P6), so that a page written again travels as
// its changed words. Evicts by the clock algorithm (second chance).
//
// The rule that makes deltas right: a page in the cache is byte for byte what the secondary will
// hold of that page once it has handled every frame written so far. Whoever encodes a page puts the
// new version here; whoever learns that the secondary will not take it (epoch aborted, stream
// reset) erases the page or clears the cache. A page that is missing costs bytes on the wire; a
// page that is wrong would corrupt the replica, and the pages digest of the next commit would
// refuse it.
//
// One thread at a time.
#ifndef ROMULUS_CODEC_PREVIOUS_CACHE_H_
#define ROMULUS_CODEC_PREVIOUS_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mapped_region.h"
#include "base/types.h"
#include "codec/page_encoding.h"

namespace romulus::codec {

class PreviousCache {
 public:
  // Room for cap_bytes / 4096 pages (0: caches nothing) of GFNs below `gfn_end`; memory is taken as
  // it is used. Errors: errno of mmap.
  static absl::StatusOr<PreviousCache> Create(Gfn gfn_end, uint64_t cap_bytes);
  PreviousCache(PreviousCache&&) noexcept = default;
  PreviousCache& operator=(PreviousCache&&) noexcept = default;

  // The page's previous version, or null. Valid until the next Put, Erase or Clear.
  std::byte* Find(Gfn gfn);
  // Room for the page, content unspecified if it is new: the caller fills it at once. Evicts
  // another page if the cache is full. Null if the cache has no room for any page.
  std::byte* Put(Gfn gfn);
  void Erase(Gfn gfn);
  void Clear();

  size_t pages() const { return used_; }
  size_t capacity_pages() const { return slots_.size(); }
  uint64_t evictions() const { return evictions_; }

 private:
  struct Slot {
    Gfn gfn;
    bool used = false;
    bool referenced = false;
  };

  PreviousCache(Gfn gfn_end, size_t capacity_pages, base::MappedRegion memory);
  std::byte* SlotBytes(size_t slot) const;
  size_t TakeSlot();

  base::MappedRegion memory_;
  std::vector<uint32_t> slot_of_gfn_;  // 0: not cached, else slot + 1
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t hand_ = 0;
  size_t used_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_PREVIOUS_CACHE_H_

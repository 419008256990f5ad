// A set of GFNs: a bitmap for membership and a list for iteration, so that inserting is O(1) and
// clearing or walking costs by the number of members, not by the size of memory. One thread at a
// time.
#ifndef ROMULUS_MEMORY_PAGE_SET_H_
#define ROMULUS_MEMORY_PAGE_SET_H_

#include <cstdint>
#include <span>
#include <vector>

#include "base/types.h"

namespace romulus::memory {

class PageSet {
 public:
  PageSet() = default;
  // For GFNs below `gfn_end`.
  explicit PageSet(Gfn gfn_end);

  // True if it was not in the set. `gfn` must be below gfn_end().
  bool Insert(Gfn gfn);
  void InsertAll(const PageSet& other);
  bool Contains(Gfn gfn) const;
  // Forgets one member. O(size). True if it was there.
  bool Erase(Gfn gfn);
  void Clear();
  // Ascending order from here on until the next Insert: sequential reads copy faster.
  void Sort();

  std::span<const Gfn> pages() const { return pages_; }
  size_t size() const { return pages_.size(); }
  bool empty() const { return pages_.empty(); }
  Gfn gfn_end() const { return gfn_end_; }

 private:
  Gfn gfn_end_;
  std::vector<uint64_t> bits_;
  std::vector<Gfn> pages_;
};

}  // namespace romulus::memory

#endif  // ROMULUS_MEMORY_PAGE_SET_H_

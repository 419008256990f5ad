// New contents of some pages, held beside the committed image until their epoch is complete. A
// value that owns its bytes; memory is kept when cleared, so that small epochs allocate nothing.
// One thread at a time.
#ifndef ROMULUS_REPLICA_STAGED_PAGES_H_
#define ROMULUS_REPLICA_STAGED_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/types.h"

namespace romulus::replica {

struct StagedPage {
  Gfn gfn;
  const std::byte* bytes = nullptr;  // kPageSize of them; null: all zero
};

class StagedPages {
 public:
  // Adds a page and returns room for its content, to be filled at once.
  std::span<std::byte, kPageSize> Add(Gfn gfn);
  void AddZero(Gfn gfn) { pages_.push_back({gfn, nullptr}); }
  // Forgets the pages; keeps at most kKeptChunks of memory.
  void Clear();

  std::span<const StagedPage> pages() const { return pages_; }
  // What the staging costs: contents and list.
  uint64_t bytes() const { return used_ * kPageSize + pages_.size() * sizeof(StagedPage); }

 private:
  static constexpr size_t kChunkPages = 64;
  static constexpr size_t kKeptChunks = 16;

  std::vector<StagedPage> pages_;
  std::vector<std::unique_ptr<std::byte[]>> chunks_;
  uint64_t used_ = 0;  // pages with contents
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_STAGED_PAGES_H_

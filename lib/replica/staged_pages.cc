#include "replica/staged_pages.h"

namespace romulus::replica {

std::span<std::byte, kPageSize> StagedPages::Add(Gfn gfn) {
  const size_t chunk = used_ / kChunkPages;
  if (chunk == chunks_.size()) {
    chunks_.push_back(std::make_unique_for_overwrite<std::byte[]>(kChunkPages * kPageSize));
  }
  std::byte* bytes = chunks_[chunk].get() + used_ % kChunkPages * kPageSize;
  ++used_;
  pages_.push_back({gfn, bytes});
  return std::span<std::byte, kPageSize>(bytes, kPageSize);
}

void StagedPages::Clear() {
  used_ = 0;
  if (chunks_.size() > kKeptChunks) {
    chunks_.resize(kKeptChunks);
    pages_ = {};
  }
  pages_.clear();
}

}  // namespace romulus::replica

#include "codec/page_digest.h"

#include <cstring>

#include "base/xxh3.h"

namespace romulus::codec {

uint64_t PageHash(PageBytes page) { return XXH3_64bits(page.data(), page.size()); }

uint64_t ZeroPageHash() {
  static const uint64_t hash = [] {
    static constexpr std::byte kZeros[kPageSize] = {};
    return PageHash(kZeros);
  }();
  return hash;
}

uint64_t HashBytes(absl::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

void PagesDigest::Add(Gfn gfn, uint64_t page_hash) {
  const uint64_t pair[2] = {gfn.value(), page_hash};
  value_ = XXH3_64bits_withSeed(pair, sizeof(pair), value_);
}

}  // namespace romulus::codec

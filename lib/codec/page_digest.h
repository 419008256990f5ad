// The digests in EpochCommit, computed alike on both sides. Values; one thread at a time.
#ifndef ROMULUS_CODEC_PAGE_DIGEST_H_
#define ROMULUS_CODEC_PAGE_DIGEST_H_

#include <cstdint>
#include <span>

#include "absl/strings/string_view.h"
#include "base/types.h"
#include "codec/page_encoding.h"

namespace romulus::codec {

// XXH3-64 of a page's content.
uint64_t PageHash(PageBytes page);
// The same of a page that is all zero.
uint64_t ZeroPageHash();
// XXH3-64 of any bytes.
uint64_t HashBytes(absl::string_view bytes);

// EpochCommit.pages_digest: starts at 0; each page makes it
// XXH3-64((gfn, page hash) as 16 little-endian bytes, seeded with the digest so far).
class PagesDigest {
 public:
  void Add(Gfn gfn, uint64_t page_hash);
  uint64_t value() const { return value_; }
  void Reset() { value_ = 0; }

 private:
  uint64_t value_ = 0;
};

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_PAGE_DIGEST_H_

// Which words of a page changed: the one loop of the encoder that touches every byte, in several
// versions for what the processor can do. All give the same result. Pure functions.
#ifndef ROMULUS_CODEC_PAGE_DIFF_H_
#define ROMULUS_CODEC_PAGE_DIFF_H_

#include <cstddef>
#include <cstdint>

#include "memory/memory_layout.h"

namespace romulus::codec {

inline constexpr size_t kLineBytes = 64;
inline constexpr size_t kLinesPerPage = kPageSize / kLineBytes;
inline constexpr size_t kWordsPerLine = kLineBytes / sizeof(uint64_t);
inline constexpr size_t kWordsPerPage = kPageSize / sizeof(uint64_t);

// Two levels of masks and the new values, as a delta record has them (page_encoding.h).
struct PageDelta {
  uint64_t line_mask;                 // bit n: line n changed
  size_t lines;                       // = bits of line_mask; so many of word_masks are set
  size_t words;                       // = bits of all word masks; so many of values are set
  uint8_t word_masks[kLinesPerPage];  // bit n: word n of that line changed
  // A version may write a whole line's words behind the last one that counts.
  uint64_t values[kWordsPerPage + kWordsPerLine];
};

enum class DiffVersion : uint8_t { kPortable, kAvx2, kAvx512 };
inline constexpr DiffVersion kDiffVersions[] = {DiffVersion::kPortable, DiffVersion::kAvx2,
                                                DiffVersion::kAvx512};

// Whether this processor has what the version needs. kPortable: always.
bool CanRun(DiffVersion version);

// The fastest that this processor can run, found once.
DiffVersion BestDiffVersion();

// `now` against `before`, 4096 bytes each, of any alignment. Fills *delta up to its counts. The
// version must be one that CanRun().
void DiffPage(DiffVersion version, const std::byte* now, const std::byte* before, PageDelta* delta);

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_PAGE_DIFF_H_

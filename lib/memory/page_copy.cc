#include "memory/page_copy.h"

#include <emmintrin.h>

#include "base/types.h"

namespace romulus::memory {

void PastCaches::CopyPage(std::byte* to, const std::byte* from) {
  // By lines of 64 bytes, so that each leaves the write-combining buffer whole.
  constexpr size_t kStep = 4;
  // SAFETY: vectors may alias anything; a page is a whole number of them, and aligned.
  auto* into = reinterpret_cast<__m128i*>(to);
  const auto* out_of = reinterpret_cast<const __m128i*>(from);
  for (size_t at = 0; at < kPageSize / sizeof(__m128i); at += kStep) {
    __m128i line[kStep];
    for (size_t i = 0; i < kStep; ++i) line[i] = _mm_loadu_si128(out_of + at + i);
    for (size_t i = 0; i < kStep; ++i) _mm_stream_si128(into + at + i, line[i]);
  }
}

PastCaches::~PastCaches() { _mm_sfence(); }

}  // namespace romulus::memory

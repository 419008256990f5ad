#include "codec/page_diff.h"

#include <immintrin.h>

#include <array>
#include <bit>
#include <cstring>

namespace romulus::codec {
namespace {

void DiffPortable(const std::byte* now, const std::byte* before, PageDelta* delta) {
  struct Line {
    uint64_t words[kWordsPerLine];
  };
  for (size_t line = 0; line < kLinesPerPage; ++line) {
    Line a;
    Line b;
    std::memcpy(&a, now + line * kLineBytes, kLineBytes);
    std::memcpy(&b, before + line * kLineBytes, kLineBytes);
    uint64_t changed = 0;
    for (size_t w = 0; w < kWordsPerLine; ++w) changed |= a.words[w] ^ b.words[w];
    if (changed == 0) [[likely]]
      continue;
    delta->line_mask |= 1ull << line;
    unsigned mask = 0;
    for (size_t w = 0; w < kWordsPerLine; ++w) {
      const bool differs = a.words[w] != b.words[w];
      mask |= static_cast<unsigned>(differs) << w;
      delta->values[delta->words] = a.words[w];  // overwritten by the next unless it differs
      delta->words += differs;
    }
    delta->word_masks[delta->lines++] = static_cast<uint8_t>(mask);
  }
}

// For four words under a mask: the 32-bit lanes that bring the chosen words to the front, in order.
struct alignas(32) Lanes {
  std::array<uint32_t, 8> at;
};
constexpr std::array<Lanes, 16> kToFront = [] {
  std::array<Lanes, 16> table{};
  for (uint32_t mask = 0; mask < 16; ++mask) {
    uint32_t next = 0;
    for (uint32_t word = 0; word < 4; ++word) {
      if ((mask >> word & 1) == 0) continue;
      table[mask].at[next++] = 2 * word;
      table[mask].at[next++] = 2 * word + 1;
    }
  }
  return table;
}();

const __m256i* Vector256(const void* from) { return static_cast<const __m256i*>(from); }

// Of four words: stores the chosen ones at `to` (and writes up to four), returns where the next go.
[[gnu::target("avx2")]] inline uint64_t* Store4(uint64_t* to, __m256i words, unsigned mask) {
  const __m256i lanes = _mm256_load_si256(Vector256(kToFront[mask].at.data()));
  _mm256_storeu_si256(static_cast<__m256i*>(static_cast<void*>(to)),
                      _mm256_permutevar8x32_epi32(words, lanes));
  return to + std::popcount(mask);
}

[[gnu::target("avx2")]] void DiffAvx2(const std::byte* now, const std::byte* before,
                                      PageDelta* delta) {
  // First which lines, without a branch: nearly all are equal, and the rest come in no order.
  uint64_t changed = 0;
  for (size_t line = 0; line < kLinesPerPage; ++line) {
    const std::byte* const a = now + line * kLineBytes;
    const std::byte* const b = before + line * kLineBytes;
    const __m256i differs = _mm256_or_si256(
        _mm256_xor_si256(_mm256_loadu_si256(Vector256(a)), _mm256_loadu_si256(Vector256(b))),
        _mm256_xor_si256(_mm256_loadu_si256(Vector256(a + 32)),
                         _mm256_loadu_si256(Vector256(b + 32))));
    const uint64_t any = _mm256_testz_si256(differs, differs) == 0 ? 1 : 0;
    changed |= any << line;
  }
  delta->line_mask = changed;
  uint64_t* values = delta->values;
  uint8_t* word_mask = delta->word_masks;
  for (; changed != 0; changed &= changed - 1) {
    const size_t at = static_cast<size_t>(std::countr_zero(changed)) * kLineBytes;
    const __m256i low = _mm256_loadu_si256(Vector256(now + at));
    const __m256i high = _mm256_loadu_si256(Vector256(now + at + 32));
    const __m256i low_same = _mm256_cmpeq_epi64(low, _mm256_loadu_si256(Vector256(before + at)));
    const __m256i high_same =
        _mm256_cmpeq_epi64(high, _mm256_loadu_si256(Vector256(before + at + 32)));
    const unsigned low_mask =
        ~static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(low_same))) & 0xf;
    const unsigned high_mask =
        ~static_cast<unsigned>(_mm256_movemask_pd(_mm256_castsi256_pd(high_same))) & 0xf;
    *word_mask++ = static_cast<uint8_t>(low_mask | high_mask << 4);
    values = Store4(values, low, low_mask);
    values = Store4(values, high, high_mask);
  }
  delta->lines = static_cast<size_t>(word_mask - delta->word_masks);
  delta->words = static_cast<size_t>(values - delta->values);
}

// A branch for some lines at once: in most none has changed; in the others it is not known which.
// A compressed store to memory is slow on some processors; to a register it is not.
[[gnu::target("avx512f")]] void DiffAvx512(const std::byte* now, const std::byte* before,
                                           PageDelta* delta) {
  constexpr size_t kTogether = 4;
  uint64_t changed = 0;
  uint64_t* value = delta->values;
  uint8_t* word_mask = delta->word_masks;
  for (size_t first = 0; first < kLinesPerPage; first += kTogether) {
    __m512i differs = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (size_t line = first; line < first + kTogether; ++line) {
      differs = _mm512_or_si512(differs,
                                _mm512_xor_si512(_mm512_loadu_si512(now + line * kLineBytes),
                                                 _mm512_loadu_si512(before + line * kLineBytes)));
    }
    if (_mm512_test_epi64_mask(differs, differs) == 0) continue;
#pragma GCC unroll 4
    for (size_t line = first; line < first + kTogether; ++line) {
      const __m512i words = _mm512_loadu_si512(now + line * kLineBytes);
      const __mmask8 mask =
          _mm512_cmpneq_epi64_mask(words, _mm512_loadu_si512(before + line * kLineBytes));
      const uint64_t any = mask != 0 ? 1 : 0;
      changed |= any << line;
      *word_mask = mask;  // overwritten by the next unless any word differs
      word_mask += any;
      _mm512_storeu_si512(value, _mm512_maskz_compress_epi64(mask, words));
      value += std::popcount(static_cast<unsigned>(mask));
    }
  }
  delta->line_mask = changed;
  delta->lines = static_cast<size_t>(word_mask - delta->word_masks);
  delta->words = static_cast<size_t>(value - delta->values);
}

}  // namespace

bool CanRun(DiffVersion version) {
  switch (version) {
    case DiffVersion::kPortable:
      return true;
    case DiffVersion::kAvx2:
      return __builtin_cpu_supports("avx2") != 0;
    case DiffVersion::kAvx512:
      return __builtin_cpu_supports("avx512f") != 0;
  }
  return false;
}

DiffVersion BestDiffVersion() {
  static const DiffVersion best = [] {
    DiffVersion found = DiffVersion::kPortable;
    for (const DiffVersion version : kDiffVersions) {
      if (CanRun(version)) found = version;
    }
    return found;
  }();
  return best;
}

void DiffPage(DiffVersion version, const std::byte* now, const std::byte* before,
              PageDelta* delta) {
  delta->line_mask = 0;
  delta->lines = 0;
  delta->words = 0;
  switch (version) {
    case DiffVersion::kPortable:
      return DiffPortable(now, before, delta);
    case DiffVersion::kAvx2:
      return DiffAvx2(now, before, delta);
    case DiffVersion::kAvx512:
      return DiffAvx512(now, before, delta);
  }
}

}  // namespace romulus::codec

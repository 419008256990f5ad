#include "xbzrle.h"

#include <bit>
#include <cstdint>
#include <cstring>

namespace romulus::bench {
namespace {

constexpr size_t kWord = sizeof(uint64_t);

uint64_t LoadXor(const std::byte* a, const std::byte* b) {
  uint64_t x;
  uint64_t y;
  std::memcpy(&x, a, kWord);
  std::memcpy(&y, b, kWord);
  return x ^ y;
}

// The first byte at or behind `from` that differs (differ) or does not; `end` if none. Eight bytes
// at a time: the format is bytewise, its encoder need not be.
size_t FindChange(const std::byte* now, const std::byte* before, size_t from, size_t end) {
  for (; from + kWord <= end; from += kWord) {
    const uint64_t x = LoadXor(now + from, before + from);
    if (x != 0) return from + static_cast<size_t>(std::countr_zero(x)) / 8;
  }
  while (from < end && now[from] == before[from]) ++from;
  return from;
}

size_t FindEqual(const std::byte* now, const std::byte* before, size_t from, size_t end) {
  constexpr uint64_t kLow = 0x0101010101010101;
  constexpr uint64_t kHigh = kLow << 7;
  for (; from + kWord <= end; from += kWord) {
    const uint64_t x = LoadXor(now + from, before + from);
    // The lowest zero byte's high bit; those above it may be wrong, and do not matter.
    const uint64_t zero = (x - kLow) & ~x & kHigh;
    if (zero != 0) return from + static_cast<size_t>(std::countr_zero(zero)) / 8;
  }
  while (from < end && now[from] != before[from]) ++from;
  return from;
}

bool PutNumber(size_t value, std::span<std::byte> into, size_t* at) {
  do {
    if (*at == into.size()) return false;
    const size_t rest = value >> 7;
    into[(*at)++] = static_cast<std::byte>((value & 0x7f) | (rest != 0 ? 0x80 : 0));
    value = rest;
  } while (value != 0);
  return true;
}

bool TakeNumber(std::span<const std::byte> from, size_t* at, size_t* value) {
  *value = 0;
  for (unsigned shift = 0; shift < 21 && *at < from.size(); shift += 7) {
    const auto byte = static_cast<size_t>(from[(*at)++]);
    *value |= (byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

}  // namespace

std::optional<size_t> EncodeXbzrle(std::span<const std::byte> now,
                                   std::span<const std::byte> before, std::span<std::byte> into) {
  const size_t end = now.size();
  size_t at = 0;
  size_t used = 0;
  while (true) {
    const size_t change = FindChange(now.data(), before.data(), at, end);
    if (change == end) return used;
    const size_t equal = FindEqual(now.data(), before.data(), change, end);
    if (!PutNumber(change - at, into, &used) || !PutNumber(equal - change, into, &used) ||
        into.size() - used < equal - change) {
      return std::nullopt;
    }
    std::memcpy(into.data() + used, now.data() + change, equal - change);
    used += equal - change;
    at = equal;
  }
}

bool DecodeXbzrle(std::span<const std::byte> encoded, std::span<std::byte> page) {
  size_t from = 0;
  size_t to = 0;
  while (from < encoded.size()) {
    size_t equal;
    size_t changed;
    if (!TakeNumber(encoded, &from, &equal) || !TakeNumber(encoded, &from, &changed) ||
        equal > page.size() - to || changed > page.size() - to - equal ||
        changed > encoded.size() - from) {
      return false;
    }
    to += equal;
    std::memcpy(page.data() + to, encoded.data() + from, changed);
    to += changed;
    from += changed;
  }
  return true;
}

}  // namespace romulus::bench

// XBZRLE, the peer's delta of a page, written from the description of its format (QEMU,
// docs/devel/migration: "XBZRLE (Xor Based Zero Run Length Encoding)"): runs of equal and of
// changed bytes in turn, each run's length a ULEB128 number, behind the length of a changed run its
// new bytes. Equal bytes at the end are left out. For comparison in benches only.
#ifndef ROMULUS_BENCH_XBZRLE_H_
#define ROMULUS_BENCH_XBZRLE_H_

#include <cstddef>
#include <optional>
#include <span>

namespace romulus::bench {

// Both pages of one size, at most 65,536 bytes. Returns the bytes used of `into`; 0: the pages are
// equal; nothing: it would be longer than `into`.
std::optional<size_t> EncodeXbzrle(std::span<const std::byte> now,
                                   std::span<const std::byte> before, std::span<std::byte> into);

// Turns `page` from `before` into `now`; false if `encoded` is not well-formed.
bool DecodeXbzrle(std::span<const std::byte> encoded, std::span<std::byte> page);

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_XBZRLE_H_

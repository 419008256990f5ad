// Strong types for the numbers that must not be mixed up. Values; any thread.
#ifndef ROMULUS_BASE_TYPES_H_
#define ROMULUS_BASE_TYPES_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

namespace romulus::base {

inline constexpr uint64_t kPageSize = 4096;  // bytes
inline constexpr unsigned kPageShift = 12;

template <typename Tag>
class StrongU64 {
 public:
  constexpr StrongU64() = default;
  constexpr explicit StrongU64(uint64_t value) : value_(value) {}
  constexpr uint64_t value() const { return value_; }
  constexpr StrongU64 Next() const { return StrongU64(value_ + 1); }
  friend constexpr auto operator<=>(StrongU64, StrongU64) = default;

  template <typename H>
  friend H AbslHashValue(H h, StrongU64 v) {
    return H::combine(std::move(h), v.value_);
  }

 private:
  uint64_t value_ = 0;
};

// Number of an epoch within its term, from 1; 0 means "none yet".
using EpochId = StrongU64<struct EpochIdTag>;
// Fencing number: rises with each change of primary or of protected/solo; 0 means "none yet".
using Term = StrongU64<struct TermTag>;
// No peer is believed a newer one: raises above it neither wrap nor are ever this many.
inline constexpr Term kMaxPeerTerm{uint64_t{1} << 62};
// Guest physical address, in bytes.
using Gpa = StrongU64<struct GpaTag>;
// Guest frame number: Gpa / 4096.
using Gfn = StrongU64<struct GfnTag>;

constexpr Gfn GfnOf(Gpa gpa) { return Gfn(gpa.value() >> kPageShift); }
constexpr Gpa GpaOf(Gfn gfn) { return Gpa(gfn.value() << kPageShift); }

}  // namespace romulus::base

namespace romulus {
using base::EpochId;
using base::Gfn;
using base::GfnOf;
using base::Gpa;
using base::GpaOf;
using base::kMaxPeerTerm;
using base::kPageShift;
using base::kPageSize;
using base::Term;
}  // namespace romulus

#endif  // ROMULUS_BASE_TYPES_H_

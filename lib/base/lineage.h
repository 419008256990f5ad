// Where a guest comes from, and so which of two guests of one VM is the living one. Terms cannot
// say it: they rise with each start, however old the state is that was started. Values and a pure
// function, for both ends of a handshake; any thread.
#ifndef ROMULUS_BASE_LINEAGE_H_
#define ROMULUS_BASE_LINEAGE_H_

#include "base/types.h"

namespace romulus::base {

struct Lineage {
  // Of the promotion that the guest came from; 0: it was booted.
  Term promoted{};
  // Of the epoch that was promoted then: what the other node ran in that term is continued here.
  Term covers{};
  // The newest in which one node committed an epoch of the other's guest, this one or one that it
  // came from, as far as this node was told. At least `covers`; a start does not change it.
  Term shared{};

  friend bool operator==(const Lineage&, const Lineage&) = default;
};

enum class Newer : uint8_t { kNeither, kFirst, kSecond };

// A guest was promoted over another if the other shared nothing later than what was promoted. Of
// two of which neither was promoted over the other, none is newer.
constexpr Newer JudgeLineages(const Lineage& first, const Lineage& second) {
  const auto promoted_over = [](const Lineage& one, const Lineage& other) {
    return one.promoted > Term() && other.shared <= one.covers;
  };
  const bool first_newer = promoted_over(first, second);
  const bool second_newer = promoted_over(second, first);
  if (first_newer == second_newer) return Newer::kNeither;
  return first_newer ? Newer::kFirst : Newer::kSecond;
}

}  // namespace romulus::base

namespace romulus {
using base::JudgeLineages;
using base::Lineage;
using base::Newer;
}  // namespace romulus

#endif  // ROMULUS_BASE_LINEAGE_H_

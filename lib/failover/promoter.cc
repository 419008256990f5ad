#include "failover/promoter.h"

#include <algorithm>
#include <utility>

#include "base/status.h"

namespace romulus::failover {

absl::StatusOr<Promotion> Promote(const base::Clock& clock, uint64_t decided_ns,
                                  const SealReplica& seal, PreparedGuest& guest) {
  Promotion promotion;
  promotion.times.decided_ns = decided_ns;
  uint64_t step_began_ns = clock.NowNs();
  auto step_ns = [&] {
    const uint64_t now_ns = clock.NowNs();
    return now_ns - std::exchange(step_began_ns, now_ns);
  };

  absl::StatusOr<SealedEpoch> sealed = seal();
  if (!sealed.ok()) return base::Annotate(sealed.status(), "seal");
  promotion.from_term = sealed->term;
  promotion.epoch = sealed->epoch;
  promotion.times.seal_ns = step_ns();

  if (absl::Status restored = guest.Restore(std::move(sealed->machine)); !restored.ok()) {
    return base::Annotate(restored, "restore");
  }
  promotion.times.restore_ns = step_ns();

  if (absl::Status started = guest.Start(); !started.ok()) {
    return base::Annotate(started, "start");
  }
  promotion.times.start_ns = step_ns();
  promotion.times.total_ns = step_began_ns - std::min(step_began_ns, decided_ns);
  return promotion;
}

}  // namespace romulus::failover

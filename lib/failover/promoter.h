// Turns a sealed replica into a running guest: the machine was created ahead on the replica's own
// memory, so only state is restored, and the vCPUs run. Says how long each step took.
// One thread; blocks for milliseconds.
#ifndef ROMULUS_FAILOVER_PROMOTER_H_
#define ROMULUS_FAILOVER_PROMOTER_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/types.h"
#include "state/machine_state.h"

namespace romulus::failover {

// Owned by failover; the daemon implements it with vmm::Machine. Its memory is the replica's.
class PreparedGuest {
 public:
  virtual ~PreparedGuest() = default;
  virtual absl::Status Restore(state::MachineState machine) = 0;
  virtual absl::Status Start() = 0;
};

// What the replica hands over: exactly one committed epoch (P2).
struct SealedEpoch {
  Term term;
  EpochId epoch;
  state::MachineState machine;
};

// Stops applying and gives up the newest committed epoch, all of which is now in memory. The
// replica takes nothing more. Errors: FailedPrecondition if nothing is committed.
using SealReplica = std::function<absl::StatusOr<SealedEpoch>()>;

struct PromotionTimes {
  uint64_t decided_ns = 0;  // when it was decided, as given
  uint64_t seal_ns = 0;     // durations of the steps
  uint64_t restore_ns = 0;
  uint64_t start_ns = 0;
  uint64_t total_ns = 0;  // decision until the vCPUs were told to run
};

struct Promotion {
  Term from_term;
  EpochId epoch;
  PromotionTimes times;
};

// Errors: those of the step that failed, with its name in front. `decided_ns` is of `clock`.
absl::StatusOr<Promotion> Promote(const base::Clock& clock, uint64_t decided_ns,
                                  const SealReplica& seal, PreparedGuest& guest);

}  // namespace romulus::failover

#endif  // ROMULUS_FAILOVER_PROMOTER_H_

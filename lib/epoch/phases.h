// The phases of a checkpoint, in order; each is an enum value, a function of Checkpoint and a
// histogram label. The order is the design: see Checkpoint::Run().
#ifndef ROMULUS_EPOCH_PHASES_H_
#define ROMULUS_EPOCH_PHASES_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace romulus::epoch {

enum class Phase : uint8_t {
  kStop,     // ask every vCPU to stop, until the last has; devices quiet
  kHarvest,  // dirty rings (or bitmap) emptied
  kReset,    // KVM_RESET_DIRTY_RINGS, before any page is read
  kUnion,    // with the pages that the VMM wrote and those put back
  kCopy,     // pages to staging
  kCapture,  // wait for vCPU, VM and device state
  kCut,      // output gate and disk log cut at this epoch
  kResume,   // until the vCPUs are told to run
};
inline constexpr size_t kPhaseCount = 8;

inline constexpr std::array<absl::string_view, kPhaseCount> kPhaseNames = {
    "stop", "harvest", "reset", "union", "copy", "capture", "cut", "resume"};

constexpr absl::string_view PhaseName(Phase phase) {
  return kPhaseNames[static_cast<size_t>(phase)];
}

struct PhaseTimes {
  std::array<uint64_t, kPhaseCount> ns{};
  uint64_t pause_ns = 0;   // from the request to stop until the vCPUs are told to run
  uint64_t waited_ns = 0;  // of kCopy, for the secondary: an epoch larger than the staging pool

  uint64_t& operator[](Phase phase) { return ns[static_cast<size_t>(phase)]; }
  uint64_t operator[](Phase phase) const { return ns[static_cast<size_t>(phase)]; }
};

// Why an epoch was cut.
enum class CutReason : uint8_t { kBudget, kRingFull, kInterval, kOutput, kRequest, kSync, kFinal };
inline constexpr std::array<absl::string_view, 7> kCutReasonNames = {
    "budget", "ring_full", "interval", "output", "request", "sync", "final"};
constexpr absl::string_view CutReasonName(CutReason reason) {
  return kCutReasonNames[static_cast<size_t>(reason)];
}

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_PHASES_H_

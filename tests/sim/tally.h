// What a run of schedules has seen, so that one sees that it is not idle.
#ifndef ROMULUS_TESTS_SIM_TALLY_H_
#define ROMULUS_TESTS_SIM_TALLY_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "failover/arbiter.h"

namespace romulus::sim {

enum class Fault : uint8_t {
  kProcessDies,
  kHostDies,
  kRestart,
  kPartition,
  kPartitionOneWay,
  kLinkReset,
  kDelay,
  kAckLate,
  kDouble,
  kDrop,
  kSwap,
  kOldStream,  // something came on a stream that a newer one had replaced
  kClockDrift,
  kSlowDisk,
  kStopped,  // SIGSTOP, SIGCONT
  kFalseAlarm,
  kCheckpointFails,
  kOpFailover,
  kOpFailoverForced,
  kOpUnprotect,
  kOpUnprotectForced,
  kOpProtect,
  kOpPause,
  kOpSwitchover,
  kSigterm,
  kGuestEnds,
  kArbiterMinority,  // one member is down, or out of one node's reach
  kArbiterOutage,    // most of them are down
  kArbiterCutOff,    // one node reaches none
  kAnswerLost,       // the claim took effect
};
inline constexpr size_t kFaultCount = static_cast<size_t>(Fault::kAnswerLost) + 1;
inline constexpr std::array<absl::string_view, kFaultCount> kFaultNames = {"process_dies",
                                                                           "host_dies",
                                                                           "restart",
                                                                           "partition",
                                                                           "one_way",
                                                                           "link_reset",
                                                                           "delay",
                                                                           "ack_late",
                                                                           "double",
                                                                           "drop",
                                                                           "swap",
                                                                           "old_stream",
                                                                           "clock_drift",
                                                                           "slow_disk",
                                                                           "stopped",
                                                                           "false_alarm",
                                                                           "checkpoint_fails",
                                                                           "op_failover",
                                                                           "op_failover_forced",
                                                                           "op_unprotect",
                                                                           "op_unprotect_forced",
                                                                           "op_protect",
                                                                           "op_pause",
                                                                           "op_switchover",
                                                                           "sigterm",
                                                                           "guest_ends",
                                                                           "arbiter_minority",
                                                                           "arbiter_outage",
                                                                           "arbiter_cut_off",
                                                                           "answer_lost"};

struct Tally {
  std::array<uint64_t, kFaultCount> faults{};
  uint64_t schedules = 0;
  uint64_t events = 0;
  uint64_t promotions = 0;
  uint64_t protections = 0;
  uint64_t fenced = 0;
  uint64_t syncs = 0;
  uint64_t epochs_cut = 0;
  uint64_t epochs_acked = 0;
  uint64_t epochs_aborted = 0;
  uint64_t parts_shipped = 0;  // of epochs larger than the staging pool
  uint64_t console_bytes = 0;  // seen by the client
  uint64_t said_again = 0;
  uint64_t protected_at_end = 0;
  uint64_t switchovers_done = 0;
  uint64_t switchovers_refused = 0;
  uint64_t switchovers_unsure = 0;
  uint64_t forgotten = 0;  // promotions that nobody remembers: World::Kill
  std::array<uint64_t, failover::kVerdictCount> claims{};  // by verdict

  void Count(Fault fault) { ++faults[static_cast<size_t>(fault)]; }
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_TALLY_H_

// The simulated daemons' configuration, small so that a schedule is short.
#ifndef ROMULUS_TESTS_SIM_TIMING_H_
#define ROMULUS_TESTS_SIM_TIMING_H_

#include "sim/scheduler.h"

namespace romulus::sim {

inline constexpr uint64_t kHeartbeatNs = 60 * kMillisecond;
inline constexpr uint64_t kSilenceNs = 240 * kMillisecond;
inline constexpr uint64_t kTickNs = 20 * kMillisecond;
inline constexpr uint64_t kConnectTimeoutNs = 60 * kMillisecond;
inline constexpr uint64_t kHandshakeTimeoutNs = 500 * kMillisecond;
inline constexpr uint64_t kHelloTimeoutNs = 300 * kMillisecond;
inline constexpr uint64_t kReconnectMinNs = 10 * kMillisecond;
inline constexpr uint64_t kReconnectMaxNs = 100 * kMillisecond;
inline constexpr uint64_t kUnprotectTimeoutNs = 200 * kMillisecond;
inline constexpr uint64_t kFlushTimeoutNs = 250 * kMillisecond;
inline constexpr uint64_t kHandOverLateNs = 200 * kMillisecond;
inline constexpr uint64_t kArbiterTimeoutNs = 80 * kMillisecond;
inline constexpr uint64_t kAskMinNs = 10 * kMillisecond;
inline constexpr uint64_t kAskMaxNs = 120 * kMillisecond;
// A guest's step, a look at the governor: once in between these.
inline constexpr uint64_t kGuestMinNs = 10 * kMillisecond;
inline constexpr uint64_t kGuestMaxNs = 50 * kMillisecond;
inline constexpr uint64_t kLookMinNs = 10 * kMillisecond;
inline constexpr uint64_t kLookMaxNs = 40 * kMillisecond;

// A schedule: faults until here, then whoever can must be protected again before the end.
inline constexpr uint64_t kFaultsEndNs = 1500 * kMillisecond;
inline constexpr uint64_t kEndNs = 6000 * kMillisecond;
inline constexpr uint64_t kRepairEveryNs = 150 * kMillisecond;
// How long a primary may not know yet that it is not protected any more: what a partition held
// back is heard when it ends, then silence, by a clock that drifts.
inline constexpr uint64_t kMayNotKnowNs = 1000 * kMillisecond;

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_TIMING_H_

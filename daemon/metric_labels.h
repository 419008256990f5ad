// The names behind the enums that are metric labels, and the enums of the wire and the control
// service. Pure functions.
#ifndef ROMULUS_DAEMON_METRIC_LABELS_H_
#define ROMULUS_DAEMON_METRIC_LABELS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "daemon/config.h"
#include "failover/role_machine.h"
#include "metrics/metrics.h"
#include "replica/counters.h"
#include "romulus/v1/config.pb.h"
#include "romulus/v1/control.pb.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::daemon {

// For the devices of the guest, and what this node has to watch.
metrics::Labels MetricLabels(const LoadedConfig& loaded);
metrics::ConfiguredLimits LimitsOf(const romulus::v1::Config& config);
// Faults of framing first, then those of content; counts in the same order.
std::vector<std::string> FrameErrorNames();
std::vector<uint64_t> FrameErrorCounts(const replica::ReplicaCounters& counters);

romulus::v1::Mode ModeToProto(failover::Mode mode);
romulus::v1::Goodbye::Reason GoodbyeToProto(failover::GoodbyeReason reason);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_METRIC_LABELS_H_

// `romulusd probe`: what KVM offers here, as a table or as JSON.
#ifndef ROMULUS_DAEMON_PROBE_COMMAND_H_
#define ROMULUS_DAEMON_PROBE_COMMAND_H_

#include <string>

#include "kvm/probe.h"
#include "romulus/v1/control.pb.h"

namespace romulus::daemon {

romulus::v1::HostReport ReportOf(const kvm::ProbeReport& probe);
std::string ReportTable(const romulus::v1::HostReport& report);
// Prints; returns the exit code.
int ProbeCommand(const std::string& device, bool json);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_PROBE_COMMAND_H_

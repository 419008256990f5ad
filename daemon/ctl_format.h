// romulusctl's answers for people. Pure functions.
#ifndef ROMULUS_DAEMON_CTL_FORMAT_H_
#define ROMULUS_DAEMON_CTL_FORMAT_H_

#include <string>

#include "daemon/table.h"
#include "romulus/v1/control.pb.h"

namespace romulus::daemon {

TableRows StatusRows(const romulus::v1::GetStatusResponse& status);
// What was configured, as far as a daemon tells it.
TableRows ConfigurationRows(const romulus::v1::GetStatusResponse& status);
std::string FormatStatus(const romulus::v1::GetStatusResponse& status);
std::string FormatFailover(const romulus::v1::FailoverResponse& response);
std::string FormatSwitchover(const romulus::v1::SwitchoverResponse& response);
std::string FormatPause(const romulus::v1::PauseResponse& response);
std::string FormatEpochs(const romulus::v1::ListEpochsResponse& response);
std::string FormatTunables(const romulus::v1::SetResponse& response);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_FORMAT_H_

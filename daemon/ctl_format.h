// romulusctl's answers for people. Pure functions.
#ifndef ROMULUS_DAEMON_CTL_FORMAT_H_
#define ROMULUS_DAEMON_CTL_FORMAT_H_

#include <string>

#include "romulus/v1/control.pb.h"

namespace romulus::daemon {

std::string FormatStatus(const romulus::v1::GetStatusResponse& status);
std::string FormatFailover(const romulus::v1::FailoverResponse& response);
std::string FormatSwitchover(const romulus::v1::SwitchoverResponse& response);
std::string FormatPause(const romulus::v1::PauseResponse& response);
std::string FormatEpochs(const romulus::v1::ListEpochsResponse& response);
std::string FormatTunables(const romulus::v1::SetResponse& response);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_FORMAT_H_

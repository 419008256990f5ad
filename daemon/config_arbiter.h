// The arbiter in a configuration: what is wrong with it (part of the configuration's check,
// config_check.h), and the object that it describes.
#ifndef ROMULUS_DAEMON_CONFIG_ARBITER_H_
#define ROMULUS_DAEMON_CONFIG_ARBITER_H_

#include <functional>
#include <string>

#include "daemon/config.h"
#include "daemon/config_place.h"

namespace romulus::daemon {

// `failover` is config.failover(). File names are absolute and have this node's name in them
// already.
void CheckArbiter(const romulus::v1::Config& config, const ConfigOptions& options,
                  const ConfigPlace& failover);

// Replaces every file name of the arbiter.
void MapArbiterPaths(const std::function<std::string(const std::string&)>& map,
                     romulus::v1::Arbiter* arbiter);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONFIG_ARBITER_H_

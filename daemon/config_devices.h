// The guest's devices in a configuration: disks, network cards, CPU model. Part of the
// configuration's check (config_check.h).
#ifndef ROMULUS_DAEMON_CONFIG_DEVICES_H_
#define ROMULUS_DAEMON_CONFIG_DEVICES_H_

#include "daemon/config.h"
#include "daemon/config_place.h"

namespace romulus::daemon {

// `guest` is config.guest(). File names are absolute and have this node's name in them already.
void CheckDevices(const romulus::v1::Config& config, const ConfigOptions& options,
                  const ConfigPlace& guest);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONFIG_DEVICES_H_

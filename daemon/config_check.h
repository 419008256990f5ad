// The meaning of a configuration that parsed: ranges, contradictions, names, files.
#ifndef ROMULUS_DAEMON_CONFIG_CHECK_H_
#define ROMULUS_DAEMON_CONFIG_CHECK_H_

#include "daemon/config.h"
#include "daemon/config_place.h"

namespace romulus::daemon {

// `config` is what `root` points to, with its file names made absolute already.
void CheckConfig(const romulus::v1::Config& config, const ConfigOptions& options,
                 const ConfigPlace& root);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONFIG_CHECK_H_

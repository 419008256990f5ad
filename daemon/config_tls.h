// Who may be believed on the network, in a configuration: what is wrong with it (part of the
// configuration's check, config_check.h), and what it says.
#ifndef ROMULUS_DAEMON_CONFIG_TLS_H_
#define ROMULUS_DAEMON_CONFIG_TLS_H_

#include <functional>
#include <string>

#include "daemon/config.h"
#include "daemon/config_place.h"
#include "wire/tls.h"

namespace romulus::daemon {

// `root` is the place of `config`, whose file names are absolute and have this node's name in them
// already.
void CheckTls(const romulus::v1::Config& config, const ConfigOptions& options,
              const ConfigPlace& root);

// Replaces every file name.
void MapTlsPaths(const std::function<std::string(const std::string&)>& map, romulus::v1::Tls* tls);

wire::TlsFiles TlsFilesOf(const romulus::v1::Tls& tls);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONFIG_TLS_H_

// The meaning of a configuration that parsed: ranges, contradictions, names, files.
#ifndef ROMULUS_DAEMON_CONFIG_CHECK_H_
#define ROMULUS_DAEMON_CONFIG_CHECK_H_

#include <string>

#include "absl/strings/string_view.h"
#include "daemon/config.h"
#include "daemon/config_place.h"

namespace romulus::daemon {

// `config` is what `root` points to, with its file names made absolute already.
void CheckConfig(const romulus::v1::Config& config, const ConfigOptions& options,
                 const ConfigPlace& root);

struct HostPort {
  std::string host;
  int port = 0;
};
// Empty host: not "host:port".
HostPort SplitHostPort(absl::string_view address);

// That it is a file which can be read and is not empty, else `field` is blamed.
void CheckFile(const std::string& path, const std::string& field, const ConfigPlace& at);

// The same of a key or password: nobody but its owner and group may read it.
void CheckSecretFile(const std::string& path, const std::string& field, const ConfigPlace& at);

bool IsIp(const std::string& host);
bool IsLoopback(const std::string& host);

// What Config.name says of names.
bool ValidName(absl::string_view name);
inline constexpr char kNameRule[] =
    "must be a letter or digit, then letters, digits, '.', '_' and '-', at most 64 characters";

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONFIG_CHECK_H_

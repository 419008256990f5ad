// Reads one VM's configuration and says what is wrong with it, by file, line and column. The
// schema, its documentation and its defaults are proto/romulus/v1/config.proto. Values; any thread.
#ifndef ROMULUS_DAEMON_CONFIG_H_
#define ROMULUS_DAEMON_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "romulus/v1/config.pb.h"

namespace romulus::daemon {

// Something wrong in a configuration. Line and column count from 1; 0 if there is no such place.
struct ConfigError {
  std::string file;
  int line = 0;
  int column = 0;
  std::string field;  // "checkpoint.max_dirty_pages"; empty for an error of syntax
  std::string message;

  // "FILE:LINE:COLUMN: FIELD: MESSAGE"
  std::string ToString() const;
};

// What the caller knows apart from the file.
struct ConfigOptions {
  std::optional<std::string> node = std::nullopt;  // --node
  // Largest dirty ring that KVM offers here, in entries; 0: no rings; not set: not checked.
  std::optional<uint32_t> host_max_ring_entries = std::nullopt;
  // Whether files and taps that the configuration names must be there (they are elsewhere when the
  // file of one host is checked on another).
  bool check_files = true;
  // Whether the disks' side files, too, must be those of these disks. Who opens the disks finds
  // out.
  bool check_stamps = false;
};

// A configuration that was checked: paths are absolute, node_name is set, addresses are well
// formed.
struct LoadedConfig {
  romulus::v1::Config config;
  std::vector<ConfigError> errors;  // empty: the configuration may be used

  bool ok() const { return errors.empty(); }
  // All errors, one per line.
  std::string ErrorText() const;
  // Valid only if ok().
  const romulus::v1::Node& self() const;
  const romulus::v1::Node* peer() const;  // null: there is only one node
};

// Never fails otherwise than by `errors`.
LoadedConfig LoadConfig(const std::string& path, const ConfigOptions& options);
// The same from text; `path` is for messages and for relative file names.
LoadedConfig ParseConfig(absl::string_view text, const std::string& path,
                         const ConfigOptions& options);

// The tunables' ranges, for Control.Set too. Empty: in range; else what is wrong.
std::string CheckRange(absl::string_view field, uint64_t value);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONFIG_H_

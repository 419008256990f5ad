// Which host this is, whatever node its daemon was told to be: for an arbiter's record, where two
// hosts that were given one node name must not pass for each other. Any thread.
#ifndef ROMULUS_DAEMON_HOST_IDENTITY_H_
#define ROMULUS_DAEMON_HOST_IDENTITY_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace romulus::daemon {

struct HostIdFiles {
  // machine-id(5): 32 hexadecimal digits.
  std::string machine_id = "/etc/machine-id";
  // Where the host has no such file: a random number of our own, made when it is first needed.
  std::string own_id = "/var/lib/romulus/host-id";
};

// 32 hexadecimal digits: stable across boots, for this VM alone. It is a keyed hash, because
// machine-id(5) is not to be shown to others. Errors: FailedPrecondition naming the files and what
// to do, if there is neither, nor can be one.
absl::StatusOr<std::string> HostId(absl::string_view vm_uuid, const HostIdFiles& files);

// What people call it; it may change.
std::string HostName();

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_HOST_IDENTITY_H_

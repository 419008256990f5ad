// The console as a Unix socket: whoever connects gets the stream from then on. A client that lets
// more than kClientQueueBytes pile up is disconnected, so no client can hold the guest up. One
// thread of its own; Emit() posts to it.
#ifndef ROMULUS_DAEMON_CONSOLE_SOCKET_H_
#define ROMULUS_DAEMON_CONSOLE_SOCKET_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "daemon/console.h"

namespace romulus::daemon {

inline constexpr size_t kClientQueueBytes = 1u << 20;
inline constexpr size_t kMaxConsoleClients = 64;

// Errors: AlreadyExists if a process listens there already; errno of bind, listen.
absl::StatusOr<std::unique_ptr<Console>> OpenSocketConsole(const std::string& path);

// Removes a socket that nobody listens on any more (a daemon was killed). Errors: AlreadyExists if
// somebody does, or if `path` is something else than a socket.
absl::Status RemoveStaleSocket(const std::string& path);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONSOLE_SOCKET_H_

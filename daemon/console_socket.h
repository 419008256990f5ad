// The console as a Unix socket: whoever connects gets the stream from then on; while nobody is
// connected it goes nowhere. The slowest client counts: what it has not taken is kept, and at the
// console's cap the guest waits for it, so no client misses a byte. Only one that takes nothing at
// all for ConsoleOptions::client_patience is disconnected, or a terminal that somebody forgot would
// hold the guest for ever. One thread of its own.
#ifndef ROMULUS_DAEMON_CONSOLE_SOCKET_H_
#define ROMULUS_DAEMON_CONSOLE_SOCKET_H_

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "daemon/console.h"

namespace romulus::daemon {

inline constexpr size_t kMaxConsoleClients = 64;

// Errors: AlreadyExists if a process listens there already; errno of bind, listen.
absl::StatusOr<std::unique_ptr<Console>> OpenSocketConsole(const std::string& path,
                                                           const ConsoleOptions& options,
                                                           ConsoleEvents events);

// Removes a socket that nobody listens on any more (a daemon was killed). Errors: AlreadyExists if
// somebody does, or if `path` is something else than a socket.
absl::Status RemoveStaleSocket(const std::string& path);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONSOLE_SOCKET_H_

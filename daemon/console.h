// Where the guest's released console bytes go: a file by position, clients of a Unix socket, or
// standard output. Emit() comes from the threads that release output (one at a time) and never
// waits: bytes are queued for a thread of the console's own.
#ifndef ROMULUS_DAEMON_CONSOLE_H_
#define ROMULUS_DAEMON_CONSOLE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "epoch/output_gate.h"
#include "romulus/v1/config.pb.h"

namespace romulus::daemon {

// A console that is this far behind what was released lets the guest wait (P6).
inline constexpr uint64_t kConsoleQueueBytes = 4u << 20;

// Told on the console's thread; both may be empty.
struct ConsoleEvents {
  std::function<void(const absl::Status&)> on_error;  // the first failed write (disk full)
  std::function<void()> on_room;                      // OverCap() has turned false
};

class Console : public epoch::ReleasedOutput {
 public:
  // Errors: errno of open, bind, listen; AlreadyExists if another process listens on the socket.
  static absl::StatusOr<std::unique_ptr<Console>> Open(const romulus::v1::Console& config,
                                                       ConsoleEvents events);
  // Writes what is queued, waiting a bounded time for whoever reads, then closes.
  ~Console() override = default;

  // The reader is too slow: the guest must wait. One atomic load.
  virtual bool OverCap() const = 0;
  // One past the last byte that has left this process, so that its death cannot take it back;
  // nullopt if nothing was emitted. This, not what was emitted, is what the secondary may count as
  // released. A console whose writes fail counts what it drops.
  virtual std::optional<uint64_t> written_offset() const = 0;
  // Of the first byte ever emitted; nullopt if none was.
  virtual std::optional<uint64_t> start_offset() const = 0;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONSOLE_H_

// Where the guest's released console bytes go: a file by position, clients of a Unix socket, or
// standard output. Emit() comes from the threads that release output (one at a time) and never
// waits: bytes are queued for a thread of the console's own, which keeps them until they are
// written. A console that cannot be written (its disk is full, its reader does not read) is tried
// again and again; meanwhile its queue grows to its cap and then the guest waits (P6).
#ifndef ROMULUS_DAEMON_CONSOLE_H_
#define ROMULUS_DAEMON_CONSOLE_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "daemon/console_queue.h"
#include "epoch/output_gate.h"
#include "romulus/v1/config.pb.h"

namespace romulus::daemon {

struct ConsoleOptions {
  // A console that is this far behind what was released lets the guest wait (P6).
  uint64_t cap_bytes = 1u << 20;
  // First and longest wait before a write that failed is tried again.
  std::chrono::milliseconds retry_min{10};
  std::chrono::milliseconds retry_max{1000};
  // How long the destructor goes on writing.
  std::chrono::milliseconds drain_time{2000};
  // A socket's client that takes nothing of what waits for it for so long is disconnected.
  std::chrono::milliseconds client_patience{10'000};
};

// Told on the console's thread, on_left on the destroying one; all may be empty.
struct ConsoleEvents {
  // Writes fail (said again only if they fail otherwise), or, with an OK status, go on again.
  std::function<void(const absl::Status&)> on_failure;
  std::function<void()> on_room;  // OverCap() has turned false
  // A client of the socket was cut off; it missed so many bytes.
  std::function<void(uint64_t)> on_cut_off;
  // The console closes with so many bytes that nobody took.
  std::function<void(uint64_t)> on_left;
};

class Console : public epoch::ReleasedOutput {
 public:
  // Errors: errno of open, bind, listen; AlreadyExists if another process listens on the socket.
  static absl::StatusOr<std::unique_ptr<Console>> Open(const romulus::v1::Console& config,
                                                       const ConsoleOptions& options,
                                                       ConsoleEvents events);
  // Writes what is queued, waiting a bounded time for whoever reads, then closes.
  ~Console() override = default;

  // The console is too slow: the guest must wait. One atomic load.
  bool OverCap() const { return queue_.OverCap(); }
  bool AwaitWritten(absl::Duration timeout) const { return queue_.AwaitWritten(timeout); }
  uint64_t queued_bytes() const { return queue_.queued_bytes(); }
  // One past the last byte that has left this process, so that its death cannot take it back;
  // nullopt if nothing was emitted. This, not what was emitted, counts as released.
  std::optional<uint64_t> written_offset() const { return queue_.written_offset(); }
  // Of the first byte ever emitted; nullopt if none was.
  std::optional<uint64_t> start_offset() const { return queue_.start_offset(); }
  // What was emitted and has not left this process.
  ConsoleBytes Unwritten() const { return queue_.Unwritten(); }
  // Why writes fail; OK while they do not.
  virtual absl::Status failure() const { return absl::OkStatus(); }

 protected:
  Console(uint64_t cap_bytes, std::function<void()> on_room)
      : queue_(cap_bytes, std::move(on_room)) {}

  ConsoleQueue queue_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONSOLE_H_

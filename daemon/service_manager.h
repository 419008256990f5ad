// The service manager that started this process, if one did (systemd's sd_notify(3) protocol): is
// told when the daemon is ready, what it is, that it ends and how long that may take; and has a
// watchdog, which wants to be fed. Without NOTIFY_SOCKET nothing happens. Any thread; never blocks
// for long, never fails.
#ifndef ROMULUS_DAEMON_SERVICE_MANAGER_H_
#define ROMULUS_DAEMON_SERVICE_MANAGER_H_

#include <cstdint>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace romulus::daemon {

class ServiceManager {
 public:
  // Reads the environment.
  ServiceManager();

  // Of this process's watchdog: 0 if it has none.
  uint64_t watchdog_ns() const { return watchdog_ns_; }

  // The first call says that the daemon serves; `status` as in Status().
  void Ready(absl::string_view status);
  // One line for people; what is a control byte becomes a blank, so that nobody's text can say more
  // than that. The same again is not sent.
  void Status(absl::string_view status);
  // From now on the daemon ends.
  void Stopping();
  // The start, or the end, may take `ns` more from now.
  void Extend(uint64_t ns);
  void Beat();

 private:
  void Send(const std::string& state);

  uint64_t watchdog_ns_ = 0;
  absl::Mutex mutex_;
  bool ready_ ABSL_GUARDED_BY(mutex_) = false;
  std::string status_ ABSL_GUARDED_BY(mutex_);
};

// What Status() makes of a text: at most 512 bytes of one line.
std::string StatusLine(absl::string_view text);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_SERVICE_MANAGER_H_

#include "daemon/service_manager.h"

#include <systemd/sd-daemon.h>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace romulus::daemon {
namespace {

constexpr size_t kMaxStatusBytes = 512;

}  // namespace

std::string StatusLine(absl::string_view text) {
  std::string line(text.substr(0, kMaxStatusBytes));
  for (char& byte : line) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(byte))) byte = ' ';
  }
  return line;
}

ServiceManager::ServiceManager() {
  uint64_t watchdog_us = 0;
  if (::sd_watchdog_enabled(/*unset_environment=*/0, &watchdog_us) > 0) {
    watchdog_ns_ = watchdog_us * 1000;
  }
}

void ServiceManager::Send(const std::string& state) {
  // Who does not listen is not missed.
  (void)::sd_notify(/*unset_environment=*/0, state.c_str());
}

void ServiceManager::Ready(absl::string_view status) {
  absl::MutexLock lock(&mutex_);
  status_ = StatusLine(status);
  Send(absl::StrCat(ready_ ? "" : "READY=1\n", "STATUS=", status_));
  ready_ = true;
}

void ServiceManager::Status(absl::string_view status) {
  std::string line = StatusLine(status);
  absl::MutexLock lock(&mutex_);
  if (line == status_) return;
  status_ = std::move(line);
  Send(absl::StrCat("STATUS=", status_));
}

void ServiceManager::Stopping() { Send("STOPPING=1"); }

void ServiceManager::Extend(uint64_t ns) { Send(absl::StrCat("EXTEND_TIMEOUT_USEC=", ns / 1000)); }

void ServiceManager::Beat() { Send("WATCHDOG=1"); }

}  // namespace romulus::daemon

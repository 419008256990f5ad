// The gRPC server behind romulusctl: service romulus.v1.Control with reflection and grpc.health.v1.
// No logic: each call is handed to a backend, which answers later from the control loop.
#ifndef ROMULUS_DAEMON_CONTROL_SERVICE_H_
#define ROMULUS_DAEMON_CONTROL_SERVICE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/event_journal.h"
#include "daemon/history.h"
#include "romulus/v1/control.pb.h"
#include "wire/tls.h"

namespace romulus::daemon {

template <typename T>
using Answer = std::function<void(absl::StatusOr<T>)>;

// Called from gRPC's threads; must not block. Every answer is given once; one that never comes
// makes the caller's deadline pass.
class ControlBackend {
 public:
  virtual ~ControlBackend() = default;
  virtual void GetStatus(Answer<romulus::v1::GetStatusResponse> answer) = 0;
  virtual void Failover(bool force, Answer<romulus::v1::FailoverResponse> answer) = 0;
  virtual void Switchover(uint32_t timeout_ms, Answer<romulus::v1::SwitchoverResponse> answer) = 0;
  virtual void Pause(Answer<romulus::v1::PauseResponse> answer) = 0;
  virtual void Resume(Answer<romulus::v1::ResumeResponse> answer) = 0;
  virtual void SetProtection(bool wanted, bool force, Answer<bool> answer) = 0;
  virtual void ListEpochs(uint32_t last, Answer<romulus::v1::ListEpochsResponse> answer) = 0;
  virtual void Set(const romulus::v1::Tunables& tunables,
                   Answer<romulus::v1::SetResponse> answer) = 0;
  // Both outlive the backend, and are asked without it.
  virtual const EventJournal& events() const = 0;
  virtual const History& history() const = 0;
};

// A second door, for other hosts: who may do what says the name in the caller's certificate.
struct RemoteControl {
  std::string address;  // "host:port"
  std::shared_ptr<wire::TlsIdentity> tls;
  std::vector<std::string> admins;     // everything
  std::vector<std::string> read_only;  // status and epochs
};

class ControlServer {
 public:
  // `address` is "unix:///path" or "host:port", where everybody may do everything; a socket file is
  // for its owner alone (0600). `backend` outlives the server. Errors: AlreadyExists if an address
  // is in use; else that it cannot be bound.
  static absl::StatusOr<std::unique_ptr<ControlServer>> Listen(
      const std::string& address, ControlBackend* backend,
      std::optional<RemoteControl> remote = std::nullopt);
  virtual ~ControlServer() = default;  // Shutdown()

  // Wakes WatchStatus streams. Any thread.
  virtual void NotifyChanged() = 0;
  // Lets calls under way end within a short time. Not from a backend call.
  virtual void Shutdown() = 0;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONTROL_SERVICE_H_

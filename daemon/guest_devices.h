// The virtio devices of the guest on this host: what is behind them, and the one loop that they
// work on. GuestHost owns it and plugs it into machine and checkpoint.
//
// Create(), AddTo(), Begin() and destruction from whoever controls the GuestHost, one thread at a
// time; the rest from any thread. The machine is destroyed before it.
#ifndef ROMULUS_DAEMON_GUEST_DEVICES_H_
#define ROMULUS_DAEMON_GUEST_DEVICES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/asio_executor.h"
#include "devices/virtio/console.h"
#include "devices/virtio/rng.h"
#include "romulus/v1/config.pb.h"
#include "vmm/machine.h"

namespace romulus::daemon {

// The devices of a guest as (index in MachineSpec.virtio) -> name: "virtio.block.root",
// "virtio.net.0", "virtio.console", "virtio.rng". The same on both nodes.
std::vector<std::string> VirtioDeviceNames(const romulus::v1::Guest& guest);

class GuestDevices {
 public:
  // `console` takes what the fast console says; it outlives the devices.
  static absl::StatusOr<std::unique_ptr<GuestDevices>> Create(const romulus::v1::Config& config,
                                                              devices::VirtioConsoleSink& console);
  ~GuestDevices();

  // Fills in virtio and device_loop. Once.
  void AddTo(vmm::MachineSpec& spec);

  // The console's sink takes bytes again.
  void OnConsoleRoom();

  base::Executor& loop() { return loop_; }

 private:
  explicit GuestDevices(const romulus::v1::Config& config, devices::VirtioConsoleSink& console)
      : config_(config), console_sink_(console) {}

  const romulus::v1::Config& config_;
  devices::VirtioConsoleSink& console_sink_;
  devices::HostEntropy entropy_;
  devices::VirtioConsole* console_ = nullptr;  // the machine's
  AsioExecutor loop_{/*own_thread=*/true};  // first to go: nothing runs on it while the rest goes
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_GUEST_DEVICES_H_

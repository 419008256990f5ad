// The virtio devices of the guest on this host: what is behind them, and the one loop that they
// work on. GuestHost owns it and plugs it into machine and checkpoint.
//
// Create(), AddTo(), Activate() and destruction from whoever controls the GuestHost, one thread at
// a time; the rest from any thread. The machine is destroyed before it.
#ifndef ROMULUS_DAEMON_GUEST_DEVICES_H_
#define ROMULUS_DAEMON_GUEST_DEVICES_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/asio_executor.h"
#include "daemon/guest_disks.h"
#include "daemon/nic.h"
#include "devices/virtio/console.h"
#include "devices/virtio/rng.h"
#include "disk/file_disk.h"
#include "epoch/disk_log.h"
#include "epoch/held_output.h"
#include "epoch/logged_disk.h"
#include "metrics/metrics.h"
#include "romulus/v1/config.pb.h"
#include "vmm/machine.h"

namespace romulus::daemon {

// The names of the devices in MachineSpec.virtio, in that order: "virtio.block.root",
// "virtio.net.0", "virtio.console", "virtio.rng". The same on both nodes.
std::vector<std::string> VirtioDeviceNames(const romulus::v1::Guest& guest);

// Told on the device loop or a vCPU thread, seldom; must not block. `device` as in
// VirtioDeviceNames().
struct GuestDeviceEvents {
  std::function<void(const std::string& device)> on_mac_clash;
  std::function<void(const std::string& device, const absl::Status&)> on_tap_failure;
};

// What one device did so far, by name: "reads", "frames_in", ...
struct DeviceCounters {
  std::string name;  // as in VirtioDeviceNames()
  std::vector<std::pair<std::string, uint64_t>> counters;
};

class GuestDevices {
 public:
  // Opens taps; nothing is read from or written to disks or network before Activate(). `disks` are
  // those of the configuration (OpenDiskCopies); `console` takes what the fast console says and
  // outlives the devices, as the configuration does. Errors: Nic::Open's.
  static absl::StatusOr<std::unique_ptr<GuestDevices>> Create(const romulus::v1::Config& config,
                                                              const DiskCopies& disks,
                                                              devices::VirtioConsoleSink& console,
                                                              GuestDeviceEvents events);
  ~GuestDevices();

  // Fills in virtio and device_loop. Once.
  void AddTo(vmm::MachineSpec& spec);

  // The guest is about to run here.
  void Activate();
  // That all devices work on.
  base::Executor& loop() { return loop_; }
  // Nothing runs on the loop any more. The machine has been stopped.
  void StopLoop() { loop_.Stop(); }
  // After a promotion: tells the network where the cards are now.
  void Announce();
  // The console's sink takes bytes again.
  void OnConsoleRoom();

  // What the cards hold back until its epoch is acked.
  const std::vector<epoch::HeldOutput*>& outputs() const { return outputs_; }
  // Told when frames begin to wait for a cut, or the disks for room in the log. Before Activate().
  void SetOutputWaiting(const std::function<void()>& callback);
  // Of the disks that are replicated; null if there is none.
  epoch::DiskLog* disk_log() { return disk_log_.get(); }

  // Totals, in the order of the configuration.
  std::vector<metrics::DiskTotals> disk_totals() const;
  std::vector<metrics::NicTotals> nic_totals() const;
  // The same and more, for the status: of all devices that count anything.
  std::vector<DeviceCounters> counters() const;

 private:
  struct Disk {
    std::string name;
    std::unique_ptr<disk::FileDisk> file;
    std::unique_ptr<epoch::LoggedDisk> logged;  // null: read-only
  };

  GuestDevices(const romulus::v1::Config& config, devices::VirtioConsoleSink& console)
      : config_(config), console_sink_(console) {}
  void OpenDisks(const DiskCopies& copies);
  absl::Status OpenNics(const GuestDeviceEvents& events);

  const romulus::v1::Config& config_;
  devices::VirtioConsoleSink& console_sink_;
  devices::HostEntropy entropy_;
  devices::VirtioConsole* console_ = nullptr;  // the machine's
  // Stopped before the rest goes, so that nothing runs on it meanwhile, and destroyed after it.
  AsioExecutor loop_{/*own_thread=*/true, "devices"};
  std::unique_ptr<epoch::DiskLog> disk_log_;
  std::vector<Disk> disks_;
  std::vector<std::unique_ptr<Nic>> nics_;
  std::vector<epoch::HeldOutput*> outputs_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_GUEST_DEVICES_H_

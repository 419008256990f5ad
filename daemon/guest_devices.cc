#include "daemon/guest_devices.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace romulus::daemon {
namespace {

constexpr uint16_t kColumns = 80;  // what a console without a terminal behind it says
constexpr uint16_t kRows = 25;

}  // namespace

std::vector<std::string> VirtioDeviceNames(const romulus::v1::Guest& guest) {
  std::vector<std::string> names;
  for (const romulus::v1::Disk& disk : guest.disks()) {
    names.push_back(absl::StrCat("virtio.block.", disk.name()));
  }
  for (int i = 0; i < guest.nics_size(); ++i) names.push_back(absl::StrCat("virtio.net.", i));
  if (guest.virtio_console()) names.push_back("virtio.console");
  if (guest.rng()) names.push_back("virtio.rng");
  return names;
}

absl::StatusOr<std::unique_ptr<GuestDevices>> GuestDevices::Create(
    const romulus::v1::Config& config, devices::VirtioConsoleSink& console) {
  return std::unique_ptr<GuestDevices>(new GuestDevices(config, console));
}

GuestDevices::~GuestDevices() { loop_.Stop(); }

void GuestDevices::AddTo(vmm::MachineSpec& spec) {
  spec.device_loop = &loop_;
  if (config_.guest().virtio_console()) {
    spec.virtio.push_back({"virtio.console", [this] {
                             auto device = std::make_unique<devices::VirtioConsole>(
                                 console_sink_, kColumns, kRows);
                             console_ = device.get();
                             return device;
                           }});
  }
  if (config_.guest().rng()) {
    spec.virtio.push_back(
        {"virtio.rng", [this] { return std::make_unique<devices::VirtioRng>(entropy_); }});
  }
}

void GuestDevices::OnConsoleRoom() {
  if (console_ != nullptr) console_->OnSinkReady();
}

}  // namespace romulus::daemon

#include "vmm/virtio_devices.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "arch/memory_map.h"
#include "base/status.h"

namespace romulus::vmm {

absl::Status VirtioDevices::Create(const MachineSpec& spec, kvm::Vm& vm, devices::Bus& mmio) {
  for (const VirtioSpec& device : spec.virtio) {
    std::unique_ptr<devices::VirtioDevice> made = device.make == nullptr ? nullptr : device.make();
    if (made == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(device.name, ": no device was made"));
    }
    const int index = static_cast<int>(slots_.size());
    slots_.push_back(
        std::make_unique<Slot>(device.name, std::move(made), spec, vm, arch::VirtioGsi(index)));
    devices::VirtioMmio& transport = slots_.back()->transport;
    ROMULUS_RETURN_IF_ERROR(transport.Quiesce());
    ROMULUS_RETURN_IF_ERROR(
        mmio.Map(device.name, arch::VirtioWindow(index), arch::kVirtioWindowBytes, &transport));
  }
  return absl::OkStatus();
}

std::vector<devices::Device*> VirtioDevices::devices() {
  std::vector<devices::Device*> all;
  for (const std::unique_ptr<Slot>& slot : slots_) all.push_back(&slot->transport);
  return all;
}

std::vector<arch::VirtioMmioNode> VirtioDevices::AcpiNodes() const {
  std::vector<arch::VirtioMmioNode> nodes;
  for (int i = 0; i < static_cast<int>(slots_.size()); ++i) {
    nodes.push_back({.window = arch::VirtioWindow(i),
                     .window_bytes = static_cast<uint32_t>(arch::kVirtioWindowBytes),
                     .gsi = arch::VirtioGsi(i)});
  }
  return nodes;
}

std::vector<VirtioFacts> VirtioDevices::Facts() const {
  std::vector<VirtioFacts> all;
  for (const std::unique_ptr<Slot>& slot : slots_) {
    const devices::VirtioMmio& transport = slot->transport;
    VirtioFacts& facts = all.emplace_back();
    facts.name = std::string(transport.name());
    facts.needs_reset = (transport.status() & devices::virtio::kNeedsReset) != 0;
    for (size_t i = 0; i < facts.faults.size(); ++i) {
      facts.faults[i] = transport.faults().count(static_cast<devices::VirtioFault>(i));
    }
  }
  return all;
}

void VirtioDevices::Quiesce() {
  for (const std::unique_ptr<Slot>& slot : slots_) slot->transport.Quiesce().IgnoreError();
}

void VirtioDevices::Resume() {
  for (const std::unique_ptr<Slot>& slot : slots_) slot->transport.Resume();
}

}  // namespace romulus::vmm

// The virtio devices of a machine: for each VirtioSpec a transport with its window on the MMIO bus
// and its interrupt line. Internal to lib/vmm; MachineCore owns one.
//
// Made by one thread before the vCPUs run; Facts() then comes from any thread. Destroyed after the
// vCPU threads and before the VM: a turn under way on the device loop ends first, later ones do
// nothing.
#ifndef ROMULUS_VMM_VIRTIO_DEVICES_H_
#define ROMULUS_VMM_VIRTIO_DEVICES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "arch/acpi.h"
#include "devices/bus.h"
#include "devices/device.h"
#include "devices/virtio/mmio.h"
#include "kvm/vm.h"
#include "vmm/gsi_line.h"
#include "vmm/machine.h"

namespace romulus::vmm {

class VirtioDevices {
 public:
  // Makes the devices of `spec`, quiet, and puts them on `mmio`. Once. Errors: InvalidArgument for
  // a spec that makes no device; as Bus::Map.
  absl::Status Create(const MachineSpec& spec, kvm::Vm& vm, devices::Bus& mmio);

  // In the order of the spec.
  std::vector<devices::Device*> devices();
  std::vector<arch::VirtioMmioNode> AcpiNodes() const;
  std::vector<VirtioFacts> Facts() const;
  devices::VirtioMmio& transport(int index) {
    return slots_[static_cast<size_t>(index)]->transport;
  }

  void Quiesce();
  void Resume();

 private:
  struct Slot {
    Slot(const std::string& name, std::unique_ptr<devices::VirtioDevice> device,
         const MachineSpec& spec, kvm::Vm& vm, uint32_t gsi)
        : irq(vm, gsi), transport(name, std::move(device), *spec.memory, irq, *spec.device_loop) {}
    GsiLine irq;
    devices::VirtioMmio transport;
  };

  std::vector<std::unique_ptr<Slot>> slots_;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_VIRTIO_DEVICES_H_

// One GSI of the VM as a device's interrupt line. Any thread; holds a reference to the VM.
#ifndef ROMULUS_VMM_GSI_LINE_H_
#define ROMULUS_VMM_GSI_LINE_H_

#include <cstdint>

#include "devices/device.h"
#include "kvm/vm.h"

namespace romulus::vmm {

class GsiLine final : public devices::IrqLine {
 public:
  GsiLine(kvm::Vm& vm, uint32_t gsi) : vm_(vm), gsi_(gsi) {}
  void Set(bool high) override;

 private:
  kvm::Vm& vm_;
  const uint32_t gsi_;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_GSI_LINE_H_

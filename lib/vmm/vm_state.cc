#include "vmm/vm_state.h"

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::vmm {
namespace {

constexpr uint32_t kVersion = 1;
constexpr std::array<kvm::IrqChip, 3> kChips = {kvm::IrqChip::kPicMaster, kvm::IrqChip::kPicSlave,
                                                kvm::IrqChip::kIoapic};

}  // namespace

absl::Status VmState::Capture(const kvm::Vm& vm) {
  for (size_t i = 0; i < kChips.size(); ++i) {
    ROMULUS_ASSIGN_OR_RETURN(chips_[i], vm.GetIrqChip(kChips[i]));
  }
  ROMULUS_ASSIGN_OR_RETURN(pit_, vm.GetPit());
  ROMULUS_ASSIGN_OR_RETURN(const kvm_clock_data clock, vm.GetClock());
  clock_ns_ = clock.clock;
  return absl::OkStatus();
}

void VmState::Put(state::MachineState& out) const {
  for (uint32_t i = 0; i < chips_.size(); ++i) out.PutStruct("vm.irqchip", i, kVersion, chips_[i]);
  out.PutStruct("vm.pit", 0, kVersion, pit_);
  out.PutStruct("vm.clock", 0, kVersion, clock_ns_);
}

absl::Status VmState::Take(state::MachineState& in) {
  for (uint32_t i = 0; i < chips_.size(); ++i) {
    ROMULUS_ASSIGN_OR_RETURN(chips_[i], in.TakeStruct<kvm_irqchip>("vm.irqchip", i, kVersion));
    if (chips_[i].chip_id != static_cast<uint32_t>(kChips[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("section vm.irqchip[", i, "] is of chip ", chips_[i].chip_id));
    }
  }
  ROMULUS_ASSIGN_OR_RETURN(pit_, in.TakeStruct<kvm_pit_state2>("vm.pit", 0, kVersion));
  ROMULUS_ASSIGN_OR_RETURN(clock_ns_, in.TakeStruct<uint64_t>("vm.clock", 0, kVersion));
  return absl::OkStatus();
}

absl::Status VmState::Restore(kvm::Vm& vm, uint64_t outage_ns) const {
  for (const kvm_irqchip& chip : chips_) ROMULUS_RETURN_IF_ERROR(vm.SetIrqChip(chip));
  ROMULUS_RETURN_IF_ERROR(vm.SetPit(pit_));
  kvm_clock_data clock{};
  clock.clock = clock_ns_ + outage_ns;
  return vm.SetClock(clock);
}

}  // namespace romulus::vmm

// State that belongs to the VM and to none of its vCPUs: interrupt chips, PIT, clock. All vCPUs are
// stopped; one thread at a time.
#ifndef ROMULUS_VMM_VM_STATE_H_
#define ROMULUS_VMM_VM_STATE_H_

#include <array>
#include <cstdint>

#include "absl/status/status.h"
#include "kvm/abi.h"
#include "kvm/vm.h"
#include "state/machine_state.h"

namespace romulus::vmm {

class VmState {
 public:
  // Reads PIC, IOAPIC, PIT and clock, in this order: an interrupt moves from the PIT through a chip
  // to a LAPIC at once and never waits half way, and the clock, read last, is ahead of all that any
  // vCPU has seen. Errors: the ioctl that failed.
  absl::Status Capture(const kvm::Vm& vm);

  // Sections "vm.*".
  void Put(state::MachineState& out) const;
  // Errors: as MachineState::Take; InvalidArgument.
  absl::Status Take(state::MachineState& in);

  // After the vCPUs: an IOAPIC with a pending line delivers it at once, and setting a LAPIC later
  // would wipe that out. The clock last, so that it starts as late as possible; it goes on from
  // where it was captured, plus `outage_ns`. Errors: the ioctl that failed.
  absl::Status Restore(kvm::Vm& vm, uint64_t outage_ns) const;

 private:
  std::array<kvm_irqchip, 3> chips_{};  // PIC master, PIC slave, IOAPIC
  kvm_pit_state2 pit_{};
  uint64_t clock_ns_ = 0;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_VM_STATE_H_

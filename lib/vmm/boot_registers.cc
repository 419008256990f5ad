// MachineCore::SetBootRegisters: the boot processor as a loader wants it.

#include <cstring>
#include <memory>

#include "arch/boot.h"
#include "base/status.h"
#include "vmm/machine_core.h"

namespace romulus::vmm {
namespace {

// Local APIC registers, Intel SDM vol. 3, 11.5.1.
constexpr size_t kLvtLint0 = 0x350;
constexpr size_t kLvtLint1 = 0x360;
constexpr uint32_t kModeExtInt = 7u << 8;
constexpr uint32_t kModeNmi = 4u << 8;

kvm_segment ToKvmSegment(const arch::SegmentState& state) {
  kvm_segment segment{};
  segment.base = state.base;
  segment.limit = state.limit;
  segment.selector = state.selector;
  segment.type = state.type;
  segment.present = state.present;
  segment.dpl = state.dpl;
  segment.db = state.db;
  segment.s = state.s;
  segment.l = state.l;
  segment.g = state.g;
  segment.avl = state.avl;
  segment.unusable = !state.present;
  return segment;
}

void SetLvt(kvm_lapic_state& lapic, size_t offset, uint32_t value) {
  std::memcpy(lapic.regs + offset, &value, sizeof(value));
}

}  // namespace

absl::Status MachineCore::SetBootRegisters(const arch::BootRegisters& registers) {
  kvm::Vcpu& boot_vcpu = vcpu(0);
  ROMULUS_ASSIGN_OR_RETURN(kvm_sregs sregs, boot_vcpu.GetSregs());
  sregs.cr0 = registers.cr0;
  sregs.cr3 = registers.cr3;
  sregs.cr4 = registers.cr4;
  sregs.efer = registers.efer;
  sregs.cs = ToKvmSegment(registers.cs);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = ToKvmSegment(registers.data);
  sregs.tr = ToKvmSegment(registers.tr);
  sregs.gdt.base = registers.gdt_base;
  sregs.gdt.limit = registers.gdt_limit;
  ROMULUS_RETURN_IF_ERROR(boot_vcpu.SetSregs(sregs));

  kvm_regs regs{};
  regs.rip = registers.rip;
  regs.rflags = registers.rflags;
  regs.rbx = registers.rbx;
  regs.rsi = registers.rsi;
  ROMULUS_RETURN_IF_ERROR(boot_vcpu.SetRegs(regs));

  // "Virtual wire": the PIC's interrupts reach the boot processor through LINT0, until the guest
  // sets up its IOAPIC (MultiProcessor Specification 1.4, 3.6.2.2).
  ROMULUS_ASSIGN_OR_RETURN(kvm_lapic_state lapic, boot_vcpu.GetLapic());
  SetLvt(lapic, kLvtLint0, kModeExtInt);
  SetLvt(lapic, kLvtLint1, kModeNmi);
  ROMULUS_RETURN_IF_ERROR(boot_vcpu.SetLapic(lapic));

  for (const std::unique_ptr<kvm::Vcpu>& each : vcpus_) {
    for (const arch::MsrValue& msr : arch::BootMsrs()) {
      absl::Status status = each->SetMsr(msr.index, msr.value);
      // Not every KVM has every MSR; one without MTRRs treats all memory as write-back anyway.
      if (!status.ok() && !absl::IsNotFound(status)) return status;
    }
  }
  return absl::OkStatus();
}

}  // namespace romulus::vmm

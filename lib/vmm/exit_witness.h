// Says whether a vCPU can have changed what it changes only by leaving the guest: XCR0 (XSETBV),
// some MSRs (WRMSR; IsIntercepted in msr_list.h) and its debug registers (MOV DR). KVM intercepts
// all of these. So if it counted as many exits since the last
// look as it counted page faults and interrupts of the host, and its emulator did nothing, none
// happened; any other exit is taken for one of them.
//
// A MOV DR may open the debug registers to the guest (KVM_DEBUGREG_WONT_EXIT, arch/x86/kvm), which
// then writes them without leaving, until its next exit. That exit may come after the next look, if
// a signal keeps the guest from being entered in between. So after a time with an exit that is not
// explained they are trusted only once another exit has been and gone.
//
// Not seen: an INIT or SMI, which change them without an exit of this vCPU, but leave CR0.PE clear.
//
// One thread at a time; the vCPU is out of KVM_RUN.
#ifndef ROMULUS_VMM_EXIT_WITNESS_H_
#define ROMULUS_VMM_EXIT_WITNESS_H_

#include <optional>

#include "kvm/vcpu.h"
#include "kvm/vcpu_stats.h"

namespace romulus::vmm {

class ExitWitness {
 public:
  // What is as it was at the last call. Nothing in the first, or where KVM does not count.
  struct Unchanged {
    bool intercepted = false;  // XCR0 and the MSRs
    bool debug_registers = false;
  };
  Unchanged Look(const kvm::Vcpu& vcpu);

  // What the counters mean, from one look to the next. None, for good, if they cannot be what they
  // are taken for. `may_be_open`: the debug registers, to the guest.
  static std::optional<Unchanged> Judge(const kvm::VcpuExits& before, const kvm::VcpuExits& now,
                                        bool* may_be_open);

 private:
  bool asked_for_stats_ = false;
  bool may_be_open_ = true;
  std::optional<kvm::VcpuStats> stats_;
  std::optional<kvm::VcpuExits> last_;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_EXIT_WITNESS_H_

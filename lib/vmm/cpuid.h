// From arch's CPUID lists to KVM's structs. Pure functions; any thread.
#ifndef ROMULUS_VMM_CPUID_H_
#define ROMULUS_VMM_CPUID_H_

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "arch/cpuid.h"
#include "kvm/abi.h"
#include "kvm/system.h"
#include "vmm/machine.h"

namespace romulus::vmm {

kvm::CpuidEntries ToKvm(std::span<const arch::CpuidEntry> entries);
std::vector<arch::CpuidEntry> FromKvm(std::span<const kvm_cpuid_entry2> entries);

// What vCPU `vcpu` of the machine shows: made from spec.cpuid if that is given, TSC frequency and
// deadline timer included, else from what the host supports and `tsc_khz`. Errors: as
// arch::BuildGuestCpuid; FailedPrecondition naming features that spec.cpuid has and this host
// lacks; InvalidArgument if it offers nested virtualisation, whose state is not captured.
absl::StatusOr<std::vector<arch::CpuidEntry>> GuestCpuid(const kvm::System& system,
                                                         const MachineSpec& spec, uint32_t tsc_khz,
                                                         int vcpu);

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_CPUID_H_

// Which MSRs are state of a vCPU on this host. Made once per VM; a value, any thread.
#ifndef ROMULUS_VMM_MSR_LIST_H_
#define ROMULUS_VMM_MSR_LIST_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "arch/cpuid.h"
#include "kvm/system.h"
#include "kvm/vcpu.h"

namespace romulus::vmm {

inline constexpr uint32_t kMsrTsc = 0x10;
inline constexpr uint32_t kMsrTscDeadline = 0x6e0;
inline constexpr uint32_t kMsrMtrrDefType = 0x2ff;
inline constexpr size_t kMaxMsrs = 1024;

// Starts from KVM_GET_MSR_INDEX_LIST and adds what KVM keeps per vCPU but does not list (MTRRs, the
// machine check banks' control). Leaves out
//   - what does not read on `vcpu`, whose CPUID is set and which has not run yet;
//   - Hyper-V's synthetic MSRs: our guests' CPUID never offers them;
//   - counters of the host: a value that cannot be written back and changes by itself;
//   - for a guest of a model that unequal hosts share: all that not every host has. KVM lists what
//     the host's CPU has, whatever the guest's CPUID says, and another host could not take it.
// The TSC comes first and TSC_DEADLINE last, as a restore needs them. Errors: errno of the ioctls.
absl::StatusOr<std::vector<uint32_t>> FindStateMsrs(const kvm::System& system, kvm::Vcpu& vcpu,
                                                    arch::CpuModel model);

// Whether it is of one vCPU and only a WRMSR of that changes it, which KVM intercepts on every
// processor: memory types, machine checks, what the CPU is and can, KVM's own MSRs but the wall
// clock's, which is the VM's.
bool IsIntercepted(uint32_t msr);

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_MSR_LIST_H_

// Ballast: entries in a vCPU's dirty ring that stand for no page. KVM stops a vCPU whose ring is
// full by itself, at the very page that fills it, and without a kick. A ring filled with ballast
// but for N entries makes that the budget's page, whatever the ring's size
// (tracker/ring_source.h keeps it so).
#ifndef ROMULUS_VMM_RING_BALLAST_H_
#define ROMULUS_VMM_RING_BALLAST_H_

#include "absl/status/status.h"
#include "kvm/vcpu.h"
#include "memory/guest_memory.h"

namespace romulus::vmm {

// Fills the ring of `vcpu`, with a few entries of those that KVM keeps back, all of them
// outstanding. It has been harvested since the guest stands still, and nobody reads its memory.
//
// KVM adds entries for what it writes itself on behalf of a vCPU: the time of day, where
// MSR_KVM_WALL_CLOCK_NEW is written (Documentation/virt/kvm/x86/msr.rst). That changes a few bytes
// of guest memory; they, and the MSR, are what they were when this returns. Errors: of the ioctls;
// Unimplemented if entries do not come.
absl::Status FillRing(kvm::Vcpu& vcpu, memory::GuestMemory& memory);

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_RING_BALLAST_H_

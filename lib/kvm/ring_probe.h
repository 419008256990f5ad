// Whether this KVM, when it resets a dirty ring, logs again the page that an entry names then, and
// not the one that it named when KVM wrote it. All have done so since there are dirty rings
// (virt/kvm/dirty_ring.c reads the shared entry), but no text promises it; and where it is not so,
// a page whose order travels in another page's entry would be lost. So it is tried out.
#ifndef ROMULUS_KVM_RING_PROBE_H_
#define ROMULUS_KVM_RING_PROBE_H_

#include "absl/status/statusor.h"
#include "kvm/system.h"

namespace romulus::kvm {

// Runs a guest of a few instructions, for about a millisecond. Errors: whatever kept it from
// running; the answer is then to be taken for no.
absl::StatusOr<bool> RingResetsWhatEntriesSay(const System& system);

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_RING_PROBE_H_

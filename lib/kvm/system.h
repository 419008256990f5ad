// /dev/kvm: what the host offers, and the door to new VMs. Owns the device's fd. Immutable once
// open: any thread.
#ifndef ROMULUS_KVM_SYSTEM_H_
#define ROMULUS_KVM_SYSTEM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/unique_fd.h"
#include "kvm/abi.h"

namespace romulus::kvm {

// Read once when the device is opened (KVM_CHECK_EXTENSION on the system fd).
struct Capabilities {
  int api_version = 0;
  uint32_t max_vcpus = 0;
  uint32_t recommended_vcpus = 0;
  uint32_t max_memory_slots = 0;
  uint32_t dirty_ring_max_bytes = 0;  // 0: no dirty ring
  bool dirty_ring_acq_rel = false;
  uint64_t manual_dirty_log_protect = 0;  // KVM_DIRTY_LOG_* bits; 0: none
  bool irqchip = false;
  bool pit2 = false;
  bool immediate_exit = false;
  uint64_t sync_regs = 0;  // KVM_SYNC_X86_* bits
  bool sregs2 = false;
  bool xsave = false;
  uint32_t xsave_bytes = 4096;  // of one vCPU, KVM_CAP_XSAVE2
  bool xcrs = false;
  bool debugregs = false;
  bool vcpu_events = false;
  bool mp_state = false;
  bool adjust_clock = false;
  bool get_tsc_khz = false;
  bool tsc_control = false;  // guest TSC can be scaled to another frequency
  bool tsc_deadline_timer = false;
  bool readonly_memory = false;
  bool set_tss_address = false;
  bool set_identity_map = false;
  bool ioeventfd = false;
  bool irqfd = false;
  bool nested_state = false;
  bool pml = false;  // surely or possibly: false only if excluded
  bool pml_known = false;

  uint32_t max_ring_entries() const {
    return dirty_ring_max_bytes / static_cast<uint32_t>(sizeof(kvm_dirty_gfn));
  }
  // Entries of a ring that KVM keeps back (conservative where PML cannot be excluded).
  uint32_t reserved_ring_entries() const;
  // The smallest ring that KVM takes and that is not full when empty; a power of two.
  uint32_t min_ring_entries() const;
};

class Vm;

class System {
 public:
  // Errors: NotFound (no device), PermissionDenied, FailedPrecondition (an API version other than
  // 12): the message says what to do.
  static absl::StatusOr<std::unique_ptr<System>> Open(absl::string_view path = "/dev/kvm");

  const Capabilities& capabilities() const { return capabilities_; }
  // OK if everything a Machine cannot do without is there; else FailedPrecondition naming each
  // missing capability.
  absl::Status RequireForMachine() const;
  std::vector<std::string> MissingForMachine() const;

  // What KVM can show to a guest. Errors: errno.
  absl::StatusOr<CpuidEntries> SupportedCpuid() const;
  // KVM_GET_MSR_INDEX_LIST: MSRs that may hold guest state. Some of them may not read on a vCPU.
  absl::StatusOr<std::vector<uint32_t>> MsrIndexList() const;

  // The System must outlive the Vm. Errors: errno.
  absl::StatusOr<std::unique_ptr<Vm>> CreateVm() const;

  // Bytes of a vCPU's kvm_run mapping.
  size_t vcpu_mmap_bytes() const { return vcpu_mmap_bytes_; }

 private:
  System() = default;

  base::UniqueFd fd_;
  Capabilities capabilities_;
  size_t vcpu_mmap_bytes_ = 0;
};

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_SYSTEM_H_

// One vCPU's state: how it is read from KVM, carried in a MachineState, and written back. The
// buffers are made once, so that a capture inside the pause allocates nothing. Used by the vCPU's
// own thread during a capture, by the checkpoint thread after it; never by two at once.
#ifndef ROMULUS_VMM_VCPU_STATE_H_
#define ROMULUS_VMM_VCPU_STATE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kvm/abi.h"
#include "kvm/vcpu.h"
#include "state/machine_state.h"
#include "vmm/exit_witness.h"

namespace romulus::vmm {

struct VcpuCaptureHooks {
  // Returns when every vCPU of the machine has stopped and its devices are quiet.
  virtual void AwaitAllStopped() = 0;

 protected:
  ~VcpuCaptureHooks() = default;
};

class VcpuState {
 public:
  // For a vCPU whose state MSRs are `msrs` (FindStateMsrs), whose xsave area has this size and
  // whose guest may enable these bits of XCR0 (arch::ShownXcr0).
  VcpuState(std::span<const uint32_t> msrs, size_t xsave_bytes, uint64_t xcr0, bool has_sregs2);

  // Reads everything from `vcpu`, whose I/O is complete. `fresh_sync_regs`: kvm_run holds the state
  // of the last exit. `alone`: the machine has no other vCPU. See the .cc for the order and its
  // reasons.
  absl::Status Capture(const kvm::Vcpu& vcpu, bool fresh_sync_regs, bool alone,
                       VcpuCaptureHooks& hooks);

  // Sections "vcpu.*", instance `vcpu_id`.
  void Put(state::MachineState& out, uint32_t vcpu_id) const;
  // Takes them back. Errors: as MachineState::Take; InvalidArgument, FailedPrecondition for MSRs
  // that are malformed or not state of a vCPU on this host.
  absl::Status Take(state::MachineState& in, uint32_t vcpu_id);

  uint64_t tsc() const;
  void set_tsc(uint64_t tsc);

  // Writes everything. Errors: the ioctl that failed; FailedPrecondition naming an MSR that this
  // host cannot give that value.
  absl::Status Restore(kvm::Vcpu& vcpu);

 private:
  absl::Status ReadRegisters(const kvm::Vcpu& vcpu);
  // `unchanged` is as in the last capture.
  absl::Status ReadPrivate(const kvm::Vcpu& vcpu, const ExitWitness::Unchanged& unchanged);
  absl::Status ReadMsrs(const kvm::Vcpu& vcpu, bool intercepted_are_unchanged);
  void FindFreeMsrs();
  absl::Status ReadPdptrs(const kvm::Vcpu& vcpu);
  absl::Status RestoreMsrs(kvm::Vcpu& vcpu);
  absl::Status TakeMsrs(state::MachineState& in, uint32_t vcpu_id);

  std::vector<uint32_t> known_msrs_;
  uint64_t xcr0_;
  bool has_sregs2_;

  ExitWitness witness_;
  bool whole_ = false;  // the last capture succeeded: all of the below is of one moment

  kvm_regs regs_{};
  kvm_sregs sregs_{};
  bool has_pdptrs_ = false;  // sregs2_ is valid: the guest uses PAE paging
  kvm_sregs2 sregs2_{};
  kvm_vcpu_events events_{};
  kvm_xcrs xcrs_{};
  kvm_debugregs debugregs_{};
  kvm_mp_state mp_state_{};
  kvm_lapic_state lapic_{};
  kvm::MsrsStruct msrs_;
  // Those of msrs_ that may change without a witness, in the same order, and where they are in it.
  kvm::MsrsStruct free_msrs_;
  std::vector<size_t> free_at_;
  std::vector<uint64_t> xsave_;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_VCPU_STATE_H_

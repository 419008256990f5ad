// One vCPU's fd, its kvm_run page and its dirty ring. Owns them; the Vm must outlive it. All calls
// from the thread that runs the vCPU, except SetImmediateExit (any thread) and dirty_ring() (the
// harvesting thread). Every getter and setter costs one ioctl, unless said otherwise. All errors
// are the ioctl's errno as a Status that names the ioctl, unless said otherwise.
#ifndef ROMULUS_KVM_VCPU_H_
#define ROMULUS_KVM_VCPU_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/mapped_region.h"
#include "base/unique_fd.h"
#include "kvm/abi.h"
#include "kvm/dirty_ring.h"
#include "kvm/exit.h"
#include "kvm/vcpu_stats.h"

namespace romulus::kvm {

class Vcpu {
 public:
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  uint32_t id() const { return id_; }

  // Runs the guest until something is to be done. A signal or immediate_exit is ExitInterrupted,
  // not an error. Any unfinished I/O of the exit before is completed first.
  absl::StatusOr<Exit> Run();
  // While set, Run() completes unfinished I/O and returns ExitInterrupted without entering the
  // guest.
  void SetImmediateExit(bool immediate);
  // The same as a byte, for a signal handler.
  uint8_t* immediate_exit() const;

  // State that KVM writes to the kvm_run page whenever Run() returns (KVM_CAP_SYNC_REGS); nullptr
  // if the host cannot. Valid until the next Run(), and stale after a setter of the same state.
  const kvm_sync_regs* sync_regs() const;

  absl::StatusOr<kvm_regs> GetRegs() const;
  absl::Status SetRegs(const kvm_regs& regs);
  absl::StatusOr<kvm_sregs> GetSregs() const;
  absl::Status SetSregs(const kvm_sregs& sregs);
  absl::StatusOr<kvm_sregs2> GetSregs2() const;
  absl::Status SetSregs2(const kvm_sregs2& sregs);
  // `area` must have xsave_bytes() bytes and be 8-byte aligned. Errors: also InvalidArgument.
  absl::Status GetXsave(std::span<std::byte> area) const;
  absl::Status SetXsave(std::span<const std::byte> area);
  size_t xsave_bytes() const { return xsave_bytes_; }
  absl::StatusOr<kvm_xcrs> GetXcrs() const;
  absl::Status SetXcrs(const kvm_xcrs& xcrs);
  absl::StatusOr<kvm_debugregs> GetDebugRegs() const;
  absl::Status SetDebugRegs(const kvm_debugregs& regs);
  absl::StatusOr<kvm_vcpu_events> GetEvents() const;
  absl::Status SetEvents(const kvm_vcpu_events& events);
  absl::StatusOr<kvm_mp_state> GetMpState() const;
  absl::Status SetMpState(const kvm_mp_state& state);
  absl::StatusOr<kvm_lapic_state> GetLapic() const;
  absl::Status SetLapic(const kvm_lapic_state& lapic);

  absl::Status SetCpuid(std::span<const kvm_cpuid_entry2> entries);

  // Reads entries' indices and fills in their data; returns how many were read: fewer than given if
  // one cannot be read (that is the one at the returned position).
  absl::StatusOr<size_t> GetMsrs(MsrsStruct& msrs) const;
  // The same for writing.
  absl::StatusOr<size_t> SetMsrs(MsrsStruct& msrs);
  // Conveniences, one ioctl each. Errors: also NotFound if KVM refuses the MSR.
  absl::StatusOr<uint64_t> GetMsr(uint32_t index) const;
  absl::Status SetMsr(uint32_t index, uint64_t value);

  absl::StatusOr<uint32_t> GetTscKhz() const;
  absl::Status SetTscKhz(uint32_t tsc_khz);
  // Guest TSC minus (scaled) host TSC, KVM_VCPU_TSC_OFFSET. Errors: also where KVM is older
  // than 5.16.
  absl::StatusOr<uint64_t> GetTscOffset() const;
  absl::Status SetTscOffset(uint64_t offset);
  // Tells the guest, if it uses kvmclock, that it stood still: its watchdogs then forgive the time
  // that went by. Errors: InvalidArgument if it does not use it.
  absl::Status NoteGuestPaused();

  // A new reader of this vCPU's counters. Errors: as VcpuStats::Open.
  absl::StatusOr<VcpuStats> OpenStats() const { return VcpuStats::Open(fd_.get()); }

  // nullptr if the VM has no ring.
  DirtyRing* dirty_ring() { return ring_.has_value() ? &*ring_ : nullptr; }

 private:
  friend class Vm;
  Vcpu(uint32_t id, base::UniqueFd fd, base::MappedRegion run, size_t xsave_bytes);

  void EnableSyncRegs();
  kvm_run& run() const;
  Exit DecodeExit() const;
  // For DirtyRing::NoteFull(): by the registers, where KVM hands them over.
  void NoteRingFull();

  uint32_t id_;
  base::UniqueFd fd_;
  base::MappedRegion run_;
  size_t xsave_bytes_;
  bool sync_regs_enabled_ = false;
  std::optional<DirtyRing> ring_;
  std::optional<kvm_regs> regs_when_full_;
};

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_VCPU_H_

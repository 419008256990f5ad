// One VM's fd: memory slots, dirty tracking, interrupt chips, clock. Owns the fd; the memory behind
// the slots belongs to the caller and must outlive the Vm. Set-up calls: one thread, before the
// vCPUs run. SetIrqLine, GetDirtyLog, ClearDirtyLog, ResetDirtyRings and the getters: any thread.
// All errors are the ioctl's errno as a Status that names the ioctl, unless said otherwise.
#ifndef ROMULUS_KVM_VM_H_
#define ROMULUS_KVM_VM_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/types.h"
#include "base/unique_fd.h"
#include "kvm/abi.h"
#include "kvm/system.h"

namespace romulus::kvm {

class Vcpu;

struct SlotFlags {
  bool log_dirty = false;
  bool read_only = false;
};

enum class IrqChip : uint32_t {
  kPicMaster = KVM_IRQCHIP_PIC_MASTER,
  kPicSlave = KVM_IRQCHIP_PIC_SLAVE,
  kIoapic = KVM_IRQCHIP_IOAPIC,
};

class Vm {
 public:
  ~Vm();
  Vm(const Vm&) = delete;
  Vm& operator=(const Vm&) = delete;

  // Guest physical [gpa, gpa + size_bytes) is host memory at `host_address`, all page aligned.
  // Calling it again for a slot changes its flags; size 0 deletes the slot.
  absl::Status SetMemorySlot(uint32_t slot, Gpa gpa, uint64_t size_bytes, uint64_t host_address,
                             SlotFlags flags);

  // Before any vCPU is created. Every vCPU gets a ring of `entries`. Errors: InvalidArgument (not a
  // power of two, below a page or the reserved entries, above the host's maximum; the message names
  // the bounds), Unimplemented (no rings here), FailedPrecondition (vCPUs exist).
  absl::Status EnableDirtyRing(uint32_t entries);
  // 0 without a ring.
  uint32_t ring_entries() const { return ring_entries_; }
  // KVM_RESET_DIRTY_RINGS: protects the pages again whose entries were given back, on all vCPUs.
  // Returns the number of entries. Less than were given back: it was interrupted. Linux from 6.16
  // on stops in the middle for a pending signal and then counts entries whose pages it has not
  // protected (kvm_dirty_ring_reset), the last ones even without the count being short; so no
  // signal can come meanwhile, but for what no process can block (a freezer, SIGSTOP, a debugger).
  absl::StatusOr<uint32_t> ResetDirtyRings();

  // Bitmap log: dirty bits are cleared and pages protected by ClearDirtyLog alone. Errors:
  // Unimplemented where the host cannot.
  absl::Status EnableManualDirtyLogProtect();
  // One bit per page of the slot, in words of 64; `bitmap` must have ceil(pages / 64) words.
  absl::Status GetDirtyLog(uint32_t slot, std::span<uint64_t> bitmap);
  // `first_page` a multiple of 64; `num_pages` too, unless it reaches the slot's end.
  absl::Status ClearDirtyLog(uint32_t slot, uint64_t first_page, uint32_t num_pages,
                             std::span<const uint64_t> bitmap);

  // A three-page range below 4 GiB that Intel hosts need for real mode, and a page of identity map.
  absl::Status SetTssAddress(Gpa gpa);
  absl::Status SetIdentityMapAddress(Gpa gpa);
  // PIC, IOAPIC and a LAPIC per vCPU in the kernel; before any vCPU.
  absl::Status CreateIrqChip();
  // i8254 in the kernel, its speaker port too.
  absl::Status CreatePit();

  absl::StatusOr<std::unique_ptr<Vcpu>> CreateVcpu(uint32_t id);

  // Raises or lowers a GSI.
  absl::Status SetIrqLine(uint32_t gsi, bool high);
  // Each write to `event_fd` pulses (or, with `resample_fd` >= 0, raises) the GSI.
  absl::Status AddIrqFd(uint32_t gsi, int event_fd, int resample_fd = -1);
  absl::Status RemoveIrqFd(uint32_t gsi, int event_fd);
  // A guest's write of `size_bytes` to `address` signals `event_fd` without an exit; with `match`
  // only if the value is `*match`.
  absl::Status AddIoEventFd(uint64_t address, uint32_t size_bytes, bool port_io, int event_fd,
                            const uint64_t* match = nullptr);

  absl::StatusOr<kvm_irqchip> GetIrqChip(IrqChip chip) const;
  absl::Status SetIrqChip(const kvm_irqchip& chip);
  absl::StatusOr<kvm_pit_state2> GetPit() const;
  absl::Status SetPit(const kvm_pit_state2& pit);
  absl::StatusOr<kvm_clock_data> GetClock() const;
  absl::Status SetClock(const kvm_clock_data& clock);

  // KVM_CHECK_EXTENSION on this VM: 0 is no, else what the capability says.
  int CheckExtension(unsigned long capability) const;
  const System& system() const { return system_; }
  uint32_t xsave_bytes() const { return xsave_bytes_; }

 private:
  friend class System;
  Vm(const System& system, base::UniqueFd fd);

  const System& system_;
  base::UniqueFd fd_;
  uint32_t ring_entries_ = 0;
  uint32_t vcpus_created_ = 0;
  uint32_t xsave_bytes_ = sizeof(XsaveHeader);
};

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_VM_H_

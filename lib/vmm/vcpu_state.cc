#include "vmm/vcpu_state.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/status.h"
#include "vmm/msr_list.h"

namespace romulus::vmm {
namespace {

constexpr uint32_t kVersion = 1;

// XSTATE_BV, which says of what components the area has state: the first word behind the legacy
// region of 512 bytes (Intel SDM vol. 1, 13.4.2).
constexpr size_t kXstateBv = 512 / sizeof(uint64_t);

constexpr uint64_t kCr0Pe = 1ull << 0;
constexpr uint64_t kCr0Pg = 1ull << 31;
constexpr uint64_t kCr4Pae = 1ull << 5;
constexpr uint64_t kEferLma = 1ull << 10;

template <typename T>
absl::Status ReadInto(absl::StatusOr<T> value, T& into) {
  if (!value.ok()) return value.status();
  into = *std::move(value);
  return absl::OkStatus();
}

bool UsesPaePaging(const kvm_sregs& sregs) {
  return (sregs.cr0 & kCr0Pg) != 0 && (sregs.cr4 & kCr4Pae) != 0 && (sregs.efer & kEferLma) == 0;
}

// Where INIT leaves a CPU; one that waits for a SIPI is here, and a running one practically never.
bool AtResetVector(const kvm_regs& regs, const kvm_sregs& sregs) {
  return regs.rip == 0xfff0 && sregs.cs.base == 0xffff0000;
}

}  // namespace

VcpuState::VcpuState(std::span<const uint32_t> msrs, size_t xsave_bytes, uint64_t xcr0,
                     bool has_sregs2)
    : known_msrs_(msrs.begin(), msrs.end()),
      xcr0_(xcr0),
      has_sregs2_(has_sregs2),
      msrs_(msrs.size()),
      free_msrs_(msrs.size()),
      xsave_((xsave_bytes + 7) / 8) {
  msrs_.header().nmsrs = static_cast<uint32_t>(msrs.size());
  for (size_t i = 0; i < msrs.size(); ++i) msrs_.entries()[i].index = msrs[i];
  free_at_.reserve(msrs.size());
  FindFreeMsrs();
}

// The order of a capture (Documentation/virt/kvm/api.rst and arch/x86/kvm/x86.c have the reasons):
//
//  1. Unfinished I/O is complete (the vCPU thread saw to it): else rip and rax are half way.
//  2. regs and sregs: from kvm_run where the host delivers them with the exit, else two ioctls.
//  3. xsave, xcrs, debugregs, MSRs: nobody but this vCPU changes them, so they are read at once,
//     while other vCPUs are still stopping. TSC_DEADLINE comes with the MSRs and so before the
//     LAPIC: a timer that fires in between is then saved as armed and as pending, never as neither.
//  4. Wait until every vCPU has stopped and the devices are quiet: until then another one may send
//     this one an interrupt, an NMI, an INIT, and a device an interrupt. What can come from outside
//     is read only after this point:
//  5. events: GET_VCPU_EVENTS moves queued NMIs to where it reports them.
//  6. mp_state: GET_MP_STATE accepts a pending INIT or SIPI, which rewrites registers. When one may
//     have been pending (a latched INIT, or a vCPU at the reset vector, where it waits for a SIPI),
//     all of the above was read too early and is read again.
//  7. lapic: holds the interrupts sent in the meantime.
//
// xcrs, debugregs and most MSRs are as they were at the last capture if the vCPU has not left the
// guest for anything that could have changed them (ExitWitness). Each of these ioctls loads the
// vCPU anew, and each MSR is looked up for itself.
// The mp_state is not spared: asking for it has KVM accept an INIT that a device has sent.
absl::Status VcpuState::Capture(const kvm::Vcpu& vcpu, bool fresh_sync_regs, bool alone,
                                VcpuCaptureHooks& hooks) {
  const kvm_sync_regs* sync = fresh_sync_regs ? vcpu.sync_regs() : nullptr;
  if (sync != nullptr) {
    regs_ = sync->regs;
    sregs_ = sync->sregs;
    events_ = sync->events;
  } else {
    ROMULUS_RETURN_IF_ERROR(ReadRegisters(vcpu));
  }
  // Asked in each capture: its answer is about the time since the last question. INIT and SMI,
  // which it does not see, leave protected mode off, and to turn it on is an exit that it does.
  ExitWitness::Unchanged unchanged = witness_.Look(vcpu);
  if (!std::exchange(whole_, false) || (sregs_.cr0 & kCr0Pe) == 0) unchanged = {};
  ROMULUS_RETURN_IF_ERROR(ReadPrivate(vcpu, unchanged));
  hooks.AwaitAllStopped();
  if (sync == nullptr || !alone) {
    ROMULUS_RETURN_IF_ERROR(ReadInto(vcpu.GetEvents(), events_));
  }
  const bool reset_pending = events_.smi.latched_init != 0 || AtResetVector(regs_, sregs_);
  ROMULUS_RETURN_IF_ERROR(ReadInto(vcpu.GetMpState(), mp_state_));
  if (reset_pending) {
    ROMULUS_RETURN_IF_ERROR(ReadRegisters(vcpu));
    ROMULUS_RETURN_IF_ERROR(ReadPrivate(vcpu, {}));
    ROMULUS_RETURN_IF_ERROR(ReadInto(vcpu.GetEvents(), events_));
  }
  ROMULUS_RETURN_IF_ERROR(ReadPdptrs(vcpu));
  ROMULUS_RETURN_IF_ERROR(ReadInto(vcpu.GetLapic(), lapic_));
  whole_ = true;
  return absl::OkStatus();
}

absl::Status VcpuState::ReadRegisters(const kvm::Vcpu& vcpu) {
  ROMULUS_RETURN_IF_ERROR(ReadInto(vcpu.GetRegs(), regs_));
  return ReadInto(vcpu.GetSregs(), sregs_);
}

absl::Status VcpuState::ReadPrivate(const kvm::Vcpu& vcpu,
                                    const ExitWitness::Unchanged& unchanged) {
  ROMULUS_RETURN_IF_ERROR(vcpu.GetXsave(std::as_writable_bytes(std::span<uint64_t>(xsave_))));
  // A CPU that has more than the guest may enable is in its initial state there, which some kernels
  // say all the same; a CPU that has less would refuse it.
  xsave_[kXstateBv] &= xcr0_;
  if (!unchanged.intercepted) ROMULUS_RETURN_IF_ERROR(ReadInto(vcpu.GetXcrs(), xcrs_));
  if (!unchanged.debug_registers) {
    ROMULUS_RETURN_IF_ERROR(ReadInto(vcpu.GetDebugRegs(), debugregs_));
  }
  return ReadMsrs(vcpu, unchanged.intercepted);
}

absl::Status VcpuState::ReadMsrs(const kvm::Vcpu& vcpu, bool intercepted_are_unchanged) {
  kvm::MsrsStruct& wanted = intercepted_are_unchanged ? free_msrs_ : msrs_;
  ROMULUS_ASSIGN_OR_RETURN(const size_t read, vcpu.GetMsrs(wanted));
  if (read != wanted.header().nmsrs) {
    return absl::InternalError(absl::StrCat("vCPU ", vcpu.id(), ": MSR 0x",
                                            absl::Hex(wanted.entries()[read].index),
                                            " no longer reads"));
  }
  if (!intercepted_are_unchanged) return absl::OkStatus();
  for (size_t i = 0; i < free_at_.size(); ++i) {
    msrs_.entries()[free_at_[i]].data = free_msrs_.entries()[i].data;
  }
  return absl::OkStatus();
}

void VcpuState::FindFreeMsrs() {
  free_at_.clear();
  for (size_t i = 0; i < msrs_.header().nmsrs; ++i) {
    const uint32_t index = msrs_.entries()[i].index;
    if (IsIntercepted(index)) continue;
    free_msrs_.entries()[free_at_.size()].index = index;
    free_at_.push_back(i);
  }
  free_msrs_.header().nmsrs = static_cast<uint32_t>(free_at_.size());
}

// With PAE paging the CPU keeps four page directory pointers of its own, which may differ from what
// is in memory by now (Intel SDM vol. 3, 4.4.1). Only sregs2 has them.
absl::Status VcpuState::ReadPdptrs(const kvm::Vcpu& vcpu) {
  has_pdptrs_ = has_sregs2_ && UsesPaePaging(sregs_);
  if (!has_pdptrs_) return absl::OkStatus();
  return ReadInto(vcpu.GetSregs2(), sregs2_);
}

void VcpuState::Put(state::MachineState& out, uint32_t vcpu_id) const {
  auto put_bytes = [&](absl::string_view kind, std::span<const std::byte> bytes) {
    out.Put(kind, vcpu_id, kVersion, base::AsText(bytes));
  };
  out.PutStruct("vcpu.regs", vcpu_id, kVersion, regs_);
  out.PutStruct("vcpu.sregs", vcpu_id, kVersion, sregs_);
  if (has_pdptrs_) out.PutStruct("vcpu.sregs2", vcpu_id, kVersion, sregs2_);
  put_bytes("vcpu.xsave", std::as_bytes(std::span<const uint64_t>(xsave_)));
  out.PutStruct("vcpu.xcrs", vcpu_id, kVersion, xcrs_);
  out.PutStruct("vcpu.debugregs", vcpu_id, kVersion, debugregs_);
  put_bytes("vcpu.msrs", std::as_bytes(msrs_.entries().first(msrs_.header().nmsrs)));
  out.PutStruct("vcpu.events", vcpu_id, kVersion, events_);
  out.PutStruct("vcpu.mp_state", vcpu_id, kVersion, mp_state_);
  out.PutStruct("vcpu.lapic", vcpu_id, kVersion, lapic_);
}

absl::Status VcpuState::Take(state::MachineState& in, uint32_t vcpu_id) {
  whole_ = false;
  auto take = [&](absl::string_view kind, auto& into) {
    return ReadInto(in.TakeStruct<std::remove_reference_t<decltype(into)>>(kind, vcpu_id, kVersion),
                    into);
  };
  ROMULUS_RETURN_IF_ERROR(take("vcpu.regs", regs_));
  ROMULUS_RETURN_IF_ERROR(take("vcpu.sregs", sregs_));
  has_pdptrs_ = in.Has("vcpu.sregs2", vcpu_id);
  if (has_pdptrs_) {
    if (!has_sregs2_) {
      return absl::FailedPreconditionError("the guest's PAE state needs KVM_CAP_SREGS2, not here");
    }
    ROMULUS_RETURN_IF_ERROR(take("vcpu.sregs2", sregs2_));
  }
  ROMULUS_ASSIGN_OR_RETURN(const state::Section xsave, in.Take("vcpu.xsave", vcpu_id, kVersion));
  if (xsave.payload.size() != xsave_.size() * sizeof(uint64_t)) {
    return absl::FailedPreconditionError(
        absl::StrCat("vCPU ", vcpu_id, ": xsave area of ", xsave.payload.size(),
                     " bytes, this host's has ", xsave_.size() * sizeof(uint64_t)));
  }
  std::memcpy(xsave_.data(), xsave.payload.data(), xsave.payload.size());
  ROMULUS_RETURN_IF_ERROR(take("vcpu.xcrs", xcrs_));
  ROMULUS_RETURN_IF_ERROR(take("vcpu.debugregs", debugregs_));
  ROMULUS_RETURN_IF_ERROR(TakeMsrs(in, vcpu_id));
  ROMULUS_RETURN_IF_ERROR(take("vcpu.events", events_));
  ROMULUS_RETURN_IF_ERROR(take("vcpu.mp_state", mp_state_));
  return take("vcpu.lapic", lapic_);
}

// The saved MSRs must be ones that are state here too: nobody gets to write any other MSR. They are
// put into this host's order, which has TSC first and TSC_DEADLINE last.
absl::Status VcpuState::TakeMsrs(state::MachineState& in, uint32_t vcpu_id) {
  ROMULUS_ASSIGN_OR_RETURN(const state::Section section, in.Take("vcpu.msrs", vcpu_id, kVersion));
  if (section.payload.size() % sizeof(kvm_msr_entry) != 0 ||
      section.payload.size() / sizeof(kvm_msr_entry) > kMaxMsrs) {
    return absl::InvalidArgumentError(
        absl::StrCat("vCPU ", vcpu_id, ": ", section.payload.size(), " bytes of MSRs"));
  }
  base::ByteReader reader(base::AsBytes(section.payload));
  std::vector<bool> seen(known_msrs_.size());
  while (reader.remaining() > 0) {
    const kvm_msr_entry entry = reader.Read<kvm_msr_entry>();
    const auto known = std::find(known_msrs_.begin(), known_msrs_.end(), entry.index);
    if (known == known_msrs_.end()) {
      return absl::FailedPreconditionError(absl::StrCat("vCPU ", vcpu_id, ": the guest's MSR 0x",
                                                        absl::Hex(entry.index),
                                                        " does not exist here"));
    }
    const size_t at = static_cast<size_t>(known - known_msrs_.begin());
    if (seen[at]) {
      return absl::InvalidArgumentError(
          absl::StrCat("vCPU ", vcpu_id, ": MSR 0x", absl::Hex(entry.index), " twice"));
    }
    seen[at] = true;
    msrs_.entries()[at].index = entry.index;
    msrs_.entries()[at].reserved = 0;
    msrs_.entries()[at].data = entry.data;
  }
  // An MSR that only this host has keeps its reset value: what is absent is closed up.
  size_t count = 0;
  for (size_t i = 0; i < seen.size(); ++i) {
    if (seen[i]) msrs_.entries()[count++] = msrs_.entries()[i];
  }
  if (count == 0 || msrs_.entries()[0].index != kMsrTsc) {
    return absl::InvalidArgumentError(absl::StrCat("vCPU ", vcpu_id, ": no TSC among the MSRs"));
  }
  msrs_.header().nmsrs = static_cast<uint32_t>(count);
  FindFreeMsrs();
  return absl::OkStatus();
}

uint64_t VcpuState::tsc() const { return msrs_.entries()[0].data; }
void VcpuState::set_tsc(uint64_t tsc) { msrs_.entries()[0].data = tsc; }

// The order of a restore; CPUID is set already, which sregs, xcrs and MSRs are checked against:
//
//  1. sregs before everything that depends on the mode: the APIC base with its x2APIC bit decides
//  how
//     LAPIC state is read, and on a boot processor at the reset vector it sets mp_state. sregs2, if
//     the state has it, brings the PAE pointers that sregs would read from memory.
//  2. regs, xsave, xcrs, debugregs: free of each other.
//  3. lapic, before the MSRs: KVM drops a TSC_DEADLINE unless the timer is in that mode.
//  4. MSRs without the TSC, which the machine has set on all vCPUs before (arming a deadline
//  compares
//     with it); TSC_DEADLINE last.
//  5. mp_state after sregs (see 1), then events last: sregs and mp_state both touch pending
//     interrupts, and only events knows which of them were already on their way.
absl::Status VcpuState::Restore(kvm::Vcpu& vcpu) {
  ROMULUS_RETURN_IF_ERROR(has_pdptrs_ ? vcpu.SetSregs2(sregs2_) : vcpu.SetSregs(sregs_));
  ROMULUS_RETURN_IF_ERROR(vcpu.SetRegs(regs_));
  ROMULUS_RETURN_IF_ERROR(vcpu.SetXsave(std::as_bytes(std::span<const uint64_t>(xsave_))));
  ROMULUS_RETURN_IF_ERROR(vcpu.SetXcrs(xcrs_));
  ROMULUS_RETURN_IF_ERROR(vcpu.SetDebugRegs(debugregs_));
  ROMULUS_RETURN_IF_ERROR(vcpu.SetLapic(lapic_));
  ROMULUS_RETURN_IF_ERROR(RestoreMsrs(vcpu));
  ROMULUS_RETURN_IF_ERROR(vcpu.SetMpState(mp_state_));
  return vcpu.SetEvents(events_);
}

// KVM_SET_MSRS stops at the first value that it refuses. Such an MSR is one that this host does not
// let anybody write (a revision, a capability word): no harm if it has the wanted value already,
// and a guest that would see its CPU change if it has not.
absl::Status VcpuState::RestoreMsrs(kvm::Vcpu& vcpu) {
  const std::span<kvm_msr_entry> all = msrs_.entries().first(msrs_.header().nmsrs).subspan(1);
  kvm::MsrsStruct rest(all.size());
  size_t done = 0;
  while (done < all.size()) {
    std::copy(all.begin() + static_cast<std::ptrdiff_t>(done), all.end(), rest.entries().begin());
    rest.header().nmsrs = static_cast<uint32_t>(all.size() - done);
    ROMULUS_ASSIGN_OR_RETURN(const size_t written, vcpu.SetMsrs(rest));
    done += written;
    if (done >= all.size()) break;
    const kvm_msr_entry& refused = all[done];
    absl::StatusOr<uint64_t> here = vcpu.GetMsr(refused.index);
    if (!here.ok() || *here != refused.data) {
      return absl::FailedPreconditionError(
          absl::StrCat("vCPU ", vcpu.id(), ": this host refuses the guest's value 0x",
                       absl::Hex(refused.data), " of MSR 0x", absl::Hex(refused.index),
                       here.ok() ? absl::StrCat(", it has 0x", absl::Hex(*here)) : ""));
    }
    ++done;
  }
  return absl::OkStatus();
}

}  // namespace romulus::vmm

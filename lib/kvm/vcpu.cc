#include "kvm/vcpu.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kvm/ioctl.h"

namespace romulus::kvm {
namespace {

// SAFETY: KVM reads or writes one u64 there (Documentation/virt/kvm/devices/vcpu.rst, 4.1).
kvm_device_attr TscOffsetAttribute(uint64_t* offset) {
  kvm_device_attr attribute{};
  attribute.group = KVM_VCPU_TSC_CTRL;
  attribute.attr = KVM_VCPU_TSC_OFFSET;
  attribute.addr = reinterpret_cast<uint64_t>(offset);
  return attribute;
}

}  // namespace

Vcpu::Vcpu(uint32_t id, base::UniqueFd fd, base::MappedRegion run, size_t xsave_bytes)
    : id_(id), fd_(std::move(fd)), run_(std::move(run)), xsave_bytes_(xsave_bytes) {}

Vcpu::~Vcpu() = default;

// SAFETY: the mapping is at least sizeof(kvm_run) (System::Open checked) and page aligned.
kvm_run& Vcpu::run() const { return *reinterpret_cast<kvm_run*>(run_.data()); }

void Vcpu::EnableSyncRegs() {
  run().kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
  sync_regs_enabled_ = true;
}

const kvm_sync_regs* Vcpu::sync_regs() const {
  return sync_regs_enabled_ ? &run().s.regs : nullptr;
}

void Vcpu::SetImmediateExit(bool immediate) {
  // SAFETY: one byte shared with the kernel, which reads it once per KVM_RUN.
  std::atomic_ref<uint8_t>(run().immediate_exit).store(immediate ? 1 : 0);
}

uint8_t* Vcpu::immediate_exit() const { return &run().immediate_exit; }

absl::StatusOr<Exit> Vcpu::Run() {
  for (;;) {
    if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) {
      if (run().exit_reason == KVM_EXIT_DIRTY_RING_FULL) NoteRingFull();
      return DecodeExit();
    }
    switch (errno) {
      case EINTR:
        return ExitInterrupted{};
      case EAGAIN:
        // A vCPU that waited for INIT/SIPI was woken: enter again (kvm_arch_vcpu_ioctl_run).
        continue;
      default: {
        // These come with an exit reason that says more than the errno (api.rst, KVM_RUN).
        const int error = errno;
        const uint32_t reason = run().exit_reason;
        if (reason == KVM_EXIT_INTERNAL_ERROR || reason == KVM_EXIT_FAIL_ENTRY) return DecodeExit();
        return base::ErrnoStatus(error, absl::StrCat("KVM_RUN of vCPU ", id_));
      }
    }
  }
}

Exit Vcpu::DecodeExit() const {
  kvm_run& run_page = run();
  switch (run_page.exit_reason) {
    case KVM_EXIT_IO: {
      ExitIo io;
      io.port = run_page.io.port;
      io.size_bytes = run_page.io.size;
      io.is_write = run_page.io.direction == KVM_EXIT_IO_OUT;
      const uint64_t offset = run_page.io.data_offset;
      const uint64_t size = uint64_t{run_page.io.size} * run_page.io.count;
      // KVM's own numbers; were they wrong, nothing about this VM could be trusted.
      ROMULUS_CHECK(offset <= run_.size_bytes() && size <= run_.size_bytes() - offset);
      io.data = run_.bytes().subspan(offset, size);
      return io;
    }
    case KVM_EXIT_MMIO: {
      ExitMmio mmio;
      mmio.gpa = run_page.mmio.phys_addr;
      mmio.is_write = run_page.mmio.is_write != 0;
      const size_t length = std::min<size_t>(run_page.mmio.len, sizeof(run_page.mmio.data));
      mmio.data = std::as_writable_bytes(std::span<uint8_t>(run_page.mmio.data, length));
      return mmio;
    }
    case KVM_EXIT_HLT:
      return ExitHlt{};
    case KVM_EXIT_SHUTDOWN:
      return ExitShutdown{};
    case KVM_EXIT_SYSTEM_EVENT:
      return ExitSystemEvent{.type = run_page.system_event.type};
    case KVM_EXIT_DIRTY_RING_FULL:
      return ExitDirtyRingFull{};
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return ExitInterrupted{};
    case KVM_EXIT_INTERNAL_ERROR: {
      ExitInternalError error;
      error.suberror = run_page.internal.suberror;
      error.data_count = std::min<uint32_t>(run_page.internal.ndata, 16);
      std::copy_n(std::begin(run_page.internal.data), error.data_count, error.data.begin());
      return error;
    }
    case KVM_EXIT_FAIL_ENTRY:
      return ExitFailEntry{.hardware_reason = run_page.fail_entry.hardware_entry_failure_reason,
                           .cpu = run_page.fail_entry.cpu};
    default:
      return ExitUnknown{.reason = run_page.exit_reason};
  }
}

void Vcpu::NoteRingFull() {
  if (!ring_.has_value()) return;
  const kvm_sync_regs* const now = sync_regs();
  const bool progressed = now != nullptr && regs_when_full_.has_value() &&
                          std::memcmp(&*regs_when_full_, &now->regs, sizeof(kvm_regs)) != 0;
  ring_->NoteFull(progressed);
  if (now != nullptr) regs_when_full_ = now->regs;
}

absl::StatusOr<kvm_regs> Vcpu::GetRegs() const {
  return internal::Get<kvm_regs>(fd_.get(), KVM_GET_REGS, "KVM_GET_REGS");
}
absl::Status Vcpu::SetRegs(const kvm_regs& regs) {
  return internal::Set(fd_.get(), KVM_SET_REGS, &regs, "KVM_SET_REGS");
}
absl::StatusOr<kvm_sregs> Vcpu::GetSregs() const {
  return internal::Get<kvm_sregs>(fd_.get(), KVM_GET_SREGS, "KVM_GET_SREGS");
}
absl::Status Vcpu::SetSregs(const kvm_sregs& sregs) {
  return internal::Set(fd_.get(), KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
}
absl::StatusOr<kvm_sregs2> Vcpu::GetSregs2() const {
  return internal::Get<kvm_sregs2>(fd_.get(), KVM_GET_SREGS2, "KVM_GET_SREGS2");
}
absl::Status Vcpu::SetSregs2(const kvm_sregs2& sregs) {
  return internal::Set(fd_.get(), KVM_SET_SREGS2, &sregs, "KVM_SET_SREGS2");
}

absl::Status Vcpu::GetXsave(std::span<std::byte> area) const {
  if (area.size() != xsave_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("xsave area of ", area.size(), " bytes, want ", xsave_bytes_));
  }
  // KVM_GET_XSAVE writes no more than 4096 bytes; its successor writes KVM_CAP_XSAVE2's many.
  if (xsave_bytes_ > sizeof(XsaveHeader)) {
    return internal::Set(fd_.get(), kGetXsave2, area.data(), "KVM_GET_XSAVE2");
  }
  return internal::Set(fd_.get(), kGetXsave, area.data(), "KVM_GET_XSAVE");
}

absl::Status Vcpu::SetXsave(std::span<const std::byte> area) {
  if (area.size() != xsave_bytes_) {
    return absl::InvalidArgumentError(
        absl::StrCat("xsave area of ", area.size(), " bytes, want ", xsave_bytes_));
  }
  return internal::Set(fd_.get(), kSetXsave, area.data(), "KVM_SET_XSAVE");
}

absl::StatusOr<kvm_xcrs> Vcpu::GetXcrs() const {
  return internal::Get<kvm_xcrs>(fd_.get(), KVM_GET_XCRS, "KVM_GET_XCRS");
}
absl::Status Vcpu::SetXcrs(const kvm_xcrs& xcrs) {
  return internal::Set(fd_.get(), KVM_SET_XCRS, &xcrs, "KVM_SET_XCRS");
}
absl::StatusOr<kvm_debugregs> Vcpu::GetDebugRegs() const {
  return internal::Get<kvm_debugregs>(fd_.get(), KVM_GET_DEBUGREGS, "KVM_GET_DEBUGREGS");
}
absl::Status Vcpu::SetDebugRegs(const kvm_debugregs& regs) {
  return internal::Set(fd_.get(), KVM_SET_DEBUGREGS, &regs, "KVM_SET_DEBUGREGS");
}
absl::StatusOr<kvm_vcpu_events> Vcpu::GetEvents() const {
  return internal::Get<kvm_vcpu_events>(fd_.get(), KVM_GET_VCPU_EVENTS, "KVM_GET_VCPU_EVENTS");
}
absl::Status Vcpu::SetEvents(const kvm_vcpu_events& events) {
  return internal::Set(fd_.get(), KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS");
}
absl::StatusOr<kvm_mp_state> Vcpu::GetMpState() const {
  return internal::Get<kvm_mp_state>(fd_.get(), KVM_GET_MP_STATE, "KVM_GET_MP_STATE");
}
absl::Status Vcpu::SetMpState(const kvm_mp_state& state) {
  return internal::Set(fd_.get(), KVM_SET_MP_STATE, &state, "KVM_SET_MP_STATE");
}
absl::StatusOr<kvm_lapic_state> Vcpu::GetLapic() const {
  return internal::Get<kvm_lapic_state>(fd_.get(), KVM_GET_LAPIC, "KVM_GET_LAPIC");
}
absl::Status Vcpu::SetLapic(const kvm_lapic_state& lapic) {
  return internal::Set(fd_.get(), KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC");
}

absl::Status Vcpu::SetCpuid(std::span<const kvm_cpuid_entry2> entries) {
  CpuidStruct cpuid(entries.size());
  cpuid.header().nent = static_cast<uint32_t>(entries.size());
  std::copy(entries.begin(), entries.end(), cpuid.entries().begin());
  return internal::Set(fd_.get(), kSetCpuid2, cpuid.data(), "KVM_SET_CPUID2");
}

absl::StatusOr<size_t> Vcpu::GetMsrs(MsrsStruct& msrs) const {
  ROMULUS_CHECK(msrs.header().nmsrs <= msrs.capacity());
  ROMULUS_ASSIGN_OR_RETURN(const int count,
                           internal::Call(fd_.get(), kGetMsrs, msrs.data(), "KVM_GET_MSRS"));
  return static_cast<size_t>(count);
}

absl::StatusOr<size_t> Vcpu::SetMsrs(MsrsStruct& msrs) {
  ROMULUS_CHECK(msrs.header().nmsrs <= msrs.capacity());
  ROMULUS_ASSIGN_OR_RETURN(const int count,
                           internal::Call(fd_.get(), kSetMsrs, msrs.data(), "KVM_SET_MSRS"));
  return static_cast<size_t>(count);
}

absl::StatusOr<uint64_t> Vcpu::GetMsr(uint32_t index) const {
  MsrsStruct msrs(1);
  msrs.header().nmsrs = 1;
  msrs.entries()[0].index = index;
  ROMULUS_ASSIGN_OR_RETURN(const size_t count, GetMsrs(msrs));
  if (count != 1) return absl::NotFoundError(absl::StrCat("MSR 0x", absl::Hex(index)));
  return msrs.entries()[0].data;
}

absl::Status Vcpu::SetMsr(uint32_t index, uint64_t value) {
  MsrsStruct msrs(1);
  msrs.header().nmsrs = 1;
  msrs.entries()[0].index = index;
  msrs.entries()[0].data = value;
  ROMULUS_ASSIGN_OR_RETURN(const size_t count, SetMsrs(msrs));
  if (count != 1) {
    return absl::NotFoundError(
        absl::StrCat("MSR 0x", absl::Hex(index), " does not take 0x", absl::Hex(value)));
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> Vcpu::GetTscKhz() const {
  ROMULUS_ASSIGN_OR_RETURN(const int khz,
                           internal::Call(fd_.get(), KVM_GET_TSC_KHZ, 0, "KVM_GET_TSC_KHZ"));
  return static_cast<uint32_t>(khz);
}

absl::StatusOr<uint64_t> Vcpu::GetTscOffset() const {
  uint64_t offset = 0;
  kvm_device_attr attribute = TscOffsetAttribute(&offset);
  ROMULUS_RETURN_IF_ERROR(internal::Set(fd_.get(), KVM_GET_DEVICE_ATTR, &attribute,
                                        "KVM_GET_DEVICE_ATTR(KVM_VCPU_TSC_OFFSET)"));
  return offset;
}

absl::Status Vcpu::SetTscOffset(uint64_t offset) {
  kvm_device_attr attribute = TscOffsetAttribute(&offset);
  return internal::Set(fd_.get(), KVM_SET_DEVICE_ATTR, &attribute,
                       "KVM_SET_DEVICE_ATTR(KVM_VCPU_TSC_OFFSET)");
}

absl::Status Vcpu::NoteGuestPaused() {
  return internal::Set(fd_.get(), KVM_KVMCLOCK_CTRL, 0ul, "KVM_KVMCLOCK_CTRL");
}

absl::Status Vcpu::SetTscKhz(uint32_t tsc_khz) {
  return internal::Set(fd_.get(), KVM_SET_TSC_KHZ, static_cast<unsigned long>(tsc_khz),
                       "KVM_SET_TSC_KHZ");
}

}  // namespace romulus::kvm

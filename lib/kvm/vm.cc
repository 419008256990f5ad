#include "kvm/vm.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"
#include "kvm/dirty_ring.h"
#include "kvm/ioctl.h"
#include "kvm/vcpu.h"

namespace romulus::kvm {
namespace {

absl::Status EnableCap(int fd, uint32_t capability, uint64_t argument, absl::string_view name) {
  kvm_enable_cap cap{};
  cap.cap = capability;
  cap.args[0] = argument;
  return internal::Set(fd, KVM_ENABLE_CAP, &cap, absl::StrCat("KVM_ENABLE_CAP(", name, ")"));
}

}  // namespace

Vm::Vm(const System& system, base::UniqueFd fd) : system_(system), fd_(std::move(fd)) {
  // Per VM, because it depends on the features that this process may hand to guests.
  xsave_bytes_ = std::max<uint32_t>(static_cast<uint32_t>(CheckExtension(KVM_CAP_XSAVE2)),
                                    sizeof(XsaveHeader));
}

Vm::~Vm() = default;

int Vm::CheckExtension(unsigned long capability) const {
  absl::StatusOr<int> value =
      internal::Call(fd_.get(), KVM_CHECK_EXTENSION, capability, "KVM_CHECK_EXTENSION");
  return value.ok() ? *value : 0;
}

absl::Status Vm::SetMemorySlot(uint32_t slot, Gpa gpa, uint64_t size_bytes, uint64_t host_address,
                               SlotFlags flags) {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.flags = (flags.log_dirty ? static_cast<uint32_t>(KVM_MEM_LOG_DIRTY_PAGES) : 0u) |
                 (flags.read_only ? static_cast<uint32_t>(KVM_MEM_READONLY) : 0u);
  region.guest_phys_addr = gpa.value();
  region.memory_size = size_bytes;
  region.userspace_addr = host_address;
  return internal::Set(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region,
                       "KVM_SET_USER_MEMORY_REGION");
}

absl::Status Vm::EnableDirtyRing(uint32_t entries) {
  const Capabilities& host = system_.capabilities();
  if (host.dirty_ring_max_bytes == 0) {
    return absl::UnimplementedError(
        "this host's KVM has no dirty ring (KVM_CAP_DIRTY_LOG_RING_ACQ_REL, "
        "KVM_CAP_DIRTY_LOG_RING): use the bitmap");
  }
  const uint32_t most = host.max_ring_entries();
  const uint32_t least = host.min_ring_entries();
  if (!std::has_single_bit(entries)) {
    return absl::InvalidArgumentError(absl::StrCat("dirty ring of ", entries,
                                                   " entries: must be a power of two, from ", least,
                                                   " to ", most, " on this host"));
  }
  if (entries < least) {
    return absl::InvalidArgumentError(
        absl::StrCat("dirty ring of ", entries, " entries: too small, this host needs at least ",
                     least, " (", host.reserved_ring_entries(), " are reserved by KVM",
                     host.pml_known ? "" : " if it has PML", ")"));
  }
  if (entries > most) {
    return absl::InvalidArgumentError(absl::StrCat(
        "dirty ring of ", entries, " entries: too large, this host's maximum is ", most));
  }
  if (vcpus_created_ > 0) {
    return absl::FailedPreconditionError("a dirty ring must be enabled before any vCPU is created");
  }
  ROMULUS_RETURN_IF_ERROR(EnableCap(
      fd_.get(), host.dirty_ring_acq_rel ? KVM_CAP_DIRTY_LOG_RING_ACQ_REL : KVM_CAP_DIRTY_LOG_RING,
      uint64_t{entries} * sizeof(kvm_dirty_gfn),
      host.dirty_ring_acq_rel ? "KVM_CAP_DIRTY_LOG_RING_ACQ_REL" : "KVM_CAP_DIRTY_LOG_RING"));
  ring_entries_ = entries;
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> Vm::ResetDirtyRings() {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  const absl::Cleanup restore = [&before] { ::pthread_sigmask(SIG_SETMASK, &before, nullptr); };
  ROMULUS_ASSIGN_OR_RETURN(const int count, internal::Call(fd_.get(), KVM_RESET_DIRTY_RINGS, 0,
                                                           "KVM_RESET_DIRTY_RINGS"));
  return static_cast<uint32_t>(count);
}

absl::Status Vm::EnableManualDirtyLogProtect() {
  if ((system_.capabilities().manual_dirty_log_protect & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) ==
      0) {
    return absl::UnimplementedError(
        "this host's KVM has no KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 (KVM_CLEAR_DIRTY_LOG)");
  }
  return EnableCap(fd_.get(), KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                   KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2");
}

absl::Status Vm::GetDirtyLog(uint32_t slot, std::span<uint64_t> bitmap) {
  kvm_dirty_log log{};
  log.slot = slot;
  log.dirty_bitmap = bitmap.data();
  return internal::Set(fd_.get(), KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG");
}

absl::Status Vm::ClearDirtyLog(uint32_t slot, uint64_t first_page, uint32_t num_pages,
                               std::span<const uint64_t> bitmap) {
  ROMULUS_CHECK(bitmap.size() * 64 >= num_pages);
  kvm_clear_dirty_log log{};
  log.slot = slot;
  log.num_pages = num_pages;
  log.first_page = first_page;
  // SAFETY: KVM only reads it (api.rst, 4.117); the struct has no const pointer.
  log.dirty_bitmap = const_cast<uint64_t*>(bitmap.data());
  return internal::Set(fd_.get(), KVM_CLEAR_DIRTY_LOG, &log, "KVM_CLEAR_DIRTY_LOG");
}

absl::Status Vm::SetTssAddress(Gpa gpa) {
  return internal::Set(fd_.get(), KVM_SET_TSS_ADDR, gpa.value(), "KVM_SET_TSS_ADDR");
}

absl::Status Vm::SetIdentityMapAddress(Gpa gpa) {
  uint64_t address = gpa.value();
  return internal::Set(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &address, "KVM_SET_IDENTITY_MAP_ADDR");
}

absl::Status Vm::CreateIrqChip() {
  return internal::Set(fd_.get(), KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
}

absl::Status Vm::CreatePit() {
  kvm_pit_config config{};
  config.flags = KVM_PIT_SPEAKER_DUMMY;
  return internal::Set(fd_.get(), KVM_CREATE_PIT2, &config, "KVM_CREATE_PIT2");
}

absl::StatusOr<std::unique_ptr<Vcpu>> Vm::CreateVcpu(uint32_t id) {
  ROMULUS_ASSIGN_OR_RETURN(
      const int raw_fd, internal::Call(fd_.get(), KVM_CREATE_VCPU, static_cast<unsigned long>(id),
                                       "KVM_CREATE_VCPU"));
  base::UniqueFd fd(raw_fd);
  ++vcpus_created_;
  absl::StatusOr<base::MappedRegion> run =
      base::MappedRegion::MapShared(fd.get(), 0, system_.vcpu_mmap_bytes());
  if (!run.ok()) return base::Annotate(run.status(), "mapping a vCPU's kvm_run");
  std::unique_ptr<Vcpu> vcpu(new Vcpu(id, std::move(fd), *std::move(run), xsave_bytes_));
  constexpr uint64_t kAllSyncRegs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
  if ((system_.capabilities().sync_regs & kAllSyncRegs) == kAllSyncRegs) vcpu->EnableSyncRegs();
  if (ring_entries_ > 0) {
    ROMULUS_ASSIGN_OR_RETURN(
        DirtyRing ring,
        DirtyRing::Map(vcpu->fd_.get(), ring_entries_,
                       ring_entries_ - system_.capabilities().reserved_ring_entries()));
    vcpu->ring_.emplace(std::move(ring));
  }
  return vcpu;
}

absl::Status Vm::SetIrqLine(uint32_t gsi, bool high) {
  kvm_irq_level level{};
  level.irq = gsi;
  level.level = high ? 1 : 0;
  return internal::Set(fd_.get(), KVM_IRQ_LINE, &level, "KVM_IRQ_LINE");
}

absl::Status Vm::AddIrqFd(uint32_t gsi, int event_fd, int resample_fd) {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<uint32_t>(event_fd);
  irqfd.gsi = gsi;
  if (resample_fd >= 0) {
    irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
    irqfd.resamplefd = static_cast<uint32_t>(resample_fd);
  }
  return internal::Set(fd_.get(), KVM_IRQFD, &irqfd, "KVM_IRQFD");
}

absl::Status Vm::RemoveIrqFd(uint32_t gsi, int event_fd) {
  kvm_irqfd irqfd{};
  irqfd.fd = static_cast<uint32_t>(event_fd);
  irqfd.gsi = gsi;
  irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
  return internal::Set(fd_.get(), KVM_IRQFD, &irqfd, "KVM_IRQFD(deassign)");
}

absl::Status Vm::AddIoEventFd(uint64_t address, uint32_t size_bytes, bool port_io, int event_fd,
                              const uint64_t* match) {
  kvm_ioeventfd event{};
  event.addr = address;
  event.len = size_bytes;
  event.fd = event_fd;
  if (port_io) event.flags |= KVM_IOEVENTFD_FLAG_PIO;
  if (match != nullptr) {
    event.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
    event.datamatch = *match;
  }
  return internal::Set(fd_.get(), KVM_IOEVENTFD, &event, "KVM_IOEVENTFD");
}

absl::StatusOr<kvm_irqchip> Vm::GetIrqChip(IrqChip chip) const {
  kvm_irqchip state{};
  state.chip_id = static_cast<uint32_t>(chip);
  ROMULUS_RETURN_IF_ERROR(internal::Set(fd_.get(), KVM_GET_IRQCHIP, &state, "KVM_GET_IRQCHIP"));
  return state;
}

absl::Status Vm::SetIrqChip(const kvm_irqchip& chip) {
  return internal::Set(fd_.get(), KVM_SET_IRQCHIP, &chip, "KVM_SET_IRQCHIP");
}

absl::StatusOr<kvm_pit_state2> Vm::GetPit() const {
  return internal::Get<kvm_pit_state2>(fd_.get(), KVM_GET_PIT2, "KVM_GET_PIT2");
}

absl::Status Vm::SetPit(const kvm_pit_state2& pit) {
  return internal::Set(fd_.get(), KVM_SET_PIT2, &pit, "KVM_SET_PIT2");
}

absl::StatusOr<kvm_clock_data> Vm::GetClock() const {
  return internal::Get<kvm_clock_data>(fd_.get(), KVM_GET_CLOCK, "KVM_GET_CLOCK");
}

absl::Status Vm::SetClock(const kvm_clock_data& clock) {
  return internal::Set(fd_.get(), KVM_SET_CLOCK, &clock, "KVM_SET_CLOCK");
}

}  // namespace romulus::kvm

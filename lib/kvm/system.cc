#include "kvm/system.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <fstream>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/types.h"
#include "kvm/dirty_ring.h"
#include "kvm/ioctl.h"
#include "kvm/vm.h"

namespace romulus::kvm {
namespace {

constexpr uint32_t kMaxCpuidEntries = 4096;
constexpr uint32_t kMaxMsrs = 4096;

absl::Status OpenError(int error_number, absl::string_view path) {
  switch (error_number) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
      return absl::NotFoundError(absl::StrCat(
          path,
          " is not there: enable virtualisation in the firmware (VT-x or SVM) and load the "
          "module: modprobe kvm_intel or modprobe kvm_amd"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat("no permission to open ", path,
                       ": run as root, or as a member of the group that owns it (usermod -aG kvm "
                       "<user>, then log in again)"));
    default:
      return base::ErrnoStatus(error_number, absl::StrCat("opening ", path));
  }
}

// kvm_intel says so; kvm_amd and kvm_pvm have no such log. Without any of these modules (KVM built
// into the kernel) it may or may not be there.
std::pair<bool, bool> PmlAndKnown() {
  if (std::ifstream pml("/sys/module/kvm_intel/parameters/pml"); pml) {
    char value = 0;
    pml >> value;
    return {value == 'Y' || value == '1', true};
  }
  for (const char* module : {"/sys/module/kvm_amd/.", "/sys/module/kvm_pvm/."}) {
    if (::access(module, F_OK) == 0) return {false, true};
  }
  return {true, false};
}

}  // namespace

uint32_t Capabilities::reserved_ring_entries() const {
  return kRingReservedEntries + (pml ? kPmlEntries : 0);
}

uint32_t Capabilities::min_ring_entries() const {
  const uint32_t page_entries = static_cast<uint32_t>(kPageSize / sizeof(kvm_dirty_gfn));
  return std::max(page_entries, std::bit_ceil(reserved_ring_entries() + 1));
}

absl::StatusOr<std::unique_ptr<System>> System::Open(absl::string_view path) {
  const int fd = ::open(std::string(path).c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return OpenError(errno, path);
  std::unique_ptr<System> system(new System);
  system->fd_ = base::UniqueFd(fd);

  absl::StatusOr<int> version = internal::Call(fd, KVM_GET_API_VERSION, 0, "KVM_GET_API_VERSION");
  if (!version.ok() || *version != KVM_API_VERSION) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " is not KVM with API version ", KVM_API_VERSION, ": ",
                     version.ok() ? absl::StrCat("version ", *version)
                                  : std::string(version.status().message())));
  }
  ROMULUS_ASSIGN_OR_RETURN(const int mmap_bytes,
                           internal::Call(fd, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE"));
  if (static_cast<size_t>(mmap_bytes) < sizeof(kvm_run)) {
    return absl::FailedPreconditionError(
        absl::StrCat("KVM's vCPU mapping has only ", mmap_bytes, " bytes"));
  }
  system->vcpu_mmap_bytes_ = static_cast<size_t>(mmap_bytes);

  auto check = [fd](unsigned long capability) {
    absl::StatusOr<int> value =
        internal::Call(fd, KVM_CHECK_EXTENSION, capability, "KVM_CHECK_EXTENSION");
    return value.ok() ? *value : 0;
  };
  auto number = [&check](unsigned long capability) {
    return static_cast<uint32_t>(check(capability));
  };
  Capabilities& c = system->capabilities_;
  c.api_version = *version;
  c.recommended_vcpus = number(KVM_CAP_NR_VCPUS);
  c.max_vcpus = std::max(number(KVM_CAP_MAX_VCPUS), c.recommended_vcpus);
  c.max_memory_slots = number(KVM_CAP_NR_MEMSLOTS);
  c.dirty_ring_acq_rel = check(KVM_CAP_DIRTY_LOG_RING_ACQ_REL) > 0;
  c.dirty_ring_max_bytes =
      number(c.dirty_ring_acq_rel ? KVM_CAP_DIRTY_LOG_RING_ACQ_REL : KVM_CAP_DIRTY_LOG_RING);
  c.manual_dirty_log_protect = number(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
  c.irqchip = check(KVM_CAP_IRQCHIP) > 0;
  c.pit2 = check(KVM_CAP_PIT2) > 0 && check(KVM_CAP_PIT_STATE2) > 0;
  c.immediate_exit = check(KVM_CAP_IMMEDIATE_EXIT) > 0;
  c.sync_regs = number(KVM_CAP_SYNC_REGS);
  c.sregs2 = check(KVM_CAP_SREGS2) > 0;
  c.xsave = check(KVM_CAP_XSAVE) > 0;
  c.xsave_bytes = std::max<uint32_t>(number(KVM_CAP_XSAVE2), sizeof(XsaveHeader));
  c.xcrs = check(KVM_CAP_XCRS) > 0;
  c.debugregs = check(KVM_CAP_DEBUGREGS) > 0;
  c.vcpu_events = check(KVM_CAP_VCPU_EVENTS) > 0;
  c.mp_state = check(KVM_CAP_MP_STATE) > 0;
  c.adjust_clock = check(KVM_CAP_ADJUST_CLOCK) > 0;
  c.get_tsc_khz = check(KVM_CAP_GET_TSC_KHZ) > 0;
  c.tsc_control = check(KVM_CAP_TSC_CONTROL) > 0;
  c.tsc_deadline_timer = check(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  c.readonly_memory = check(KVM_CAP_READONLY_MEM) > 0;
  c.set_tss_address = check(KVM_CAP_SET_TSS_ADDR) > 0;
  c.set_identity_map = check(KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0;
  c.ioeventfd = check(KVM_CAP_IOEVENTFD) > 0;
  c.irqfd = check(KVM_CAP_IRQFD) > 0;
  c.nested_state = check(KVM_CAP_NESTED_STATE) > 0;
  std::tie(c.pml, c.pml_known) = PmlAndKnown();
  return system;
}

std::vector<std::string> System::MissingForMachine() const {
  const Capabilities& c = capabilities_;
  std::vector<std::string> missing;
  auto need = [&missing](bool there, const char* name) {
    if (!there) missing.push_back(name);
  };
  need(c.irqchip, "KVM_CAP_IRQCHIP");
  need(c.pit2, "KVM_CAP_PIT2, KVM_CAP_PIT_STATE2");
  need(c.immediate_exit, "KVM_CAP_IMMEDIATE_EXIT");
  need(c.xsave, "KVM_CAP_XSAVE");
  need(c.xcrs, "KVM_CAP_XCRS");
  need(c.debugregs, "KVM_CAP_DEBUGREGS");
  need(c.vcpu_events, "KVM_CAP_VCPU_EVENTS");
  need(c.mp_state, "KVM_CAP_MP_STATE");
  need(c.adjust_clock, "KVM_CAP_ADJUST_CLOCK");
  need(c.get_tsc_khz, "KVM_CAP_GET_TSC_KHZ");
  need(c.set_tss_address, "KVM_CAP_SET_TSS_ADDR");
  need(c.set_identity_map, "KVM_CAP_SET_IDENTITY_MAP_ADDR");
  return missing;
}

absl::Status System::RequireForMachine() const {
  const std::vector<std::string> missing = MissingForMachine();
  if (missing.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("this host's KVM lacks ", absl::StrJoin(missing, ", ")));
}

absl::StatusOr<CpuidEntries> System::SupportedCpuid() const {
  // The kernel lowers a count beyond its own maximum (256) by itself.
  CpuidStruct cpuid(kMaxCpuidEntries);
  cpuid.header().nent = kMaxCpuidEntries;
  ROMULUS_RETURN_IF_ERROR(
      internal::Set(fd_.get(), kGetSupportedCpuid, cpuid.data(), "KVM_GET_SUPPORTED_CPUID"));
  std::span<const kvm_cpuid_entry2> entries =
      cpuid.entries().first(std::min(cpuid.header().nent, kMaxCpuidEntries));
  return CpuidEntries(entries.begin(), entries.end());
}

absl::StatusOr<std::vector<uint32_t>> System::MsrIndexList() const {
  MsrListStruct list(kMaxMsrs);
  list.header().nmsrs = kMaxMsrs;
  ROMULUS_RETURN_IF_ERROR(
      internal::Set(fd_.get(), kGetMsrIndexList, list.data(), "KVM_GET_MSR_INDEX_LIST"));
  std::span<const uint32_t> indices = list.entries().first(std::min(list.header().nmsrs, kMaxMsrs));
  return std::vector<uint32_t>(indices.begin(), indices.end());
}

absl::StatusOr<std::unique_ptr<Vm>> System::CreateVm() const {
  ROMULUS_ASSIGN_OR_RETURN(const int fd,
                           internal::Call(fd_.get(), KVM_CREATE_VM, 0, "KVM_CREATE_VM"));
  return std::unique_ptr<Vm>(new Vm(*this, base::UniqueFd(fd)));
}

}  // namespace romulus::kvm

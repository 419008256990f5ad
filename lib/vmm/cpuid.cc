#include "vmm/cpuid.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status.h"

namespace romulus::vmm {
namespace {

constexpr uint32_t kVmxBit = 1u << 5;  // leaf 1, ecx
constexpr uint32_t kSvmBit = 1u << 2;  // leaf 0x80000001, ecx

bool OffersNested(std::span<const arch::CpuidEntry> entries) {
  const arch::CpuidEntry* basic = arch::FindCpuid(entries, 1, 0);
  const arch::CpuidEntry* extended = arch::FindCpuid(entries, 0x80000001, 0);
  return (basic != nullptr && (basic->ecx & kVmxBit) != 0) ||
         (extended != nullptr && (extended->ecx & kSvmBit) != 0);
}

}  // namespace

kvm::CpuidEntries ToKvm(std::span<const arch::CpuidEntry> entries) {
  kvm::CpuidEntries result;
  result.reserve(entries.size());
  for (const arch::CpuidEntry& e : entries) {
    kvm_cpuid_entry2 entry{};
    entry.function = e.function;
    entry.index = e.index;
    entry.flags = e.flags;
    entry.eax = e.eax;
    entry.ebx = e.ebx;
    entry.ecx = e.ecx;
    entry.edx = e.edx;
    result.push_back(entry);
  }
  return result;
}

std::vector<arch::CpuidEntry> FromKvm(std::span<const kvm_cpuid_entry2> entries) {
  std::vector<arch::CpuidEntry> result;
  result.reserve(entries.size());
  for (const kvm_cpuid_entry2& e : entries) {
    result.push_back({.function = e.function,
                      .index = e.index,
                      .flags = e.flags,
                      .eax = e.eax,
                      .ebx = e.ebx,
                      .ecx = e.ecx,
                      .edx = e.edx});
  }
  return result;
}

absl::StatusOr<std::vector<arch::CpuidEntry>> GuestCpuid(const kvm::System& system,
                                                         const MachineSpec& spec, uint32_t tsc_khz,
                                                         int vcpu) {
  ROMULUS_ASSIGN_OR_RETURN(const kvm::CpuidEntries kvm_supported, system.SupportedCpuid());
  const std::vector<arch::CpuidEntry> supported = FromKvm(kvm_supported);
  bool deadline_timer = system.capabilities().tsc_deadline_timer;
  if (!spec.cpuid.empty()) {
    const std::vector<std::string> missing =
        arch::MissingCpuFeatures(spec.cpuid, supported, deadline_timer);
    if (!missing.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("this host's CPU lacks ", absl::StrJoin(missing, ", ")));
    }
    // A running guest has seen the primary's, whatever this host would offer.
    deadline_timer = arch::ShowsTscDeadlineTimer(spec.cpuid);
    tsc_khz = arch::ShownTscKhz(spec.cpuid);
  }
  ROMULUS_ASSIGN_OR_RETURN(std::vector<arch::CpuidEntry> entries,
                           arch::BuildGuestCpuid(spec.cpuid.empty() ? supported : spec.cpuid,
                                                 {.model = spec.cpu_model,
                                                  .vcpu_count = spec.vcpu_count,
                                                  .tsc_khz = tsc_khz,
                                                  .tsc_deadline_timer = deadline_timer},
                                                 vcpu));
  if (OffersNested(entries)) {
    return absl::InvalidArgumentError(
        "the guest's CPUID offers nested virtualisation (VMX or SVM), which a checkpoint cannot "
        "carry");
  }
  return entries;
}

}  // namespace romulus::vmm

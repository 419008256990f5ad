#include "vmm/msr_list.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/status.h"

namespace romulus::vmm {
namespace {

// Intel SDM vol. 4, table 2-2; KVM reads and writes them (arch/x86/kvm/mtrr.c, x86.c) without
// listing them.
std::vector<uint32_t> UnlistedMsrs() {
  std::vector<uint32_t> msrs = {kMsrMtrrDefType, 0x250, 0x258, 0x259};
  for (uint32_t msr = 0x268; msr <= 0x26f; ++msr) msrs.push_back(msr);  // fixed 4 KiB ranges
  for (uint32_t msr = 0x200; msr <= 0x20f; ++msr) msrs.push_back(msr);  // eight variable ranges
  for (uint32_t bank = 0; bank < 32; ++bank) msrs.push_back(0x400 + 4 * bank);  // MCi_CTL
  return msrs;
}

bool IsUnlisted(uint32_t msr) {
  const std::vector<uint32_t> unlisted = UnlistedMsrs();
  return std::find(unlisted.begin(), unlisted.end(), msr) != unlisted.end();
}

// https://learn.microsoft.com/virtualization/hyper-v-on-windows/tlfs : synthetic MSRs.
bool IsHyperV(uint32_t msr) { return msr >= 0x40000000 && msr <= 0x400001ff; }

// Those that KVM has for every guest and that a kernel without features beyond x86-64-v3 uses:
// time, system calls, memory types, machine checks, kvmclock. FS, GS and EFER are in sregs.
bool IsOfEveryHost(uint32_t msr) {
  static constexpr std::array kMsrs{
      kMsrTsc,
      uint32_t{0x174},  // SYSENTER_CS, _ESP, _EIP
      uint32_t{0x175},
      uint32_t{0x176},
      uint32_t{0x17a},  // MCG_STATUS, MCG_CTL
      uint32_t{0x17b},
      uint32_t{0x1a0},  // MISC_ENABLE
      uint32_t{0x277},  // PAT
      kMsrTscDeadline,
      uint32_t{0xc0000081},  // STAR, LSTAR, CSTAR, SFMASK
      uint32_t{0xc0000082},
      uint32_t{0xc0000083},
      uint32_t{0xc0000084},
      uint32_t{0xc0000102},  // KERNEL_GS_BASE
      uint32_t{0xc0010015},  // AMD's HWCR
      uint32_t{0x11},        // KVM's wall clock and system time, old and new numbers
      uint32_t{0x12},
      uint32_t{0x4b564d00},
      uint32_t{0x4b564d01},
  };
  if (std::find(kMsrs.begin(), kMsrs.end(), msr) != kMsrs.end()) return true;
  return IsUnlisted(msr);
}

int Rank(uint32_t msr) { return msr == kMsrTsc ? 0 : msr == kMsrTscDeadline ? 2 : 1; }

}  // namespace

absl::StatusOr<std::vector<uint32_t>> FindStateMsrs(const kvm::System& system, kvm::Vcpu& vcpu,
                                                    arch::CpuModel model) {
  ROMULUS_ASSIGN_OR_RETURN(std::vector<uint32_t> candidates, system.MsrIndexList());
  const std::vector<uint32_t> unlisted = UnlistedMsrs();
  candidates.insert(candidates.end(), unlisted.begin(), unlisted.end());
  std::stable_sort(candidates.begin(), candidates.end(), [](uint32_t a, uint32_t b) {
    return std::pair(Rank(a), a) < std::pair(Rank(b), b);
  });
  candidates.erase(std::unique(candidates.begin(), candidates.end()), candidates.end());

  std::vector<uint32_t> found;
  for (const uint32_t msr : candidates) {
    if (IsHyperV(msr)) continue;
    if (model != arch::CpuModel::kHost && !IsOfEveryHost(msr)) continue;
    absl::StatusOr<uint64_t> value = vcpu.GetMsr(msr);
    if (absl::IsNotFound(value.status())) continue;
    if (!value.ok()) return value.status();
    // Writing the TSC back would not change a thing, but it takes part in KVM's TSC
    // synchronization.
    if (msr != kMsrTsc && !vcpu.SetMsr(msr, *value).ok()) {
      absl::StatusOr<uint64_t> again = vcpu.GetMsr(msr);
      if (!again.ok() || *again != *value) continue;
    }
    if (found.size() < kMaxMsrs) found.push_back(msr);
  }
  return found;
}

// Intercepted by VMX and SVM alike (arch/x86/kvm: vmx/vmx.c and svm/svm.c say which are not). Of
// KVM's own (Documentation/virt/kvm/x86/msr.rst) 0x12 is the old number of a vCPU's system time,
// 0x4b564d00 the wall clock, and from 0x4b564d08 on come some that are the VM's.
bool IsIntercepted(uint32_t msr) {
  static constexpr std::array kMsrs{
      uint32_t{0x12},        // KVM's system time
      uint32_t{0x8b},        // UCODE_REV
      uint32_t{0xce},        // PLATFORM_INFO
      uint32_t{0x10a},       // ARCH_CAPABILITIES
      uint32_t{0x140},       // MISC_FEATURES_ENABLES
      uint32_t{0x17a},       // MCG_STATUS: KVM_X86_SET_MCE changes it too, which nobody calls
      uint32_t{0x17b},       // MCG_CTL
      uint32_t{0x1a0},       // MISC_ENABLE
      uint32_t{0x345},       // PERF_CAPABILITIES
      uint32_t{0xc0010015},  // AMD's HWCR
  };
  if (std::find(kMsrs.begin(), kMsrs.end(), msr) != kMsrs.end()) return true;
  return IsUnlisted(msr) || (msr >= 0x4b564d01 && msr <= 0x4b564d07);
}

}  // namespace romulus::vmm

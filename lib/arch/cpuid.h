// What the guest's CPUs say they are: from what the host's KVM supports, to one list per vCPU that
// is the same on every host able to run it; and the comparison that a secondary's handshake needs.
// Pure functions over values; any thread.
//
// Leaves: Intel SDM vol. 2A "CPUID", AMD APM vol. 3 appendix E, and
// https://docs.kernel.org/virt/kvm/x86/cpuid.html for 0x40000000 and up.
#ifndef ROMULUS_ARCH_CPUID_H_
#define ROMULUS_ARCH_CPUID_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace romulus::arch {

// One entry of KVM_GET_SUPPORTED_CPUID or KVM_SET_CPUID2, without the padding.
struct CpuidEntry {
  uint32_t function = 0;
  uint32_t index = 0;
  uint32_t flags = 0;  // KVM_CPUID_FLAG_*: bit 0 = index is significant
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;

  friend bool operator==(const CpuidEntry&, const CpuidEntry&) = default;
};

inline constexpr uint32_t kCpuidIndexSignificant = 1;

enum class CpuModel {
  kHost,  // all that the host's KVM supports and a checkpoint can carry
  // What unequal hosts share (cpuid_models.h).
  kX86_64V2,
  kX86_64V3,
};
// "host" (or nothing), "x86-64-v2", "x86-64-v3". Errors: InvalidArgument naming the known models.
absl::StatusOr<CpuModel> ParseCpuModel(absl::string_view name);

struct CpuidSpec {
  CpuModel model = CpuModel::kHost;
  int vcpu_count = 1;               // 1 to kMaxVcpus
  uint32_t tsc_khz = 0;             // 0: leaf 0x40000010 is left out
  bool tsc_deadline_timer = false;  // KVM_CAP_TSC_DEADLINE_TIMER: KVM does not put it into the list
};

// The list for vCPU `vcpu` (its APIC id is `vcpu`). `supported` may also be what this function gave
// for another vCPU, here or on the primary: masking twice changes nothing. Errors: InvalidArgument
// for a vCPU count out of range; FailedPrecondition if the host's list lacks leaf 0 or 1, or a
// feature of the model, which is named.
absl::StatusOr<std::vector<CpuidEntry>> BuildGuestCpuid(std::span<const CpuidEntry> supported,
                                                        const CpuidSpec& spec, int vcpu);

// The two values of CpuidSpec that such a list shows to the guest: what a second machine needs, to
// be made with the same list on a host with another TSC or KVM.
bool ShowsTscDeadlineTimer(std::span<const CpuidEntry> guest);
uint32_t ShownTscKhz(std::span<const CpuidEntry> guest);  // 0: leaf 0x40000010 is not there
// The state components that its guest may enable: bits of XCR0, x87 and SSE at least.
uint64_t ShownXcr0(std::span<const CpuidEntry> guest);

// What a host whose KVM supports `supported` lacks to run a guest that was given `guest` (the list
// of any of its vCPUs): names such as "avx512f (cpuid 0x7.0 ebx bit 16)". Empty: nothing.
// `tsc_deadline_timer` is the capability of that host.
std::vector<std::string> MissingCpuFeatures(std::span<const CpuidEntry> guest,
                                            std::span<const CpuidEntry> supported,
                                            bool tsc_deadline_timer);

// For the handshake: the list as bytes and back. Errors: InvalidArgument on a wrong length or more
// than kMaxCpuidEntries entries.
inline constexpr size_t kMaxCpuidEntries = 256;
std::string SerializeCpuid(std::span<const CpuidEntry> entries);
absl::StatusOr<std::vector<CpuidEntry>> ParseCpuid(absl::string_view bytes);

// First entry with this function and index, or null.
const CpuidEntry* FindCpuid(std::span<const CpuidEntry> entries, uint32_t function, uint32_t index);

}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_CPUID_H_

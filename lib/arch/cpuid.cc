#include "arch/cpuid.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "arch/cpuid_features.h"
#include "arch/cpuid_models.h"
#include "arch/memory_map.h"
#include "base/bytes.h"

namespace romulus::arch {
namespace {

using enum CpuidRegister;

constexpr uint32_t Bit(int bit) { return uint32_t{1} << bit; }

constexpr uint32_t kKvmSignatureLeaf = 0x40000000;
constexpr uint32_t kKvmFeaturesLeaf = 0x40000001;
constexpr uint32_t kTimingLeaf = 0x40000010;
constexpr uint32_t kApicBusKhz = 1'000'000;  // KVM's local APIC timer counts nanoseconds

constexpr uint32_t kEcxTscDeadline = Bit(24);
constexpr uint32_t kEcxHypervisor = Bit(31);
constexpr uint32_t kEdxHyperThreading = Bit(28);
constexpr uint32_t kEcxCmpLegacy = Bit(1);

// What KVM itself may offer to the guest. All else is masked, features of later kernels included,
// until someone has thought about what they do to a checkpoint. Left out, and why:
//   async page faults (4, 10, 14)  a "page ready" token is written into guest memory by whichever
//       context finds the page, and the outstanding ones are nowhere in the saved state: after a
//       promotion a task of the guest would wait for a token that no one sends
//   steal time (5)  KVM writes it when the vCPU's thread is scheduled out, hence also by the ioctls
//       that read its state inside the pause, after the harvest
//   PV EOI (6)  KVM and guest share a bit in memory that mirrors the local APIC; whether it is
//   armed is
//       not part of KVM_GET_LAPIC
//   PV TLB flush (9)  works through the steal time page
//   MSI extended destination (15)  needs VMM support; 8 vCPUs do not need it
//   map-GPA hypercall, migration control (16, 17)  need VMM support
// kvmclock stays: KVM writes its page on the way into the guest, with the vCPU loaded, and logs it.
constexpr uint32_t kKvmFeatures = Bit(0) |   // kvmclock, old MSRs
                                  Bit(1) |   // no I/O delay
                                  Bit(3) |   // kvmclock
                                  Bit(7) |   // pv_unhalt: a wake-up by hypercall, state in mp_state
                                  Bit(11) |  // IPIs by hypercall
                                  Bit(12) |  // poll control: an MSR like any other
                                  Bit(13) |  // yield by hypercall
                                  Bit(24);   // kvmclock is stable between vCPUs

// Feature bits that the guest must not see though KVM might offer them.
struct Mask {
  uint32_t function;
  uint32_t index;
  CpuidRegister reg;
  uint32_t keep;
};
constexpr std::array kMasks{
    // monitor: would stop the vCPU in the guest, out of a kick's sight; vmx: nested state is not
    // saved;
    // dtes64, pdcm: performance monitoring counts the host's time.
    Mask{1, 0, kEcx, ~(Bit(2) | Bit(3) | Bit(5) | Bit(6) | Bit(7) | Bit(8) | Bit(15))},
    Mask{1, 0, kEdx, ~(Bit(21) | Bit(22) | Bit(29) | Bit(31))},  // debug store, thermal
    // arat only: the rest is about the host's power and heat.
    Mask{6, 0, kEax, Bit(2)}, Mask{6, 0, kEbx, 0}, Mask{6, 0, kEcx, 0},
    // sgx: enclave memory cannot be read; cqm, rdt: the host's; intel_pt: its buffers are written
    // behind KVM's log.
    Mask{7, 0, kEbx, ~(Bit(2) | Bit(12) | Bit(15) | Bit(25))},
    // tme, kl, enqcmd, sgx_lc
    Mask{7, 0, kEcx, ~(Bit(13) | Bit(23) | Bit(29) | Bit(30))},
    // uintr, pconfig, arch_lbr; amx: KVM gives it only to a process that asked for it
    Mask{7, 0, kEdx, ~(Bit(5) | Bit(18) | Bit(19) | Bit(22) | Bit(24) | Bit(25))},
    Mask{7, 1, kEax, ~(Bit(21) | Bit(22))},    // amx_fp16, hreset
    Mask{7, 1, kEdx, ~Bit(8)},                 // amx_complex
    Mask{0xd, 0, kEax, ~(Bit(17) | Bit(18))},  // amx
    Mask{0xd, 1, kEax, ~Bit(4)},               // xfd
    Mask{0xd, 1, kEcx,
         ~(Bit(8) | Bit(10) | Bit(14) | Bit(15) | Bit(16))},  // pt, pasid, uintr, lbr, hwp
    // svm: nested state is not saved; ibs, skinit, wdt, lwp, node id and performance counters: the
    // host's
    Mask{0x80000001, 0, kEcx,
         ~(Bit(2) | Bit(10) | Bit(12) | Bit(13) | Bit(15) | Bit(19) | Bit(23) | Bit(24) | Bit(27) |
           Bit(28) | Bit(29))},
    Mask{kKvmFeaturesLeaf, 0, kEax, kKvmFeatures},
    Mask{kKvmFeaturesLeaf, 0, kEdx, 0},  // hints about how the host schedules
};

// Leaves that describe the host's hardware, or belong to features masked above.
constexpr std::array kDroppedLeaves{
    uint32_t{0x5},         // monitor
    uint32_t{0x9},         // direct cache access
    uint32_t{0xa},         // performance counters
    uint32_t{0xf},         // resource monitoring
    uint32_t{0x10},        // resource allocation
    uint32_t{0x12},        // sgx
    uint32_t{0x14},        // processor trace
    uint32_t{0x15},        // the host's crystal: not what drives the guest's APIC timer
    uint32_t{0x16},        // the host's frequencies
    uint32_t{0x17},        // system on chip
    uint32_t{0x19},        // key locker
    uint32_t{0x1b},        // pconfig
    uint32_t{0x1c},        // last branch records
    uint32_t{0x1d},        // amx
    uint32_t{0x1e},        // amx
    uint32_t{0x23},        // performance monitoring
    uint32_t{0x8000000a},  // svm
    uint32_t{0x8000001b},  // ibs
    uint32_t{0x8000001c},  // lwp
    uint32_t{0x8000001f},  // memory encryption
    uint32_t{0x80000020},  // quality of service
    uint32_t{0x80000022},  // performance monitoring
    uint32_t{0x80000023},  // memory encryption
};

bool IsDropped(const CpuidEntry& entry) {
  const uint32_t function = entry.function;
  if (std::find(kDroppedLeaves.begin(), kDroppedLeaves.end(), function) != kDroppedLeaves.end()) {
    return true;
  }
  if (function == 0xb || function == 0x1f) return true;  // topology: built anew
  const bool hypervisor = function >= 0x40000000 && function < 0x50000000;
  if (hypervisor && function != kKvmSignatureLeaf && function != kKvmFeaturesLeaf) return true;
  // State components that are masked.
  return function == 0xd &&
         (entry.index == 8 || entry.index == 10 || (entry.index >= 14 && entry.index <= 18));
}

bool IsZero(const CpuidEntry& entry) {
  return (entry.eax | entry.ebx | entry.ecx | entry.edx) == 0;
}

uint32_t SetField(uint32_t value, int shift, int bits, uint32_t field) {
  const uint32_t mask = ((uint32_t{1} << bits) - 1) << shift;
  return (value & ~mask) | ((field << shift) & mask);
}

CpuidEntry* Find(std::vector<CpuidEntry>& entries, uint32_t function, uint32_t index) {
  for (CpuidEntry& entry : entries) {
    if (entry.function == function && entry.index == index) return &entry;
  }
  return nullptr;
}

std::string VendorOf(std::span<const CpuidEntry> entries) {
  const CpuidEntry* leaf = FindCpuid(entries, 0, 0);
  if (leaf == nullptr) return "";
  std::string vendor(12, '\0');
  std::memcpy(vendor.data(), &leaf->ebx, 4);
  std::memcpy(vendor.data() + 4, &leaf->edx, 4);
  std::memcpy(vendor.data() + 8, &leaf->ecx, 4);
  return vendor;
}

bool IsAmd(std::span<const CpuidEntry> entries) {
  const std::string vendor = VendorOf(entries);
  return vendor == "AuthenticAMD" || vendor == "HygonGenuine";
}

void ApplyMasks(std::vector<CpuidEntry>& entries) {
  for (const Mask& mask : kMasks) {
    if (CpuidEntry* entry = Find(entries, mask.function, mask.index); entry != nullptr) {
      FieldOf(*entry, mask.reg) &= mask.keep;
    }
  }
  // The size of the save area with all components enabled, without the masked ones.
  CpuidEntry* xsave = Find(entries, 0xd, 0);
  if (xsave == nullptr) return;
  constexpr uint32_t kLegacyAndHeaderBytes = 576;
  uint32_t size_bytes = kLegacyAndHeaderBytes;
  for (const CpuidEntry& entry : entries) {
    if (entry.function == 0xd && entry.index >= 2 && entry.index < 32 &&
        (xsave->eax & Bit(static_cast<int>(entry.index))) != 0) {
      size_bytes = std::max(size_bytes, entry.eax + entry.ebx);
    }
  }
  xsave->ecx = size_bytes;
}

// One socket of single-threaded cores; APIC id = vCPU number. The MADT says the same (acpi.cc).
void SetTopology(std::vector<CpuidEntry>& entries, uint32_t count, uint32_t vcpu) {
  const bool amd = IsAmd(entries);
  const uint32_t rounded = std::bit_ceil(count);
  const uint32_t id_bits = static_cast<uint32_t>(std::countr_zero(rounded));

  CpuidEntry& features = *Find(entries, 1, 0);
  features.ebx = SetField(features.ebx, 24, 8, vcpu);
  features.ebx = SetField(features.ebx, 16, 8, count);
  features.edx = count > 1 ? features.edx | kEdxHyperThreading : features.edx & ~kEdxHyperThreading;

  for (CpuidEntry& entry : entries) {
    // Caches (Intel, and AMD's copy of it): the third level is shared by all, the others by no one.
    if ((entry.function == 0x4 || entry.function == 0x8000001d) && (entry.eax & 0x1f) != 0) {
      const uint32_t level = (entry.eax >> 5) & 7;
      entry.eax = SetField(entry.eax, 14, 12, level >= 3 ? rounded - 1 : 0);
      if (entry.function == 0x4) entry.eax = SetField(entry.eax, 26, 6, rounded - 1);
    }
  }
  if (CpuidEntry* entry = Find(entries, 0x80000001, 0); entry != nullptr && amd) {
    entry->ecx = count > 1 ? entry->ecx | kEcxCmpLegacy : entry->ecx & ~kEcxCmpLegacy;
  }
  if (CpuidEntry* entry = Find(entries, 0x80000008, 0); entry != nullptr) {
    entry->ecx = SetField(entry->ecx, 0, 8, amd ? count - 1 : 0);
    entry->ecx = SetField(entry->ecx, 12, 4, amd ? id_bits : 0);
  }
  if (const CpuidEntry* entry = Find(entries, 0x80000000, 0);
      amd && entry != nullptr && entry->eax >= 0x8000001e) {
    std::erase_if(entries, [](const CpuidEntry& e) { return e.function == 0x8000001e; });
    entries.push_back({.function = 0x8000001e, .eax = vcpu, .ebx = vcpu});
  }
  if (Find(entries, 0, 0)->eax >= 0xb) {
    constexpr uint32_t kThreadLevel = 1 << 8;
    constexpr uint32_t kCoreLevel = 2 << 8;
    entries.push_back({.function = 0xb,
                       .index = 0,
                       .flags = kCpuidIndexSignificant,
                       .eax = 0,
                       .ebx = 1,
                       .ecx = kThreadLevel | 0,
                       .edx = vcpu});
    entries.push_back({.function = 0xb,
                       .index = 1,
                       .flags = kCpuidIndexSignificant,
                       .eax = id_bits,
                       .ebx = count,
                       .ecx = kCoreLevel | 1,
                       .edx = vcpu});
    // The level that ends the list still tells the id.
    entries.push_back(
        {.function = 0xb, .index = 2, .flags = kCpuidIndexSignificant, .ecx = 2, .edx = vcpu});
  }
}

}  // namespace

const CpuidEntry* FindCpuid(std::span<const CpuidEntry> entries, uint32_t function,
                            uint32_t index) {
  for (const CpuidEntry& entry : entries) {
    if (entry.function == function && entry.index == index) return &entry;
  }
  return nullptr;
}

absl::StatusOr<CpuModel> ParseCpuModel(absl::string_view name) {
  if (name == "host" || name.empty()) return CpuModel::kHost;
  if (name == "x86-64-v2") return CpuModel::kX86_64V2;
  if (name == "x86-64-v3") return CpuModel::kX86_64V3;
  return absl::InvalidArgumentError(
      absl::StrCat("unknown CPU model '", name, "'; known: host, x86-64-v2, x86-64-v3"));
}

absl::StatusOr<std::vector<CpuidEntry>> BuildGuestCpuid(std::span<const CpuidEntry> supported,
                                                        const CpuidSpec& spec, int vcpu) {
  if (spec.vcpu_count < 1 || spec.vcpu_count > kMaxVcpus || vcpu < 0 || vcpu >= spec.vcpu_count) {
    return absl::InvalidArgumentError(absl::StrCat("vCPU ", vcpu, " of ", spec.vcpu_count,
                                                   "; 1 to ", kMaxVcpus, " are possible"));
  }
  if (FindCpuid(supported, 0, 0) == nullptr || FindCpuid(supported, 1, 0) == nullptr) {
    return absl::FailedPreconditionError("KVM's list of CPUID leaves lacks leaf 0 or 1");
  }
  if (const std::vector<std::string> missing = MissingForModel(spec.model, supported);
      !missing.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("this host's CPU, or its KVM, lacks for the guest's CPU model: ",
                     absl::StrJoin(missing, ", ")));
  }
  std::vector<CpuidEntry> entries(supported.begin(), supported.end());
  std::erase_if(entries, IsDropped);
  ApplyModel(spec.model, entries);
  ApplyMasks(entries);

  CpuidEntry& features = *Find(entries, 1, 0);
  features.ecx |= kEcxHypervisor;
  features.ecx =
      spec.tsc_deadline_timer ? features.ecx | kEcxTscDeadline : features.ecx & ~kEcxTscDeadline;
  if (CpuidEntry* signature = Find(entries, kKvmSignatureLeaf, 0); signature != nullptr) {
    signature->eax = spec.tsc_khz != 0 ? kTimingLeaf : kKvmFeaturesLeaf;
    if (spec.tsc_khz != 0) {
      // Where FreeBSD, and Linux under other hypervisors, look for the frequency.
      entries.push_back({.function = kTimingLeaf, .eax = spec.tsc_khz, .ebx = kApicBusKhz});
    }
  }
  SetTopology(entries, static_cast<uint32_t>(spec.vcpu_count), static_cast<uint32_t>(vcpu));
  // A leaf that is not there reads as zeros too; older kernels take only 80 entries.
  std::erase_if(entries, IsZero);
  std::sort(entries.begin(), entries.end(), [](const CpuidEntry& a, const CpuidEntry& b) {
    return a.function != b.function ? a.function < b.function : a.index < b.index;
  });
  return entries;
}

bool ShowsTscDeadlineTimer(std::span<const CpuidEntry> guest) {
  const CpuidEntry* features = FindCpuid(guest, 1, 0);
  return features != nullptr && (features->ecx & kEcxTscDeadline) != 0;
}

uint32_t ShownTscKhz(std::span<const CpuidEntry> guest) {
  const CpuidEntry* timing = FindCpuid(guest, kTimingLeaf, 0);
  return timing != nullptr ? timing->eax : 0;
}

uint64_t ShownXcr0(std::span<const CpuidEntry> guest) {
  constexpr uint64_t kX87AndSse = 3;
  const CpuidEntry* xsave = FindCpuid(guest, 0xd, 0);
  return kX87AndSse | (xsave != nullptr ? uint64_t{xsave->edx} << 32 | xsave->eax : 0);
}

std::vector<std::string> MissingCpuFeatures(std::span<const CpuidEntry> guest,
                                            std::span<const CpuidEntry> supported,
                                            bool tsc_deadline_timer) {
  std::vector<std::string> missing;
  const std::string guest_vendor = VendorOf(guest);
  const std::string host_vendor = VendorOf(supported);
  if (guest_vendor != host_vendor) {
    missing.push_back(absl::StrCat("cpu vendor ", guest_vendor, " (this host: ", host_vendor, ")"));
  }
  for (const FeatureWord& word : FeatureWords()) {
    const CpuidEntry* want = FindCpuid(guest, word.function, word.index);
    if (want == nullptr) continue;
    const CpuidEntry* have = FindCpuid(supported, word.function, word.index);
    uint32_t lacking = ValueOf(*want, word.reg) & ~word.not_features;
    if (have != nullptr) lacking &= ~ValueOf(*have, word.reg);
    for (int bit = 0; bit < 32; ++bit) {
      if ((lacking & Bit(bit)) != 0) missing.push_back(FeatureName(word, bit));
    }
  }
  if (ShowsTscDeadlineTimer(guest) && !tsc_deadline_timer) {
    missing.push_back("tsc_deadline_timer (KVM_CAP_TSC_DEADLINE_TIMER)");
  }
  if (const CpuidEntry* want = FindCpuid(guest, 0x80000008, 0); want != nullptr) {
    const CpuidEntry* have = FindCpuid(supported, 0x80000008, 0);
    const uint32_t have_bits = have == nullptr ? 36 : have->eax & 0xff;
    if ((want->eax & 0xff) > have_bits) {
      missing.push_back(
          absl::StrFormat("%d physical address bits (this host: %d)", want->eax & 0xff, have_bits));
    }
  }
  return missing;
}

std::string SerializeCpuid(std::span<const CpuidEntry> entries) {
  static_assert(sizeof(CpuidEntry) == 28 && std::is_trivially_copyable_v<CpuidEntry>);
  std::string out;
  base::ByteWriter writer(&out);
  for (const CpuidEntry& entry : entries) writer.Write(entry);
  return out;
}

absl::StatusOr<std::vector<CpuidEntry>> ParseCpuid(absl::string_view bytes) {
  if (bytes.size() % sizeof(CpuidEntry) != 0 ||
      bytes.size() / sizeof(CpuidEntry) > kMaxCpuidEntries) {
    return absl::InvalidArgumentError(
        absl::StrCat("CPUID list of ", bytes.size(), " bytes is malformed"));
  }
  base::ByteReader reader(std::as_bytes(std::span<const char>(bytes.data(), bytes.size())));
  std::vector<CpuidEntry> entries;
  while (reader.remaining() != 0) entries.push_back(reader.Read<CpuidEntry>());
  return entries;
}

}  // namespace romulus::arch

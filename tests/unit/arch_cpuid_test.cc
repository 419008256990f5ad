#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "arch/cpuid.h"
#include "arch/cpuid_features.h"
#include "arch/memory_map.h"

namespace romulus::arch {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

CpuidEntry Vendor(const char* vendor, uint32_t max_leaf) {
  CpuidEntry entry{.eax = max_leaf};
  std::memcpy(&entry.ebx, vendor, 4);
  std::memcpy(&entry.edx, vendor + 4, 4);
  std::memcpy(&entry.ecx, vendor + 8, 4);
  return entry;
}

// A host that offers every bit of every feature word.
std::vector<CpuidEntry> GenerousHost(const char* vendor) {
  std::vector<CpuidEntry> host{Vendor(vendor, 0x1f)};
  for (const FeatureWord& word : FeatureWords()) {
    if (FindCpuid(host, word.function, word.index) == nullptr) {
      const bool indexed = word.function == 7 || word.function == 0xd;
      host.push_back({.function = word.function,
                      .index = word.index,
                      .flags = indexed ? kCpuidIndexSignificant : 0});
    }
    for (CpuidEntry& entry : host) {
      if (entry.function == word.function && entry.index == word.index) {
        FieldOf(entry, word.reg) = 0xffffffff;
      }
    }
  }
  const auto cache = [](uint32_t function, uint32_t index, uint32_t type, uint32_t level) {
    return CpuidEntry{.function = function,
                      .index = index,
                      .flags = kCpuidIndexSignificant,
                      .eax = 0xffffc000 | level << 5 | type,
                      .ebx = 63};
  };
  for (const uint32_t function : {0x4u, 0x8000001du}) {
    host.push_back(cache(function, 0, 1, 1));
    host.push_back(cache(function, 1, 3, 3));
  }
  host.push_back({.function = 0xa, .eax = 0x07300403});
  host.push_back({.function = 0x15, .eax = 2, .ebx = 84, .ecx = 24'000'000});
  host.push_back({.function = 0x1f, .flags = kCpuidIndexSignificant, .eax = 3, .ebx = 99});
  host.push_back({.function = 0x80000000, .eax = 0x80000022});
  for (CpuidEntry& entry : host) {
    if (entry.function == 0x80000008) entry.eax = 0x3030;
  }
  host.push_back({.function = 0x8000001e, .eax = 77, .ebx = 0x0303, .ecx = 0x0101});
  CpuidEntry kvm = Vendor("KVMKMKVM\0\0\0V", 0x40000001);
  kvm.function = 0x40000000;
  host.push_back(kvm);
  // Sub-leaves of the save area: offset + size.
  host.push_back({.function = 0xd, .index = 2, .flags = 1, .eax = 256, .ebx = 576});
  host.push_back({.function = 0xd, .index = 18, .flags = 1, .eax = 8192, .ebx = 2816});
  return host;
}

std::vector<CpuidEntry> Guest(std::span<const CpuidEntry> host, int vcpu_count, int vcpu,
                              bool deadline = true) {
  return BuildGuestCpuid(
             host, {.vcpu_count = vcpu_count, .tsc_khz = 2'500'000, .tsc_deadline_timer = deadline},
             vcpu)
      .value();
}

const CpuidEntry& Leaf(const std::vector<CpuidEntry>& entries, uint32_t function,
                       uint32_t index = 0) {
  static const CpuidEntry kAbsent;
  const CpuidEntry* entry = FindCpuid(entries, function, index);
  EXPECT_NE(entry, nullptr) << std::hex << function << "." << index;
  return entry != nullptr ? *entry : kAbsent;
}

bool Has(uint32_t value, int bit) { return (value >> bit & 1) != 0; }

TEST(GuestCpuid, MasksWhatACheckpointCannotCarry) {
  const std::vector<CpuidEntry> guest = Guest(GenerousHost("GenuineIntel"), 1, 0);
  EXPECT_FALSE(Has(Leaf(guest, 1).ecx, 5)) << "vmx";
  EXPECT_FALSE(Has(Leaf(guest, 1).ecx, 3)) << "monitor";
  EXPECT_FALSE(Has(Leaf(guest, 7).ebx, 2)) << "sgx";
  EXPECT_FALSE(Has(Leaf(guest, 7).ebx, 25)) << "intel_pt";
  EXPECT_FALSE(Has(Leaf(guest, 7).edx, 24)) << "amx_tile";
  EXPECT_FALSE(Has(Leaf(guest, 0x80000001).ecx, 2)) << "svm";
  EXPECT_EQ(FindCpuid(guest, 0xa, 0), nullptr) << "performance counters";
  EXPECT_EQ(FindCpuid(guest, 0x15, 0), nullptr) << "crystal";
  EXPECT_EQ(Leaf(guest, 0xd).eax & (3u << 17), 0u) << "amx state";
  EXPECT_EQ(FindCpuid(guest, 0xd, 18), nullptr);
  EXPECT_EQ(Leaf(guest, 0xd).ecx, 832u) << "size of the save area without amx";
  EXPECT_TRUE(Has(Leaf(guest, 7).ebx, 16)) << "avx512f stays";
}

TEST(GuestCpuid, KvmOffersOnlyWhatDoesNotWriteBehindTheLog) {
  const std::vector<CpuidEntry> guest = Guest(GenerousHost("AuthenticAMD"), 1, 0);
  const uint32_t features = Leaf(guest, 0x40000001).eax;
  for (const int bit : {0, 3, 24}) EXPECT_TRUE(Has(features, bit)) << "kvmclock " << bit;
  for (const int bit : {4, 10, 14}) EXPECT_FALSE(Has(features, bit)) << "async page fault " << bit;
  EXPECT_FALSE(Has(features, 5)) << "steal time";
  EXPECT_FALSE(Has(features, 6)) << "PV EOI";
  EXPECT_FALSE(Has(features, 9)) << "PV TLB flush";
  EXPECT_FALSE(Has(features, 30)) << "a feature that does not exist yet";
  EXPECT_EQ(Leaf(guest, 0x40000000).eax, 0x40000010u);
  EXPECT_EQ(Leaf(guest, 0x40000010).eax, 2'500'000u);
  EXPECT_EQ(Leaf(guest, 0x40000010).ebx, 1'000'000u);
}

TEST(GuestCpuid, HypervisorAndDeadlineBits) {
  std::vector<CpuidEntry> host = GenerousHost("GenuineIntel");
  EXPECT_TRUE(Has(Leaf(Guest(host, 1, 0, true), 1).ecx, 24));
  EXPECT_FALSE(Has(Leaf(Guest(host, 1, 0, false), 1).ecx, 24));
  for (CpuidEntry& entry : host) {
    if (entry.function == 1) entry.ecx = 0;
  }
  EXPECT_TRUE(Has(Leaf(Guest(host, 1, 0, true), 1).ecx, 24)) << "KVM's list may lack it";
  EXPECT_TRUE(Has(Leaf(Guest(host, 1, 0, true), 1).ecx, 31));
}

class Topology : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Vcpus, Topology, ::testing::Range(1, kMaxVcpus + 1));

TEST_P(Topology, ApicIdIsTheVcpuNumberInEveryLeaf) {
  const int count = GetParam();
  const uint32_t total = static_cast<uint32_t>(count);
  for (uint32_t vcpu = 0; vcpu < total; ++vcpu) {
    const auto guest = Guest(GenerousHost("AuthenticAMD"), count, static_cast<int>(vcpu));
    EXPECT_EQ(Leaf(guest, 1).ebx >> 24, vcpu);
    EXPECT_EQ(Leaf(guest, 1).ebx >> 16 & 0xff, total);
    EXPECT_EQ(Has(Leaf(guest, 1).edx, 28), count > 1);
    for (uint32_t level = 0; level < 3; ++level) {
      EXPECT_EQ(Leaf(guest, 0xb, level).edx, vcpu);
      EXPECT_EQ(Leaf(guest, 0xb, level).ecx & 0xff, level);
    }
    EXPECT_EQ(Leaf(guest, 0xb, 0).ebx, 1u);
    EXPECT_EQ(Leaf(guest, 0xb, 1).ebx, total);
    // Shifting an APIC id right by the core level's width leaves the package: 0.
    EXPECT_EQ((total - 1) >> Leaf(guest, 0xb, 1).eax, 0u);
    EXPECT_EQ(FindCpuid(guest, 0x1f, 0), nullptr);
    EXPECT_EQ(Leaf(guest, 0x80000008).ecx & 0xff, total - 1);
    EXPECT_EQ(Has(Leaf(guest, 0x80000001).ecx, 1), count > 1) << "cmp_legacy";
    if (vcpu != 0) {
      EXPECT_EQ(Leaf(guest, 0x8000001e).eax, vcpu);
      EXPECT_EQ(Leaf(guest, 0x8000001e).ebx, vcpu);
    }
    EXPECT_EQ(Leaf(guest, 4, 0).eax >> 14 & 0xfff, 0u) << "first level: of one core";
    EXPECT_GE((Leaf(guest, 4, 1).eax >> 14 & 0xfff) + 1, total) << "third level: of all";
    EXPECT_GE((Leaf(guest, 4, 0).eax >> 26) + 1, total);
  }
}

TEST(GuestCpuid, MaskingTwiceChangesNothing) {
  const auto first = Guest(GenerousHost("AuthenticAMD"), 4, 0);
  EXPECT_EQ(Guest(first, 4, 0), first);
  EXPECT_EQ(Guest(first, 4, 3), Guest(GenerousHost("AuthenticAMD"), 4, 3));
}

TEST(GuestCpuid, BadSpecIsRefused) {
  const auto host = GenerousHost("GenuineIntel");
  EXPECT_FALSE(BuildGuestCpuid(host, {.vcpu_count = 0}, 0).ok());
  EXPECT_FALSE(BuildGuestCpuid(host, {.vcpu_count = kMaxVcpus + 1}, 0).ok());
  EXPECT_FALSE(BuildGuestCpuid(host, {.vcpu_count = 2}, 2).ok());
  EXPECT_FALSE(BuildGuestCpuid(host, {.vcpu_count = 2}, -1).ok());
  EXPECT_FALSE(BuildGuestCpuid({}, {.vcpu_count = 1}, 0).ok());
  EXPECT_FALSE(ParseCpuModel("pentium").ok());
  EXPECT_EQ(ParseCpuModel("host").value(), CpuModel::kHost);
}

TEST(MissingFeatures, NoneOnTheSameHost) {
  const auto host = GenerousHost("AuthenticAMD");
  EXPECT_THAT(MissingCpuFeatures(Guest(host, 8, 5), host, true), IsEmpty());
}

TEST(MissingFeatures, AreNamed) {
  const auto guest = Guest(GenerousHost("GenuineIntel"), 1, 0);
  auto host = GenerousHost("GenuineIntel");
  for (CpuidEntry& entry : host) {
    if (entry.function == 7 && entry.index == 0) entry.ebx &= ~(1u << 16);
    if (entry.function == 0x40000001) entry.eax &= ~(1u << 24);
    // What the guest does not see, it does not miss.
    if (entry.function == 1) entry.ecx &= ~(1u << 5);
  }
  EXPECT_THAT(MissingCpuFeatures(guest, host, true),
              ElementsAre("avx512f (cpuid 0x7.0 ebx bit 16)",
                          "kvmclock_stable (cpuid 0x40000001.0 eax bit 24)"));
}

TEST(MissingFeatures, WholeLeafVendorDeadlineAndAddressBits) {
  const auto guest = Guest(GenerousHost("GenuineIntel"), 1, 0);
  auto host = GenerousHost("AuthenticAMD");
  std::erase_if(host, [](const CpuidEntry& e) { return e.function == 7 && e.index == 1; });
  for (CpuidEntry& entry : host) {
    if (entry.function == 0x80000008) entry.eax = 0x3028;
  }
  const auto missing = MissingCpuFeatures(guest, host, false);
  EXPECT_THAT(missing, Contains("cpu vendor GenuineIntel (this host: AuthenticAMD)"));
  EXPECT_THAT(missing, Contains(StartsWith("avx_vnni (")));
  EXPECT_THAT(missing, Contains(StartsWith("tsc_deadline_timer")));
  EXPECT_THAT(missing, Contains(HasSubstr("48 physical address bits (this host: 40)")));
}

TEST(MissingFeatures, TablesNameTheRightBits) {
  // A few anchors: a slip of one position in a table would move them.
  struct Anchor {
    uint32_t function;
    CpuidRegister reg;
    int bit;
    const char* name;
  };
  for (const Anchor& anchor :
       {Anchor{1, CpuidRegister::kEcx, 28, "avx "}, Anchor{1, CpuidRegister::kEcx, 30, "rdrand "},
        Anchor{1, CpuidRegister::kEdx, 31, "pbe "}, Anchor{7, CpuidRegister::kEbx, 31, "avx512vl "},
        Anchor{7, CpuidRegister::kEcx, 22, "rdpid "},
        Anchor{7, CpuidRegister::kEcx, 28, "movdir64b "},
        Anchor{7, CpuidRegister::kEdx, 26, "spec_ctrl "},
        Anchor{7, CpuidRegister::kEdx, 29, "arch_capabilities "},
        Anchor{0x40000001, CpuidRegister::kEax, 24, "kvmclock_stable "},
        Anchor{0x80000001, CpuidRegister::kEcx, 29, "mwaitx "},
        Anchor{0x80000001, CpuidRegister::kEdx, 29, "lm "},
        Anchor{0x80000007, CpuidRegister::kEdx, 8, "invtsc "},
        Anchor{0x80000008, CpuidRegister::kEbx, 24, "amd_ssbd "},
        Anchor{0x80000021, CpuidRegister::kEax, 27, "sbpb "}}) {
    bool found = false;
    for (const FeatureWord& word : FeatureWords()) {
      if (word.function != anchor.function || word.reg != anchor.reg || word.index != 0) continue;
      found = true;
      EXPECT_THAT(FeatureName(word, anchor.bit), StartsWith(anchor.name));
    }
    EXPECT_TRUE(found) << anchor.name;
  }
}

// How a secondary makes the machine of a guest that runs already: from its list, with what it
// shows.
TEST(GuestCpuid, OfAGuestsOwnListIsThatList) {
  for (const bool deadline : {false, true}) {
    for (const uint32_t khz : {0u, 1'999'000u}) {
      const CpuidSpec spec{.vcpu_count = 2, .tsc_khz = khz, .tsc_deadline_timer = deadline};
      const auto guest = BuildGuestCpuid(GenerousHost("AuthenticAMD"), spec, 0).value();
      EXPECT_EQ(ShowsTscDeadlineTimer(guest), deadline);
      EXPECT_EQ(ShownTscKhz(guest), khz);
      const CpuidSpec shown{.vcpu_count = 2,
                            .tsc_khz = ShownTscKhz(guest),
                            .tsc_deadline_timer = ShowsTscDeadlineTimer(guest)};
      EXPECT_EQ(BuildGuestCpuid(guest, shown, 0).value(), guest);
    }
  }
  EXPECT_FALSE(ShowsTscDeadlineTimer({}));
  EXPECT_EQ(ShownTscKhz({}), 0u);
}

// --- models --------------------------------------------------------------------------------------

std::vector<CpuidEntry> ModelGuest(std::span<const CpuidEntry> host, CpuModel model) {
  return BuildGuestCpuid(host, {.model = model, .vcpu_count = 2, .tsc_deadline_timer = true}, 0)
      .value();
}

// A host of the level and nothing beyond it, as the psABI names the level's features.
std::vector<CpuidEntry> BareHost(const char* vendor, bool v3) {
  std::vector<CpuidEntry> host{Vendor(vendor, 0xd)};
  CpuidEntry basic{.function = 1};
  for (const int bit : {0, 9, 13, 19, 20, 23}) basic.ecx |= 1u << bit;
  for (const int bit : {0, 8, 15, 23, 24, 25, 26}) basic.edx |= 1u << bit;
  CpuidEntry extended{.function = 0x80000001, .ecx = 1, .edx = 1u << 29 | 1u << 11};
  if (v3) {
    for (const int bit : {12, 22, 26, 28, 29}) basic.ecx |= 1u << bit;
    extended.ecx |= 1u << 5;
    host.push_back({.function = 7, .flags = 1, .ebx = 1u << 3 | 1u << 5 | 1u << 8});
    host.push_back({.function = 0xd, .flags = 1, .eax = 7, .ebx = 832, .ecx = 832});
    host.push_back({.function = 0xd, .index = 2, .flags = 1, .eax = 256, .ebx = 576});
  }
  host.push_back(basic);
  host.push_back({.function = 0x80000000, .eax = 0x80000008});
  host.push_back(extended);
  host.push_back({.function = 0x80000008, .eax = 0x3028});
  return host;
}

// What every kernel needs of a CPU and any host of these decades has; not of the psABI.
void AddWhatKernelsNeed(std::vector<CpuidEntry>& host) {
  for (CpuidEntry& entry : host) {
    if (entry.function == 1) {
      entry.ecx |= 1u << 21 | 1u << 31;
      entry.edx |= 0x178bfbff;
    }
    if (entry.function == 0x80000001) {
      entry.ecx |= 1u << 1;
      entry.edx |= 0x0193fbff | 1u << 20;
    }
  }
  host.push_back({.function = 6, .eax = 1u << 2});
  CpuidEntry kvm = Vendor("KVMKMKVM\0\0\0V", 0x40000001);
  kvm.function = 0x40000000;
  host.push_back(kvm);
  host.push_back({.function = 0x40000001, .eax = 1u << 0 | 1u << 1 | 1u << 3 | 1u << 7 | 1u << 24});
}

TEST(CpuModels, NamesAreKnown) {
  EXPECT_EQ(ParseCpuModel("x86-64-v2").value(), CpuModel::kX86_64V2);
  EXPECT_EQ(ParseCpuModel("x86-64-v3").value(), CpuModel::kX86_64V3);
  EXPECT_THAT(std::string(ParseCpuModel("x86-64-v4").status().message()),
              HasSubstr("known: host, x86-64-v2, x86-64-v3"));
}

TEST(CpuModels, MaskWhatIsBeyondThem) {
  for (const char* vendor : {"GenuineIntel", "AuthenticAMD"}) {
    const auto v2 = ModelGuest(GenerousHost(vendor), CpuModel::kX86_64V2);
    EXPECT_TRUE(Has(Leaf(v2, 1).ecx, 20)) << "sse4_2";
    EXPECT_TRUE(Has(Leaf(v2, 1).ecx, 21)) << "x2apic";
    EXPECT_FALSE(Has(Leaf(v2, 1).ecx, 28)) << "avx";
    EXPECT_FALSE(Has(Leaf(v2, 1).ecx, 26)) << "xsave";
    EXPECT_EQ(FindCpuid(v2, 7, 0), nullptr);
    EXPECT_EQ(FindCpuid(v2, 0xd, 0), nullptr);
    EXPECT_EQ(FindCpuid(v2, 0x80000007, 0), nullptr) << "invtsc";
    EXPECT_EQ(Leaf(v2, 0x80000008).eax & 0xff, 40u);

    const auto v3 = ModelGuest(GenerousHost(vendor), CpuModel::kX86_64V3);
    EXPECT_TRUE(Has(Leaf(v3, 1).ecx, 28)) << "avx";
    EXPECT_FALSE(Has(Leaf(v3, 1).ecx, 30)) << "rdrand";
    EXPECT_EQ(Leaf(v3, 7).ebx, 1u << 3 | 1u << 5 | 1u << 8) << "bmi1, avx2, bmi2";
    EXPECT_EQ(Leaf(v3, 7).ecx | Leaf(v3, 7).edx | Leaf(v3, 7).eax, 0u);
    EXPECT_EQ(Leaf(v3, 0xd).eax, 7u);
    EXPECT_EQ(Leaf(v3, 0xd).ecx, 832u);
    EXPECT_EQ(FindCpuid(v3, 0xd, 1), nullptr) << "no compacted format";
    EXPECT_TRUE(Has(Leaf(v3, 0x80000001).ecx, 5)) << "lzcnt";
  }
}

TEST(CpuModels, MaskingTwiceChangesNothing) {
  for (const CpuModel model : {CpuModel::kX86_64V2, CpuModel::kX86_64V3}) {
    const auto guest = ModelGuest(GenerousHost("AuthenticAMD"), model);
    EXPECT_EQ(ModelGuest(guest, model), guest);
  }
}

// The point of a model: the richest host's guest runs on a host that has the level and no more.
TEST(CpuModels, TheGuestOfARichHostFitsABareOne) {
  for (const char* vendor : {"GenuineIntel", "AuthenticAMD"}) {
    for (const bool v3 : {false, true}) {
      auto poor = BareHost(vendor, v3);
      AddWhatKernelsNeed(poor);
      const CpuModel model = v3 ? CpuModel::kX86_64V3 : CpuModel::kX86_64V2;
      EXPECT_THAT(MissingCpuFeatures(ModelGuest(GenerousHost(vendor), model), poor, true),
                  IsEmpty())
          << vendor << v3;
      EXPECT_THAT(MissingCpuFeatures(Guest(GenerousHost(vendor), 1, 0), poor, true),
                  ::testing::Not(IsEmpty()));
      // And the other way round, and by itself.
      EXPECT_THAT(MissingCpuFeatures(ModelGuest(poor, model), GenerousHost(vendor), true),
                  IsEmpty());
    }
  }
}

TEST(CpuModels, NeedExactlyTheirLevel) {
  EXPECT_TRUE(
      BuildGuestCpuid(BareHost("GenuineIntel", false), {.model = CpuModel::kX86_64V2}, 0).ok());
  EXPECT_TRUE(
      BuildGuestCpuid(BareHost("GenuineIntel", true), {.model = CpuModel::kX86_64V3}, 0).ok());
  const absl::Status lacking =
      BuildGuestCpuid(BareHost("GenuineIntel", false), {.model = CpuModel::kX86_64V3}, 0).status();
  EXPECT_EQ(lacking.code(), absl::StatusCode::kFailedPrecondition);
  for (const char* name :
       {"avx (", "avx2 (", "bmi1 (", "bmi2 (", "f16c (", "fma (", "abm (", "movbe (", "xsave ("}) {
    EXPECT_THAT(std::string(lacking.message()), HasSubstr(name));
  }
  auto without = BareHost("AuthenticAMD", false);
  for (CpuidEntry& entry : without) {
    if (entry.function == 1) entry.ecx &= ~(1u << 13);
  }
  EXPECT_THAT(
      std::string(BuildGuestCpuid(without, {.model = CpuModel::kX86_64V2}, 0).status().message()),
      ::testing::EndsWith(": cx16 (cpuid 0x1.0 ecx bit 13)"));
}

TEST(CpuidBytes, RoundTripAndMalformed) {
  const auto guest = Guest(GenerousHost("AuthenticAMD"), 2, 1);
  const std::string bytes = SerializeCpuid(guest);
  EXPECT_EQ(ParseCpuid(bytes).value(), guest);
  EXPECT_FALSE(ParseCpuid(absl::string_view(bytes).substr(1)).ok());
  EXPECT_FALSE(ParseCpuid(std::string(28 * (kMaxCpuidEntries + 1), '\0')).ok());
  EXPECT_TRUE(ParseCpuid("").ok());
}

}  // namespace
}  // namespace romulus::arch

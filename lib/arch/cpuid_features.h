// The CPUID registers that hold feature bits, and what each bit is called. Constant tables and pure
// functions; any thread. Names as in Linux's /proc/cpuinfo where it has one
// (arch/x86/include/asm/cpufeatures.h), else the manual's mnemonic in lower case.
#ifndef ROMULUS_ARCH_CPUID_FEATURES_H_
#define ROMULUS_ARCH_CPUID_FEATURES_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/strings/string_view.h"
#include "arch/cpuid.h"

namespace romulus::arch {

enum class CpuidRegister : uint8_t { kEax, kEbx, kEcx, kEdx };

struct FeatureWord {
  uint32_t function = 0;
  uint32_t index = 0;
  CpuidRegister reg = CpuidRegister::kEax;
  // Bits that say something about the moment or the topology, not about what the CPU can do.
  uint32_t not_features = 0;
  absl::string_view names;  // of bits 0, 1, 2...; separated by blanks; "-" has no name
};

std::span<const FeatureWord> FeatureWords();

uint32_t ValueOf(const CpuidEntry& entry, CpuidRegister reg);
uint32_t& FieldOf(CpuidEntry& entry, CpuidRegister reg);

// "avx512f (cpuid 0x7.0 ebx bit 16)", or without a name just the place.
std::string FeatureName(const FeatureWord& word, int bit);

}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_CPUID_FEATURES_H_

#include "arch/cpuid_models.h"

#include <algorithm>
#include <array>

#include "arch/cpuid_features.h"

namespace romulus::arch {
namespace {

using enum CpuidRegister;

template <typename... Bits>
constexpr uint32_t Mask(Bits... bits) {
  return (uint32_t{0} | ... | (uint32_t{1} << bits));
}

// One register of the feature words (cpuid_features.cc, which has the bits' names).
struct ModelWord {
  uint32_t function;
  uint32_t index;
  CpuidRegister reg;
  uint32_t v2;      // the level's own
  uint32_t v3;      // what the next level adds
  uint32_t kernel;  // kept, not asked for: what kernels use and KVM provides
};

constexpr std::array kModelWords{
    ModelWord{
        .function = 1,
        .index = 0,
        .reg = kEcx,
        .v2 = Mask(0, 9, 13, 19, 20, 23),  // sse3, ssse3, cx16, sse4.1, sse4.2, popcnt
        .v3 = Mask(12, 22, 26, 28, 29),    // fma, movbe, xsave (for osxsave), avx, f16c
        // x2apic and the hypervisor bit are KVM's own; the deadline timer is asked for by name.
        .kernel = Mask(21, 24, 31)},
    ModelWord{.function = 1,
              .index = 0,
              .reg = kEdx,
              .v2 = Mask(0, 8, 15, 23, 24, 25, 26),  // fpu, cx8, cmov, mmx, fxsr, sse, sse2
              .v3 = 0,
              // de pse tsc msr pae mce apic sep mtrr pge mca pat pse36 clflush ht
              .kernel = Mask(2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 14, 16, 17, 19, 28)},
    ModelWord{.function = 6, .index = 0, .reg = kEax, .v2 = 0, .v3 = 0, .kernel = Mask(2)},  // arat
    ModelWord{.function = 7,
              .index = 0,
              .reg = kEbx,
              .v2 = 0,
              .v3 = Mask(3, 5, 8),  // bmi1, avx2, bmi2
              .kernel = 0},
    // State of x87, SSE and AVX: what XCR0 may enable. Asked for by avx.
    ModelWord{.function = 0xd, .index = 0, .reg = kEax, .v2 = 0, .v3 = Mask(0, 1, 2), .kernel = 0},
    ModelWord{.function = 0x40000001,
              .index = 0,
              .reg = kEax,
              .v2 = 0,
              .v3 = 0,
              // kvmclock, no I/O delay, pv_unhalt: what all kernels have that can run us at all.
              .kernel = Mask(0, 1, 3, 7, 24)},
    ModelWord{.function = 0x80000001,
              .index = 0,
              .reg = kEcx,
              .v2 = Mask(0),       // lahf_lm
              .v3 = Mask(5),       // abm: lzcnt
              .kernel = Mask(1)},  // cmp_legacy: topology
    ModelWord{.function = 0x80000001,
              .index = 0,
              .reg = kEdx,
              .v2 = Mask(11, 29),  // syscall, lm
              .v3 = 0,
              // nx; and on AMD the copies of leaf 1's bits
              .kernel = Mask(0, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 20, 23, 24)},
};

uint32_t Wanted(CpuModel model, const ModelWord& word) {
  return word.v2 | (model == CpuModel::kX86_64V3 ? word.v3 : 0);
}

const ModelWord* Find(const FeatureWord& word) {
  const auto found = std::find_if(kModelWords.begin(), kModelWords.end(), [&](const ModelWord& m) {
    return m.function == word.function && m.index == word.index && m.reg == word.reg;
  });
  return found == kModelWords.end() ? nullptr : &*found;
}

}  // namespace

std::vector<std::string> MissingForModel(CpuModel model, std::span<const CpuidEntry> supported) {
  std::vector<std::string> missing;
  if (model == CpuModel::kHost) return missing;
  for (const FeatureWord& word : FeatureWords()) {
    const ModelWord* const of_model = Find(word);
    if (of_model == nullptr) continue;
    const CpuidEntry* const have = FindCpuid(supported, word.function, word.index);
    const uint32_t lacking =
        Wanted(model, *of_model) & ~(have == nullptr ? 0 : ValueOf(*have, word.reg));
    for (int bit = 0; bit < 32; ++bit) {
      if ((lacking >> bit & 1) != 0) missing.push_back(FeatureName(word, bit));
    }
  }
  return missing;
}

void ApplyModel(CpuModel model, std::vector<CpuidEntry>& entries) {
  if (model == CpuModel::kHost) return;
  for (const FeatureWord& word : FeatureWords()) {
    const ModelWord* const of_model = Find(word);
    const uint32_t keep = of_model == nullptr ? 0 : Wanted(model, *of_model) | of_model->kernel;
    for (CpuidEntry& entry : entries) {
      if (entry.function == word.function && entry.index == word.index) {
        FieldOf(entry, word.reg) &= keep;
      }
    }
  }
  const bool has_xsave = model == CpuModel::kX86_64V3;
  std::erase_if(entries, [has_xsave](const CpuidEntry& entry) {
    if (entry.function == 0xd) return !has_xsave || entry.index > 2;
    return (entry.function == 7 && entry.index > 0) || entry.function == 0x80000021;
  });
  for (CpuidEntry& entry : entries) {
    if (entry.function == 7) {
      entry.eax = 0;  // no further sub-leaf
    } else if (entry.function == 0xd && entry.index == 1) {
      entry = {
          .function = 0xd, .index = 1, .flags = entry.flags};  // no compacted format, no xsaves
    } else if (entry.function == 0x80000008) {
      entry.eax = (entry.eax & ~0xffu) | std::min(entry.eax & 0xff, kModelAddressBits);
    }
  }
}

}  // namespace romulus::arch

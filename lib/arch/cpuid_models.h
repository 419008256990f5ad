// The CPU models that unequal hosts share: which feature bits a guest of that model sees and which
// its host must have. Constant tables and pure functions; any thread.
//
// x86-64-v2 and -v3 are levels of the x86-64 psABI (https://gitlab.com/x86-psABIs/x86-64-ABI,
// "Micro- Architecture Levels"), which is about what programs may use. Beside these a model keeps
// what every kernel for x86-64 needs of its CPU and what KVM itself provides on any host; all else
// is masked, among it what the guest's kernel would use to harden itself (SMEP, SMAP, IBRS, ...):
// hosts that differ in it could not pair.
#ifndef ROMULUS_ARCH_CPUID_MODELS_H_
#define ROMULUS_ARCH_CPUID_MODELS_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "arch/cpuid.h"

namespace romulus::arch {

// Physical address bits of a model's guests, if their host has as many: QEMU's default too.
inline constexpr uint32_t kModelAddressBits = 40;

// What a host that supports `supported` lacks for guests of the model, as MissingCpuFeatures names
// it. Empty for kHost.
std::vector<std::string> MissingForModel(CpuModel model, std::span<const CpuidEntry> supported);

// Masks what is beyond the model, to be called before topology is set and empty leaves are dropped.
// Does nothing for kHost; twice is as once.
void ApplyModel(CpuModel model, std::vector<CpuidEntry>& entries);

}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_CPUID_MODELS_H_

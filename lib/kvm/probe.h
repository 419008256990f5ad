// What this host offers, as plain data for `romulusd probe`. Any thread.
#ifndef ROMULUS_KVM_PROBE_H_
#define ROMULUS_KVM_PROBE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "kvm/system.h"

namespace romulus::kvm {

enum class Virtualisation : uint8_t {
  kUnknown,
  kVmx,       // module kvm_intel
  kSvm,       // module kvm_amd
  kSoftware,  // module kvm_pvm: guest kernel code is emulated
};
absl::string_view VirtualisationName(Virtualisation virtualisation);

struct ProbeReport {
  Capabilities capabilities;
  Virtualisation virtualisation = Virtualisation::kUnknown;
  // This host is itself a guest (CPUID says so).
  bool nested = false;
  std::string hypervisor;         // CPUID's signature of the host above, "" if none
  std::string cpu_model;          // "" if unknown
  std::optional<bool> pml;        // nullopt: not knowable here
  uint32_t min_ring_entries = 0;  // 0: no rings
  uint32_t max_ring_entries = 0;
  uint32_t reserved_ring_entries = 0;
  std::optional<bool> steers_rings;  // RingResetsWhatEntriesSay(); nullopt: not to be found out
  std::optional<uint32_t> tsc_khz;   // of a new VM
  std::vector<std::string> missing;  // capabilities that a Machine needs and this host lacks
};

ProbeReport Probe(const System& system);

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_PROBE_H_

#include "kvm/probe.h"

#include <cpuid.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <memory>

#include "kvm/ring_probe.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"

namespace romulus::kvm {
namespace {

bool ModuleLoaded(const char* path) { return ::access(path, F_OK) == 0; }

struct CpuidLeaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidLeaf HostCpuid(unsigned leaf) {
  CpuidLeaf r;
  __cpuid(leaf, r.eax, r.ebx, r.ecx, r.edx);
  return r;
}

std::string Printable(const char* bytes, size_t size) {
  std::string text;
  for (size_t i = 0; i < size && bytes[i] != '\0'; ++i) {
    if (bytes[i] >= ' ' && bytes[i] <= '~') text.push_back(bytes[i]);
  }
  return text;
}

// Leaf 1, ecx bit 31: never set by a real CPU; the signature is in 0x40000000.
std::string HypervisorSignature() {
  const CpuidLeaf leaf = HostCpuid(0x40000000);
  std::array<unsigned, 3> words = {leaf.ebx, leaf.ecx, leaf.edx};
  std::array<char, sizeof(words)> text;
  std::memcpy(text.data(), words.data(), sizeof(words));
  return Printable(text.data(), text.size());
}

std::string CpuModel() {
  if (HostCpuid(0x80000000).eax < 0x80000004) return "";
  std::array<CpuidLeaf, 3> leaves = {HostCpuid(0x80000002), HostCpuid(0x80000003),
                                     HostCpuid(0x80000004)};
  std::array<char, sizeof(leaves)> text;
  std::memcpy(text.data(), leaves.data(), sizeof(leaves));
  std::string model = Printable(text.data(), text.size());
  model.erase(0, model.find_first_not_of(' '));
  if (const size_t last = model.find_last_not_of(' '); last != std::string::npos) {
    model.resize(last + 1);
  }
  return model;
}

}  // namespace

absl::string_view VirtualisationName(Virtualisation virtualisation) {
  switch (virtualisation) {
    case Virtualisation::kUnknown:
      return "unknown";
    case Virtualisation::kVmx:
      return "VT-x (kvm_intel)";
    case Virtualisation::kSvm:
      return "SVM (kvm_amd)";
    case Virtualisation::kSoftware:
      return "software (kvm_pvm)";
  }
  return "unknown";
}

ProbeReport Probe(const System& system) {
  ProbeReport report;
  report.capabilities = system.capabilities();
  const Capabilities& c = report.capabilities;
  // kvm_pvm first: its host may have a hardware module loaded as well, without the hardware.
  if (ModuleLoaded("/sys/module/kvm_pvm")) {
    report.virtualisation = Virtualisation::kSoftware;
  } else if (ModuleLoaded("/sys/module/kvm_intel")) {
    report.virtualisation = Virtualisation::kVmx;
  } else if (ModuleLoaded("/sys/module/kvm_amd")) {
    report.virtualisation = Virtualisation::kSvm;
  }
  report.nested = (HostCpuid(1).ecx >> 31) != 0;
  if (report.nested) report.hypervisor = HypervisorSignature();
  report.cpu_model = CpuModel();
  if (c.pml_known) report.pml = c.pml;
  if (c.dirty_ring_max_bytes > 0) {
    report.reserved_ring_entries = c.reserved_ring_entries();
    report.min_ring_entries = c.min_ring_entries();
    report.max_ring_entries = c.max_ring_entries();
    if (absl::StatusOr<bool> steers = RingResetsWhatEntriesSay(system); steers.ok()) {
      report.steers_rings = *steers;
    }
  }
  if (absl::StatusOr<std::unique_ptr<Vm>> vm = system.CreateVm(); vm.ok()) {
    if (absl::StatusOr<std::unique_ptr<Vcpu>> vcpu = (*vm)->CreateVcpu(0); vcpu.ok()) {
      if (absl::StatusOr<uint32_t> khz = (*vcpu)->GetTscKhz(); khz.ok()) report.tsc_khz = *khz;
    }
  }
  report.missing = system.MissingForMachine();
  return report;
}

}  // namespace romulus::kvm

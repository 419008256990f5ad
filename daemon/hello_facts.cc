#include "daemon/hello_facts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/xxh3.h"
#include "daemon/version.h"
#include "kvm/probe.h"
#include "memory/memory_layout.h"

namespace romulus::daemon {
namespace {

// Clocks of two hosts of one model differ by some parts per million; KVM itself tolerates 250 of
// them without scaling (Documentation/virt/kvm/api.rst, KVM_SET_TSC_KHZ; module parameter
// tsc_tolerance_ppm).
constexpr uint64_t kTscTolerancePpm = 250;

bool TscFits(uint32_t want_khz, const HostFacts& host) {
  if (want_khz == 0 || host.tsc_khz == 0 || host.tsc_control) return true;
  const uint64_t apart =
      want_khz > host.tsc_khz ? want_khz - host.tsc_khz : host.tsc_khz - want_khz;
  return apart * 1'000'000 <= uint64_t{want_khz} * kTscTolerancePpm;
}

// Both nodes must ask the same arbiter. It travels with the capabilities, as what the other must
// have.
constexpr absl::string_view kArbiterPrefix = "arbiter:";

std::string ArbiterName(const romulus::v1::Config& config) {
  const romulus::v1::Arbiter& arbiter = config.failover().arbiter();
  if (arbiter.has_command()) return "arbiter:command";
  if (arbiter.has_etcd()) return absl::StrCat("arbiter:etcd:", arbiter.etcd().prefix());
  return "arbiter:none";
}

std::string ArbiterNameIn(const romulus::v1::Hello& hello) {
  for (const std::string& name : hello.required_capabilities()) {
    if (absl::StartsWith(name, kArbiterPrefix)) return name;
  }
  return "arbiter:none";
}

bool HasCapability(const HostFacts& host, absl::string_view name) {
  if (absl::StartsWith(name, kArbiterPrefix)) return true;  // compared apart
  absl::string_view want = name;
  uint64_t want_bytes = 0;
  if (absl::ConsumePrefix(&want, "xsave:") && absl::SimpleAtoi(want, &want_bytes)) {
    for (absl::string_view have : host.capabilities) {
      uint64_t have_bytes = 0;
      if (absl::ConsumePrefix(&have, "xsave:") && absl::SimpleAtoi(have, &have_bytes)) {
        return have_bytes >= want_bytes;
      }
    }
    return false;
  }
  return std::find(host.capabilities.begin(), host.capabilities.end(), std::string(name)) !=
         host.capabilities.end();
}

// What the guest sees of its devices, in machine order. Paths and taps are each node's own.
std::vector<std::string> DevicesOf(const romulus::v1::Guest& guest) {
  std::vector<std::string> devices;
  for (const romulus::v1::Disk& disk : guest.disks()) {
    devices.push_back(absl::StrCat("disk ", disk.name(), disk.read_only() ? ", read-only" : ""));
  }
  for (const romulus::v1::Nic& nic : guest.nics()) {
    devices.push_back(absl::StrCat("nic ", absl::AsciiStrToLower(nic.mac()), ", mtu ", nic.mtu()));
  }
  if (guest.virtio_console()) devices.push_back("virtio_console");
  if (guest.rng()) devices.push_back("rng");
  return devices;
}

}  // namespace

std::string BuildName() { return absl::StrCat("romulusd ", kVersion); }

absl::StatusOr<wire::MachineIdentity> IdentityOf(const romulus::v1::Config& config) {
  ROMULUS_ASSIGN_OR_RETURN(const memory::MemoryLayout layout,
                           memory::MemoryLayout::ForMib(config.guest().memory_mib()));
  wire::MachineIdentity identity;
  identity.vm_name = config.name();
  identity.vm_uuid = config.uuid();
  identity.vcpu_count = config.guest().vcpus();
  identity.memory = layout.regions();
  // Kernel and initrd, which a guest was booted with, are not compared: the secondary never boots
  // it.
  identity.devices = DevicesOf(config.guest());
  const std::string machine = absl::StrCat(
      "x86_64;devices=platform-1;cpu=", config.guest().cpu_model(), ";",
      absl::StrJoin(identity.devices, ";"), ";command_line=", config.guest().command_line());
  identity.machine_digest = XXH3_64bits(machine.data(), machine.size());
  return identity;
}

std::vector<std::string> CapabilityNames(const kvm::Capabilities& capabilities) {
  std::vector<std::string> names;
  if (capabilities.xsave) names.push_back(absl::StrCat("xsave:", capabilities.xsave_bytes));
  if (capabilities.sregs2) names.push_back("sregs2");
  if (capabilities.xcrs) names.push_back("xcrs");
  if (capabilities.debugregs) names.push_back("debugregs");
  if (capabilities.vcpu_events) names.push_back("vcpu_events");
  if (capabilities.mp_state) names.push_back("mp_state");
  if (capabilities.adjust_clock) names.push_back("adjust_clock");
  if (capabilities.irqchip) names.push_back("irqchip");
  if (capabilities.pit2) names.push_back("pit2");
  return names;
}

absl::StatusOr<wire::HelloInput> HelloFor(const romulus::v1::Config& config,
                                          const kvm::Capabilities& capabilities,
                                          const vmm::Machine& machine) {
  wire::HelloInput hello;
  ROMULUS_ASSIGN_OR_RETURN(hello.machine, IdentityOf(config));
  hello.node_name = config.node_name();
  hello.build = BuildName();
  for (const arch::CpuidEntry& entry : machine.cpuid()) {
    hello.cpuid.push_back(
        {entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx});
  }
  hello.tsc_khz = machine.tsc_khz();
  hello.required_capabilities = CapabilityNames(capabilities);
  hello.required_capabilities.push_back(ArbiterName(config));
  hello.max_frame_bytes = kMaxFrameBytes;
  return hello;
}

absl::StatusOr<HostFacts> HostFactsOf(const kvm::System& system) {
  HostFacts host;
  ROMULUS_ASSIGN_OR_RETURN(const kvm::CpuidEntries supported, system.SupportedCpuid());
  for (const auto& entry : supported) {
    host.supported_cpuid.push_back(
        {entry.function, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx});
  }
  host.tsc_khz = kvm::Probe(system).tsc_khz.value_or(0);
  host.tsc_control = system.capabilities().tsc_control;
  host.tsc_deadline_timer = system.capabilities().tsc_deadline_timer;
  host.capabilities = CapabilityNames(system.capabilities());
  return host;
}

romulus::v1::HelloReply JudgeHello(const romulus::v1::Hello& hello,
                                   const romulus::v1::Config& config, const HelloFacts& facts,
                                   const HostFacts& host) {
  wire::HelloJudge judge;
  if (absl::StatusOr<wire::MachineIdentity> identity = IdentityOf(config); identity.ok()) {
    judge.machine = *std::move(identity);
  }
  judge.node_name = config.node_name();
  judge.build = BuildName();
  judge.max_frame_bytes = kMaxFrameBytes;
  judge.plays_secondary = facts.plays_secondary;
  judge.role_detail = facts.role_detail;
  judge.heard_instance = facts.heard_instance;
  judge.heard_from = facts.heard_from;
  judge.newest_term = facts.newest_term;
  judge.holds = facts.holds;
  judge.lineage = facts.lineage;
  judge.disks = facts.disks;
  judge.missing_cpu_features = [&host](const std::vector<wire::CpuidLeaf>& leaves,
                                       uint32_t tsc_khz) {
    std::vector<arch::CpuidEntry> guest;
    for (const wire::CpuidLeaf& leaf : leaves) {
      guest.push_back(
          {leaf.function, leaf.index, leaf.flags, leaf.eax, leaf.ebx, leaf.ecx, leaf.edx});
    }
    std::vector<std::string> missing =
        arch::MissingCpuFeatures(guest, host.supported_cpuid, host.tsc_deadline_timer);
    if (!TscFits(tsc_khz, host)) {
      missing.push_back(absl::StrCat("tsc of ", tsc_khz, " kHz (this host has ", host.tsc_khz,
                                     " kHz and cannot scale it)"));
    }
    return missing;
  };
  judge.has_capability = [&host](absl::string_view name) { return HasCapability(host, name); };
  romulus::v1::HelloReply reply = wire::EvaluateHello(hello, judge);
  reply.set_instance(facts.instance);
  const std::string theirs = ArbiterNameIn(hello);
  if (const std::string own = ArbiterName(config); reply.accepted() && theirs != own) {
    reply.set_accepted(false);
    reply.set_reason(romulus::v1::REFUSAL_REASON_CAPABILITY);
    reply.set_detail(absl::StrCat("failover.arbiter: '", absl::CHexEscape(theirs.substr(0, 200)),
                                  "' on the primary, '", own,
                                  "' here: both nodes must ask the same one"));
  }
  return reply;
}

std::vector<arch::CpuidEntry> CpuidOf(const romulus::v1::Hello& hello) {
  std::vector<arch::CpuidEntry> cpuid;
  for (const romulus::v1::CpuidLeaf& leaf : hello.cpuid()) {
    cpuid.push_back({leaf.function(), leaf.index(), leaf.flags(), leaf.eax(), leaf.ebx(),
                     leaf.ecx(), leaf.edx()});
  }
  return cpuid;
}

}  // namespace romulus::daemon

#include "daemon/probe_command.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "daemon/exit_codes.h"
#include "daemon/json.h"
#include "daemon/table.h"

namespace romulus::daemon {
namespace {

std::string YesNo(bool value) { return value ? "yes" : "no"; }

}  // namespace

romulus::v1::HostReport ReportOf(const kvm::ProbeReport& probe) {
  const kvm::Capabilities& caps = probe.capabilities;
  romulus::v1::HostReport report;
  report.set_kvm_api_version(caps.api_version);
  report.set_virtualisation(std::string(kvm::VirtualisationName(probe.virtualisation)));
  report.set_nested(probe.nested);
  report.set_hypervisor(probe.hypervisor);
  report.set_cpu_model(probe.cpu_model);
  report.set_max_vcpus(caps.max_vcpus);
  report.set_dirty_ring(probe.max_ring_entries > 0);
  report.set_min_ring_entries(probe.min_ring_entries);
  report.set_max_ring_entries(probe.max_ring_entries);
  report.set_reserved_ring_entries(probe.reserved_ring_entries);
  if (probe.steers_rings) report.set_steers_rings(*probe.steers_rings);
  report.set_dirty_ring_acq_rel(caps.dirty_ring_acq_rel);
  report.set_manual_dirty_log_protect(caps.manual_dirty_log_protect != 0);
  report.set_irqchip(caps.irqchip);
  report.set_pit(caps.pit2);
  report.set_immediate_exit(caps.immediate_exit);
  report.set_sync_regs(caps.sync_regs != 0);
  report.set_sregs2(caps.sregs2);
  report.set_xsave_bytes(caps.xsave ? caps.xsave_bytes : 0);
  if (probe.pml) report.set_pml(*probe.pml);
  if (probe.tsc_khz) report.set_tsc_khz(*probe.tsc_khz);
  report.set_tsc_control(caps.tsc_control);
  for (const std::string& name : probe.missing) report.add_missing(name);
  report.set_nested_state(caps.nested_state);
  return report;
}

std::string ReportTable(const romulus::v1::HostReport& report) {
  TableRows rows = {
      {"KVM API", absl::StrCat(report.kvm_api_version())},
      {"virtualisation", report.virtualisation()},
      {"this host is a guest",
       report.nested() ? absl::StrCat("yes, of ", report.hypervisor()) : "no"},
      {"CPU", report.cpu_model()},
      {"vCPUs at most", absl::StrCat(report.max_vcpus())},
      {"dirty ring", report.dirty_ring() ? absl::StrCat(report.min_ring_entries(), " to ",
                                                        report.max_ring_entries(), " entries, ",
                                                        report.reserved_ring_entries(), " reserved")
                                         : "no"},
      {"dirty ring ACQ_REL", YesNo(report.dirty_ring_acq_rel())},
      {"dirty ring can be steered",
       report.has_steers_rings() ? YesNo(report.steers_rings()) : "unknown"},
      {"bitmap, manual protect", YesNo(report.manual_dirty_log_protect())},
      {"PML", report.has_pml() ? YesNo(report.pml()) : "not knowable here"},
      {"irqchip / PIT in the kernel",
       absl::StrCat(YesNo(report.irqchip()), " / ", YesNo(report.pit()))},
      {"immediate exit", YesNo(report.immediate_exit())},
      {"sync regs", YesNo(report.sync_regs())},
      {"sregs2", YesNo(report.sregs2())},
      {"xsave", report.xsave_bytes() == 0 ? "no" : absl::StrCat(report.xsave_bytes(), " bytes")},
      {"nested state", YesNo(report.nested_state())},
      {"TSC",
       absl::StrCat(report.has_tsc_khz() ? absl::StrCat(report.tsc_khz(), " kHz") : "unknown",
                    report.tsc_control() ? ", can be scaled" : ", cannot be scaled")},
  };
  rows.emplace_back("ready for Romulus",
                    report.missing().empty()
                        ? "yes"
                        : absl::StrCat("no, lacks: ", absl::StrJoin(report.missing(), ", ")));
  return FormatTable(rows);
}

int ProbeCommand(const std::string& device, bool json) {
  absl::StatusOr<std::unique_ptr<kvm::System>> system = kvm::System::Open(device);
  if (!system.ok()) {
    std::fprintf(stderr, "romulusd: %s\n", std::string(system.status().message()).c_str());
    return kExitFailed;
  }
  const romulus::v1::HostReport report = ReportOf(kvm::Probe(**system));
  std::fputs((json ? ToJson(report) : ReportTable(report)).c_str(), stdout);
  return report.missing().empty() ? kExitOk : kExitFailed;
}

}  // namespace romulus::daemon

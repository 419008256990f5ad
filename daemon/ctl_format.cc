#include "daemon/ctl_format.h"

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

// "MODE_PROTECTED" -> "protected"
std::string Word(const std::string& name, absl::string_view prefix) {
  return absl::AsciiStrToLower(absl::string_view(name).substr(prefix.size()));
}

std::string Us(uint64_t ns) { return absl::StrFormat("%.1f us", static_cast<double>(ns) / 1e3); }
std::string Ms(uint64_t ns) { return absl::StrFormat("%.1f ms", static_cast<double>(ns) / 1e6); }

std::string When(uint64_t unix_ms) {
  const std::time_t seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

template <typename Map>
std::string Counts(const Map& map) {
  std::vector<std::pair<std::string, uint64_t>> sorted(map.begin(), map.end());
  std::sort(sorted.begin(), sorted.end());
  std::string text;
  for (const auto& [name, value] : sorted) {
    if (value != 0) absl::StrAppend(&text, text.empty() ? "" : ", ", name, " ", value);
  }
  return text.empty() ? "none" : text;
}

// Of passes over memory or disks; `unit`: "pages" or "blocks".
struct Audited {
  const char* unit;
  uint64_t compared, mismatches, passes, last_pass_ns, last_pass_unix_ms, done, total;
};

std::string AuditText(const Audited& audit, bool is_primary) {
  std::string text =
      absl::StrCat(audit.compared, " ", audit.unit, " compared, ", audit.mismatches, " not equal");
  if (!is_primary) return text;
  absl::StrAppend(&text, "; ", audit.passes, " passes");
  if (audit.last_pass_unix_ms != 0) {
    absl::StrAppendFormat(&text, ", the last in %.1f s until %s",
                          static_cast<double>(audit.last_pass_ns) / 1e9,
                          When(audit.last_pass_unix_ms));
  }
  if (audit.total != 0) {
    absl::StrAppendFormat(&text, "; %d %% of the next", audit.done * 100 / audit.total);
  }
  return text;
}

void AddAuditRows(const v1::GetStatusResponse& status, TableRows& rows) {
  if (!status.has_audit()) return;
  const v1::AuditStatus& audit = status.audit();
  const bool is_primary = status.role() == v1::ROLE_PRIMARY;
  rows.emplace_back("audit", AuditText({"pages", audit.pages(), audit.mismatches(), audit.passes(),
                                        audit.last_pass_ns(), audit.last_pass_unix_ms(),
                                        audit.pass_pages_done(), audit.pass_pages_total()},
                                       is_primary));
  if (!audit.last_mismatch().empty()) {
    rows.emplace_back("last mismatch", absl::StrCat(When(audit.last_mismatch_unix_ms()), " ",
                                                    audit.last_mismatch()));
  }
  if (status.disks().empty()) return;
  std::string text =
      AuditText({"blocks", audit.disk_blocks(), audit.disk_mismatches(), audit.disk_passes(),
                 audit.disk_last_pass_ns(), audit.disk_last_pass_unix_ms(),
                 audit.pass_blocks_done(), audit.pass_blocks_total()},
                is_primary);
  if (audit.blocks_left_out() != 0) {
    absl::StrAppend(&text, "; ", audit.blocks_left_out(), " left out, always being written");
  }
  rows.emplace_back("audit of disks", text);
  if (!audit.last_disk_mismatch().empty()) {
    rows.emplace_back("last mismatch", absl::StrCat(When(audit.last_disk_mismatch_unix_ms()), " ",
                                                    audit.last_disk_mismatch()));
  }
}

void AddPrimaryRows(const v1::GetStatusResponse& status, TableRows& rows) {
  const v1::Counters& counters = status.counters();
  rows.emplace_back("epochs cut / acked",
                    absl::StrCat(status.epoch_cut(), " / ", status.epoch_acked(), " (",
                                 counters.unacked_epochs(), " under way)"));
  rows.emplace_back("epochs by reason", Counts(counters.epochs_by_reason()));
  rows.emplace_back("pause p50 / p99",
                    absl::StrCat(Us(status.pause().p50_ns()), " / ", Us(status.pause().p99_ns())));
  rows.emplace_back("ack latency p50 / p99",
                    absl::StrCat(Us(status.pause().ack_latency_p50_ns()), " / ",
                                 Us(status.pause().ack_latency_p99_ns())));
  rows.emplace_back("pages by encoding", Counts(counters.pages_by_encoding()));
  rows.emplace_back("bytes sent", absl::StrCat(counters.bytes_sent()));
  if (!status.disks().empty()) {
    rows.emplace_back("disk log", absl::StrCat(counters.disk_log_bytes(), " bytes"));
  }
  rows.emplace_back("held output", absl::StrCat(counters.held_output_bytes(), " bytes"));
  const v1::ConsoleOffsets& console = status.console();
  rows.emplace_back(
      "console", absl::StrCat("released to byte ", console.released(), ", ", console.queued_bytes(),
                              " wait", console.failure().empty() ? "" : ": ", console.failure()));
  for (const v1::DeviceStatus& device : status.devices()) {
    std::string text = Counts(device.counters());
    if (!device.faults().empty()) absl::StrAppend(&text, "; faults: ", Counts(device.faults()));
    if (device.needs_reset()) absl::StrAppend(&text, "; needs a reset");
    rows.emplace_back(device.name(), text);
  }
  rows.emplace_back("exits", Counts(counters.exits()));
  std::string tracker =
      absl::StrCat(status.machine().tracker(), " ", status.machine().ring_entries());
  if (const std::string& better = status.machine().better_tracker(); !better.empty()) {
    absl::StrAppend(&tracker, "; ", better, " would make shorter pauses at ",
                    status.machine().pages_per_epoch(), " pages an epoch");
  }
  rows.emplace_back("tracker", tracker);
}

// What a person wants to know is how many days are left.
void AddTlsRows(const v1::GetStatusResponse& status, TableRows& rows) {
  if (!status.has_tls()) return;
  const v1::TlsStatus& tls = status.tls();
  if (tls.insecure()) {
    rows.emplace_back("network", "INSECURE: plain text to the other host, as configured");
    return;
  }
  const int64_t left_s = tls.expires_unix_s() - absl::ToUnixSeconds(absl::Now());
  const std::string date = absl::FormatTime("%Y-%m-%d", absl::FromUnixSeconds(tls.expires_unix_s()),
                                            absl::UTCTimeZone());
  rows.emplace_back("certificate", left_s < 0 ? absl::StrCat(tls.name(), ", EXPIRED on ", date)
                                              : absl::StrCat(tls.name(), ", expires in ",
                                                             left_s / 86'400, " days, on ", date));
  if (!tls.refused().empty()) rows.emplace_back("TLS refusals", Counts(tls.refused()));
}

void AddPathRows(const v1::GetStatusResponse& status, TableRows& rows) {
  for (const v1::PathStatus& path : status.paths()) {
    std::string text = path.heard() ? "heard" : "not heard";
    if (path.beats() != 0) {
      absl::StrAppend(&text, " ", path.heard_ms_ago(), " ms ago, every ", Ms(path.mean_gap_ns()),
                      ", jitter ", Ms(path.jitter_ns()), ", longest gap ", Ms(path.max_gap_ns()));
    }
    if (path.rtt_ns() != 0) absl::StrAppend(&text, ", round trip ", Ms(path.rtt_ns()));
    if (!path.detail().empty()) absl::StrAppend(&text, ": ", path.detail());
    rows.emplace_back(absl::StrCat("path ", path.path()), text);
    if (!path.refused().empty()) {
      rows.emplace_back("", absl::StrCat("refused: ", Counts(path.refused())));
    }
  }
}

}  // namespace

TableRows StatusRows(const v1::GetStatusResponse& status) {
  const v1::Peer& peer = status.peer();
  TableRows rows = {
      {"vm", absl::StrCat(status.vm_name(), " ", status.vm_uuid())},
      {"node", status.node_name()},
      {"role", Word(v1::Role_Name(status.role()), "ROLE_")},
      {"mode", absl::StrCat(Word(v1::Mode_Name(status.mode()), "MODE_"), " since ",
                            When(status.since_unix_ms()))},
      {"reason", status.reason()},
      {"term", absl::StrCat(status.term())},
  };
  if (status.guest_paused()) rows.emplace_back("guest", "paused by an operator");
  if (!peer.node_name().empty()) {
    rows.emplace_back("peer", absl::StrCat(peer.node_name(), " at ", peer.address(),
                                           peer.connected() ? ", connected" : ", not connected"));
    if (!peer.build().empty()) {
      rows.emplace_back("peer build",
                        absl::StrCat(peer.build(), peer.protocol_version() == 0
                                                       ? ""
                                                       : absl::StrCat(", protocol version ",
                                                                      peer.protocol_version())));
    }
    if (!peer.compression().empty()) {
      std::string text = peer.compression();
      if (const uint64_t rate = peer.link_bytes_per_second(); rate != 0) {
        absl::StrAppend(&text, ", the link achieves ", absl::StrFormat("%.1f", 1e-6 * rate),
                        " MB/s");
      }
      rows.emplace_back("compression", text);
    }
    if (peer.heard()) rows.emplace_back("peer heard", absl::StrCat(peer.heard_ms_ago(), " ms ago"));
    if (!peer.detail().empty()) rows.emplace_back("peer detail", peer.detail());
    AddPathRows(status, rows);
  }
  if (status.sync().active()) {
    rows.emplace_back(
        "full sync", absl::StrCat("round ", status.sync().round(), ", ", status.sync().pages_done(),
                                  " of ", status.sync().pages_total(), " pages"));
  }
  for (const v1::DiskStatus& disk : status.disks()) {
    std::string text = absl::StrCat(disk.path(), ", ", disk.role(), "'s copy");
    if (disk.term() != 0) absl::StrAppend(&text, ", term ", disk.term());
    if (disk.epoch() != 0) absl::StrAppend(&text, ", epoch ", disk.epoch());
    if (disk.sync_bytes_total() != 0) {
      absl::StrAppend(&text, ", synced ", disk.sync_bytes_done(), " of ", disk.sync_bytes_total(),
                      " bytes");
    }
    rows.emplace_back(absl::StrCat("disk ", disk.name()), text);
    if (!disk.unusable().empty())
      rows.emplace_back("", absl::StrCat("unusable: ", disk.unusable()));
  }
  if (status.role() == v1::ROLE_PRIMARY) {
    AddPrimaryRows(status, rows);
  } else {
    rows.emplace_back("epoch held", absl::StrCat(status.epoch_acked()));
    rows.emplace_back("epochs committed", absl::StrCat(status.counters().epochs_acked()));
  }
  AddAuditRows(status, rows);
  if (!status.counters().frame_errors().empty()) {
    rows.emplace_back("frame errors", Counts(status.counters().frame_errors()));
  }
  if (status.has_last_failover()) {
    const v1::LastFailover& last = status.last_failover();
    rows.emplace_back(
        "last failover",
        absl::StrCat(When(last.at_unix_ms()), last.by_operator() ? " by an operator" : "",
                     ", from epoch ", last.epoch(), " of term ", last.from_term(), ", detected in ",
                     Ms(last.detect_ns()), ", active in ", Ms(last.activate_ns())));
  }
  if (status.has_last_switchover()) {
    const v1::LastSwitchover& last = status.last_switchover();
    const bool moved = last.term() != 0;
    rows.emplace_back("last switchover",
                      absl::StrCat(When(last.at_unix_ms()), ", to ", last.to_node(), " from epoch ",
                                   last.epoch(), " of term ", last.from_term(), ", ",
                                   moved ? absl::StrCat("stood still for ", Ms(last.pause_ns()))
                                         : absl::StrCat(last.result(), ": ", last.detail())));
  }
  rows.emplace_back("guest", absl::StrCat(status.machine().vcpus(), " vCPUs, ",
                                          status.machine().memory_mib(), " MiB"));
  AddTlsRows(status, rows);
  rows.emplace_back("daemon", absl::StrCat(status.build(), ", pid ", status.pid()));
  return rows;
}

std::string FormatStatus(const v1::GetStatusResponse& status) {
  return FormatTable(StatusRows(status));
}

TableRows ConfigurationRows(const v1::GetStatusResponse& status) {
  const v1::Tunables& tunables = status.tunables();
  TableRows rows = {
      {"guest",
       absl::StrCat(status.machine().vcpus(), " vCPUs, ", status.machine().memory_mib(), " MiB")},
      {"budget",
       absl::StrCat(tunables.max_dirty_pages(), " dirty pages, ", tunables.min_interval_us(),
                    " to ", tunables.max_interval_us(), " us, ", tunables.idle_interval_us(),
                    " us while nothing is written")},
      {"tracker", absl::StrCat(status.machine().tracker(), " ", status.machine().ring_entries())},
      {"peer", status.peer().node_name().empty()
                   ? "none"
                   : absl::StrCat(status.peer().node_name(), " at ", status.peer().address())},
      {"arbiter", status.has_arbiter() ? status.arbiter().kind() : "none"},
  };
  AddTlsRows(status, rows);
  for (const v1::DiskStatus& disk : status.disks()) {
    rows.emplace_back(absl::StrCat("disk ", disk.name()),
                      absl::StrCat(disk.path(), ", ", disk.size_bytes() >> 20, " MiB"));
  }
  for (const v1::DeviceStatus& device : status.devices())
    rows.emplace_back("device", device.name());
  return rows;
}

std::string FormatFailover(const v1::FailoverResponse& response) {
  return absl::StrCat("this node runs the guest in term ", response.term(), ", from epoch ",
                      response.epoch(), ", active in ", Ms(response.activate_ns()), "\n");
}

std::string FormatSwitchover(const v1::SwitchoverResponse& response) {
  return absl::StrCat(response.new_primary(), " runs the guest in term ", response.term(),
                      ", from epoch ", response.epoch(), " of term ", response.from_term(),
                      "; it stood still for ", Ms(response.pause_ns()), "\n");
}

std::string FormatPause(const v1::PauseResponse& response) {
  if (response.epoch() == 0) return "paused; not protected, so no epoch was cut\n";
  return absl::StrCat("paused; epoch ", response.epoch(), " is acked\n");
}

std::string FormatEpochs(const v1::ListEpochsResponse& response) {
  if (response.epochs().empty()) return "no epochs yet\n";
  std::string text = absl::StrFormat("%6s %9s %-9s %7s %10s %10s", "term", "epoch", "reason",
                                     "pages", "ran us", "pause us");
  for (const v1::PhaseTime& phase : response.epochs(0).phases()) {
    absl::StrAppendFormat(&text, " %8s", phase.phase());
  }
  absl::StrAppendFormat(&text, " %10s\n", "ack us");
  for (const v1::EpochRecord& record : response.epochs()) {
    absl::StrAppendFormat(&text, "%6d %9d %-9s %7d %10d %10d", record.term(), record.epoch(),
                          record.reason(), record.pages(), record.interval_ns() / 1000,
                          record.pause_ns() / 1000);
    for (const v1::PhaseTime& phase : record.phases()) {
      absl::StrAppendFormat(&text, " %8d", phase.ns() / 1000);
    }
    absl::StrAppendFormat(
        &text, " %10s\n",
        record.ack_latency_ns() == 0 ? "-" : absl::StrCat(record.ack_latency_ns() / 1000));
  }
  return text;
}

std::string FormatTunables(const v1::SetResponse& response) {
  const v1::Tunables& tunables = response.tunables();
  return FormatTable({{"max_dirty_pages", absl::StrCat(tunables.max_dirty_pages())},
                      {"max_interval_us", absl::StrCat(tunables.max_interval_us())},
                      {"min_interval_us", absl::StrCat(tunables.min_interval_us())},
                      {"idle_interval_us", absl::StrCat(tunables.idle_interval_us())}});
}

}  // namespace romulus::daemon

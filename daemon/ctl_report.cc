#include "daemon/ctl_report.h"

#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "daemon/clean_text.h"
#include "daemon/ctl_chart.h"
#include "daemon/ctl_events.h"
#include "daemon/ctl_format.h"
#include "daemon/table.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

// Nothing is loaded and nothing is run, whatever the text says.
constexpr absl::string_view kHead = R"(<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>
body { font: 15px/1.4 sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: 2px 10px 2px 0; border-bottom: 1px solid #ddd;
  overflow-wrap: anywhere; }
figure { margin: 1em 0; } figcaption span { margin-left: 1em; }
svg text { font-size: 11px; fill: #555; } svg text.top { fill: #222; }
.frame { fill: #f7f7f7; stroke: #ddd; }
polyline { fill: none; stroke-width: 1.5; }
polyline.a { stroke: #1668b8; } polyline.b { stroke: #c0392b; } span.a { color: #1668b8; } span.b { color: #c0392b; }
.mode-protected, .mode-finished { fill: #2e9e5b; } .mode-degraded, .mode-fenced { fill: #c0392b; }
.mode-solo, .mode-standby, .mode-unspecified { fill: #b0b0b0; } .mode-syncing, .mode-promoting { fill: #e0a100; }
tr.warning td { background: #fff6dd; } tr.error td { background: #fde4e0; }
</style>
)";

double Us(uint64_t ns) { return static_cast<double>(ns) / 1e3; }

std::string Table(const TableRows& rows) {
  std::string html = "<table>\n";
  for (const auto& [name, value] : rows) {
    absl::StrAppend(&html, "<tr><th>", EscapeHtml(name), "</th><td>", EscapeHtml(value),
                    "</td></tr>\n");
  }
  return html + "</table>\n";
}

std::string EventTable(const std::vector<v1::Event>& events) {
  std::string html =
      "<table id=\"events\"><tr><th>time (UTC)</th><th>term</th><th>event</th>"
      "<th>what</th></tr>\n";
  for (auto event = events.rbegin(); event != events.rend(); ++event) {
    const absl::Time time = absl::FromUnixMillis(
        google::protobuf::util::TimeUtil::TimestampToMilliseconds(event->time()));
    const std::string level =
        absl::AsciiStrToLower(absl::StripPrefix(v1::Severity_Name(event->severity()), "SEVERITY_"));
    std::string text = event->text();
    if (event->left_out() != 0) absl::StrAppend(&text, " (", event->left_out(), " more left out)");
    absl::StrAppend(&html, "<tr class=\"", EscapeHtml(level), "\"><td>",
                    absl::FormatTime("%Y-%m-%d %H:%M:%E3S", time, absl::UTCTimeZone()), "</td><td>",
                    event->term(), "</td><td>", EscapeHtml(event->kind()), "</td><td>",
                    EscapeHtml(text), "</td></tr>\n");
  }
  return html + "</table>\n";
}

std::string Charts(const v1::GetHistoryResponse& history) {
  using Sample = v1::HistorySample;
  if (history.samples().empty()) return "<p>There are no samples yet.</p>\n";
  std::string html = ModeBandSvg(history);
  html += ChartSvg("epochs acked", "/s",
                   {{"", "a", [](const Sample& s) { return s.epochs_per_second(); }}}, history);
  html += ChartSvg("pause of the guest", "us",
                   {{"p50", "a", [](const Sample& s) { return Us(s.pause_p50_ns()); }},
                    {"p99", "b", [](const Sample& s) { return Us(s.pause_p99_ns()); }}},
                   history);
  html += ChartSvg("latency of acks", "us",
                   {{"p50", "a", [](const Sample& s) { return Us(s.ack_latency_p50_ns()); }},
                    {"p99", "b", [](const Sample& s) { return Us(s.ack_latency_p99_ns()); }}},
                   history);
  html += ChartSvg("dirty pages", "per epoch",
                   {{"", "a", [](const Sample& s) { return s.pages_per_epoch(); }}}, history);
  html +=
      ChartSvg("replication", "KiB/s",
               {{"", "a", [](const Sample& s) { return s.bytes_per_second() / 1024; }}}, history);
  html += ChartSvg(
      "held output", "KiB",
      {{"", "a",
        [](const Sample& s) { return static_cast<double>(s.held_output_bytes()) / 1024; }}},
      history);
  return html;
}

// Written beside it first, so that a page is whole or not there.
absl::Status WriteFile(const std::string& file, const std::string& text) {
  const std::string part = file == "-" ? file : file + ".part";
  std::FILE* const out = file == "-" ? stdout : std::fopen(part.c_str(), "w");
  const auto failed = [&] {
    return absl::UnavailableError(absl::StrCat(part, ": ", std::strerror(errno)));
  };
  if (out == nullptr) return failed();
  bool good = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  good = std::fflush(out) == 0 && good;
  if (file == "-") return good ? absl::OkStatus() : failed();
  good = std::fclose(out) == 0 && good;
  if (good && std::rename(part.c_str(), file.c_str()) == 0) return absl::OkStatus();
  const absl::Status why = failed();
  ::unlink(part.c_str());
  return why;
}

}  // namespace

std::string EscapeHtml(absl::string_view text) {
  std::string html;
  for (const char c : CleanText(text)) {
    switch (c) {
      case '&':
        html += "&amp;";
        break;
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '"':
        html += "&quot;";
        break;
      case '\'':
        html += "&#39;";
        break;
      default:
        html += c;
    }
  }
  return html;
}

std::string ReportPage(const ReportData& data) {
  const std::string name = absl::StrCat(data.status.vm_name(), " on ", data.status.node_name());
  return absl::StrCat(
      kHead, "<title>Romulus: ", EscapeHtml(name), "</title></head><body>\n<h1>", EscapeHtml(name),
      "</h1>\n<p>As ", EscapeHtml(data.status.build()), " told it at ",
      absl::FormatTime("%Y-%m-%d %H:%M:%S", data.made, absl::UTCTimeZone()),
      " UTC. All times are UTC.</p>\n<h2>State</h2>\n", Table(StatusRows(data.status)),
      "<h2>Configuration</h2>\n", Table(ConfigurationRows(data.status)), "<h2>Graphs</h2>\n",
      Charts(data.history), "<h2>Events</h2>\n", EventTable(data.events), "</body></html>\n");
}

int WriteReport(CtlClient& client, const std::string& since, const std::string& file) {
  const absl::StatusOr<uint64_t> since_ms = ParseSince(since, absl::Now());
  if (!since_ms.ok()) {
    std::fprintf(stderr, "romulusctl: --since: %s\n",
                 std::string(since_ms.status().message()).c_str());
    return kExitUsage;
  }
  ReportData data;
  data.made = absl::Now();
  v1::GetHistoryRequest history;
  history.set_since_unix_ms(*since_ms);
  grpc::Status asked =
      client.Ask(&CtlClient::Stub::GetStatus, v1::GetStatusRequest(), &data.status);
  if (asked.ok()) asked = client.Ask(&CtlClient::Stub::GetHistory, history, &data.history);
  if (!asked.ok()) return client.Fail(asked);
  asked = ReadEvents(client, *since_ms, /*last=*/0, &data.events);
  if (!asked.ok()) return client.Fail(asked);
  const absl::Status written =
      WriteFile(file, client.arguments().json ? ToJson(data.history) : ReportPage(data));
  if (written.ok()) return kExitOk;
  std::fprintf(stderr, "romulusctl: %s\n", std::string(written.message()).c_str());
  return kExitFailed;
}

}  // namespace romulus::daemon

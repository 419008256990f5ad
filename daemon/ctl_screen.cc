#include "daemon/ctl_screen.h"

#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "daemon/clean_text.h"
#include "daemon/ctl_progress.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

constexpr std::array<const char*, 8> kBlocks = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<const char*, 8> kAscii = {"_", ".", "-", "~", "=", "+", "*", "#"};
constexpr size_t kLabelColumns = 30;

std::string Graph(const char* name, const std::deque<double>& values, const char* unit,
                  size_t columns, bool utf8) {
  const double now = values.empty() ? 0 : values.back();
  const size_t width = columns > kLabelColumns + 10 ? columns - kLabelColumns : 10;
  return absl::StrFormat("%-12s %10.1f %-5s %s", name, now, unit, Sparkline(values, width, utf8));
}

std::string Clock(int64_t unix_ms) {
  return absl::FormatTime("%H:%M:%S", absl::FromUnixMillis(unix_ms), absl::UTCTimeZone());
}

std::string Word(const std::string& name, absl::string_view prefix) {
  return absl::AsciiStrToLower(absl::StripPrefix(name, prefix));
}

}  // namespace

std::string Sparkline(const std::deque<double>& values, size_t width, bool utf8) {
  const auto& cells = utf8 ? kBlocks : kAscii;
  const size_t count = std::min(values.size(), width);
  const auto first = values.end() - static_cast<std::ptrdiff_t>(count);
  const double top = count == 0 ? 0 : *std::max_element(first, values.end());
  std::string line(width - count, ' ');
  for (auto at = first; at != values.end(); ++at) {
    const double share = top <= 0 ? 0 : std::clamp(*at / top, 0.0, 1.0);
    line += cells[std::min<size_t>(7, static_cast<size_t>(share * 8))];
  }
  return line;
}

void RecentRates::Push(std::deque<double>& values, double value) {
  values.push_back(value);
  if (values.size() > kCapacity) values.pop_front();
}

void RecentRates::Add(const v1::GetStatusResponse& status, uint64_t now_ns) {
  const uint64_t epochs = status.counters().epochs_acked();
  const uint64_t bytes = status.counters().bytes_sent();
  const bool goes_on =
      has_before_ && now_ns > before_ns_ && epochs >= before_epochs_ && bytes >= before_bytes_;
  const double seconds = static_cast<double>(now_ns - before_ns_) / 1e9;
  const uint64_t more = goes_on ? epochs - before_epochs_ : 0;
  Push(epochs_, goes_on ? static_cast<double>(more) / seconds : 0);
  Push(bytes_, goes_on ? static_cast<double>(bytes - before_bytes_) / seconds : 0);
  // Of the last epochs, which are old ones while there are no others.
  Push(pause_, more == 0 ? 0 : static_cast<double>(status.pause().p99_ns()) / 1e3);
  Push(ack_, more == 0 ? 0 : static_cast<double>(status.pause().ack_latency_p99_ns()) / 1e3);
  Push(held_, static_cast<double>(status.counters().held_output_bytes()) / 1024);
  has_before_ = true;
  before_ns_ = now_ns;
  before_epochs_ = epochs;
  before_bytes_ = bytes;
}

Mood MoodOf(v1::Mode mode) {
  switch (mode) {
    case v1::MODE_PROTECTED:
    case v1::MODE_FINISHED:
      return Mood::kGood;
    case v1::MODE_DEGRADED:
    case v1::MODE_FENCED:
      return Mood::kBad;
    default:
      return Mood::kBusy;
  }
}

std::vector<std::string> ScreenLines(const v1::GetStatusResponse& status, const RecentRates& recent,
                                     const std::vector<v1::Event>& events, size_t columns,
                                     bool utf8) {
  std::vector<std::string> lines;
  lines.push_back(absl::StrCat(
      status.vm_name(), " on ", status.node_name(), "   ",
      absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", absl::Now(), absl::UTCTimeZone()), "   q: quit"));
  lines.push_back(absl::StrCat(Word(v1::Role_Name(status.role()), "ROLE_"), ", ",
                               Word(v1::Mode_Name(status.mode()), "MODE_"), " since ",
                               Clock(static_cast<int64_t>(status.since_unix_ms())), ", term ",
                               status.term(), status.guest_paused() ? ", paused" : ""));
  lines.push_back(status.reason());
  const v1::Peer& peer = status.peer();
  if (!peer.node_name().empty()) {
    std::string text = absl::StrCat("peer ", peer.node_name(),
                                    peer.connected() ? ": connected" : ": not connected");
    if (peer.heard()) absl::StrAppend(&text, ", heard ", peer.heard_ms_ago(), " ms ago");
    if (!peer.detail().empty()) absl::StrAppend(&text, "; ", peer.detail());
    lines.push_back(text);
  }
  lines.push_back(status.sync().active() ? ProgressText(status, columns) : "");
  lines.push_back(Graph("epochs", recent.epochs_per_second(), "/s", columns, utf8));
  const bool primary = status.role() == v1::ROLE_PRIMARY;
  std::deque<double> kib;
  for (const double bytes : recent.bytes_per_second()) kib.push_back(bytes / 1024);
  lines.push_back(Graph(primary ? "sent" : "received", kib, "KiB/s", columns, utf8));
  if (primary) {
    lines.push_back(Graph("pause p99", recent.pause_p99_us(), "us", columns, utf8));
    lines.push_back(Graph("ack p99", recent.ack_p99_us(), "us", columns, utf8));
    lines.push_back(Graph("held output", recent.held_kib(), "KiB", columns, utf8));
  }
  lines.emplace_back();
  for (auto event = events.rbegin(); event != events.rend(); ++event) {
    lines.push_back(absl::StrCat(
        Clock(google::protobuf::util::TimeUtil::TimestampToMilliseconds(event->time())), " ",
        event->kind(), ": ", event->text()));
  }
  for (std::string& line : lines) line = CleanText(line);
  return lines;
}

}  // namespace romulus::daemon

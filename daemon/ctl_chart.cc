#include "daemon/ctl_chart.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "daemon/ctl_report.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

constexpr double kWidth = 900, kHeight = 120, kBandHeight = 14;

std::string Clock(uint64_t unix_ms) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%S", absl::FromUnixMillis(static_cast<int64_t>(unix_ms)),
                          absl::UTCTimeZone());
}

// Where on the page a time is. A clock that was set back leaves no time order: never out of the
// page.
class TimeAxis {
 public:
  explicit TimeAxis(const v1::GetHistoryResponse& history) {
    first_ = last_ = history.samples().empty() ? 0 : history.samples(0).unix_ms();
    for (const v1::HistorySample& sample : history.samples()) {
      first_ = std::min(first_, sample.unix_ms());
      last_ = std::max(last_, sample.unix_ms());
    }
  }
  double X(uint64_t unix_ms) const {
    if (last_ == first_) return kWidth / 2;
    return kWidth * static_cast<double>(unix_ms - first_) / static_cast<double>(last_ - first_);
  }
  std::string Labels(double y) const {
    return absl::StrFormat(
        R"(<text x="0" y="%.0f">%s</text><text x="%.0f" y="%.0f" text-anchor="end">%s</text>)", y,
        Clock(first_), kWidth, y, Clock(last_));
  }

 private:
  uint64_t first_, last_;
};

std::string Open(const std::string& title, double height) {
  return absl::StrFormat(
      R"(<svg viewBox="0 -4 %.0f %.0f" role="img" aria-label="%s"><title>%s</title>)", kWidth,
      height + 24, EscapeHtml(title), EscapeHtml(title));
}

std::string Polyline(const std::string& points, const std::string& css_class) {
  if (points.empty()) return "";
  return absl::StrCat("<polyline class=\"", css_class, "\" points=\"", points, "\"/>");
}

}  // namespace

std::string ChartSvg(const std::string& title, const std::string& unit,
                     const std::vector<ChartLine>& lines, const v1::GetHistoryResponse& history) {
  const TimeAxis axis(history);
  double top = 0;
  for (const ChartLine& line : lines) {
    for (const v1::HistorySample& sample : history.samples()) {
      const double value = line.value(sample);
      if (std::isfinite(value)) top = std::max(top, value);
    }
  }
  std::string svg = Open(title, kHeight);
  absl::StrAppendFormat(&svg, R"(<rect class="frame" x="0" y="0" width="%.0f" height="%.0f"/>)",
                        kWidth, kHeight);
  for (const ChartLine& line : lines) {
    std::string points;
    uint64_t before = 0;
    for (const v1::HistorySample& sample : history.samples()) {
      const uint64_t gap = 2 * uint64_t{history.period_ms()} + 1000;
      const bool goes_on = sample.unix_ms() >= before && sample.unix_ms() - before <= gap;
      if (!goes_on && !points.empty()) {
        svg += Polyline(points, line.css_class);
        points.clear();
      }
      before = sample.unix_ms();
      const double value = line.value(sample);
      const double share = top > 0 && std::isfinite(value) ? std::clamp(value / top, 0.0, 1.0) : 0;
      absl::StrAppendFormat(&points, "%.1f,%.1f ", axis.X(sample.unix_ms()), kHeight * (1 - share));
    }
    svg += Polyline(points, line.css_class);
  }
  svg += axis.Labels(kHeight + 14);
  absl::StrAppendFormat(&svg, R"(<text class="top" x="4" y="12">%.4g %s</text></svg>)", top,
                        EscapeHtml(unit));
  std::string legend;
  for (const ChartLine& line : lines) {
    absl::StrAppend(&legend, " <span class=\"", line.css_class, "\">", EscapeHtml(line.name),
                    "</span>");
  }
  return absl::StrCat("<figure><figcaption>", EscapeHtml(title), legend, "</figcaption>", svg,
                      "</figure>\n");
}

std::string ModeBandSvg(const v1::GetHistoryResponse& history) {
  const TimeAxis axis(history);
  std::string svg = Open("mode", kBandHeight);
  for (int i = 0; i < history.samples_size(); ++i) {
    const v1::HistorySample& sample = history.samples(i);
    const double from = i == 0 ? 0 : axis.X(history.samples(i - 1).unix_ms());
    const double width = std::max(1.0, axis.X(sample.unix_ms()) - from);
    const std::string mode =
        absl::AsciiStrToLower(absl::StripPrefix(v1::Mode_Name(sample.mode()), "MODE_"));
    absl::StrAppendFormat(
        &svg,
        R"(<rect class="mode-%s" x="%.1f" y="0" width="%.1f" height="%.0f"><title>%s %s, term %d)"
        "</title></rect>",
        mode, from, width, kBandHeight, Clock(sample.unix_ms()), mode, sample.term());
  }
  svg += axis.Labels(kBandHeight + 14);
  return absl::StrCat("<figure><figcaption>mode</figcaption>", svg, "</svg></figure>\n");
}

}  // namespace romulus::daemon

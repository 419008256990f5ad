// Graphs over time as SVG elements, for a page. Pure functions.
#ifndef ROMULUS_DAEMON_CTL_CHART_H_
#define ROMULUS_DAEMON_CTL_CHART_H_

#include <functional>
#include <string>
#include <vector>

#include "romulus/v1/control.pb.h"

namespace romulus::daemon {

struct ChartLine {
  std::string name;
  std::string css_class;
  std::function<double(const romulus::v1::HistorySample&)> value;
};

// `title` and `unit` are plain text. A gap of more than two periods between samples is a gap in the
// lines.
std::string ChartSvg(const std::string& title, const std::string& unit,
                     const std::vector<ChartLine>& lines,
                     const romulus::v1::GetHistoryResponse& history);
// A band that has the colour of each sample's mode (class "mode-protected", ...).
std::string ModeBandSvg(const romulus::v1::GetHistoryResponse& history);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_CHART_H_

// `romulusctl report`: one HTML page that needs nothing else and asks nobody: graphs as inline SVG,
// no script. One thread.
#ifndef ROMULUS_DAEMON_CTL_REPORT_H_
#define ROMULUS_DAEMON_CTL_REPORT_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "daemon/ctl_client.h"
#include "romulus/v1/control.pb.h"

namespace romulus::daemon {

// Fit for an element's content and for an attribute in double quotes, whoever said it.
std::string EscapeHtml(absl::string_view text);

struct ReportData {
  romulus::v1::GetStatusResponse status;
  romulus::v1::GetHistoryResponse history;
  std::vector<romulus::v1::Event> events;
  absl::Time made;
};
std::string ReportPage(const ReportData& data);

// Asks, and writes the page, or with --json the samples, to `file` ("-": standard output), which is
// there whole or as it was. Returns the exit code.
int WriteReport(CtlClient& client, const std::string& since, const std::string& file);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_REPORT_H_

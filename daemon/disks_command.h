// `romulusd disks`: what the stamps beside this node's disks say, what is wrong with them, and
// which node's copies are newer. Locks no disk: it may be asked while the daemon runs.
#ifndef ROMULUS_DAEMON_DISKS_COMMAND_H_
#define ROMULUS_DAEMON_DISKS_COMMAND_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "daemon/config.h"
#include "disk/file.h"
#include "romulus/v1/disk_stamp.pb.h"

namespace romulus::daemon {

// Of the disks that are replicated.
romulus::v1::DiskReport DiskReportOf(const romulus::v1::Config& config, disk::Files& files);
// The JSON that the other node's `romulusd disks --json` printed. Errors: InvalidArgument.
absl::StatusOr<romulus::v1::DiskReport> ParseDiskReport(absl::string_view json);
// Fills in `report.newest`. Errors: FailedPrecondition if `other` is of another VM or the same
// node.
absl::Status CompareReports(const romulus::v1::DiskReport& other, romulus::v1::DiskReport& report);
std::string DiskReportTable(const romulus::v1::DiskReport& report);
// Prints; returns the exit code. `compare`: path of the other node's report; empty: none.
int DisksCommand(const romulus::v1::Config& config, const std::string& compare, bool json);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_DISKS_COMMAND_H_

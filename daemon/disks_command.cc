#include "daemon/disks_command.h"

#include <google/protobuf/util/json_util.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "daemon/exit_codes.h"
#include "daemon/guest_disks.h"
#include "daemon/json.h"
#include "daemon/table.h"
#include "disk/copy.h"
#include "disk/stamp_proto.h"

namespace romulus::daemon {
namespace {

constexpr uint64_t kMaxReportBytes = 1u << 20;

// A copy's age, in words.
std::string Age(const romulus::v1::DiskReport::Copy& copy) {
  if (!copy.error().empty()) return copy.error();
  if (!copy.has_stamp()) return "never stamped";
  const absl::StatusOr<disk::Stamp> stamp = disk::StampOf(copy.stamp());
  if (!stamp.ok()) return std::string(stamp.status().message());
  std::string text = absl::StrCat(disk::ModeName(stamp->mode), ", term ", stamp->term.value());
  if (stamp->mode == disk::Mode::kSecondary) {
    absl::StrAppend(&text, ", epoch ", stamp->epoch.value(), stamp->is_clean ? "" : " or later");
  }
  if (stamp->mode == disk::Mode::kSyncing) {
    absl::StrAppend(&text, ": no whole disk, it has to be copied again");
  }
  absl::StrAppend(&text, stamp->is_clean ? ", closed" : ", in use or not closed");
  return text;
}

}  // namespace

romulus::v1::DiskReport DiskReportOf(const romulus::v1::Config& config, disk::Files& files) {
  romulus::v1::DiskReport report;
  report.set_vm_uuid(config.uuid());
  report.set_node(config.node_name());
  for (int i = 0; i < config.guest().disks_size(); ++i) {
    const disk::CopySpec spec = CopySpecOf(config, i);
    if (spec.read_only) continue;
    romulus::v1::DiskReport::Copy* copy = report.add_copies();
    copy->set_name(spec.name);
    copy->set_path(spec.path);
    const disk::Inspection found = disk::Inspect(spec, files);
    if (!found.status.ok()) copy->set_error(std::string(found.status.message()));
    if (found.stamp.mode != disk::Mode::kNever)
      *copy->mutable_stamp() = disk::MessageOf(found.stamp);
  }
  return report;
}

absl::StatusOr<romulus::v1::DiskReport> ParseDiskReport(absl::string_view json) {
  google::protobuf::util::JsonParseOptions options;
  options.ignore_unknown_fields = true;  // of a newer romulusd
  romulus::v1::DiskReport report;
  const auto parsed =
      google::protobuf::util::JsonStringToMessage(std::string(json), &report, options);
  if (parsed.ok()) return report;
  return absl::InvalidArgumentError(
      absl::StrCat("is not what `romulusd disks --json` prints: ", parsed.ToString()));
}

absl::Status CompareReports(const romulus::v1::DiskReport& other, romulus::v1::DiskReport& report) {
  if (other.vm_uuid() != report.vm_uuid()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the other report is of the VM ", other.vm_uuid(), ", not of ", report.vm_uuid()));
  }
  if (other.node() == report.node()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the other report is of this node too, ", report.node()));
  }
  for (const romulus::v1::DiskReport::Copy& ours : report.copies()) {
    for (const romulus::v1::DiskReport::Copy& theirs : other.copies()) {
      if (ours.name() != theirs.name()) continue;
      romulus::v1::DiskReport::Newest* newest = report.add_newest();
      newest->set_name(ours.name());
      disk::Stamp stamps[2];
      const romulus::v1::DiskReport::Copy* copies[] = {&ours, &theirs};
      for (int i = 0; i < 2; ++i) {
        std::string error = copies[i]->error();
        if (error.empty() && copies[i]->has_stamp()) {
          const absl::StatusOr<disk::Stamp> stamp = disk::StampOf(copies[i]->stamp());
          if (stamp.ok()) stamps[i] = *stamp;
          if (!stamp.ok()) error = std::string(stamp.status().message());
        }
        if (!error.empty()) newest->set_why(absl::StrCat("a copy cannot be judged: ", error));
      }
      if (!newest->why().empty()) continue;
      const disk::Comparison comparison = disk::CompareStamps(stamps[0], stamps[1]);
      if (comparison.newest >= 0) {
        newest->set_node(comparison.newest == 0 ? report.node() : other.node());
      }
      newest->set_why(comparison.why);
    }
  }
  return absl::OkStatus();
}

std::string DiskReportTable(const romulus::v1::DiskReport& report) {
  TableRows rows;
  for (const romulus::v1::DiskReport::Copy& copy : report.copies()) {
    rows.emplace_back(copy.name(), Age(copy));
    rows.emplace_back("", copy.path());
  }
  for (const romulus::v1::DiskReport::Newest& newest : report.newest()) {
    rows.emplace_back(
        absl::StrCat(newest.name(), ", newest"),
        absl::StrCat(newest.node().empty() ? "not known" : newest.node(), ": ", newest.why()));
  }
  return rows.empty() ? "no disks that are replicated\n" : FormatTable(rows);
}

int DisksCommand(const romulus::v1::Config& config, const std::string& compare, bool json) {
  disk::Files& files = disk::PosixFiles();
  romulus::v1::DiskReport report = DiskReportOf(config, files);
  if (!compare.empty()) {
    const auto compared = [&]() -> absl::Status {
      ROMULUS_ASSIGN_OR_RETURN(const std::optional<std::string> text,
                               files.ReadText(compare, kMaxReportBytes));
      if (!text) return absl::NotFoundError(absl::StrCat(compare, ": there is no such file"));
      ROMULUS_ASSIGN_OR_RETURN(const romulus::v1::DiskReport other, ParseDiskReport(*text));
      return CompareReports(other, report);
    }();
    if (!compared.ok()) {
      std::fprintf(stderr, "romulusd: %s: %s\n", compare.c_str(),
                   std::string(compared.message()).c_str());
      return kExitFailed;
    }
  }
  std::fputs((json ? ToJson(report) : DiskReportTable(report)).c_str(), stdout);
  for (const romulus::v1::DiskReport::Copy& copy : report.copies()) {
    if (!copy.error().empty()) return kExitFailed;
  }
  return kExitOk;
}

}  // namespace romulus::daemon

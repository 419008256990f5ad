// `romulusd disks`: what it finds, prints and compares.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>

#include "daemon/disks_command.h"
#include "daemon/guest_disks.h"
#include "daemon/json.h"
#include "disk/copy.h"
#include "support/temp_folder.h"

namespace romulus::daemon {
namespace {

using romulus::testing::TempFolder;
using romulus::testing::WriteAll;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kUuid[] = "6f1c5ba0-0000-4000-8000-000000000001";

struct Host {
  explicit Host(const std::string& node) {
    config.set_uuid(kUuid);
    config.set_node_name(node);
    for (const std::string name : {"root", "data", "cd"}) {
      romulus::v1::Disk* disk = config.mutable_guest()->add_disks();
      disk->set_name(name);
      disk->set_path(folder.MakeFile(name + ".img", 4096));
      disk->set_read_only(name == "cd");
    }
  }
  void Stamp(int which, disk::Mode mode, uint64_t term, uint64_t epoch = 0, bool close = false) {
    auto copy = disk::DiskCopy::Open(CopySpecOf(config, which), disk::PosixFiles());
    ASSERT_TRUE(copy.ok()) << copy.status();
    disk::Stamp stamp;
    stamp.mode = mode;
    stamp.term = Term(term);
    stamp.epoch = EpochId(epoch);
    ASSERT_TRUE((*copy)->SetStamp(stamp).ok());
    if (close) {
      ASSERT_TRUE((*copy)->Close().ok());
    }
  }
  romulus::v1::DiskReport Report() { return DiskReportOf(config, disk::PosixFiles()); }

  TempFolder folder;
  romulus::v1::Config config;
};

TEST(DisksCommandTest, SaysWhatTheStampsSay) {
  Host host("alpha");
  host.Stamp(0, disk::Mode::kSecondary, 3, 17);
  const romulus::v1::DiskReport report = host.Report();
  ASSERT_EQ(report.copies_size(), 2);  // the read-only one is not replicated
  EXPECT_EQ(report.copies(0).stamp().epoch(), 17u);
  EXPECT_FALSE(report.copies(1).has_stamp());
  const std::string table = DiskReportTable(report);
  EXPECT_THAT(table, HasSubstr("secondary, term 3, epoch 17 or later"));
  EXPECT_THAT(table, HasSubstr("never stamped"));
  EXPECT_THAT(table, HasSubstr("root.img"));
}

TEST(DisksCommandTest, NamesTheNewerCopiesOfTwoHosts) {
  Host alpha("alpha"), beta("beta");
  alpha.Stamp(0, disk::Mode::kPrimaryProtected, 3);
  alpha.Stamp(1, disk::Mode::kPrimaryProtected, 3);
  beta.Stamp(0, disk::Mode::kSecondary, 3, 17);
  beta.Stamp(1, disk::Mode::kPrimarySolo, 4);
  // As it travels.
  const auto other = ParseDiskReport(ToJson(beta.Report()));
  ASSERT_TRUE(other.ok()) << other.status();
  romulus::v1::DiskReport report = alpha.Report();
  ASSERT_TRUE(CompareReports(*other, report).ok());
  ASSERT_EQ(report.newest_size(), 2);
  EXPECT_EQ(report.newest(0).node(), "alpha");
  EXPECT_THAT(report.newest(0).why(), HasSubstr("only followed"));
  EXPECT_EQ(report.newest(1).node(), "beta");
  EXPECT_THAT(report.newest(1).why(), HasSubstr("term is higher"));
  EXPECT_THAT(DiskReportTable(report), HasSubstr("data, newest"));
}

TEST(DisksCommandTest, RefusesWhatCannotBeCompared) {
  Host alpha("alpha"), beta("beta");
  romulus::v1::DiskReport report = alpha.Report();
  EXPECT_TRUE(absl::IsFailedPrecondition(CompareReports(alpha.Report(), report)));
  beta.config.set_uuid("another");
  EXPECT_TRUE(absl::IsFailedPrecondition(CompareReports(beta.Report(), report)));
  EXPECT_FALSE(ParseDiskReport("no json").ok());
  EXPECT_FALSE(ParseDiskReport("").ok());
}

TEST(DisksCommandTest, ADamagedStampIsAnErrorAndNeverNewer) {
  Host alpha("alpha"), beta("beta");
  alpha.Stamp(0, disk::Mode::kPrimarySolo, 3);
  beta.Stamp(0, disk::Mode::kPrimarySolo, 4);
  WriteAll(beta.folder.Path("root.img.romulus"), "nonsense");
  romulus::v1::DiskReport report = alpha.Report();
  ASSERT_TRUE(CompareReports(beta.Report(), report).ok());
  EXPECT_EQ(report.newest(0).node(), "");
  EXPECT_THAT(report.newest(0).why(), HasSubstr("root.img.romulus"));
}

// What a daemon that starts refuses is no copy that could be the newer one.
TEST(DisksCommandTest, SaysWhatADaemonWouldRefuse) {
  const auto expect = [](Host& host, const std::string& what) {
    SCOPED_TRACE(what);
    const romulus::v1::DiskReport report = host.Report();
    EXPECT_THAT(report.copies(0).error(),
                AllOf(HasSubstr(host.folder.Path("root.img")), HasSubstr(what)));
    EXPECT_EQ(report.copies(1).error(), "");
    EXPECT_THAT(DiskReportTable(report), HasSubstr(what));
    Host beta("beta");
    beta.config.mutable_guest()->mutable_disks(0)->set_name(report.copies(0).name());
    romulus::v1::DiskReport compared = beta.Report();
    ASSERT_TRUE(CompareReports(report, compared).ok());
    EXPECT_EQ(compared.newest(0).node(), "");
    EXPECT_THAT(compared.newest(0).why(), AllOf(HasSubstr("cannot be judged"), HasSubstr(what)));
  };
  Host changed("alpha");
  changed.Stamp(0, disk::Mode::kPrimarySolo, 3, 0, /*close=*/true);
  std::filesystem::last_write_time(changed.folder.Path("root.img"),
                                   std::filesystem::file_time_type() + std::chrono::hours(1));
  expect(changed, "was written to by somebody else");

  Host exchanged("alpha");
  exchanged.Stamp(0, disk::Mode::kPrimarySolo, 3);
  std::filesystem::rename(exchanged.folder.Path("root.img"), exchanged.folder.Path("kept"));
  exchanged.folder.MakeFile("root.img", 4096);
  expect(exchanged, "is another file than the one");

  Host grown("alpha");
  grown.Stamp(0, disk::Mode::kPrimarySolo, 3);
  std::filesystem::resize_file(grown.folder.Path("root.img"), 8192);
  expect(grown, "has 8192 bytes, and had 4096");

  Host renamed("alpha");
  renamed.Stamp(0, disk::Mode::kPrimarySolo, 3);
  renamed.config.mutable_guest()->mutable_disks(0)->set_name("system");
  expect(renamed, "says that it is the disk \"root\", not \"system\"");

  Host gone("alpha");
  gone.Stamp(0, disk::Mode::kPrimarySolo, 3);
  std::filesystem::remove(gone.folder.Path("root.img"));
  expect(gone, "there is no such disk");
}

TEST(DisksCommandTest, SaysWhoseSideFileItIs) {
  Host host("alpha");
  host.Stamp(0, disk::Mode::kPrimarySolo, 3);
  host.config.set_uuid("6f1c5ba0-0000-4000-8000-000000000002");
  EXPECT_THAT(
      host.Report().copies(0).error(),
      AllOf(HasSubstr("root.img.romulus"), HasSubstr(kUuid), HasSubstr("remove that file")));
}

}  // namespace
}  // namespace romulus::daemon

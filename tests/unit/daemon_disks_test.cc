// `romulusd disks`: what it finds, prints and compares.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/disks_command.h"
#include "daemon/json.h"
#include "disk/copy.h"
#include "support/temp_folder.h"

namespace romulus::daemon {
namespace {

using romulus::testing::TempFolder;
using romulus::testing::WriteAll;
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
  void Stamp(int which, disk::Mode mode, uint64_t term, uint64_t epoch = 0) {
    disk::CopySpec spec;
    spec.vm_uuid = kUuid;
    spec.node = config.node_name();
    spec.name = config.guest().disks(which).name();
    spec.path = config.guest().disks(which).path();
    auto copy = disk::DiskCopy::Open(spec, disk::PosixFiles());
    ASSERT_TRUE(copy.ok()) << copy.status();
    disk::Stamp stamp;
    stamp.mode = mode;
    stamp.term = Term(term);
    stamp.epoch = EpochId(epoch);
    ASSERT_TRUE((*copy)->SetStamp(stamp).ok());
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

}  // namespace
}  // namespace romulus::daemon

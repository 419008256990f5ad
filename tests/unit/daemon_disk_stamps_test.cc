// A primary's side files: what they say in which mode, in which order, and which copies no guest is
// booted on. On real files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "daemon/disk_stamps.h"

namespace romulus::daemon {
namespace {

using testing::HasSubstr;

constexpr uint64_t kBytes = 1u << 20;

class DiskStampsTest : public testing::Test {
 protected:
  DiskStampsTest() : folder_(testing::TempDir() + "/stamps.XXXXXX") {
    EXPECT_NE(::mkdtemp(folder_.data()), nullptr);
    for (const char* name : {"root", "data"}) {
      std::ofstream(Path(name)).close();
      std::filesystem::resize_file(Path(name), kBytes);
    }
    Open();
  }
  ~DiskStampsTest() override {
    stamps_.reset();
    copies_.clear();
    std::filesystem::remove_all(folder_);
  }
  std::string Path(const std::string& name) { return absl::StrCat(folder_, "/", name, ".img"); }
  // As a daemon that starts: what it knows is what the files say.
  void Open() {
    stamps_.reset();
    copies_.clear();
    for (const char* name : {"root", "data"}) {
      disk::CopySpec spec;
      spec.vm_uuid = "uuid";
      spec.node = "alpha";
      spec.disk = static_cast<uint32_t>(copies_.size());
      spec.name = name;
      spec.path = Path(name);
      auto copy = disk::DiskCopy::Open(spec, disk::PosixFiles());
      ASSERT_TRUE(copy.ok()) << copy.status();
      copies_.push_back(*std::move(copy));
    }
    stamps_ = std::make_unique<DiskStamps>(copies_);
  }
  absl::Status Bootable() {
    romulus::v1::Checkpoint checkpoint;
    return stamps_->MakeBootable(DiskFilesOptionsFrom(checkpoint, copies_.size()),
                                 disk::PosixFiles());
  }
  disk::Stamp StampOf(size_t i) { return copies_[i]->stamp(); }
  void SetMode(disk::Mode mode, uint64_t term) {
    for (const auto& copy : copies_) {
      disk::Stamp stamp;
      stamp.mode = mode;
      stamp.term = Term(term);
      ASSERT_TRUE(copy->SetStamp(stamp).ok());
    }
  }

  std::string folder_;
  DiskCopies copies_;
  std::unique_ptr<DiskStamps> stamps_;
};

TEST_F(DiskStampsTest, WhatIsRecordedIsThereAfterACrash) {
  EXPECT_TRUE(Bootable().ok());
  EXPECT_EQ(stamps_->newest_term(), Term(0));
  ASSERT_TRUE(stamps_->Record(Term(16), false, std::nullopt).ok());
  ASSERT_TRUE(stamps_->Record(Term(32), true, Term(32)).ok());
  Open();
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(StampOf(i).mode, disk::Mode::kPrimaryProtected);
    EXPECT_EQ(StampOf(i).term, Term(32));
    EXPECT_EQ(StampOf(i).covers_term, Term(32));
    EXPECT_FALSE(StampOf(i).is_clean);
  }
  EXPECT_EQ(stamps_->newest_term(), Term(32)) << "the next term is beyond it";
  EXPECT_TRUE(Bootable().ok());
  ASSERT_TRUE(stamps_->Record(Term(48), false, std::nullopt).ok());
  EXPECT_EQ(StampOf(0).mode, disk::Mode::kPrimarySolo);
  EXPECT_EQ(StampOf(0).covers_term, Term(32)) << "what it contains it goes on to contain";
  const std::vector<wire::DiskCopy> hello = stamps_->ForHello();
  ASSERT_EQ(hello.size(), 2u);
  EXPECT_EQ(hello[1].name, "data");
  EXPECT_EQ(hello[1].size_bytes, kBytes);
  EXPECT_EQ(hello[1].role, romulus::v1::DISK_COPY_ROLE_PRIMARY);
  EXPECT_EQ(hello[1].covers_term, Term(32));
}

// The sync's thread and the control loop both record: what comes late must not undo what is newer.
TEST_F(DiskStampsTest, NothingGoesBack) {
  ASSERT_TRUE(stamps_->Record(Term(32), true, Term(32)).ok());
  ASSERT_TRUE(stamps_->Record(Term(32), false, Term(32)).ok());
  EXPECT_EQ(StampOf(0).mode, disk::Mode::kPrimaryProtected) << "within its term";
  ASSERT_TRUE(stamps_->Record(Term(48), false, std::nullopt).ok());
  ASSERT_TRUE(stamps_->Record(Term(32), true, Term(32)).ok());
  EXPECT_EQ(StampOf(0).mode, disk::Mode::kPrimarySolo);
  EXPECT_EQ(StampOf(0).term, Term(48));
}

TEST_F(DiskStampsTest, AnErrorNamesTheFileAndTheOldStampHolds) {
  ASSERT_TRUE(stamps_->Record(Term(16), false, std::nullopt).ok());
  // Root may write anywhere, but no file can be made where a folder is missing.
  const std::string gone = folder_ + ".gone";
  std::filesystem::rename(folder_, gone);
  const absl::Status failed = stamps_->Record(Term(32), false, std::nullopt);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("root.img.romulus"));
  std::filesystem::rename(gone, folder_);
  EXPECT_EQ(StampOf(0).term, Term(16));
  EXPECT_TRUE(stamps_->Record(Term(32), false, std::nullopt).ok());
  EXPECT_EQ(StampOf(1).term, Term(32));
}

TEST_F(DiskStampsTest, AnUnfinishedCopyIsNotBooted) {
  SetMode(disk::Mode::kSyncing, 32);
  const absl::Status refused = Bootable();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr(Path("root")));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("start the other node as the primary"));
}

// An operator starts a secondary's copy as the primary's: the one that it followed may have gone on
// in the same term, so it is not contained.
TEST_F(DiskStampsTest, ASecondarysCopyIsBootedAndDoesNotContainItsPrimarys) {
  romulus::v1::Checkpoint checkpoint;
  {
    auto replica =
        replica::DiskFiles::Open(copies_, DiskFilesOptionsFrom(checkpoint, 2), disk::PosixFiles());
    ASSERT_TRUE(replica.ok()) << replica.status();
    ASSERT_TRUE((*replica)->BeginSync(Term(32)).ok());
    ASSERT_TRUE((*replica)->EndSync(Term(32)).ok());
    epoch::DiskWrite write;
    write.disk = 1;
    write.size_bytes = 512;
    write.data.assign(512, std::byte{'w'});
    ASSERT_TRUE((*replica)->Journal({Term(32), EpochId(7)}, {&write, 1}).ok());
  }
  Open();
  ASSERT_TRUE(Bootable().ok()) << Bootable();
  // The journal is applied: the guest would see the epoch.
  std::byte first[512];
  ASSERT_TRUE(copies_[1]->file()->Read(0, first).ok());
  EXPECT_EQ(first[0], std::byte{'w'});
  EXPECT_EQ(stamps_->newest_term(), Term(32));
  ASSERT_TRUE(stamps_->Record(Term(48), false, std::nullopt).ok());
  EXPECT_EQ(StampOf(0).covers_term, Term(31));
  EXPECT_EQ(StampOf(0).mode, disk::Mode::kPrimarySolo);
}

TEST_F(DiskStampsTest, TheLineageSurvivesAndAStartDoesNotChangeIt) {
  EXPECT_EQ(stamps_->lineage(), Lineage{});
  EXPECT_FALSE(stamps_->may_be_superseded());
  const Lineage promoted{Term(65), Term(32), Term(81)};
  stamps_->SetLineage(promoted);
  ASSERT_TRUE(stamps_->Record(Term(81), true, Term(81)).ok());
  for (uint64_t term : {96, 112, 128}) {
    Open();
    EXPECT_EQ(stamps_->lineage(), promoted);
    EXPECT_TRUE(stamps_->may_be_superseded()) << "it was protected";
    ASSERT_TRUE(stamps_->Record(Term(term), true, std::nullopt).ok());
  }
  Open();
  EXPECT_EQ(StampOf(0).lineage, promoted);
  ASSERT_TRUE(stamps_->Record(Term(144), false, std::nullopt).ok());
  EXPECT_FALSE(stamps_->may_be_superseded());
  EXPECT_EQ(StampOf(1).lineage, promoted);
}

// What is held since the start is nobody's news: after any number of starts the copies are as old
// as they were, and whoever was promoted may overwrite them.
TEST_F(DiskStampsTest, AHeldStartLeavesTheCopiesWhatTheyWere) {
  stamps_->SetLineage({.promoted = {}, .covers = {}, .shared = Term(32)});
  ASSERT_TRUE(stamps_->Record(Term(32), true, Term(32)).ok());
  ASSERT_TRUE(stamps_->Close().ok());
  EXPECT_TRUE(StampOf(0).is_clean);
  Open();
  ASSERT_TRUE(stamps_->RecordHeld().ok());
  EXPECT_FALSE(StampOf(0).is_clean) << "the guest writes to it";
  EXPECT_EQ(StampOf(0).term, Term(32));
  EXPECT_EQ(StampOf(0).mode, disk::Mode::kPrimaryProtected);
  EXPECT_EQ(StampOf(0).lineage.shared, Term(32));
  Open();
  EXPECT_EQ(stamps_->newest_term(), Term(32));
  EXPECT_TRUE(stamps_->may_be_superseded());
}

TEST_F(DiskStampsTest, APromotionThatDidNotReachAllDisksWasNone) {
  const Lineage promoted{Term(65), Term(32), Term(32)};
  disk::Stamp stamp;
  stamp.mode = disk::Mode::kPrimarySolo;
  stamp.term = Term(65);
  stamp.lineage = promoted;
  ASSERT_TRUE(copies_[0]->SetStamp(stamp).ok());
  EXPECT_EQ(stamps_->lineage(), promoted) << "the other is new in the configuration";
  stamp.mode = disk::Mode::kSecondary;
  stamp.term = Term(32);
  stamp.lineage = {};
  ASSERT_TRUE(copies_[1]->SetStamp(stamp).ok());
  EXPECT_EQ(stamps_->lineage(), (Lineage{Term(), Term(), Term(32)}));
}

TEST_F(DiskStampsTest, WithoutDisksEverythingSucceeds) {
  DiskStamps none({});
  EXPECT_TRUE(none.Record(Term(1), true, Term(1)).ok());
  EXPECT_TRUE(none.ForHello().empty());
  EXPECT_EQ(none.newest_term(), Term(0));
  EXPECT_TRUE(none.Close().ok());
}

}  // namespace
}  // namespace romulus::daemon

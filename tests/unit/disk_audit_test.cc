// A secondary's disks are compared at exactly the epoch that a hash is for, whatever of it and of
// later ones is still in the journal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "disk_files_rig.h"
#include "support/fault_files.h"

namespace romulus::replica {
namespace {

using namespace testing;  // NOLINT: the rig
using romulus::testing::FaultFiles;

class DiskAuditTest : public ::testing::Test {
 protected:
  void Open(bool own_thread, absl::Duration patience = absl::ZeroDuration()) {
    DiskFilesOptions options;
    options.segment_bytes = 64 << 10;
    options.apply_bytes = 32 << 10;
    options.own_thread = own_thread;
    options.audit_patience = patience;
    files_.Make("/root.img", std::string(kSizes[0], 'r'));
    files_.Make("/data.img", std::string(kSizes[1], 'd'));
    images_ = {std::string(kSizes[0], 'R'), std::string(kSizes[1], 'D')};
    secondary_ = *Secondary::Open(files_, options);
    ASSERT_TRUE(FullSync(disks(), images_).ok());
    Epoch({});
  }
  DiskFiles& disks() { return *secondary_->disks; }
  void Epoch(const std::vector<DiskWrite>& writes, bool audited = false) {
    ++epoch_;
    ApplyTo(images_, writes);
    ASSERT_TRUE(disks().Journal(Key(epoch_), writes).ok());
    ASSERT_TRUE(disks().Apply(Key(epoch_)).ok());
    if (!audited) return;
    std::vector<epoch::DiskAuditRun> runs;
    for (int which = 0; which < 2; ++which) {
      runs.push_back({kNumbers[which], 0, {codec::HashDiskBlock(base::AsBytes(images_[which]))}});
    }
    disks().Audit(Key(epoch_), runs);
  }
  DiskAuditFindings TakeAudited() {
    found_.Add(disks().TakeAudited());
    return found_;
  }
  // By the thread.
  DiskAuditFindings AwaitAudited(uint64_t blocks) {
    while (TakeAudited().compared < blocks) absl::SleepFor(absl::Milliseconds(1));
    return found_;
  }
  // Behind everybody's back.
  void Flip(int which, uint64_t offset) {
    disk::File& file = *secondary_->copies[which]->file();
    std::byte byte{};
    ASSERT_TRUE(file.Read(offset, std::span(&byte, 1)).ok());
    byte ^= std::byte{4};
    ASSERT_TRUE(file.Write(offset, std::span<const std::byte>(&byte, 1)).ok());
  }

  FaultFiles files_;
  Images images_;
  std::unique_ptr<Secondary> secondary_;
  uint64_t epoch_ = 0;
  DiskAuditFindings found_;
};

TEST_F(DiskAuditTest, WhatIsJournaledIsComparedOnceItIsApplied) {
  Open(/*own_thread=*/false);
  Epoch({Filled(0, 3, 'x')}, /*audited=*/true);
  EXPECT_EQ(TakeAudited().compared, 0u) << "the disks do not have it yet";
  // Fills the segment, on the other disk.
  for (int n = 0; n < 3; ++n) Epoch({Filled(2, 0, 'y', 30)});
  EXPECT_EQ(TakeAudited().compared, 1u) << "the other one has been written since";
  EXPECT_EQ(found_.mismatched, 0u);
}

TEST_F(DiskAuditTest, WithoutWritesItIsComparedAtOnce) {
  Open(/*own_thread=*/false);
  Epoch({}, /*audited=*/true);
  EXPECT_EQ(TakeAudited().compared, 2u);
  EXPECT_EQ(found_.mismatched, 0u);
}

TEST_F(DiskAuditTest, AFlippedByteIsToldWithItsEpoch) {
  Open(/*own_thread=*/false);
  Flip(1, 777);
  Epoch({}, /*audited=*/true);
  ASSERT_EQ(TakeAudited().mismatches.size(), 1u);
  EXPECT_EQ(found_.mismatched, 1u);
  EXPECT_EQ(found_.mismatches[0].epoch, EpochId(epoch_));
  EXPECT_EQ(found_.mismatches[0].block, (epoch::DiskBlock{2, 0}));
  // As the repair does.
  Epoch({Data(2, 0, images_[1])});
  ASSERT_TRUE(disks().GiveUp().ok());
  EXPECT_TRUE(*secondary_->Read() == images_);
}

TEST_F(DiskAuditTest, TheThreadAppliesWhatIsWaitedFor) {
  Open(/*own_thread=*/true);
  Epoch({Filled(0, 3, 'x'), Filled(2, 1, 'y')}, /*audited=*/true);
  EXPECT_EQ(AwaitAudited(2).mismatched, 0u);
}

TEST_F(DiskAuditTest, ANewSyncForgetsWhatTheOldStreamAsked) {
  Open(/*own_thread=*/false);
  Epoch({Filled(0, 3, 'x')}, /*audited=*/true);
  Flip(0, 5);
  ASSERT_TRUE(FullSync(disks(), images_, Term(2)).ok());
  ASSERT_TRUE(disks().Journal(Key(1, 2), {}).ok());
  ASSERT_TRUE(disks().Apply(Key(1, 2)).ok());
  EXPECT_EQ(TakeAudited().compared, 0u);
}

// Epochs of all kinds, some compared, at the pace of the thread.
TEST_F(DiskAuditTest, NoFalseAlarmUnderAnyLoad) {
  Open(/*own_thread=*/true);
  std::mt19937_64 random(3);
  for (int n = 0; n < 3000; ++n) {
    Epoch(RandomWrites(random), /*audited=*/n % 3 == 0);
    if (n % 50 == 0) {
      const uint64_t before = TakeAudited().compared;
      Epoch({}, /*audited=*/true);
      AwaitAudited(before + 2);
    }
    ASSERT_EQ(TakeAudited().mismatched, 0u) << "epoch " << epoch_;
  }
  EXPECT_GE(TakeAudited().compared, 60u);
  ASSERT_TRUE(disks().Promote(Key(epoch_), Term(2)).ok());
  EXPECT_TRUE(*secondary_->Read() == images_);
}

}  // namespace
}  // namespace romulus::replica

// A secondary's disks: the order of calls, what is refused, errors.
#include "replica/disk_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "disk_files_rig.h"
#include "support/fault_files.h"

namespace romulus::replica {
namespace {

using namespace testing;  // NOLINT: the rig
using romulus::testing::FaultFiles;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct FilesRig {
  explicit FilesRig(Durability durability = Durability::kFlush) {
    options.durability = durability;
    options.segment_bytes = 16 << 10;
    options.apply_bytes = 4 << 10;
    options.own_thread = false;
    files.Make("/root.img", std::string(kSizes[0], 'r'));
    files.Make("/data.img", std::string(kSizes[1], 'd'));
    images = {std::string(kSizes[0], 'R'), std::string(kSizes[1], 'D')};
    Open();
  }
  void Open() {
    secondary.reset();
    secondary = *Secondary::Open(files, options);
  }
  DiskFiles& disks() { return *secondary->disks; }
  void Follow() {
    ASSERT_TRUE(FullSync(disks(), images).ok());
    ASSERT_TRUE(disks().Journal(Key(1), {}).ok());
    ASSERT_TRUE(disks().Apply(Key(1)).ok());
  }
  absl::Status Epoch(uint64_t epoch, const std::vector<DiskWrite>& writes) {
    const absl::Status status = disks().Journal(Key(epoch), writes);
    if (status.ok()) ApplyTo(images, writes);
    return status;
  }
  disk::Mode mode(size_t which = 0) { return secondary->copies[which]->stamp().mode; }
  bool Equal() { return *secondary->Read() == images; }

  FaultFiles files;
  DiskFilesOptions options;
  Images images;
  std::unique_ptr<Secondary> secondary;
};

TEST(DiskFilesTest, AFreshCopyIsSyncedThenFollowsThenIsPromoted) {
  FilesRig rig;
  EXPECT_FALSE(rig.disks().usable().ok());
  std::vector<DiskFacts> facts = rig.disks().facts();
  ASSERT_EQ(facts.size(), 2u);
  EXPECT_EQ(facts[1].disk, 2u);
  EXPECT_EQ(facts[1].name, "data");
  EXPECT_EQ(facts[1].path, "/data.img");
  EXPECT_EQ(facts[1].size_bytes, kSizes[1]);
  EXPECT_EQ(facts[1].role, CopyRole::kNever);
  EXPECT_EQ(facts[1].stamp, EpochKey());
  ASSERT_TRUE(FullSync(rig.disks(), rig.images, Term(1)).ok());
  EXPECT_EQ(rig.disks().facts()[0].role, CopyRole::kSyncing);
  EXPECT_EQ(rig.mode(1), disk::Mode::kSyncing);
  EXPECT_FALSE(rig.disks().usable().ok());
  ASSERT_TRUE(rig.Epoch(1, {Filled(0, 5, 'x')}).ok());
  EXPECT_EQ(rig.disks().facts()[0].role, CopyRole::kSecondary);
  EXPECT_EQ(rig.disks().facts()[0].stamp, Key(1));
  EXPECT_EQ(rig.mode(1), disk::Mode::kSecondary);
  ASSERT_TRUE(rig.disks().Apply(Key(1)).ok());
  ASSERT_TRUE(rig.Epoch(2, {Filled(2, 5, 'y'), Discard(0, 0, 3)}).ok());
  ASSERT_TRUE(rig.disks().Promote(Key(2), Term(4)).ok());
  EXPECT_TRUE(rig.Equal());
  EXPECT_EQ(rig.mode(), disk::Mode::kPrimarySolo);
  EXPECT_EQ(rig.secondary->copies[1]->stamp().term, Term(4));
  // Not term 3, in which the old primary may have gone on alone.
  EXPECT_EQ(rig.secondary->copies[1]->stamp().covers_term, Term(1));
  EXPECT_EQ(rig.secondary->copies[1]->stamp().lineage, (Lineage{Term(4), Term(1), Term(1)}));
  EXPECT_FALSE(rig.files.Exists("/root.img.journal"));
  EXPECT_EQ(rig.disks().facts()[0].role, CopyRole::kPrimary);
  EXPECT_FALSE(rig.disks().BeginSync(Term(5)).ok());
  EXPECT_FALSE(rig.disks().Promote(Key(2), Term(5)).ok());
}

TEST(DiskFilesTest, P2_NoWriteReachesADiskBeforeItIsToBeApplied) {
  FilesRig rig;
  rig.Follow();
  const Images before = rig.images;
  for (uint64_t epoch = 2; epoch < 5; ++epoch)
    ASSERT_TRUE(rig.Epoch(epoch, {Filled(0, epoch, 'x', 2)}).ok());
  EXPECT_EQ(*rig.secondary->Read(), before);
}

TEST(DiskFilesTest, P2_PromotionForgetsWhatWasJournaledLater) {
  FilesRig rig;
  rig.Follow();
  ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x')}).ok());
  const Images images = rig.images;
  ASSERT_TRUE(rig.Epoch(3, {Filled(0, 1, 'y'), Filled(0, 9, 'y')}).ok());
  ASSERT_TRUE(rig.disks().Promote(Key(2), Term(2)).ok());
  EXPECT_TRUE(*rig.secondary->Read() == images);
}

TEST(DiskFilesTest, RefusesToPromoteWhatIsNotThere) {
  FilesRig rig;
  EXPECT_FALSE(rig.disks().Promote(Key(1), Term(2)).ok());
  rig.Follow();
  const absl::Status status = rig.disks().Promote(Key(7), Term(2));
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/root.img"));
  EXPECT_TRUE(rig.disks().Promote(Key(1), Term(2)).ok());
}

TEST(DiskFilesTest, P3_AfterAPromotionThatFailedTheyAreASecondarysAgain) {
  for (const bool own_thread : {false, true}) {
    FilesRig rig;
    rig.options.own_thread = own_thread;
    rig.Open();
    EXPECT_FALSE(rig.disks().TakeBack(Key(1)).ok());
    rig.Follow();
    ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x', 10)}).ok());
    const Term covered = rig.secondary->copies[0]->stamp().covers_term;
    ASSERT_TRUE(rig.disks().Promote(Key(2), Term(7)).ok());
    EXPECT_EQ(rig.mode(), disk::Mode::kPrimarySolo);
    ASSERT_TRUE(rig.disks().TakeBack(Key(2)).ok());
    for (int restarts = 0; restarts < 2; ++restarts) {
      EXPECT_TRUE(rig.disks().usable().ok()) << rig.disks().usable();
      EXPECT_EQ(rig.disks().newest(), Key(2));
      for (size_t which = 0; which < 2; ++which) {
        EXPECT_EQ(rig.mode(which), disk::Mode::kSecondary);
        EXPECT_EQ(rig.secondary->copies[which]->stamp().term, Term(1));
        EXPECT_EQ(rig.secondary->copies[which]->stamp().covers_term, covered);
      }
      EXPECT_TRUE(rig.Equal());
      rig.Open();
    }
    // And a primary may come again.
    ASSERT_TRUE(FullSync(rig.disks(), rig.images, Term(9)).ok());
    ASSERT_TRUE(rig.disks().Journal(Key(1, 9), {{Filled(0, 1, 'z', 12)}}).ok());
    ASSERT_TRUE(rig.disks().Apply(Key(1, 9)).ok());
    EXPECT_TRUE(rig.disks().Promote(Key(1, 9), Term(10)).ok());
  }
}

// How a node starts as primary from what it had as a secondary.
TEST(DiskFilesTest, P2_AfterARestartTheNewestEpochCanBePromoted) {
  FilesRig rig;
  rig.Follow();
  ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x'), Filled(2, 1, 'x')}).ok());
  ASSERT_TRUE(rig.Epoch(3, {Discard(0, 1, 1)}).ok());
  rig.Open();
  ASSERT_TRUE(rig.disks().usable().ok()) << rig.disks().usable();
  EXPECT_TRUE(rig.Equal());
  EXPECT_EQ(rig.disks().newest(), Key(3));
  ASSERT_TRUE(rig.disks().Promote(rig.disks().newest(), Term(5)).ok());
  EXPECT_EQ(rig.mode(1), disk::Mode::kPrimarySolo);
  rig.Open();
  EXPECT_FALSE(rig.disks().usable().ok());  // a primary's: nothing is replayed over it
  EXPECT_TRUE(rig.Equal());
  EXPECT_EQ(rig.disks().facts()[0].stamp.term, Term(5));
}

TEST(DiskFilesTest, WhatFailsIsToldAtEveryStep) {
  for (const std::string step : {"disk_files.stamp", "disk_files.journal", "disk_files.apply"}) {
    base::Failpoints failpoints;
    FilesRig rig;
    rig.options.failpoints = &failpoints;
    rig.Open();
    failpoints.Arm(step);
    absl::Status status = FullSync(rig.disks(), rig.images);
    if (status.ok()) status = rig.disks().Journal(Key(1), {{Filled(0, 1, 'x', 10)}});
    if (status.ok()) status = rig.disks().Apply(Key(1));
    EXPECT_EQ(failpoints.Fired(step), 1u) << step;
    EXPECT_THAT(std::string(status.message()), HasSubstr("/root.img")) << step;
  }
}

TEST(DiskFilesTest, EpochsWithoutWritesCostNothing) {
  FilesRig rig(Durability::kEpoch);
  rig.Follow();
  const uint64_t before = rig.files.operations();
  for (uint64_t epoch = 2; epoch < 1000; ++epoch) {
    ASSERT_TRUE(rig.disks().Journal(Key(epoch), {}).ok());
    ASSERT_TRUE(rig.disks().Apply(Key(epoch)).ok());
  }
  ASSERT_TRUE(rig.Epoch(1000, {Flush()}).ok());
  EXPECT_EQ(rig.files.operations(), before);
  EXPECT_EQ(rig.disks().newest(), Key(1000));
}

TEST(DiskFilesTest, AStreamRenewedInATermGoesOn) {
  FilesRig rig;
  rig.Follow();
  ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x')}).ok());
  ASSERT_TRUE(rig.disks().GiveUp().ok());
  EXPECT_TRUE(rig.Equal());
  EXPECT_EQ(rig.secondary->copies[0]->stamp().epoch, EpochId(2));
  EXPECT_FALSE(rig.Epoch(3, {}).ok());  // a full sync has to come first
  rig.images[0][0] = '!';
  ASSERT_TRUE(FullSync(rig.disks(), rig.images).ok());
  ASSERT_TRUE(rig.Epoch(3, {Filled(0, 2, 'y')}).ok());
  ASSERT_TRUE(rig.disks().Close().ok());
  rig.Open();
  EXPECT_TRUE(rig.disks().usable().ok()) << rig.disks().usable();
  EXPECT_EQ(rig.disks().newest(), Key(3));
  EXPECT_TRUE(rig.secondary->copies[0]->stamp().is_clean);
  EXPECT_TRUE(rig.Equal());
}

TEST(DiskFilesTest, HashesWhatIsThere) {
  FilesRig rig;
  ASSERT_TRUE(FullSync(rig.disks(), rig.images).ok());
  EXPECT_FALSE(rig.disks().HashBlocks(0, 0, 1).ok());  // the sync is over
  ASSERT_TRUE(rig.disks().BeginSync(Term(1)).ok());
  ASSERT_TRUE(rig.disks().ZeroBlocks(2, 0, kSizes[1]).ok());
  const auto hashes = rig.disks().HashBlocks(0, 0, 1);
  ASSERT_TRUE(hashes.ok()) << hashes.status();
  EXPECT_EQ((*hashes)[0], codec::HashDiskBlock(base::AsBytes(rig.images[0])));
  EXPECT_EQ((*rig.disks().HashBlocks(2, 0, 1))[0], codec::ZeroDiskBlockHash(kSizes[1]));
  EXPECT_TRUE(rig.disks().HashBlocks(0, 1, 0)->empty());
  EXPECT_FALSE(rig.disks().HashBlocks(0, 1, 1).ok());
  EXPECT_FALSE(rig.disks().HashBlocks(0, UINT64_MAX, 2).ok());
  EXPECT_FALSE(rig.disks().HashBlocks(1, 0, 1).ok());
}

TEST(DiskFilesTest, P7_RefusesWhatIsNotWithinADisk) {
  FilesRig rig;
  ASSERT_TRUE(rig.disks().BeginSync(Term(1)).ok());
  const std::string sector(512, 'x');
  EXPECT_FALSE(rig.disks().WriteBlocks(1, 0, base::AsBytes(sector)).ok());
  EXPECT_FALSE(rig.disks().WriteBlocks(0, kSizes[0], base::AsBytes(sector)).ok());
  EXPECT_FALSE(rig.disks().WriteBlocks(0, UINT64_MAX - 511, base::AsBytes(sector)).ok());
  EXPECT_FALSE(rig.disks().ZeroBlocks(0, 0, UINT64_MAX).ok());
  EXPECT_FALSE(rig.disks().EndSync(Term(2)).ok());
  ASSERT_TRUE(rig.disks().EndSync(Term(1)).ok());
  DiskWrite odd = Filled(0, 0, 'x');
  odd.offset_bytes = 100;
  DiskWrite lies = Filled(0, 0, 'x');
  lies.size_bytes = 1024;
  for (const DiskWrite& bad : {Filled(1, 0, 'x'), Filled(0, kSizes[0] / 512, 'x'),
                               Discard(0, 1, kSizes[0] / 512), odd, lies}) {
    EXPECT_TRUE(absl::IsInvalidArgument(rig.disks().Journal(Key(1), {{bad}})));
  }
  ASSERT_TRUE(rig.Epoch(1, {Filled(0, 0, 'x')}).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(rig.disks().Journal(Key(1), {})));
  EXPECT_FALSE(rig.disks().Apply(Key(2)).ok());
}

TEST(DiskFilesTest, P5_NoSpaceLeavesTheJournalAsItWas) {
  for (const std::string where : {".journal", "root.img"}) {
    for (const uint64_t at : {1u, 2u}) {
      FilesRig rig;
      rig.Follow();
      ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x')}).ok());
      rig.files.FailAt(at, absl::ResourceExhaustedError("/the/file: full"), where);
      // The image's first operation is the search for space.
      const absl::Status status = rig.Epoch(3, {Filled(0, 80, 'y', 2), Flush()});
      if (where == "root.img") {
        EXPECT_TRUE(status.ok()) << "the block was reserved before";
        continue;
      }
      EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("/the/file"));
      EXPECT_EQ(rig.disks().newest(), Key(2));
      ASSERT_TRUE(rig.disks().Promote(Key(2), Term(2)).ok());
      EXPECT_TRUE(rig.Equal());
    }
  }
}

TEST(DiskFilesTest, P5_NoSpaceOnADiskIsFoundBeforeTheEpochCounts) {
  FilesRig rig;
  rig.Follow();
  rig.files.FailAt(1, absl::ResourceExhaustedError("/root.img: full"), "root.img");
  const absl::Status status = rig.Epoch(2, {Filled(0, 1, 'x')});
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_EQ(rig.disks().newest(), Key(1));
  EXPECT_TRUE(rig.disks().health().ok());
  ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x')}).ok());  // there is room again
}

TEST(DiskFilesTest, WhatCannotBeAppliedIsToldAndTriedAgainByThePromotion) {
  FilesRig rig;
  rig.Follow();
  ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x', 10)}).ok());
  rig.files.FailAt(1, absl::DataLossError("/root.img: I/O error"), "root.img");
  EXPECT_TRUE(absl::IsDataLoss(rig.disks().Apply(Key(2))));
  EXPECT_TRUE(absl::IsDataLoss(rig.disks().Journal(Key(3), {})));
  ASSERT_TRUE(rig.disks().Promote(Key(2), Term(2)).ok());
  EXPECT_TRUE(rig.Equal());
}

TEST(DiskFilesTest, AJournalThatCannotBeSyncedIsNotBelieved) {
  FilesRig rig(Durability::kEpoch);
  rig.Follow();
  ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x')}).ok());
  rig.files.FailAt(2, absl::DataLossError("/root.img.journal: cannot sync"), ".journal");
  const absl::Status status = rig.Epoch(3, {Filled(0, 2, 'y')});
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_FALSE(rig.Epoch(3, {Filled(0, 2, 'y')}).ok());
  EXPECT_EQ(rig.disks().newest(), Key(2));
  rig.Open();  // nor does a restart find the epoch that was refused
  EXPECT_EQ(rig.disks().newest(), Key(2));
  EXPECT_TRUE(rig.Equal());
}

TEST(DiskFilesTest, WithoutItsJournalACopyIsNotTrusted) {
  FilesRig rig;
  rig.Follow();
  ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x'), Flush()}).ok());
  rig.secondary.reset();
  ASSERT_TRUE(rig.files.Remove("/root.img.journal").ok());
  rig.Open();
  const absl::Status usable = rig.disks().usable();
  EXPECT_TRUE(absl::IsDataLoss(usable));
  EXPECT_THAT(std::string(usable.message()), HasSubstr("/root.img.journal"));
  // Still of its term: whoever does not contain that must not overwrite it.
  const DiskFacts facts = rig.disks().facts()[0];
  EXPECT_EQ(facts.role, CopyRole::kSecondary);
  EXPECT_EQ(facts.stamp, Key(1));
  EXPECT_EQ(facts.unusable, usable.message());
  EXPECT_FALSE(rig.disks().Promote(Key(1), Term(2)).ok());
  EXPECT_TRUE(FullSync(rig.disks(), rig.images).ok());  // that mends it
}

TEST(DiskFilesTest, P2_ADamagedJournalMakesACopyUnusableAndIsTold) {
  FilesRig rig(Durability::kEpoch);
  std::vector<std::string> told;
  rig.options.on_dropped = [&](const std::string& path, const DroppedTail& tail) {
    told.push_back(absl::StrCat(path, " at ", tail.offset_bytes, " after epoch ",
                                tail.last_kept.epoch.value()));
  };
  rig.Open();
  rig.Follow();
  for (uint64_t epoch = 2; epoch <= 4; ++epoch) {
    ASSERT_TRUE(rig.Epoch(epoch, {Filled(0, epoch, 'x')}).ok());
  }
  EXPECT_TRUE(told.empty());
  rig.secondary.reset();
  const std::string good = rig.files.Content("/root.img.journal");
  const size_t record = DiskJournal::RecordBytes(std::vector<DiskWrite>{Filled(0, 1, 'x')});
  // Of the epochs 2, 3, 4.
  for (uint64_t epoch = 2; epoch <= 4; ++epoch) {
    std::string bad = good;
    bad[4096 + (epoch - 2) * record + 200] ^= 1;
    rig.files.SetContent("/root.img.journal", bad);
    rig.files.LosePower(epoch);
    told.clear();
    rig.Open();
    ASSERT_EQ(told.size(), 1u);
    EXPECT_EQ(told[0], absl::StrCat("/root.img.journal at ", 4096 + (epoch - 2) * record,
                                    " after epoch ", epoch == 2 ? 0 : epoch - 1));
    const absl::Status usable = rig.disks().usable();
    if (epoch == 4) {  // nothing proves that it was ever whole
      EXPECT_TRUE(usable.ok()) << usable;
      EXPECT_EQ(rig.disks().newest(), Key(3));
      continue;
    }
    EXPECT_TRUE(absl::IsDataLoss(usable)) << usable;
    EXPECT_THAT(std::string(usable.message()),
                AllOf(HasSubstr("/root.img.journal"), HasSubstr("copied again")));
    EXPECT_FALSE(rig.disks().Promote(rig.disks().newest(), Term(2)).ok());
    EXPECT_EQ(rig.secondary->Read()->at(0)[1024], 'R');  // nothing of it was applied
    rig.secondary.reset();
  }
}

TEST(DiskFilesTest, AnotherCopysJournalIsNotTaken) {
  FilesRig rig;
  rig.Follow();
  ASSERT_TRUE(rig.Epoch(2, {Filled(0, 1, 'x'), Flush()}).ok());
  FilesRig other;
  other.Follow();
  ASSERT_TRUE(other.Epoch(2, {Filled(0, 1, 'y'), Flush()}).ok());
  rig.secondary.reset();
  rig.files.SetContent("/root.img.journal", other.files.Content("/root.img.journal"));
  rig.Open();
  EXPECT_THAT(std::string(rig.disks().usable().message()), HasSubstr("belongs to other disks"));
  EXPECT_EQ(rig.secondary->Read()->at(0)[512], 'R');
}

TEST(DiskFilesTest, P6_ALargeEpochWaitsForTheOtherSegment) {
  for (const bool own_thread : {false, true}) {
    FilesRig rig;
    rig.options.own_thread = own_thread;
    rig.Open();
    rig.Follow();
    for (uint64_t epoch = 2; epoch < 40; ++epoch) {
      ASSERT_TRUE(rig.Epoch(epoch, {Filled(0, epoch, static_cast<char>(epoch), 24)}).ok());
    }
    EXPECT_TRUE(absl::IsResourceExhausted(rig.Epoch(40, {Filled(0, 0, 'x', 40)})));  // never fits
    EXPECT_LE(rig.files.Content("/root.img.journal").size(), 4096 + 2 * rig.options.segment_bytes);
    ASSERT_TRUE(rig.disks().Promote(Key(39), Term(2)).ok());
    EXPECT_TRUE(rig.Equal());
  }
}

}  // namespace
}  // namespace romulus::replica

// A journal that is damaged is not one whose end was torn by a power loss.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "disk_journal_rig.h"
#include "replica/disk_journal_format.h"
#include "support/temp_folder.h"

namespace romulus::replica {
namespace {

using namespace testing;  // NOLINT: the rig
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

JournalOptions OtherBoot() {
  JournalOptions options = Options();
  options.boot_id = "second boot";
  return options;
}

// Where a record begins in a journal that has all of them in its first segment, and how long it is.
size_t Begin(uint64_t epoch) {
  size_t at = 4096;
  for (uint64_t i = 1; i < epoch; ++i) at += DiskJournal::RecordBytes(WritesOf(i));
  return at;
}
size_t Length(uint64_t epoch) {
  size_t length = sizeof(journal::RecordHeader);
  for (const DiskWrite& write : WritesOf(epoch)) {
    if (journal::IsRecorded(write)) length += sizeof(journal::WriteEntry) + write.data.size();
  }
  return length;
}

std::string Flipped(std::string bytes, size_t at) {
  bytes[at] = static_cast<char>(bytes[at] ^ (1 << at % 8));
  return bytes;
}

void ExpectDamage(const absl::Status& loaded, size_t at) {
  ASSERT_TRUE(absl::IsDataLoss(loaded)) << "byte " << at << ": " << loaded;
  ASSERT_THAT(std::string(loaded.message()), AllOf(HasSubstr(kPath), HasSubstr("at byte ")));
}

// Each epoch was synced before the next one came. `begun`: of the journal; `found`: of who loads.
void FlipEveryByte(const JournalOptions& begun, const JournalOptions& found) {
  JournalRig made;
  made.Make(0, begun);
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    ASSERT_TRUE(made.journal->Append(Key(epoch), WritesOf(epoch)).ok());
    ASSERT_TRUE(made.journal->Sync().ok());
  }
  const std::string good = made.files.Content(kPath);
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    for (size_t at = Begin(epoch); at < Begin(epoch) + Length(epoch); ++at) {
      JournalRig rig;
      rig.files.Make(kPath, Flipped(good, at));
      const absl::Status loaded = rig.Load(found);
      if (epoch < 3) {
        ExpectDamage(loaded, at);
        EXPECT_FALSE(rig.journal->Append(Key(9), WritesOf(1)).ok());
        continue;
      }
      // The last one: nobody knows better, but it is told.
      ASSERT_TRUE(loaded.ok()) << at << ": " << loaded;
      ASSERT_THAT(rig.journal->dropped(), SizeIs(1)) << at;
      const DroppedTail& tail = rig.journal->dropped()[0];
      EXPECT_EQ(tail.offset_bytes, Begin(3));
      EXPECT_GE(tail.size_bytes, 512u);
      EXPECT_EQ(tail.last_kept, Key(2));
      EXPECT_EQ(rig.List(), LinesOf(2));
    }
  }
}

TEST(DiskDamageTest, P2_ABadRecordBelowWhatWasSyncedIsDamage) {
  FlipEveryByte(Options(), OtherBoot());
}

TEST(DiskDamageTest, P2_WhileTheHostRunsABadRecordBeforeAnotherIsDamage) {
  JournalOptions never = Options();
  never.is_durable = false;
  FlipEveryByte(never, never);
}

TEST(DiskDamageTest, WhatWasNeverSyncedMayBeTornAnywhereByAPowerLoss) {
  JournalRig made;
  made.Make(1);
  for (uint64_t epoch = 2; epoch <= 3; ++epoch) {
    ASSERT_TRUE(made.journal->Append(Key(epoch), WritesOf(epoch)).ok());
  }
  const std::string good = made.files.Content(kPath);
  for (size_t at = Begin(2); at < Begin(2) + Length(2); ++at) {
    JournalRig rig;
    rig.files.Make(kPath, Flipped(good, at));
    ASSERT_TRUE(rig.Load(OtherBoot()).ok()) << at;
    ASSERT_THAT(rig.journal->dropped(), SizeIs(1));
    // The third, which is whole, is dropped with it.
    EXPECT_EQ(rig.journal->dropped()[0].size_bytes, Begin(4) - Begin(2));
    EXPECT_EQ(rig.List(), LinesOf(1));
    JournalRig same_boot;
    same_boot.files.Make(kPath, Flipped(good, at));
    ExpectDamage(same_boot.Load(), at);
  }
  // The second says that the first was synced; and so does what is left of it.
  for (size_t at = Begin(1); at < Begin(1) + Length(1); ++at) {
    JournalRig rig;
    rig.files.Make(kPath, Flipped(good, at).substr(0, Begin(2) + 512));
    ExpectDamage(rig.Load(OtherBoot()), at);
  }
}

TEST(DiskDamageTest, TheOtherSegmentProvesDamageToo) {
  for (const bool synced : {false, true}) {
    JournalRig made;
    made.Make(1);
    ASSERT_TRUE(made.journal->Append(Key(2), WritesOf(2)).ok());
    made.journal->CloseOpen();
    if (synced) {
      ASSERT_TRUE(made.journal->Sync().ok());
    }
    ASSERT_TRUE(made.journal->Append(Key(3), WritesOf(3)).ok());
    const std::string bad = Flipped(made.files.Content(kPath), Begin(2) + 100);
    JournalRig rig;
    rig.files.Make(kPath, bad);
    if (synced) {
      ExpectDamage(rig.Load(OtherBoot()), Begin(2) + 100);
      EXPECT_EQ(rig.files.Content(kPath), bad);  // nothing was changed
      continue;
    }
    ASSERT_TRUE(rig.Load(OtherBoot()).ok());
    ASSERT_THAT(rig.journal->dropped(), SizeIs(2));
    EXPECT_EQ(rig.journal->dropped()[1].offset_bytes, 4096 + kSegment);
    EXPECT_EQ(rig.journal->dropped()[1].last_kept, Key(1));
    EXPECT_EQ(rig.List(), LinesOf(1));
    JournalRig same_boot;
    same_boot.files.Make(kPath, bad);
    ExpectDamage(same_boot.Load(), Begin(2) + 100);
  }
}

TEST(DiskDamageTest, AnEndIsNotTakenForATornRecord) {
  JournalRig rig;
  rig.Make(0);
  for (uint64_t round = 0; round < 3; ++round) {
    // Segments are used again, with less in them than before.
    for (uint64_t epoch = 1; epoch <= 3 - round; ++epoch) {
      ASSERT_TRUE(rig.journal->Append(Key(10 * round + epoch), WritesOf(epoch)).ok());
    }
    ASSERT_TRUE(rig.Load().ok());
    EXPECT_THAT(rig.journal->dropped(), IsEmpty());
    EXPECT_EQ(rig.List(), LinesOf(3 - round));
    ASSERT_TRUE(rig.journal->Append(Key(10 * round + 8), WritesOf(1)).ok());
    EXPECT_EQ(rig.List(), LinesOf(1));
  }
}

TEST(DiskDamageTest, WhatWasForgottenIsNotMissed) {
  JournalRig rig;
  rig.Make(2);  // synced, then taken back: its stamp could not be written
  rig.journal->Forget();
  rig.journal->CloseOpen();
  Listing listing;
  ASSERT_TRUE(rig.journal->ApplyClosed(Key(9), listing).ok());
  ASSERT_TRUE(rig.journal->FreeClosed().ok());
  ASSERT_TRUE(rig.journal->Append(Key(3), WritesOf(3)).ok());
  ASSERT_TRUE(rig.Load().ok());
  EXPECT_EQ(rig.List(), LinesOf(3).substr(LinesOf(2).size()));
}

// A hostile head may say that a segment is as large as it likes.
TEST(DiskDamageTest, P7_HolesAreNotRead) {
  romulus::testing::TempFolder folder;
  const std::string path = folder.path() + "/journal";
  JournalRig made;
  made.Make(1, Options(uint64_t{1} << 39));
  {
    std::ofstream out(path, std::ios::binary);
    const std::string bytes = made.files.Content(kPath);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    out.seekp(static_cast<std::streamoff>(uint64_t{1} << 39));
    out.put('x');
  }
  DiskJournal journal(*disk::PosixFiles().OpenJournal(path), Options());
  ASSERT_TRUE(journal.Load().ok());
  EXPECT_EQ(journal.newest(), Key(1));
}

}  // namespace
}  // namespace romulus::replica

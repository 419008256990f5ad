// The journal: its bytes, damage to them, and what does not fit.
#include "replica/disk_journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "disk_journal_rig.h"
#include "replica/disk_journal_format.h"

namespace romulus::replica {
namespace {

using namespace testing;  // NOLINT: the rig
using ::testing::AllOf;
using ::testing::HasSubstr;

// Blocks that are not zeros: one line "OFFSET HEX" each, without the zeros at its end.
std::string ToText(const std::string& bytes) {
  std::string text;
  for (size_t at = 0; at < bytes.size(); at += 512) {
    std::string block = bytes.substr(at, 512);
    block.resize(block.find_last_not_of('\0') + 1);
    if (!block.empty()) absl::StrAppend(&text, at, " ", absl::BytesToHexString(block), "\n");
  }
  return text;
}
std::string FromText(const std::string& text) {
  std::string bytes;
  std::istringstream lines(text);
  size_t at;
  std::string hex;
  while (lines >> at >> hex) {
    const std::string block = absl::HexStringToBytes(hex);
    bytes.resize(std::max(bytes.size(), at + 512));
    bytes.replace(at, block.size(), block);
  }
  return bytes;
}

// An empty journal with the id of another one.
std::string Empty(const std::string& other) {
  journal::Header header;
  std::memcpy(&header, other.data(), sizeof(header));
  header.in_use = 0;
  header.generation = 0;
  header.sum = journal::SumOf(header.id, header);
  std::string bytes(4096, '\0');
  for (const size_t at : {0, 1024}) std::memcpy(bytes.data() + at, &header, sizeof(header));
  return bytes;
}

// Written down because a secondary may be restarted with another build over its journal. It changes
// with the format's number only: then ROMULUS_WRITE_GOLDEN=1 writes it anew.
TEST(DiskJournalTest, GoldenBytes) {
  const std::string path = std::string(ROMULUS_GOLDEN_FOLDER) + "/disk_journal.hex";
  JournalRig rig;
  if (std::getenv("ROMULUS_WRITE_GOLDEN") != nullptr) {
    rig.Make(0);
    rig.WriteGolden();
    std::ofstream(path) << ToText(rig.files.Content(kPath));
  }
  std::ifstream in(path);
  const std::string golden = FromText({std::istreambuf_iterator<char>(in), {}});
  ASSERT_FALSE(golden.empty()) << path;
  rig.journal.reset();
  rig.files.Make(kPath, golden);
  ASSERT_TRUE(rig.Load().ok());
  EXPECT_EQ(rig.journal->newest(), Key(3));
  EXPECT_EQ(rig.List(), LinesOf(3));
  // And the other way round: the same steps, on an empty journal of that id, give those bytes.
  JournalRig again;
  again.files.Make(kPath, Empty(golden));
  ASSERT_TRUE(again.Load().ok()) << again.Load();
  again.WriteGolden();
  EXPECT_EQ(ToText(again.files.Content(kPath)), ToText(golden));
}

TEST(DiskJournalTest, HoldsWhatWasAppendedThroughARestart) {
  JournalRig rig;
  rig.Make(3);
  const std::string id = rig.journal->id();
  ASSERT_TRUE(rig.Load().ok());
  EXPECT_EQ(rig.journal->id(), id);
  EXPECT_EQ(rig.journal->newest(), Key(3));
  EXPECT_EQ(rig.List(), LinesOf(3));
  ASSERT_TRUE(rig.Load().ok());
  EXPECT_EQ(rig.journal->newest(), Key(3));  // known although nothing is left of it
  EXPECT_EQ(rig.List(), "");
}

TEST(DiskJournalTest, AFlippedBitIsFoundWhereverItIs) {
  JournalRig made;
  made.Make(3);
  const std::string good = made.files.Content(kPath);
  for (size_t at = 0; at < good.size(); ++at) {
    JournalRig rig;
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    rig.files.Make(kPath, bad);
    if (!rig.Load().ok()) continue;
    const std::string list = rig.List();
    bool is_prefix = false;
    for (uint64_t epochs = 0; epochs <= 3; ++epochs) is_prefix |= list == LinesOf(epochs);
    ASSERT_TRUE(is_prefix) << "byte " << at << ": " << list;
    // In the last record's padding, or where nothing is looked at.
    if (list != LinesOf(3)) {
      ASSERT_NE(rig.journal->newest(), Key(3)) << at;
    }
  }
}

TEST(DiskJournalTest, DamageInASealedSegmentIsAnError) {
  JournalRig made;
  made.Make(3);
  made.journal->CloseOpen();
  Listing ignored;
  ASSERT_TRUE(made.journal->ApplyClosed(Key(0), ignored).ok());
  const std::string good = made.files.Content(kPath);
  int errors = 0;
  for (size_t at = 4096; at < good.size(); ++at) {
    JournalRig rig;
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ (1 << at % 8));
    rig.files.Make(kPath, bad);
    const absl::Status loaded = rig.Load();
    if (loaded.ok()) {
      ASSERT_EQ(rig.List(), LinesOf(3)) << at;
    } else {
      ASSERT_TRUE(absl::IsDataLoss(loaded)) << loaded;
      EXPECT_THAT(std::string(loaded.message()), HasSubstr(kPath));
      ++errors;
    }
  }
  EXPECT_GT(errors, 1500);
  // What is only damaged after it was taken over is found when it is applied.
  JournalRig rig;
  rig.files.Make(kPath, good);
  ASSERT_TRUE(rig.Load().ok());
  std::string bad = good;
  bad[4096 + 100] ^= 1;
  rig.files.SetContent(kPath, bad);
  Listing listing;
  EXPECT_TRUE(absl::IsDataLoss(rig.journal->ApplyClosed(Key(9), listing)));
  EXPECT_EQ(listing.text, "");
}

TEST(DiskJournalTest, ATornEndIsDropped) {
  JournalRig made;
  made.Make(3);
  const std::string good = made.files.Content(kPath);
  // Behind the last record is a block of zeros.
  for (size_t size = 0; size < good.size() - 512; size += 256) {
    JournalRig rig;
    rig.files.Make(kPath, good.substr(0, size));
    const absl::Status loaded = rig.Load();
    ASSERT_EQ(loaded.ok(), size >= 4096) << loaded;
    if (!loaded.ok()) continue;
    const uint64_t epochs = rig.journal->newest().epoch.value();
    EXPECT_LT(epochs, 3u);
    EXPECT_EQ(rig.List(), LinesOf(epochs));
  }
}

TEST(DiskJournalTest, RecordsForOtherDisksAreNotTaken) {
  JournalRig rig;
  rig.Make(3);
  JournalOptions smaller = Options();
  smaller.disk_sizes = {kSizes[0], 0, 8 * 512};
  // The second writes beyond the end of disk 2. It is whole: not a torn end.
  const absl::Status loaded = rig.Load(smaller);
  EXPECT_TRUE(absl::IsDataLoss(loaded)) << loaded;
  EXPECT_THAT(std::string(loaded.message()), HasSubstr("where no disk is"));
  smaller.disk_sizes = {};
  EXPECT_TRUE(absl::IsDataLoss(rig.Load(smaller)));
}

TEST(DiskJournalTest, RefusesOtherFormatsAndOtherFiles) {
  JournalRig rig;
  rig.files.Make(kPath, std::string(8192, 'x'));
  EXPECT_TRUE(absl::IsDataLoss(rig.Load()));
  rig.journal.reset();
  rig.Make(1);
  std::string content = rig.files.Content(kPath);
  content[8] = 1;
  rig.files.SetContent(kPath, content);
  const absl::Status older = rig.Load();
  EXPECT_TRUE(absl::IsFailedPrecondition(older)) << older;
  EXPECT_THAT(std::string(older.message()), AllOf(HasSubstr(kPath), HasSubstr("older romulusd")));
  content[8] = 3;
  rig.files.SetContent(kPath, content);
  EXPECT_TRUE(absl::IsUnimplemented(rig.Load()));
  EXPECT_FALSE(rig.journal->Append(Key(9), WritesOf(1)).ok());
}

TEST(DiskJournalTest, P6_WhatDoesNotFitIsRefusedAndChangesNothing) {
  JournalRig rig;
  rig.Make(1);
  EXPECT_TRUE(absl::IsResourceExhausted(rig.journal->Append(Key(2), {{Filled(0, 0, 'x', 8)}})));
  for (uint64_t epoch = 2; epoch <= 3; ++epoch) {
    ASSERT_TRUE(rig.journal->Append(Key(epoch), WritesOf(epoch)).ok());
  }
  EXPECT_TRUE(absl::IsResourceExhausted(rig.journal->Append(Key(4), {{Filled(0, 0, 'x', 4)}})));
  rig.files.FailAt(1, absl::ResourceExhaustedError("full"));
  EXPECT_FALSE(rig.journal->Append(Key(4), {{Discard(0, 0, 1)}}).ok());  // this would fit
  EXPECT_EQ(rig.journal->newest(), Key(3));
  ASSERT_TRUE(rig.Load().ok());
  EXPECT_EQ(rig.List(), LinesOf(3));
}

TEST(DiskJournalTest, ForgetsTheLastRecord) {
  JournalRig rig;
  rig.Make(2);
  rig.journal->Forget();
  rig.journal->Forget();  // only once
  EXPECT_EQ(rig.journal->newest(), Key(1));
  ASSERT_TRUE(rig.Load().ok());
  EXPECT_EQ(rig.List(), LinesOf(1));
}

TEST(DiskJournalTest, ResetMakesOldRecordsVoid) {
  JournalRig rig;
  rig.Make(3);
  const std::string id = rig.journal->id();
  ASSERT_TRUE(rig.journal->Reset().ok());
  EXPECT_NE(rig.journal->id(), id);
  ASSERT_TRUE(rig.journal->Append(Key(1), WritesOf(1)).ok());
  ASSERT_TRUE(rig.Load().ok());
  EXPECT_EQ(rig.List(), LinesOf(1));  // not the 2 and 3 that lie behind it
}

}  // namespace
}  // namespace romulus::replica

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
#include "disk_files_rig.h"
#include "replica/disk_journal_format.h"
#include "support/fault_files.h"

namespace romulus::replica {
namespace {

using namespace testing;  // NOLINT: the rig
using romulus::testing::FaultFiles;
using ::testing::HasSubstr;

constexpr uint64_t kSegment = 4096;
constexpr char kPath[] = "/journal";

JournalOptions Options(uint64_t segment_bytes = kSegment) {
  return {
      .segment_bytes = segment_bytes, .is_durable = true, .disk_sizes = {kSizes[0], 0, kSizes[1]}};
}

// What a journal says was written: one line for each write.
class Listing final : public JournalTarget {
 public:
  absl::Status WriteTo(uint32_t disk, uint64_t offset, std::span<const std::byte> data) override {
    absl::StrAppend(&text, "disk ", disk, " at ", offset, ": ", data.size(), " of ",
                    static_cast<int>(data[0]), "\n");
    return absl::OkStatus();
  }
  absl::Status ZeroOn(uint32_t disk, uint64_t offset, uint64_t size) override {
    absl::StrAppend(&text, "disk ", disk, " at ", offset, ": ", size, " zeros\n");
    return absl::OkStatus();
  }
  std::string text;
};

const std::vector<DiskWrite>& WritesOf(uint64_t epoch) {
  static const std::vector<std::vector<DiskWrite>> kWrites = {
      {Filled(0, 3, 'a'), Discard(2, 1, 4), Flush()},
      {Filled(2, 7, 'b', 2)},
      {Filled(0, 0, 'c'), {DiskWrite::Kind::kWriteZeroes, 0, 512, 1024, {}}}};
  return kWrites[epoch - 1];
}
std::string LinesOf(uint64_t epochs) {
  const std::string kLines[] = {"disk 0 at 1536: 512 of 97\ndisk 2 at 512: 2048 zeros\n",
                                "disk 2 at 3584: 1024 of 98\n",
                                "disk 0 at 0: 512 of 99\ndisk 0 at 512: 1024 zeros\n"};
  std::string text;
  for (uint64_t i = 0; i < epochs; ++i) text += kLines[i];
  return text;
}

struct JournalRig {
  absl::Status Load(const JournalOptions& options = Options()) {
    journal.reset();
    journal = std::make_unique<DiskJournal>(*files.OpenJournal(kPath), options);
    return journal->Load();
  }
  void Make(int epochs, const JournalOptions& options = Options()) {
    journal = std::make_unique<DiskJournal>(*files.OpenJournal(kPath), options);
    ASSERT_TRUE(journal->Reset().ok());
    for (int i = 1; i <= epochs; ++i) ASSERT_TRUE(journal->Append(Key(i), WritesOf(i)).ok());
    ASSERT_TRUE(journal->Sync().ok());
  }
  // A sealed segment, and an open one.
  void WriteGolden() {
    for (int i = 1; i <= 2; ++i) ASSERT_TRUE(journal->Append(Key(i), WritesOf(i)).ok());
    journal->CloseOpen();
    Listing ignored;
    ASSERT_TRUE(journal->ApplyClosed(Key(0), ignored).ok());
    ASSERT_TRUE(journal->Append(Key(3), WritesOf(3)).ok());
  }
  // Everything that it holds, and that is free afterwards.
  std::string List() {
    Listing listing;
    journal->CloseOpen();
    while (journal->has_closed()) {
      if (!journal->ApplyClosed(Key(99, 99), listing).ok()) return "damaged";
      EXPECT_TRUE(journal->FreeClosed().ok());
    }
    return listing.text;
  }

  FaultFiles files;
  std::unique_ptr<DiskJournal> journal;
};

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
  ASSERT_TRUE(again.Load().ok());
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
  for (size_t size = 0; size < good.size(); size += 256) {
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
  ASSERT_TRUE(rig.Load(smaller).ok());
  EXPECT_EQ(rig.List(), LinesOf(1));  // the second writes beyond the end of disk 2
  JournalRig none;
  none.Make(3);
  smaller.disk_sizes = {};
  ASSERT_TRUE(none.Load(smaller).ok());
  EXPECT_EQ(none.List(), "");
}

TEST(DiskJournalTest, RefusesANewerFormatAndOtherFiles) {
  JournalRig rig;
  rig.files.Make(kPath, std::string(8192, 'x'));
  EXPECT_TRUE(absl::IsDataLoss(rig.Load()));
  rig.journal.reset();
  rig.Make(1);
  std::string content = rig.files.Content(kPath);
  content[8] = 2;
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

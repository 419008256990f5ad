// A journal on files in memory, with records that are easily told apart.
#ifndef ROMULUS_TESTS_UNIT_DISK_JOURNAL_RIG_H_
#define ROMULUS_TESTS_UNIT_DISK_JOURNAL_RIG_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "disk_files_rig.h"
#include "replica/disk_journal.h"
#include "support/fault_files.h"

namespace romulus::replica::testing {

using romulus::testing::FaultFiles;

inline constexpr uint64_t kSegment = 4096;
inline constexpr char kPath[] = "/journal";

inline JournalOptions Options(uint64_t segment_bytes = kSegment) {
  return {.segment_bytes = segment_bytes,
          .is_durable = true,
          .disk_sizes = {kSizes[0], 0, kSizes[1]},
          .boot_id = "first boot"};
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

inline const std::vector<DiskWrite>& WritesOf(uint64_t epoch) {
  static const std::vector<std::vector<DiskWrite>> kWrites = {
      {Filled(0, 3, 'a'), Discard(2, 1, 4), Flush()},
      {Filled(2, 7, 'b', 2)},
      {Filled(0, 0, 'c'), {DiskWrite::Kind::kWriteZeroes, 0, 512, 1024, {}}}};
  return kWrites[epoch - 1];
}
inline std::string LinesOf(uint64_t epochs) {
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

}  // namespace romulus::replica::testing

#endif  // ROMULUS_TESTS_UNIT_DISK_JOURNAL_RIG_H_

// A secondary's disks through crashes of its process and of its host, at every operation.
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "disk_files_rig.h"
#include "support/fault_files.h"

namespace romulus::replica {
namespace {

using namespace testing;  // NOLINT: the rig
using romulus::testing::FaultFiles;

enum class Crash { kProcess, kPower };

// One life of a secondary: a full sync, epochs, an end; stopped at some operation; opened again,
// and maybe stopped again while it recovers. Says what is wrong with the disks then, if anything.
class Life {
 public:
  Life(uint64_t seed, Durability durability, Crash crash, bool own_thread = false)
      : seed_(seed), crash_(crash), random_(seed) {
    options_.durability = durability;
    options_.segment_bytes = 16 << 10;
    options_.apply_bytes = 4 << 10;
    options_.own_thread = own_thread;
    for (const uint64_t size : kSizes) {
      std::string image(size, '\0');
      for (char& c : image) c = static_cast<char>(random_());
      images_.push_back(std::move(image));
    }
    files.Make("/root.img", std::string(kSizes[0], 'r'));
    files.Make("/data.img", std::string(kSizes[1], 'd'));
  }

  // Returns how many operations it took.
  uint64_t Run(uint64_t stop_at, int epochs) {
    const uint64_t before = files.operations();
    if (stop_at > 0) files.StopAt(stop_at, seed_ + stop_at);
    auto secondary = Secondary::Open(files, options_);
    if (secondary.ok()) Follow(*(*secondary)->disks, epochs);
    return files.operations() - before;
  }

  std::optional<std::string> Check() {
    for (int attempt = 0;; ++attempt) {
      if (crash_ == Crash::kPower) {
        files.LosePower(seed_ * 7 + attempt);
        lost_power_ = true;
      } else {
        files.Restart();
      }
      if (attempt < 3 && random_() % 2 == 0) files.StopAt(1 + random_() % 20, seed_ + attempt);
      auto secondary = Secondary::Open(files, options_);
      if (files.stopped()) {
        secondary = absl::AbortedError("again");
        continue;
      }
      if (!secondary.ok()) return absl::StrCat("cannot be opened: ", secondary.status().ToString());
      return Judge(**secondary);
    }
  }

  FaultFiles files;

 private:
  void Follow(DiskFiles& disks, int epochs) {
    if (!FullSync(disks, images_).ok()) return;
    history_[Key(0)] = images_;
    for (int i = 1; i <= epochs; ++i) {
      const std::vector<DiskWrite> writes = RandomWrites(random_);
      ApplyTo(images_, writes);
      history_[Key(i)] = images_;
      last_begun_ = Key(i);
      if (!disks.Journal(Key(i), writes).ok()) return;
      returned_ = Key(i);
      bool flushes = options_.durability == Durability::kEpoch || i == 1;
      for (const DiskWrite& write : writes) flushes |= write.kind == DiskWrite::Kind::kFlush;
      if (flushes && options_.durability != Durability::kNever) durable_ = Key(i);
      if (random_() % 4 != 0 && !disks.Apply(Key(i)).ok()) return;
    }
    switch (random_() % 4) {
      case 0:
        promoting_ = true;
        promoted_ = disks.Promote(returned_, Term(2)).ok();
        break;
      case 1:
        if (disks.GiveUp().ok() && options_.durability != Durability::kNever) durable_ = returned_;
        break;
      case 2:
        closing_ = true;
        if (disks.Close().ok()) {
          durable_ = returned_;
          closed_ = true;
        }
        break;
    }
  }

  std::optional<std::string> Judge(Secondary& secondary) {
    const absl::StatusOr<Images> found = secondary.Read();
    if (!found.ok()) return absl::StrCat("cannot be read: ", found.status().ToString());
    const bool is_lost = options_.durability == Durability::kNever && lost_power_ && !closed_;
    bool all_primary = true;
    for (const auto& copy : secondary.copies) {
      all_primary &= copy->stamp().mode == disk::Mode::kPrimarySolo;
    }
    if (all_primary) {
      if (!promoting_) return "stamped as a primary's by nobody";
      return *found == history_[returned_] ? std::nullopt
                                           : std::optional("promoted, but not to its epoch");
    }
    if (promoted_) return "promoted, but not stamped so";
    const absl::Status usable = secondary.disks->usable();
    if (!usable.ok()) {
      if (returned_ == EpochKey() || is_lost) return std::nullopt;  // as it should be
      return absl::StrCat("not usable: ", usable.ToString());
    }
    // A Close() that was stopped may have come far enough: then all it had is there.
    if (is_lost && !closing_) return "trusted, after a power loss that nothing was protected from";
    const EpochKey newest = secondary.disks->newest();
    if (newest > last_begun_) return "at an epoch that never was";
    // An epoch without writes is as good as the last that had some.
    EpochKey floor = lost_power_ && !is_lost ? durable_ : returned_;
    while (floor > newest && history_[floor] == history_[Key(floor.epoch.value() - 1)]) {
      floor = Key(floor.epoch.value() - 1);
    }
    if (newest < floor) {
      return absl::StrCat("at epoch ", newest.epoch.value(), " although ", floor.epoch.value(),
                          " was promised");
    }
    if (*found != history_[newest]) {
      return absl::StrCat("is not what epoch ", newest.epoch.value(), " was");
    }
    return std::nullopt;
  }

  const uint64_t seed_;
  const Crash crash_;
  std::mt19937_64 random_;
  DiskFilesOptions options_;
  Images images_;
  std::map<EpochKey, Images> history_;
  EpochKey last_begun_, returned_, durable_;
  bool promoting_ = false, promoted_ = false, closing_ = false, closed_ = false,
       lost_power_ = false;
};

std::string Name(Durability durability) {
  constexpr const char* kNames[] = {"Flush", "Epoch", "Never"};
  return kNames[static_cast<size_t>(durability)];
}

class CrashTest : public ::testing::TestWithParam<std::tuple<Durability, Crash>> {};

INSTANTIATE_TEST_SUITE_P(Disk, CrashTest,
                         ::testing::Combine(::testing::Values(Durability::kFlush,
                                                              Durability::kEpoch,
                                                              Durability::kNever),
                                            ::testing::Values(Crash::kProcess, Crash::kPower)),
                         [](const auto& param) {
                           return Name(std::get<0>(param.param)) +
                                  (std::get<1>(param.param) == Crash::kPower ? "Power" : "Process");
                         });

TEST_P(CrashTest, P2_StoppedAtEveryOperation) {
  const auto [durability, crash] = GetParam();
  for (const uint64_t seed : {1u, 2u}) {
    constexpr int kEpochs = 14;
    const uint64_t operations = Life(seed, durability, crash).Run(0, kEpochs);
    ASSERT_GT(operations, 30u);
    for (uint64_t stop_at = 1; stop_at <= operations + 1; ++stop_at) {
      Life life(seed, durability, crash);
      life.Run(stop_at, kEpochs);
      const auto wrong = life.Check();
      ASSERT_FALSE(wrong) << *wrong << "; seed " << seed << ", operation " << stop_at;
    }
  }
}

TEST_P(CrashTest, P2_StoppedAnywhere) {
  const auto [durability, crash] = GetParam();
  // Stopped in its Close(), whose stamp was there all the same (NeverPower).
  {
    Life life(2510563809u, durability, crash);
    life.Run(1 + uint64_t{2510563809u} * 2654435761u % 260, /*epochs=*/40);
    const auto wrong = life.Check();
    ASSERT_FALSE(wrong) << *wrong;
  }
  const uint64_t first = std::random_device()();
  for (uint64_t seed = first; seed < first + 150; ++seed) {
    Life life(seed, durability, crash);
    life.Run(1 + seed * 2654435761u % 260, /*epochs=*/40);
    const auto wrong = life.Check();
    ASSERT_FALSE(wrong) << *wrong << "; seed " << seed;
  }
}

TEST_P(CrashTest, P2_StoppedAnywhereWithItsOwnThread) {
  const auto [durability, crash] = GetParam();
  const uint64_t first = std::random_device()();
  for (uint64_t seed = first; seed < first + 40; ++seed) {
    Life life(seed, durability, crash, /*own_thread=*/true);
    life.Run(1 + seed * 2654435761u % 260, /*epochs=*/40);
    const auto wrong = life.Check();
    ASSERT_FALSE(wrong) << *wrong << "; seed " << seed;
  }
}

// How many of many lives go wrong if syncs of some files do nothing.
int WrongLives(const std::string& lie) {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Life life(seed, Durability::kEpoch, Crash::kPower);
    life.files.LieAbout(lie);
    life.Run(1 + seed * 2654435761u % 260, /*epochs=*/40);
    wrong += life.Check().has_value();
  }
  return wrong;
}

TEST(DiskCrashTest, P2_TheTestsAboveWouldSeeWritesAppliedBeforeTheJournalIsDurable) {
  EXPECT_EQ(WrongLives("nothing"), 0);
  EXPECT_GT(WrongLives(".journal"), 0);
}

TEST(DiskCrashTest, P2_TheTestsAboveWouldSeeAJournalFreedBeforeTheDisksAreDurable) {
  EXPECT_GT(WrongLives(".img"), 0);
}

}  // namespace
}  // namespace romulus::replica

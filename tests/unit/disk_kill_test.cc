// A real process on real files, killed at every operation.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "disk_files_rig.h"
#include "support/killing_files.h"
#include "support/temp_folder.h"

namespace romulus::replica {
namespace {

using namespace testing;  // NOLINT: the rig
using romulus::testing::KillingFiles;
using romulus::testing::TempFolder;

constexpr uint64_t kEpochs = 12;
constexpr uint64_t kSeed = 5;

DiskFilesOptions Options() {
  DiskFilesOptions options;
  options.segment_bytes = 16 << 10;
  options.apply_bytes = 4 << 10;
  return options;
}

// Its history: what the disks are after each epoch, from the full sync on.
std::vector<Images> History(std::vector<std::vector<DiskWrite>>* epochs) {
  std::mt19937_64 random(kSeed);
  std::vector<Images> history = {{std::string(kSizes[0], 'R'), std::string(kSizes[1], 'D')}};
  for (uint64_t i = 0; i < kEpochs; ++i) {
    epochs->push_back(RandomWrites(random));
    history.push_back(history.back());
    ApplyTo(history.back(), epochs->back());
  }
  return history;
}

// In the child. Writes a byte to `told` when an epoch is journaled, one more when promoted.
[[noreturn]] void Live(const std::string& folder, uint64_t kill_at, int told) {
  std::vector<std::vector<DiskWrite>> epochs;
  const std::vector<Images> history = History(&epochs);
  KillingFiles files(kill_at);
  auto secondary = Secondary::Open(files, Options(), folder);
  ROMULUS_CHECK(secondary.ok() && FullSync(*(*secondary)->disks, history[0]).ok());
  DiskFiles& disks = *(*secondary)->disks;
  const auto tell = [&] { ROMULUS_CHECK(::write(told, "x", 1) == 1); };
  for (uint64_t i = 1; i <= kEpochs; ++i) {
    ROMULUS_CHECK(disks.Journal(Key(i), epochs[i - 1]).ok());
    tell();
    ROMULUS_CHECK(disks.Apply(Key(i)).ok());
  }
  ROMULUS_CHECK(disks.Promote(Key(kEpochs), Term(2)).ok());
  tell();
  ::_exit(0);
}

TEST(DiskKillTest, P2_KilledAtEveryOperationTheDisksAreAtOneEpoch) {
  std::vector<std::vector<DiskWrite>> epochs;
  const std::vector<Images> history = History(&epochs);
  bool lived = false;
  int killed = 0;
  for (uint64_t kill_at = 1; !lived; ++kill_at) {
    SCOPED_TRACE(::testing::Message() << "killed at operation " << kill_at);
    TempFolder folder;
    folder.MakeFile("root.img", kSizes[0]);
    folder.MakeFile("data.img", kSizes[1]);
    int pipe[2];
    ASSERT_EQ(::pipe(pipe), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) Live(folder.path(), kill_at, pipe[1]);
    ::close(pipe[1]);
    uint64_t told = 0;
    for (char byte; ::read(pipe[0], &byte, 1) == 1;) ++told;
    ::close(pipe[0]);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << status;
    lived = WEXITSTATUS(status) == 0;
    ASSERT_TRUE(lived || WEXITSTATUS(status) == KillingFiles::kExitCode);
    killed += !lived;

    auto secondary = Secondary::Open(disk::PosixFiles(), Options(), folder.path());
    ASSERT_TRUE(secondary.ok()) << secondary.status();
    const Images found = *(*secondary)->Read();
    const disk::Mode mode = (*secondary)->copies[1]->stamp().mode;
    if (mode == disk::Mode::kPrimarySolo || told > kEpochs) {
      ASSERT_TRUE(found == history[kEpochs]);
      continue;
    }
    const absl::Status usable = (*secondary)->disks->usable();
    if (told == 0 && !usable.ok()) continue;  // still in its full sync
    ASSERT_TRUE(usable.ok()) << usable;
    const uint64_t newest = (*secondary)->disks->newest().epoch.value();
    // The last told, or the one that it was about to tell of; epochs without writes are the same.
    ASSERT_LE(newest, told + 1);
    ASSERT_TRUE(found == history[newest]);
    ASSERT_TRUE(newest >= told || history[newest] == history[told]);
  }
  EXPECT_GT(killed, 40);
}

}  // namespace
}  // namespace romulus::replica

// Disks as files: opening, reading, zeroing, locking; and the guest's disk over one.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "absl/synchronization/notification.h"
#include "base/bytes.h"
#include "disk/file.h"
#include "disk/file_disk.h"
#include "support/loop_thread.h"
#include "support/temp_folder.h"

namespace romulus::disk {
namespace {

using devices::BlockRequest;
using devices::BlockResult;
using romulus::testing::LoopThread;
using romulus::testing::ReadAll;
using romulus::testing::TempFolder;
using romulus::testing::WriteAll;
using ::testing::HasSubstr;
using Kind = BlockRequest::Kind;

constexpr uint64_t kMib = 1u << 20;

std::vector<std::byte> Bytes(size_t size, char fill) {
  return std::vector<std::byte>(size, static_cast<std::byte>(fill));
}

uint64_t AllocatedBytes(const std::string& path) {
  struct stat facts = {};
  EXPECT_EQ(::stat(path.c_str(), &facts), 0);
  return static_cast<uint64_t>(facts.st_blocks) * 512;
}

void ExpectError(const absl::StatusOr<std::shared_ptr<File>>& opened, absl::StatusCode code,
                 const std::string& path, const std::string& what) {
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.status().code(), code) << opened.status();
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr(path));
  EXPECT_THAT(std::string(opened.status().message()), HasSubstr(what));
}

TEST(PosixFilesTest, RefusesWhatIsNoDiskAndSaysWhatToDo) {
  TempFolder folder;
  Files& files = PosixFiles();
  const auto refused = [&](const std::string& path, absl::StatusCode code,
                           const std::string& what) {
    SCOPED_TRACE(path);
    ExpectError(files.OpenDisk(path, false), code, path, what);
    ExpectError(files.OpenDisk(path, true), code, path, what);
  };
  refused(folder.Path("none"), absl::StatusCode::kNotFound, "truncate");
  refused(folder.path(), absl::StatusCode::kInvalidArgument, "folder");
  refused(folder.MakeFile("empty", 0), absl::StatusCode::kInvalidArgument, "empty");
  refused(folder.MakeFile("odd", 1000), absl::StatusCode::kInvalidArgument, "512");
  ASSERT_EQ(::mkfifo(folder.Path("fifo").c_str(), 0600), 0);
  refused(folder.Path("fifo"), absl::StatusCode::kInvalidArgument, "neither");
}

TEST(PosixFilesTest, SaysWhichPermissionIsMissing) {
  if (::geteuid() == 0) {
    // Root may everything; a file that is being executed is refused to root too (ETXTBSY).
    ExpectError(PosixFiles().OpenDisk("/proc/self/exe", false), absl::StatusCode::kPermissionDenied,
                "/proc/self/exe", "read_only: true");
    return;
  }
  TempFolder folder;
  const std::string path = folder.MakeFile("mine", 512);
  ASSERT_EQ(::chmod(path.c_str(), 0400), 0);
  ExpectError(PosixFiles().OpenDisk(path, false), absl::StatusCode::kPermissionDenied, path,
              "read_only: true");
  EXPECT_TRUE(PosixFiles().OpenDisk(path, true).ok());
}

TEST(PosixFilesTest, ADiskIsOpenedOnce) {
  TempFolder folder;
  const std::string path = folder.MakeFile("disk", 512);
  auto first = PosixFiles().OpenDisk(path, false);
  ASSERT_TRUE(first.ok()) << first.status();
  ExpectError(PosixFiles().OpenDisk(path, false), absl::StatusCode::kFailedPrecondition, path,
              "in use");
  ExpectError(PosixFiles().OpenDisk(path, true), absl::StatusCode::kFailedPrecondition, path,
              "in use");
  first->reset();
  auto reader = PosixFiles().OpenDisk(path, true);
  ASSERT_TRUE(reader.ok());
  EXPECT_TRUE(PosixFiles().OpenDisk(path, true).ok());  // any number of those
  ExpectError(PosixFiles().OpenDisk(path, false), absl::StatusCode::kFailedPrecondition, path,
              "in use");
}

TEST(PosixFilesTest, ReadsWhatWasWritten) {
  TempFolder folder;
  auto file = *PosixFiles().OpenDisk(folder.MakeFile("disk", kMib), false);
  EXPECT_EQ(file->size_bytes(), kMib);
  ASSERT_TRUE(file->Write(4096, Bytes(1024, 'x')).ok());
  auto got = Bytes(2048, '?');
  ASSERT_TRUE(file->Read(3584, got).ok());
  EXPECT_EQ(got[511], std::byte{0});
  EXPECT_EQ(got[512], std::byte{'x'});
  EXPECT_EQ(got[1535], std::byte{'x'});
  EXPECT_EQ(got[1536], std::byte{0});
  EXPECT_TRUE(file->Sync().ok());
}

TEST(PosixFilesTest, AFileThatWasCutShortIsAnErrorThatNamesIt) {
  TempFolder folder;
  const std::string path = folder.MakeFile("disk", kMib);
  auto file = *PosixFiles().OpenDisk(path, false);
  ASSERT_EQ(::truncate(path.c_str(), 4096), 0);
  auto got = Bytes(4096, '?');
  const absl::Status status = file->Read(2048, got);
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
}

TEST(PosixFilesTest, NoSpaceIsResourceExhausted) {
  TempFolder folder;
  auto journal = *PosixFiles().OpenJournal(folder.Path("journal"));
  // A limit of the process is the one shortage that needs no file system of its own.
  rlimit old_limit = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  const rlimit small = {64u << 10, old_limit.rlim_max};
  auto* const old_handler = ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = journal->Write(0, Bytes(128u << 10, 'x'));
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(journal->path()));
}

class ZeroTest : public ::testing::TestWithParam<bool> {};

TEST_P(ZeroTest, TheRangeAndNothingElseReadsAsZeros) {
  TempFolder folder;
  const std::string path = folder.Path("disk");
  WriteAll(path, std::string(4 * kMib, 'x'));
  auto file = *PosixFiles().OpenDisk(path, false);
  ASSERT_TRUE(file->Zero(512, 3 * kMib + 512, GetParam()).ok());
  const std::string text = ReadAll(path);
  EXPECT_EQ(text.size(), 4 * kMib);
  EXPECT_TRUE(text == std::string(512, 'x') + std::string(3 * kMib + 512, '\0') +
                          std::string(kMib - 1024, 'x'));
  if (GetParam()) {
    EXPECT_LT(AllocatedBytes(path), 2 * kMib);
  }
}

INSTANTIATE_TEST_SUITE_P(WithAndWithoutUnmap, ZeroTest, ::testing::Bool());

TEST(PosixFilesTest, FindsDataBetweenHoles) {
  TempFolder folder;
  const std::string path = folder.MakeFile("disk", 8 * kMib);
  auto file = *PosixFiles().OpenDisk(path, false);
  EXPECT_EQ(*file->NextData(0), (Extent{8 * kMib, 0}));
  ASSERT_TRUE(file->Write(4 * kMib, Bytes(4096, 'x')).ok());
  const Extent data = *file->NextData(0);
  // A file system may know less than that, but never leaves data out.
  EXPECT_LE(data.offset_bytes, 4 * kMib);
  EXPECT_GE(data.offset_bytes + data.size_bytes, 4 * kMib + 4096);
  EXPECT_EQ(*file->NextData(8 * kMib), (Extent{8 * kMib, 0}));
  EXPECT_EQ(file->NextData(4 * kMib + 512)->offset_bytes, 4 * kMib + 512);
}

TEST(PosixFilesTest, ReservesWithoutChangingContent) {
  TempFolder folder;
  const std::string path = folder.MakeFile("disk", 8 * kMib);
  auto file = *PosixFiles().OpenDisk(path, false);
  ASSERT_TRUE(file->Write(0, Bytes(4096, 'x')).ok());
  ASSERT_TRUE(file->Reserve(0, 4 * kMib).ok());
  EXPECT_GE(AllocatedBytes(path), 4 * kMib);
  EXPECT_TRUE(ReadAll(path) == std::string(4096, 'x') + std::string(8 * kMib - 4096, '\0'));
}

TEST(PosixFilesTest, ReplacesTextAtOnce) {
  TempFolder folder;
  Files& files = PosixFiles();
  const std::string path = folder.Path("text");
  EXPECT_EQ(*files.ReadText(path, 100), std::nullopt);
  ASSERT_TRUE(files.Replace(path, "first").ok());
  ASSERT_TRUE(files.Replace(path, "second").ok());
  EXPECT_EQ(*files.ReadText(path, 6), "second");
  EXPECT_EQ(files.ReadText(path, 5).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_FALSE(std::filesystem::exists(path + ".tmp"));
  EXPECT_FALSE(files.Replace(folder.Path("none/text"), "x").ok());
  ASSERT_TRUE(files.Remove(path).ok());
  ASSERT_TRUE(files.Remove(path).ok());
  EXPECT_EQ(*files.ReadText(path, 100), std::nullopt);
  EXPECT_FALSE(files.boot_id().empty());
}

// --- the guest's disk ---------------------------------------------------------------------------

struct DiskRig {
  explicit DiskRig(uint64_t size = kMib) {
    path = folder.MakeFile("disk", size);
    disk = std::make_unique<FileDisk>(*PosixFiles().OpenDisk(path, false), loop);
    loop.Post([this] { loop_id = std::this_thread::get_id(); });
  }
  BlockResult Do(BlockRequest request) {
    BlockResult got;
    absl::Notification done;
    loop.Post([&] {
      submitting = true;
      disk->Submit(std::move(request), [&](BlockResult result) {
        EXPECT_EQ(std::this_thread::get_id(), loop_id);
        EXPECT_FALSE(submitting) << "from within Submit()";
        got = std::move(result);
        done.Notify();
      });
      submitting = false;
    });
    done.WaitForNotification();
    return got;
  }

  TempFolder folder;
  std::string path;
  LoopThread loop;
  std::thread::id loop_id;
  bool submitting = false;  // on the loop
  std::unique_ptr<FileDisk> disk;
};

BlockRequest Write(uint64_t offset, char fill, uint64_t size) {
  return {
      .kind = Kind::kWrite, .offset_bytes = offset, .size_bytes = size, .data = Bytes(size, fill)};
}
BlockRequest Ranged(Kind kind, uint64_t offset, uint64_t size) {
  return {.kind = kind, .offset_bytes = offset, .size_bytes = size, .data = {}};
}

TEST(FileDiskTest, DoesEveryKindOfRequest) {
  DiskRig rig;
  EXPECT_EQ(rig.disk->size_bytes(), kMib);
  BlockRequest durable = Write(4096, 'a', 8192);
  durable.durable = true;
  EXPECT_TRUE(rig.Do(std::move(durable)).status.ok());
  const BlockResult read = rig.Do(Ranged(Kind::kRead, 4096, 8192));
  ASSERT_TRUE(read.status.ok());
  EXPECT_TRUE(read.data == Bytes(8192, 'a'));
  EXPECT_TRUE(rig.Do(Ranged(Kind::kFlush, 0, 0)).status.ok());
  EXPECT_TRUE(rig.Do(Ranged(Kind::kDiscard, 4096, 512)).status.ok());
  EXPECT_TRUE(rig.Do(Ranged(Kind::kWriteZeroes, 4608, 512)).status.ok());
  BlockRequest unmap = Ranged(Kind::kWriteZeroes, 5120, 512);
  unmap.may_unmap = true;
  EXPECT_TRUE(rig.Do(unmap).status.ok());
  EXPECT_TRUE(ReadAll(rig.path).substr(4096, 8192) ==
              std::string(1536, '\0') + std::string(8192 - 1536, 'a'));
  const FileDiskCounters& counters = rig.disk->counters();
  EXPECT_EQ(counters.writes, 1u);
  EXPECT_EQ(counters.write_bytes, 8192u);
  EXPECT_EQ(counters.reads, 1u);
  EXPECT_EQ(counters.read_bytes, 8192u);
  EXPECT_EQ(counters.flushes, 1u);
  EXPECT_EQ(counters.zeroes, 3u);
  EXPECT_EQ(counters.errors, 0u);
}

TEST(FileDiskTest, AnErrorNamesTheFileAndIsCounted) {
  DiskRig rig;
  ASSERT_EQ(::truncate(rig.path.c_str(), 4096), 0);
  const BlockResult read = rig.Do(Ranged(Kind::kRead, 4096, 512));
  EXPECT_FALSE(read.status.ok());
  EXPECT_THAT(std::string(read.status.message()), HasSubstr(rig.path));
  EXPECT_TRUE(read.data.empty());
  EXPECT_EQ(rig.disk->counters().errors, 1u);
}

TEST(FileDiskTest, ManyRequestsAtOnceAreAllDone) {
  DiskRig rig;
  constexpr int kRequests = 256;
  absl::Notification all;
  int done = 0;
  rig.loop.Post([&] {
    for (int i = 0; i < kRequests; ++i) {
      rig.disk->Submit(
          Write(static_cast<uint64_t>(i) * 4096, static_cast<char>('a' + i % 26), 4096),
          [&](const BlockResult& result) {
            EXPECT_TRUE(result.status.ok());
            if (++done == kRequests) all.Notify();
          });
    }
  });
  all.WaitForNotification();
  const std::string text = ReadAll(rig.path);
  for (size_t i = 0; i < kRequests; ++i) {
    ASSERT_EQ(text[i * 4096], static_cast<char>('a' + i % 26));
    ASSERT_EQ(text[i * 4096 + 4095], static_cast<char>('a' + i % 26));
  }
}

TEST(FileDiskTest, MayBeDestroyedWithRequestsWaiting) {
  DiskRig rig;
  std::atomic<int> done{0};
  for (int i = 0; i < 64; ++i) {
    rig.loop.Post([&] {
      if (rig.disk) rig.disk->Submit(Write(0, 'x', kMib), [&](const BlockResult&) { ++done; });
    });
  }
  rig.loop.Drain();
  rig.disk.reset();
  rig.loop.Drain();
  EXPECT_LE(done, 64);
}

}  // namespace
}  // namespace romulus::disk

// A disk that hangs is seen, by name and by age.
#include <gtest/gtest.h>

#include <thread>

#include "absl/synchronization/notification.h"
#include "base/bytes.h"
#include "disk/watched_files.h"
#include "support/temp_folder.h"

namespace romulus::disk {
namespace {

using romulus::testing::TempFolder;

class HandClock final : public base::Clock {
 public:
  uint64_t NowNs() const override { return now_ns; }
  std::atomic<uint64_t> now_ns{7};
};

// Syncs of this one hang until they are let go.
class HangingFile final : public File {
 public:
  explicit HangingFile(std::string path) : path_(std::move(path)) {}
  const std::string& path() const override { return path_; }
  uint64_t size_bytes() const override { return 512; }
  bool read_only() const override { return false; }
  absl::Status Read(uint64_t, std::span<std::byte>) override { return absl::OkStatus(); }
  absl::Status Write(uint64_t, std::span<const std::byte>) override { return absl::OkStatus(); }
  absl::Status Zero(uint64_t, uint64_t, bool) override { return absl::OkStatus(); }
  absl::Status Reserve(uint64_t, uint64_t) override { return absl::OkStatus(); }
  absl::Status Sync() override {
    hangs.Notify();
    go_on.WaitForNotification();
    return absl::DataLossError("in vain");
  }
  absl::StatusOr<Extent> NextData(uint64_t offset) override { return Extent{offset, 0}; }
  absl::StatusOr<FileIdentity> Identify() override { return FileIdentity{}; }

  absl::Notification hangs, go_on;

 private:
  const std::string path_;
};

class HangingFiles final : public Files {
 public:
  absl::StatusOr<std::shared_ptr<File>> OpenDisk(const std::string& path, bool) override {
    return Opened(path);
  }
  absl::StatusOr<std::shared_ptr<File>> OpenJournal(const std::string& path) override {
    return Opened(path);
  }
  absl::StatusOr<std::optional<std::string>> ReadText(const std::string&, uint64_t) override {
    return std::nullopt;
  }
  absl::Status Replace(const std::string&, absl::string_view) override { return absl::OkStatus(); }
  absl::Status Remove(const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<DiskLook> LookAtDisk(const std::string&) override {
    return absl::UnimplementedError("not watched");
  }
  std::string boot_id() override { return "boot"; }

  std::vector<std::shared_ptr<HangingFile>> opened;

 private:
  std::shared_ptr<File> Opened(const std::string& path) {
    return opened.emplace_back(std::make_shared<HangingFile>(path));
  }
};

TEST(WatchedFilesTest, SaysWhichOperationHasBeenUnderWayForLongest) {
  HandClock clock;
  HangingFiles files;
  WatchedFiles watched(files, clock);
  const std::shared_ptr<File> disk = *watched.OpenDisk("/root.img", false);
  const std::shared_ptr<File> journal = *watched.OpenJournal("/root.img.journal");
  EXPECT_TRUE(disk->Write(0, {}).ok());
  EXPECT_FALSE(watched.oldest().has_value());
  std::thread first([&] { EXPECT_TRUE(absl::IsDataLoss(disk->Sync())); });
  files.opened[0]->hangs.WaitForNotification();
  clock.now_ns = 100;
  std::thread second([&] { EXPECT_TRUE(absl::IsDataLoss(journal->Sync())); });
  files.opened[1]->hangs.WaitForNotification();
  EXPECT_TRUE(disk->Write(0, {}).ok());  // others come and go
  std::optional<DiskWait> wait = watched.oldest();
  ASSERT_TRUE(wait.has_value());
  EXPECT_EQ(wait->path, "/root.img");
  EXPECT_EQ(wait->what, "sync");
  EXPECT_EQ(wait->since_ns, 7u);
  files.opened[0]->go_on.Notify();
  first.join();
  wait = watched.oldest();
  ASSERT_TRUE(wait.has_value());
  EXPECT_EQ(wait->path, "/root.img.journal");
  EXPECT_EQ(wait->since_ns, 100u);
  files.opened[1]->go_on.Notify();
  second.join();
  EXPECT_FALSE(watched.oldest().has_value());
}

TEST(WatchedFilesTest, HandsEverythingOn) {
  TempFolder folder;
  const std::string path = folder.MakeFile("root.img", 8192);
  HandClock clock;
  WatchedFiles watched(PosixFiles(), clock);
  const auto disk = watched.OpenDisk(path, false);
  ASSERT_TRUE(disk.ok()) << disk.status();
  EXPECT_EQ((*disk)->path(), path);
  EXPECT_EQ((*disk)->size_bytes(), 8192u);
  EXPECT_FALSE((*disk)->read_only());
  const std::string text(512, 'x');
  std::string back(1024, '?');
  EXPECT_TRUE((*disk)->Write(512, base::AsBytes(text)).ok());
  EXPECT_TRUE((*disk)->Reserve(0, 512).ok());
  EXPECT_TRUE((*disk)->Sync().ok());
  EXPECT_TRUE((*disk)->Read(512, std::as_writable_bytes(std::span(back.data(), 1024))).ok());
  EXPECT_EQ(back, text + std::string(512, '\0'));
  EXPECT_TRUE((*disk)->Zero(512, 512, false).ok());
  EXPECT_TRUE((*disk)->Read(512, std::as_writable_bytes(std::span(back.data(), 512))).ok());
  EXPECT_EQ(back, std::string(1024, '\0'));
  EXPECT_TRUE((*disk)->NextData(0).ok());
  EXPECT_GT((*disk)->Identify()->inode, 0u);
  EXPECT_FALSE(watched.OpenDisk(path + "x", false).ok());
  EXPECT_TRUE(watched.Replace(path + ".text", "said").ok());
  EXPECT_EQ(**watched.ReadText(path + ".text", 10), "said");
  EXPECT_TRUE(watched.Remove(path + ".text").ok());
  EXPECT_FALSE(watched.ReadText(path + ".text", 10)->has_value());
  EXPECT_EQ(watched.boot_id(), PosixFiles().boot_id());
}

}  // namespace
}  // namespace romulus::disk

// Stamps: their text, and what a copy is refused for.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <xxhash.h>

#include <functional>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "disk/copy.h"
#include "disk/stamp.h"
#include "support/temp_folder.h"

namespace romulus::disk {
namespace {

using romulus::testing::ReadAll;
using romulus::testing::TempFolder;
using romulus::testing::WriteAll;
using ::testing::AllOf;
using ::testing::HasSubstr;

Stamp Full() {
  Stamp stamp;
  stamp.mode = Mode::kSecondary;
  stamp.term = Term(7);
  stamp.epoch = EpochId(1234);
  stamp.covers_term = Term(5);
  stamp.lineage = {Term(4), Term(3), Term(2)};
  stamp.is_volatile = true;
  stamp.journal_id = "0123abcd";
  stamp.vm_uuid = "vm";
  stamp.node = "alpha";
  stamp.disk_name = "root";
  stamp.size_bytes = 1u << 20;
  stamp.is_clean = true;
  stamp.inode = 99;
  stamp.mtime_ns = -5;
  stamp.boot_id = "boot";
  return stamp;
}

// As somebody would who knows how: edits, and makes the checksum right again.
std::string Resealed(std::string text) {
  text.resize(text.rfind("# xxh3"));
  return text + absl::StrFormat("# xxh3 %016x\n", XXH3_64bits(text.data(), text.size()));
}

TEST(StampTest, SaysEverythingAndIsReadBack) {
  const std::string text = FormatStamp(Full());
  EXPECT_THAT(text, HasSubstr("mode: MODE_SECONDARY"));
  const auto back = ParseStamp(text);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(FormatStamp(*back), text);
  EXPECT_EQ(back->mtime_ns, -5);
  EXPECT_EQ(back->epoch, EpochId(1234));
  EXPECT_EQ(back->lineage, Full().lineage);
}

TEST(StampTest, EveryFlippedBitAndEveryCutIsFound) {
  const std::string text = FormatStamp(Full());
  for (size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      EXPECT_FALSE(ParseStamp(flipped).ok()) << i << " " << bit;
    }
    EXPECT_FALSE(ParseStamp(text.substr(0, i)).ok()) << i;
  }
  EXPECT_FALSE(ParseStamp(text + "x").ok());
  EXPECT_FALSE(ParseStamp("").ok());
  EXPECT_FALSE(ParseStamp(std::string(kMaxStampBytes + 1, '#')).ok());
}

TEST(StampTest, RefusesWhatNoStampSays) {
  const std::string text = FormatStamp(Full());
  const auto code = [&](absl::string_view from, absl::string_view to) {
    return ParseStamp(Resealed(absl::StrReplaceAll(text, {{from, to}}))).status().code();
  };
  EXPECT_EQ(code("nothing", "nothing"), absl::StatusCode::kOk);
  EXPECT_EQ(code("format: 1", "format: 2\nfrom_the_future { a { b: 1 } }"),
            absl::StatusCode::kUnimplemented);
  EXPECT_EQ(code("format: 1", "format: 0"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code("MODE_SECONDARY", "MODE_UNSPECIFIED"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code("MODE_SECONDARY", "17"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code("term: 7", "term: 18446744073709551615"), absl::StatusCode::kDataLoss);
  EXPECT_EQ(code("promoted_term: 4", "promoted_term: 18446744073709551615"),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(code("shared_term: 2", "shared_term: 18446744073709551615"),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(code("term: 7", "term: seven"), absl::StatusCode::kDataLoss);
  std::string deep = "format: 1 a {";
  for (int i = 0; i < 5000; ++i) deep += "a{";
  EXPECT_FALSE(ParseStamp(Resealed(deep + "\n# xxh3 ")).ok());
}

TEST(StampTest, NamesTheNewerCopy) {
  const auto compare = [](Mode a, uint64_t term_a, uint64_t epoch_a, Mode b, uint64_t term_b,
                          uint64_t epoch_b, uint64_t covers_b = 0) {
    Stamp first, second;
    first.mode = a;
    first.term = Term(term_a);
    first.epoch = EpochId(epoch_a);
    second.mode = b;
    second.term = Term(term_b);
    second.epoch = EpochId(epoch_b);
    second.covers_term = Term(covers_b);
    const Comparison one = CompareStamps(first, second);
    const Comparison other = CompareStamps(second, first);
    EXPECT_EQ(other.newest, one.newest < 0 ? -1 : 1 - one.newest);
    if (one.newest >= 0) {
      EXPECT_EQ(other.why, one.why);
    }
    EXPECT_FALSE(one.why.empty());
    return one;
  };
  using M = Mode;
  EXPECT_EQ(compare(M::kPrimarySolo, 4, 0, M::kSecondary, 4, 9).newest, 0);
  EXPECT_EQ(compare(M::kPrimaryProtected, 4, 0, M::kSecondary, 4, 9).newest, 0);
  EXPECT_EQ(compare(M::kPrimarySolo, 4, 0, M::kSecondary, 5, 1).newest, 1);
  EXPECT_EQ(compare(M::kSecondary, 4, 8, M::kSecondary, 4, 9).newest, 1);
  EXPECT_EQ(compare(M::kSecondary, 4, 9, M::kSecondary, 4, 9).newest, -1);
  EXPECT_EQ(compare(M::kPrimarySolo, 1, 0, M::kSyncing, 9, 0).newest, 0);
  EXPECT_EQ(compare(M::kPrimarySolo, 1, 0, M::kNever, 0, 0).newest, 0);
  EXPECT_EQ(compare(M::kSyncing, 1, 0, M::kNever, 0, 0).newest, -1);
  EXPECT_EQ(compare(M::kPrimarySolo, 4, 0, M::kPrimaryProtected, 4, 0).newest, -1);
  // A failover: what the dead primary had is in the promoted copy, or was never heard of.
  EXPECT_THAT(compare(M::kPrimaryProtected, 4, 0, M::kPrimarySolo, 5, 0, 5).why,
              ::testing::Not(HasSubstr("not in it")));
  // Both ran.
  EXPECT_THAT(compare(M::kPrimarySolo, 4, 0, M::kPrimarySolo, 5, 0, 3).why, HasSubstr("not in it"));
}

struct CopyRig {
  CopyRig() {
    spec.vm_uuid = "6f1c5ba0-0000-4000-8000-000000000001";
    spec.node = "alpha";
    spec.name = "root";
    spec.path = folder.MakeFile("root.img", 1u << 20);
  }
  absl::StatusOr<std::unique_ptr<DiskCopy>> Open() { return DiskCopy::Open(spec, PosixFiles()); }
  void StampAs(Mode mode, bool close) {
    auto copy = Open();
    ASSERT_TRUE(copy.ok()) << copy.status();
    Stamp stamp = (*copy)->stamp();
    stamp.mode = mode;
    stamp.term = Term(3);
    ASSERT_TRUE((*copy)->SetStamp(stamp).ok());
    if (close) {
      ASSERT_TRUE((*copy)->Close().ok());
    }
  }
  // By whoever opens it, and by whoever only looks.
  void ExpectRefused(absl::StatusCode code, const std::string& what,
                     const std::string& remedy = "remove") {
    const auto copy = Open();
    ASSERT_FALSE(copy.ok());
    EXPECT_EQ(copy.status().code(), code) << copy.status();
    const std::string message(copy.status().message());
    EXPECT_THAT(message, HasSubstr("root.img"));
    EXPECT_THAT(message, HasSubstr(what));
    EXPECT_THAT(message, HasSubstr(remedy));
    EXPECT_EQ(Inspect(spec, PosixFiles()).status, copy.status());
  }

  TempFolder folder;
  CopySpec spec;
};

TEST(DiskCopyTest, BeginsUnstampedAndRemembers) {
  CopyRig rig;
  {
    auto copy = rig.Open();
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_EQ((*copy)->stamp().mode, Mode::kNever);
    EXPECT_TRUE((*copy)->trusted().ok());
    EXPECT_TRUE((*copy)->Close().ok());
    EXPECT_FALSE(std::filesystem::exists((*copy)->stamp_path()));
  }
  rig.StampAs(Mode::kPrimaryProtected, /*close=*/true);
  auto copy = rig.Open();
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ((*copy)->stamp().mode, Mode::kPrimaryProtected);
  EXPECT_EQ((*copy)->stamp().term, Term(3));
  EXPECT_EQ((*copy)->stamp().node, "alpha");
  EXPECT_TRUE((*copy)->stamp().is_clean);
  EXPECT_EQ((*copy)->journal_path(), rig.folder.Path("root.img.journal"));
  EXPECT_EQ(ReadStamp(rig.spec, PosixFiles())->size_bytes, 1u << 20);
}

TEST(DiskCopyTest, KeepsItsFilesInTheStateFolder) {
  CopyRig rig;
  rig.spec.state_dir = rig.folder.Path("state");
  std::filesystem::create_directory(rig.spec.state_dir);
  rig.StampAs(Mode::kPrimarySolo, /*close=*/true);
  EXPECT_TRUE(std::filesystem::exists(rig.spec.state_dir + "/root.img.romulus"));
}

TEST(DiskCopyTest, RefusesAnotherVmsOrDisksStamp) {
  CopyRig rig;
  rig.StampAs(Mode::kPrimarySolo, /*close=*/true);
  rig.spec.name = "data";
  rig.ExpectRefused(absl::StatusCode::kFailedPrecondition, "\"root\"");
  rig.spec.name = "root";
  rig.spec.vm_uuid = "6f1c5ba0-0000-4000-8000-000000000002";
  rig.ExpectRefused(absl::StatusCode::kFailedPrecondition, "of the VM");
}

TEST(DiskCopyTest, RefusesAnotherSize) {
  CopyRig rig;
  rig.StampAs(Mode::kPrimarySolo, /*close=*/true);
  std::filesystem::resize_file(rig.spec.path, 2u << 20);
  rig.ExpectRefused(absl::StatusCode::kFailedPrecondition, "1048576");
}

TEST(DiskCopyTest, RefusesAnImageChangedBehindOurBack) {
  CopyRig rig;
  rig.StampAs(Mode::kPrimarySolo, /*close=*/true);
  const timespec times[2] = {{1000, 0}, {1000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, rig.spec.path.c_str(), times, 0), 0);
  rig.ExpectRefused(absl::StatusCode::kFailedPrecondition, "somebody else");
}

TEST(DiskCopyTest, AnUncleanImageMayHaveChangedButNotBeenExchanged) {
  CopyRig rig;
  rig.StampAs(Mode::kPrimarySolo, /*close=*/false);
  const timespec times[2] = {{1000, 0}, {1000, 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, rig.spec.path.c_str(), times, 0), 0);
  EXPECT_TRUE(rig.Open().ok());
  std::filesystem::rename(rig.spec.path, rig.folder.Path("kept"));
  rig.folder.MakeFile("root.img", 1u << 20);
  rig.ExpectRefused(absl::StatusCode::kFailedPrecondition, "another file");
}

TEST(DiskCopyTest, RefusesADamagedStampAndANewerOne) {
  CopyRig rig;
  rig.StampAs(Mode::kPrimarySolo, /*close=*/true);
  const std::string stamp_path = rig.folder.Path("root.img.romulus");
  const std::string text = ReadAll(stamp_path);
  WriteAll(stamp_path, absl::StrReplaceAll(text, {{"term: 3", "term: 4"}}));
  rig.ExpectRefused(absl::StatusCode::kDataLoss, "checksum");
  WriteAll(stamp_path, Resealed(absl::StrReplaceAll(text, {{"format: 1", "format: 9"}})));
  rig.ExpectRefused(absl::StatusCode::kUnimplemented, "newer romulusd");
}

// The disk is named, not only the file that few people know of.
TEST(DiskCopyTest, ASideFileThatCannotBeReadNamesItsDisk) {
  CopyRig rig;
  rig.spec.name = "system";
  const std::string path = rig.folder.Path("root.img.romulus");
  const auto expect = [&](absl::StatusCode code, const std::string& what) {
    rig.ExpectRefused(code, absl::StrCat("disk \"system\" (", rig.spec.path, "), its side file ",
                                         path, ": ", what));
  };
  WriteAll(path, std::string(kMaxStampBytes + 1, '#'));
  expect(absl::StatusCode::kOutOfRange, "is larger than 16384 bytes");
  WriteAll(path, "");
  expect(absl::StatusCode::kDataLoss, "it does not end with a checksum");
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
  expect(absl::StatusCode::kFailedPrecondition, "cannot read it: Is a directory");
  std::filesystem::remove(path);
  std::filesystem::create_symlink("root.img.romulus", path);  // to itself
  expect(absl::StatusCode::kUnknown, "cannot open it: Too many levels");
  std::filesystem::remove(path);
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  expect(absl::StatusCode::kDataLoss, "it does not end with a checksum");
}

TEST(DiskCopyTest, ASideFileThatCannotBeWrittenNamesItsDisk) {
  CopyRig rig;
  auto copy = rig.Open();
  ASSERT_TRUE(copy.ok()) << copy.status();
  std::filesystem::create_directory(rig.folder.Path("root.img.romulus.tmp"));
  Stamp stamp;
  stamp.mode = Mode::kPrimarySolo;
  const absl::Status failed = (*copy)->SetStamp(stamp);
  EXPECT_THAT(std::string(failed.message()),
              AllOf(HasSubstr(absl::StrCat("disk \"root\" (", rig.spec.path, "), its side file ")),
                    HasSubstr("root.img.romulus.tmp: cannot make it: Is a directory")));
}

TEST(DiskCopyTest, IsInspectedWhileItIsInUse) {
  CopyRig rig;
  EXPECT_EQ(Inspect(rig.spec, PosixFiles()).stamp.mode, Mode::kNever);
  EXPECT_TRUE(Inspect(rig.spec, PosixFiles()).status.ok());
  auto copy = rig.Open();
  ASSERT_TRUE(copy.ok()) << copy.status();
  Stamp stamp;
  stamp.mode = Mode::kPrimarySolo;
  stamp.term = Term(4);
  ASSERT_TRUE((*copy)->SetStamp(stamp).ok());
  ASSERT_TRUE((*copy)->file()->Write(0, std::vector<std::byte>(512)).ok());
  const Inspection found = Inspect(rig.spec, PosixFiles());
  EXPECT_TRUE(found.status.ok()) << found.status;
  EXPECT_EQ(found.stamp.term, Term(4));
  // Looking has not cost the lock.
  EXPECT_FALSE(rig.Open().ok());
  std::filesystem::remove(rig.spec.path);
  EXPECT_TRUE(absl::IsNotFound(Inspect(rig.spec, PosixFiles()).status));
}

// Somebody takes the disk between the look at the stamp and the one at the file.
TEST(DiskCopyTest, ALookBesideADaemonThatStartsIsRepeated) {
  class Meanwhile final : public Files {
   public:
    explicit Meanwhile(std::function<void()> act) : act_(std::move(act)) {}
    absl::StatusOr<DiskLook> LookAtDisk(const std::string& path) override {
      if (++looks == 1) act_();
      return real_.LookAtDisk(path);
    }
    absl::StatusOr<std::optional<std::string>> ReadText(const std::string& path,
                                                        uint64_t max_bytes) override {
      return real_.ReadText(path, max_bytes);
    }
    absl::StatusOr<std::shared_ptr<File>> OpenDisk(const std::string& path,
                                                   bool read_only) override {
      return real_.OpenDisk(path, read_only);
    }
    absl::StatusOr<std::shared_ptr<File>> OpenJournal(const std::string& path) override {
      return real_.OpenJournal(path);
    }
    absl::Status Replace(const std::string& path, absl::string_view text) override {
      return real_.Replace(path, text);
    }
    absl::Status Remove(const std::string& path) override { return real_.Remove(path); }
    std::string boot_id() override { return real_.boot_id(); }
    int looks = 0;

   private:
    Files& real_ = PosixFiles();
    const std::function<void()> act_;
  };
  CopyRig rig;
  rig.StampAs(Mode::kPrimarySolo, /*close=*/true);
  Meanwhile starts([&] {
    rig.StampAs(Mode::kPrimarySolo, /*close=*/false);
    const timespec times[2] = {{1000, 0}, {1000, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, rig.spec.path.c_str(), times, 0), 0);
  });
  EXPECT_TRUE(Inspect(rig.spec, starts).status.ok());
  EXPECT_EQ(starts.looks, 2);
}

TEST(DiskCopyTest, TouchesNothingOfAReadOnlyDisk) {
  CopyRig rig;
  rig.spec.read_only = true;
  rig.StampAs(Mode::kPrimarySolo, /*close=*/true);
  EXPECT_FALSE(std::filesystem::exists(rig.folder.Path("root.img.romulus")));
}

TEST(DiskCopyTest, AVolatileCopyIsNotTrustedAfterTheHostWasRestarted) {
  CopyRig rig;
  for (const bool clean : {false, true}) {
    auto copy = *rig.Open();
    Stamp stamp;
    stamp.mode = Mode::kSecondary;
    stamp.is_volatile = true;
    ASSERT_TRUE(copy->SetStamp(stamp).ok());
    if (clean) {
      ASSERT_TRUE(copy->Close().ok());
    }
    copy.reset();
    EXPECT_TRUE((*rig.Open())->trusted().ok());
    const std::string path = rig.folder.Path("root.img.romulus");
    WriteAll(path, Resealed(absl::StrReplaceAll(ReadAll(path),
                                                {{PosixFiles().boot_id(), "the-boot-before"}})));
    copy = *rig.Open();
    EXPECT_EQ(copy->trusted().ok(), clean);
    // A stamp that is written anew says something that is true again.
    ASSERT_TRUE(copy->SetStamp(stamp).ok());
    EXPECT_TRUE(copy->trusted().ok());
  }
}

}  // namespace
}  // namespace romulus::disk

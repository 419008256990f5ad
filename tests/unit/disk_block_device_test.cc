// A copy that is a block device, by way of a loop device. Skipped where there can be none.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/unique_fd.h"
#include "disk/copy.h"
#include "support/temp_folder.h"

namespace romulus::disk {
namespace {

using romulus::testing::ReadAll;
using romulus::testing::TempFolder;
using ::testing::HasSubstr;

constexpr uint64_t kBytes = 1u << 20;

// A file behind a loop device, which ends with this.
class Loop {
 public:
  // What is missing is in error().
  explicit Loop(const std::string& file) {
    const base::UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const base::UniqueFd backing(::open(file.c_str(), O_RDWR | O_CLOEXEC));
    // Another process may take the one that was free.
    for (int attempt = 0; attempt < 8 && path_.empty(); ++attempt) {
      const int number = control.valid() ? ::ioctl(control.get(), LOOP_CTL_GET_FREE) : -1;
      if (number < 0) break;
      const std::string path = absl::StrCat("/dev/loop", number);
      device_ = base::UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
      loop_config config = {};
      config.fd = static_cast<uint32_t>(backing.get());
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (device_.valid() && ::ioctl(device_.get(), LOOP_CONFIGURE, &config) == 0) path_ = path;
    }
    error_ = errno;
  }
  ~Loop() {
    if (!path_.empty()) ::ioctl(device_.get(), LOOP_CLR_FD);
  }
  const std::string& path() const { return path_; }
  int error() const { return error_; }

 private:
  std::string path_;
  base::UniqueFd device_;
  int error_ = 0;
};

TEST(BlockDeviceTest, IsACopyLikeAFile) {
  TempFolder folder;
  const std::string image = folder.MakeFile("image", kBytes);
  const Loop loop(image);
  if (loop.path().empty()) {
    GTEST_SKIP() << "no loop device can be had here: " << std::strerror(loop.error());
  }
  CopySpec spec;
  spec.vm_uuid = "6f1c5ba0-0000-4000-8000-000000000001";
  spec.node = "beta";
  spec.name = "root";
  spec.path = loop.path();
  const absl::Status homeless = DiskCopy::Open(spec, PosixFiles()).status();
  EXPECT_THAT(std::string(homeless.message()), HasSubstr("set `state_dir`"));
  spec.state_dir = folder.path();
  {
    const auto copy = DiskCopy::Open(spec, PosixFiles());
    ASSERT_TRUE(copy.ok()) << copy.status();
    EXPECT_EQ((*copy)->size_bytes(), kBytes);
    EXPECT_FALSE(DiskCopy::Open(spec, PosixFiles()).ok()) << "in use";
    File& file = *(*copy)->file();
    const std::string text(8192, 'x');
    ASSERT_TRUE(file.Write(4096, base::AsBytes(text)).ok());
    ASSERT_TRUE(file.Write(65536, base::AsBytes(text)).ok());
    EXPECT_TRUE(file.Reserve(0, kBytes).ok());
    ASSERT_TRUE(file.Zero(4096, 4096, /*unmap=*/true).ok());
    ASSERT_TRUE(file.Zero(65536, 4096, /*unmap=*/false).ok());
    const auto data = file.NextData(0);
    ASSERT_TRUE(data.ok()) << data.status();
    EXPECT_LE(data->offset_bytes, 8192u);
    EXPECT_FALSE(file.Write(kBytes - 4096, base::AsBytes(text)).ok()) << "beyond its end";
    Stamp stamp = (*copy)->stamp();
    stamp.mode = Mode::kSecondary;
    stamp.term = Term(3);
    ASSERT_TRUE((*copy)->SetStamp(stamp).ok());
    ASSERT_TRUE((*copy)->Close().ok());
  }
  const std::string content = ReadAll(image);
  EXPECT_EQ(content.substr(4096, 8192), std::string(4096, '\0') + std::string(4096, 'x'));
  EXPECT_EQ(content.substr(65536, 8192), std::string(4096, '\0') + std::string(4096, 'x'));
  const auto again = DiskCopy::Open(spec, PosixFiles());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ((*again)->stamp().term, Term(3));
}

}  // namespace
}  // namespace romulus::disk

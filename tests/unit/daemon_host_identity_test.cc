// Which host this is, where it says so itself and where it does not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "daemon/host_identity.h"
#include "support/temp_folder.h"

namespace romulus::daemon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr char kVm[] = "8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11";
constexpr char kMachine[] = "3d1219c7c4c5404aaa1f6d2a48adfda4\n";

class HostIdentityTest : public ::testing::Test {
 protected:
  std::string Id(const std::string& vm = kVm) const {
    const absl::StatusOr<std::string> id = HostId(vm, files_);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or("");
  }

  testing::TempFolder folder_;
  HostIdFiles files_{folder_.Path("machine-id"), folder_.Path("host-id")};
};

TEST_F(HostIdentityTest, AMachineIdIsNotShownAndTellsHostsApart) {
  testing::WriteAll(files_.machine_id, kMachine);
  const std::string id = Id();
  EXPECT_EQ(id.size(), 32u);
  EXPECT_EQ(id, Id());
  EXPECT_EQ(id, Id("8F3C2F4E-7F0B-4D52-9A57-0D5F3A9D4C11"));
  EXPECT_NE(id, Id("00000000-7f0b-4d52-9a57-0d5f3a9d4c11"));
  EXPECT_NE(id + "\n", kMachine);
  testing::WriteAll(files_.machine_id, "00000000c4c5404aaa1f6d2a48adfda4\n");
  EXPECT_NE(id, Id());
  EXPECT_FALSE(std::filesystem::exists(files_.own_id));
}

TEST_F(HostIdentityTest, AHostWithoutOneKeepsItsOwn) {
  const std::string id = Id();
  EXPECT_EQ(id.size(), 32u);
  EXPECT_EQ(id, Id());
  testing::WriteAll(files_.machine_id, "uninitialized\n");
  EXPECT_EQ(id, Id());
  std::filesystem::remove(files_.own_id);
  EXPECT_NE(id, Id());
}

TEST_F(HostIdentityTest, P7_WithoutAnyItSaysWhatToDo) {
  files_.own_id = folder_.Path("none/none/host-id");
  EXPECT_THAT(std::string(HostId(kVm, files_).status().message()),
              AllOf(HasSubstr(files_.machine_id), HasSubstr(files_.own_id),
                    HasSubstr("systemd-machine-id-setup")));
  files_.own_id = folder_.Path("bad");
  testing::WriteAll(files_.own_id, "3d1219c7");
  EXPECT_THAT(std::string(HostId(kVm, files_).status().message()),
              AllOf(HasSubstr(files_.own_id), HasSubstr("remove it")));
}

}  // namespace
}  // namespace romulus::daemon

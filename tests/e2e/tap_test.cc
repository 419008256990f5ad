// A real tap in a network namespace of the test's own, and every way in which there is none.
#include "devices/tap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/mount.h>
#include <sys/syscall.h>

#include <cstdarg>
#include <functional>
#include <utility>

#include "support/net_namespace.h"
#include "support/virtio_nic.h"

namespace {
// Runs once, when this process is about to open the device of which taps come.
std::function<void()> before_tun_is_opened;
}  // namespace

// In place of the C library's.
extern "C" int open(const char* path, int flags, ...) {
  if (before_tun_is_opened && std::strcmp(path, "/dev/net/tun") == 0) {
    std::exchange(before_tun_is_opened, nullptr)();
  }
  std::va_list more;
  va_start(more, flags);
  const int mode = (flags & O_CREAT) != 0 ? va_arg(more, int) : 0;
  va_end(more);
  return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}

namespace romulus::devices {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TestFrame;
using testing::WithHeader;

class TapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = romulus::testing::EnterNetNamespace(); !why.empty()) {
      GTEST_SKIP() << why;
    }
  }
  static absl::Status OpenError(absl::string_view name, uint32_t mtu = 1500) {
    return Tap::Open(name, mtu).status();
  }
};

// This thread without a capability, as long as the object lives.
class WithoutNetAdmin {
 public:
  WithoutNetAdmin() {
    Get();
    const __user_cap_data_struct before = data_[0];
    data_[0].effective &= ~(1u << CAP_NET_ADMIN);
    Set();
    data_[0] = before;
  }
  ~WithoutNetAdmin() { Set(); }

 private:
  void Get() { ROMULUS_CHECK(::syscall(SYS_capget, &header_, data_) == 0); }
  void Set() { ROMULUS_CHECK(::syscall(SYS_capset, &header_, data_) == 0); }
  __user_cap_header_struct header_{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data_[2];
};

TEST_F(TapTest, MovesFramesBothWays) {
  romulus::testing::MakeTap("t0");
  romulus::testing::SetLinkUp("t0", true);
  romulus::testing::TapPeer peer("t0");
  auto tap = Tap::Open("t0", 1500);
  ASSERT_TRUE(tap.ok()) << tap.status();
  std::vector<std::byte> buffer(2000);
  EXPECT_TRUE(absl::IsUnavailable((*tap)->Read(buffer).status()));
  const std::string out = WithHeader({}, TestFrame(100, 1));
  ASSERT_TRUE((*tap)->Write(base::AsBytes(out)).ok());
  EXPECT_EQ(peer.Receive(), TestFrame(100, 1));
  // The kernel throws away what is sent before it has noticed the new carrier, some time later.
  pollfd readable{(*tap)->fd(), POLLIN, 0};
  do {
    peer.Send(TestFrame(200, 2));
  } while (::poll(&readable, 1, /*timeout=*/20) == 0);
  const auto size = (*tap)->Read(buffer);
  ASSERT_TRUE(size.ok()) << size.status();
  ASSERT_EQ(*size, 212u);
  const std::string in(reinterpret_cast<const char*>(buffer.data()), *size);
  EXPECT_EQ(in.substr(12), TestFrame(200, 2));
}

// It would be in no bridge: the guest would run, and nobody would reach it.
TEST_F(TapTest, OneThatIsMissingIsNotCreatedAndItIsSaidHow) {
  for (const absl::Status& refused : {OpenError("t0"), Tap::Check("t0", 1500)}) {
    EXPECT_TRUE(absl::IsNotFound(refused)) << refused;
    EXPECT_THAT(refused.message(), AllOf(HasSubstr("tap 't0' is not there"),
                                         HasSubstr("`ip tuntap add dev t0 mode tap user 0 && "
                                                   "ip link set dev t0 master br0 up`")));
  }
  EXPECT_EQ(::if_nametoindex("t0"), 0u);
}

// The request that takes a device also makes it: one that is deleted just before is not replaced.
TEST_F(TapTest, OneThatIsDeletedMeanwhileIsNotCreated) {
  romulus::testing::MakeTap("t0");
  before_tun_is_opened = [] { ASSERT_EQ(std::system("ip link del t0"), 0); };
  const absl::Status refused = OpenError("t0");
  EXPECT_FALSE(before_tun_is_opened) << "it was not opened";
  EXPECT_TRUE(absl::IsNotFound(refused)) << refused;
  EXPECT_EQ(::if_nametoindex("t0"), 0u) << "what was created goes away again";
}

TEST_F(TapTest, ChecksWhatItWouldNotOpen) {
  romulus::testing::MakeTap("t0");
  EXPECT_TRUE(Tap::Check("t0", 1500).ok()) << Tap::Check("t0", 1500);
  EXPECT_THAT(Tap::Check("t0", 1501).message(), HasSubstr("`ip link set dev t0 mtu 1501`"));
  const auto tap = Tap::Open("t0", 1500);
  ASSERT_TRUE(tap.ok()) << tap.status();
  EXPECT_TRUE(Tap::Check("t0", 1500).ok()) << "its user may be the daemon that is asked about";
  romulus::testing::MakeTap("tun0", IFF_TUN);
  for (const char* name : {"lo", "tun0"}) {
    EXPECT_TRUE(absl::IsFailedPrecondition(Tap::Check(name, 1500))) << name;
    EXPECT_THAT(Tap::Check(name, 1500).message(), HasSubstr("no tap with one queue"));
  }
  EXPECT_TRUE(absl::IsInvalidArgument(Tap::Check("a/b", 1500)));
}

TEST_F(TapTest, CanDoWhatLinuxCan) {
  romulus::testing::MakeTap("t0");
  auto tap = Tap::Open("t0", 1500);
  ASSERT_TRUE(tap.ok()) << tap.status();
  EXPECT_EQ((*tap)->offloads(), (NetOffloads{true, true, true, true}));
  EXPECT_TRUE((*tap)->SetOffloads({.checksum = true, .tso4 = true}).ok());
  EXPECT_TRUE((*tap)->SetOffloads({.ecn = true}).ok()) << "what cannot be asked for is not";
}

TEST_F(TapTest, AnHeaderThatTheKernelRefusesIsTheFramesFault) {
  romulus::testing::MakeTap("t0");
  romulus::testing::SetLinkUp("t0", true);
  auto tap = Tap::Open("t0", 1500);
  ASSERT_TRUE(tap.ok()) << tap.status();
  const std::string frame = WithHeader({.gso_type = 0x42, .gso_bytes = 100}, TestFrame(200));
  EXPECT_TRUE(absl::IsInvalidArgument((*tap)->Write(base::AsBytes(frame))));
}

TEST_F(TapTest, ADeviceThatIsDownOrGoneSaysSo) {
  romulus::testing::MakeTap("t0");
  auto tap = Tap::Open("t0", 1500);
  ASSERT_TRUE(tap.ok()) << tap.status();
  const std::string frame = WithHeader({}, TestFrame(100));
  const absl::Status down = (*tap)->Write(base::AsBytes(frame));
  EXPECT_TRUE(absl::IsFailedPrecondition(down));
  EXPECT_THAT(down.message(), HasSubstr("`ip link set dev t0 up`"));
  ASSERT_EQ(std::system("ip link del t0"), 0);
  EXPECT_THAT((*tap)->Write(base::AsBytes(frame)).message(), HasSubstr("'t0' was deleted"));
  std::vector<std::byte> buffer(2000);
  EXPECT_THAT((*tap)->Read(buffer).status().message(), HasSubstr("'t0' was deleted"));
}

TEST_F(TapTest, RefusesNamesThatNoDeviceHas) {
  for (const char* name : {"", "sixteen-letters-", ".", "..", "a/b", "a b", "tap%d", "a:b"}) {
    const absl::Status refused = OpenError(name);
    EXPECT_TRUE(absl::IsInvalidArgument(refused)) << name;
    EXPECT_THAT(refused.message(), HasSubstr(absl::StrCat("'", name, "'")));
  }
  EXPECT_THAT(OpenError("sixteen-letters-").message(), HasSubstr("at most 15"));
}

TEST_F(TapTest, SaysWhoseItIs) {
  romulus::testing::MakeTap("t0", IFF_TAP, /*owner=*/4711);
  const WithoutNetAdmin without;
  const absl::Status refused = OpenError("t0");
  EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("'t0'"), HasSubstr("another user")));
}

TEST_F(TapTest, OpensOnesOwnWithoutCapabilities) {
  romulus::testing::MakeTap("t0", IFF_TAP, static_cast<int>(::geteuid()));
  const WithoutNetAdmin without;
  EXPECT_TRUE(Tap::Open("t0", 1500).ok());
}

TEST_F(TapTest, SaysThatAnotherHasIt) {
  romulus::testing::MakeTap("t0");
  auto first = Tap::Open("t0", 1500);
  ASSERT_TRUE(first.ok());
  const absl::Status refused = OpenError("t0");
  EXPECT_TRUE(absl::IsAlreadyExists(refused)) << refused;
  EXPECT_THAT(refused.message(), AllOf(HasSubstr("'t0'"), HasSubstr("another process")));
}

TEST_F(TapTest, SaysThatItIsNoTap) {
  romulus::testing::MakeTap("tun0", IFF_TUN);
  romulus::testing::MakeTap("many0", IFF_TAP | IFF_MULTI_QUEUE);
  for (const char* name : {"lo", "tun0", "many0"}) {
    const absl::Status refused = OpenError(name);
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(refused.message(), AllOf(HasSubstr(name), HasSubstr("no tap with one queue")));
  }
}

TEST_F(TapTest, SaysThatItsMtuIsTooSmall) {
  romulus::testing::MakeTap("t0");
  romulus::testing::SetLinkMtu("t0", 1400);
  const absl::Status refused = OpenError("t0");
  EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
  EXPECT_THAT(refused.message(),
              AllOf(HasSubstr("1400"), HasSubstr("`ip link set dev t0 mtu 1500`")));
  EXPECT_TRUE(Tap::Open("t0", 1400).ok());
}

TEST_F(TapTest, SaysThatThereIsNoTunDevice) {
  romulus::testing::MakeTap("t0");
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0) << std::strerror(errno);
  ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  ASSERT_EQ(::mount("none", "/dev/net", "tmpfs", 0, nullptr), 0);
  const absl::Status missing = OpenError("t0");
  EXPECT_TRUE(absl::IsNotFound(missing)) << missing;
  EXPECT_THAT(missing.message(), AllOf(HasSubstr("/dev/net/tun"), HasSubstr("modprobe tun")));
  // A device node that may not be opened: on a file system without devices.
  ASSERT_EQ(::mount("none", "/dev/net", "tmpfs", MS_NODEV, nullptr), 0);
  ASSERT_EQ(std::system("mknod /dev/net/tun c 10 200"), 0);
  const absl::Status denied = OpenError("t0");
  EXPECT_TRUE(absl::IsPermissionDenied(denied)) << denied;
  EXPECT_THAT(denied.message(), HasSubstr("/dev/net/tun may not be opened"));
  EXPECT_EQ(::umount2("/dev/net", MNT_DETACH), 0);
  EXPECT_EQ(::umount2("/dev/net", MNT_DETACH), 0);
}

}  // namespace
}  // namespace romulus::devices

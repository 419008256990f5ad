#include "devices/tap.h"

#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::devices {
namespace {

constexpr char kTunPath[] = "/dev/net/tun";

std::string Tapped(absl::string_view name) { return absl::StrCat("tap '", name, "'"); }

// `br0` stands for the bridge that the host's administrator has chosen.
std::string HowToAdd(absl::string_view name) {
  return absl::StrCat("`ip tuntap add dev ", name, " mode tap user ", ::geteuid(),
                      " && ip link set dev ", name,
                      " master br0 up`, with br0 the bridge to the guest's network");
}

absl::Status NotThere(absl::string_view name) {
  return absl::NotFoundError(absl::StrCat(Tapped(name), " is not there: ", HowToAdd(name)));
}

absl::Status NoTap(absl::string_view name) {
  return absl::FailedPreconditionError(absl::StrCat(
      Tapped(name),
      " is a network device, but no tap with one queue: choose another name, or delete it, then ",
      HowToAdd(name)));
}

ifreq Request(absl::string_view name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());  // was checked to fit
  return request;
}

// As the kernel has it (dev_valid_name), and without '%', by which it would choose a name itself.
absl::Status CheckName(absl::string_view name) {
  if (name.size() >= IFNAMSIZ) {
    return absl::InvalidArgumentError(absl::StrCat(Tapped(name), ": the name is too long: at most ",
                                                   IFNAMSIZ - 1, " characters"));
  }
  const bool bad = std::any_of(name.begin(), name.end(), [](unsigned char c) {
    return c <= ' ' || c == '/' || c == ':' || c == '%' || c == 0x7f;
  });
  if (name.empty() || name == "." || name == ".." || bad) {
    return absl::InvalidArgumentError(
        absl::StrCat(Tapped(name), ": no network device can have this name"));
  }
  return absl::OkStatus();
}

absl::Status OpenError(int error_number, absl::string_view name) {
  const std::string what = absl::StrCat(Tapped(name), ": ", kTunPath);
  switch (error_number) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return absl::NotFoundError(absl::StrCat(
          what,
          " is not there: load the kernel's module (`modprobe tun`); in a container, pass "
          "the device in"));
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(what,
                       " may not be opened: its usual mode is 0666; in a container, allow "
                       "the device 10:200"));
    default:
      return base::ErrnoStatus(error_number, what);
  }
}

absl::Status AttachError(int error_number, absl::string_view name) {
  const std::string what = Tapped(name);
  switch (error_number) {
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(what, " belongs to another user: delete it, then ", HowToAdd(name)));
    case EBUSY:
      return absl::AlreadyExistsError(
          absl::StrCat(what,
                       " is in use by another process: a tap has one user; give this guest "
                       "another"));
    case EINVAL:
      return NoTap(name);
    default:
      return base::ErrnoStatus(error_number, what);
  }
}

// How the driver calls itself and its kind of device: "tun" and "tap". By a question to the device
// and not to sysfs, which shows the devices of the network namespace in which it was mounted.
absl::StatusOr<bool> IsTap(int socket, absl::string_view name) {
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  ifreq request = Request(name);
  // SAFETY: the ioctl's way of handing over a structure; it lives as long as the call.
  request.ifr_data = reinterpret_cast<char*>(&info);
  if (::ioctl(socket, SIOCETHTOOL, &request) != 0) {
    if (errno == EOPNOTSUPP) return false;
    if (errno == ENODEV) return NotThere(name);
    return base::ErrnoStatus(errno, Tapped(name));
  }
  return std::strncmp(info.driver, "tun", sizeof(info.driver)) == 0 &&
         std::strncmp(info.bus_info, "tap", sizeof(info.bus_info)) == 0;
}

unsigned long TunFlags(const NetOffloads& offloads) {
  if (!offloads.checksum) return 0;
  unsigned long flags = TUN_F_CSUM;
  if (offloads.tso4) flags |= TUN_F_TSO4;
  if (offloads.tso6) flags |= TUN_F_TSO6;
  if (offloads.ecn && (offloads.tso4 || offloads.tso6)) flags |= TUN_F_TSO_ECN;
  return flags;
}

absl::Status IoError(int error_number, absl::string_view name) {
  switch (error_number) {
    case EAGAIN:
    case ENOBUFS:
    case ENOMEM:
    case EINTR:
      return absl::UnavailableError(absl::StrCat(Tapped(name), ": not now"));
    case EIO:
      return absl::FailedPreconditionError(
          absl::StrCat(Tapped(name), " is down: `ip link set dev ", name, " up`"));
    case EBADFD:
      return absl::NotFoundError(absl::StrCat(Tapped(name), " was deleted"));
    case EINVAL:
      return absl::InvalidArgumentError(absl::StrCat(Tapped(name), ": the kernel refused a frame"));
    default:
      return base::ErrnoStatus(error_number, Tapped(name));
  }
}

}  // namespace

absl::Status Tap::Check(absl::string_view name, uint32_t mtu) {
  ROMULUS_RETURN_IF_ERROR(CheckName(name));
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return base::ErrnoStatus(errno, Tapped(name));
  ifreq request = Request(name);
  if (::ioctl(socket.get(), SIOCGIFMTU, &request) != 0) {
    return errno == ENODEV ? NotThere(name) : base::ErrnoStatus(errno, Tapped(name));
  }
  ROMULUS_ASSIGN_OR_RETURN(const bool is_tap, IsTap(socket.get(), name));
  if (!is_tap) return NoTap(name);
  if (static_cast<uint32_t>(request.ifr_mtu) < mtu) {
    return absl::FailedPreconditionError(
        absl::StrCat(Tapped(name), " has an MTU of ", request.ifr_mtu, ", the guest's card one of ",
                     mtu, ": `ip link set dev ", name, " mtu ", mtu, "`, or give the card less"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Tap>> Tap::Open(absl::string_view name, uint32_t mtu) {
  ROMULUS_RETURN_IF_ERROR(Check(name, mtu));
  base::UniqueFd fd(::open(kTunPath, O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return OpenError(errno, name);
  ifreq request = Request(name);
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return AttachError(errno, name);
  // The request creates what was deleted since Check(). Such a device goes away with its
  // descriptor; one that was there stays (ours is its first descriptor, and it was there without).
  if (::ioctl(fd.get(), TUNGETIFF, &request) != 0) {
    return base::ErrnoStatus(errno, absl::StrCat(Tapped(name), ": TUNGETIFF"));
  }
  if ((request.ifr_flags & IFF_PERSIST) == 0) return NotThere(name);
  const int header_bytes = sizeof(NetHeader);
  if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_bytes) != 0) {
    return base::ErrnoStatus(errno, absl::StrCat(Tapped(name), ": TUNSETVNETHDRSZ"));
  }
  std::unique_ptr<Tap> tap(new Tap(std::string(name), std::move(fd)));
  // The most that this kernel takes.
  for (const NetOffloads& offloads :
       {NetOffloads{true, true, true, true}, NetOffloads{true, true, true, false}}) {
    if (tap->SetOffloads(offloads).ok()) {
      tap->offloads_ = offloads;
      break;
    }
  }
  ROMULUS_RETURN_IF_ERROR(tap->SetOffloads({}));
  return tap;
}

absl::StatusOr<size_t> Tap::Read(std::span<std::byte> header_and_frame) {
  const ssize_t size = ::read(fd_.get(), header_and_frame.data(), header_and_frame.size());
  if (size < 0) return IoError(errno, name_);
  return static_cast<size_t>(size);
}

absl::Status Tap::Write(std::span<const std::byte> header_and_frame) {
  if (::write(fd_.get(), header_and_frame.data(), header_and_frame.size()) >= 0) {
    return absl::OkStatus();
  }
  return IoError(errno, name_);
}

absl::Status Tap::SetOffloads(const NetOffloads& offloads) {
  if (::ioctl(fd_.get(), TUNSETOFFLOAD, TunFlags(offloads)) != 0) {
    return base::ErrnoStatus(errno, absl::StrCat(Tapped(name_), ": TUNSETOFFLOAD"));
  }
  return absl::OkStatus();
}

}  // namespace romulus::devices

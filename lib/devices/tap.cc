#include "devices/tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
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

std::string HowToAdd(absl::string_view name) {
  return absl::StrCat("`ip tuntap add dev ", name, " mode tap user ", ::geteuid(), "`");
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

absl::Status AttachError(int error_number, absl::string_view name, bool was_there) {
  const std::string what = Tapped(name);
  switch (error_number) {
    case EPERM:
      if (was_there) {
        return absl::PermissionDeniedError(
            absl::StrCat(what, " belongs to another user: delete it, then ", HowToAdd(name)));
      }
      return absl::NotFoundError(absl::StrCat(
          what, " is not there, and to create it takes CAP_NET_ADMIN: ", HowToAdd(name)));
    case EBUSY:
      return absl::AlreadyExistsError(
          absl::StrCat(what,
                       " is in use by another process: a tap has one user; give this guest "
                       "another"));
    case EINVAL:
      return absl::FailedPreconditionError(absl::StrCat(
          what,
          " is a network device, but no tap with one queue: choose another name, or delete "
          "it, then ",
          HowToAdd(name)));
    default:
      return base::ErrnoStatus(error_number, what);
  }
}

// Gives a new device its MTU and brings it up; looks at that of an old one.
absl::Status SetUpLink(absl::string_view name, uint32_t mtu, bool created) {
  const base::UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return base::ErrnoStatus(errno, Tapped(name));
  ifreq request = Request(name);
  if (created) {
    request.ifr_mtu = static_cast<int>(mtu);
    if (::ioctl(socket.get(), SIOCSIFMTU, &request) != 0) {
      return base::ErrnoStatus(errno, absl::StrCat(Tapped(name), ": MTU ", mtu));
    }
    request = Request(name);
    if (::ioctl(socket.get(), SIOCGIFFLAGS, &request) != 0) {
      return base::ErrnoStatus(errno, Tapped(name));
    }
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    if (::ioctl(socket.get(), SIOCSIFFLAGS, &request) != 0) {
      return base::ErrnoStatus(errno, absl::StrCat(Tapped(name), ": up"));
    }
    return absl::OkStatus();
  }
  if (::ioctl(socket.get(), SIOCGIFMTU, &request) != 0) {
    return base::ErrnoStatus(errno, Tapped(name));
  }
  if (static_cast<uint32_t>(request.ifr_mtu) < mtu) {
    return absl::FailedPreconditionError(
        absl::StrCat(Tapped(name), " has an MTU of ", request.ifr_mtu, ", the guest's card one of ",
                     mtu, ": `ip link set dev ", name, " mtu ", mtu, "`, or give the card less"));
  }
  return absl::OkStatus();
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

absl::StatusOr<std::unique_ptr<Tap>> Tap::Open(absl::string_view name, uint32_t mtu) {
  ROMULUS_RETURN_IF_ERROR(CheckName(name));
  base::UniqueFd fd(::open(kTunPath, O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!fd.valid()) return OpenError(errno, name);
  ifreq request = Request(name);
  const bool was_there = ::if_nametoindex(request.ifr_name) != 0;
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) return AttachError(errno, name, was_there);
  const int header_bytes = sizeof(NetHeader);
  if (::ioctl(fd.get(), TUNSETVNETHDRSZ, &header_bytes) != 0) {
    return base::ErrnoStatus(errno, absl::StrCat(Tapped(name), ": TUNSETVNETHDRSZ"));
  }
  ROMULUS_RETURN_IF_ERROR(SetUpLink(name, mtu, !was_there));
  std::unique_ptr<Tap> tap(new Tap(std::string(name), std::move(fd), !was_there));
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

// A network of the test's own: this process moves into an empty network namespace, where it makes
// taps and looks at what passes through them. One process per test; needs CAP_SYS_ADMIN,
// CAP_NET_ADMIN and /dev/net/tun.
#ifndef ROMULUS_TESTS_SUPPORT_NET_NAMESPACE_H_
#define ROMULUS_TESTS_SUPPORT_NET_NAMESPACE_H_

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/unique_fd.h"

namespace romulus::testing {

// Empty, or why it cannot be done here.
inline std::string EnterNetNamespace() {
  if (::unshare(CLONE_NEWNET) != 0) {
    return absl::StrCat("a network namespace: ", std::strerror(errno), " (run as root)");
  }
  const base::UniqueFd tun(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  if (!tun.valid()) return absl::StrCat("/dev/net/tun: ", std::strerror(errno));
  // No frames but the test's own.
  std::ofstream("/proc/sys/net/ipv6/conf/default/disable_ipv6") << "1";
  return "";
}

inline ifreq LinkRequest(const std::string& name) {
  ROMULUS_CHECK(name.size() < IFNAMSIZ);
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  return request;
}

inline base::UniqueFd LinkSocket() {
  return base::UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
}

inline ifreq GetLink(const std::string& name, unsigned long what) {
  ifreq request = LinkRequest(name);
  ROMULUS_CHECK(::ioctl(LinkSocket().get(), what, &request) == 0);
  return request;
}

inline void SetLinkUp(const std::string& name, bool up) {
  ifreq request = GetLink(name, SIOCGIFFLAGS);
  request.ifr_flags =
      static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
  ROMULUS_CHECK(::ioctl(LinkSocket().get(), SIOCSIFFLAGS, &request) == 0);
}

inline void SetLinkMtu(const std::string& name, int mtu) {
  ifreq request = LinkRequest(name);
  request.ifr_mtu = mtu;
  ROMULUS_CHECK(::ioctl(LinkSocket().get(), SIOCSIFMTU, &request) == 0);
}

inline void SetLinkAddress(const std::string& name, const std::string& ip) {
  ifreq request = LinkRequest(name);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  ROMULUS_CHECK(::inet_pton(AF_INET, ip.c_str(), &address.sin_addr) == 1);
  std::memcpy(&request.ifr_addr, &address, sizeof(address));
  ROMULUS_CHECK(::ioctl(LinkSocket().get(), SIOCSIFADDR, &request) == 0);
}

// A persistent device, as `ip tuntap add` makes one; `flags` beside IFF_NO_PI. Down.
inline void MakeTap(const std::string& name, int flags = IFF_TAP, int owner = -1) {
  const base::UniqueFd fd(::open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request = LinkRequest(name);
  request.ifr_flags = static_cast<short>(flags | IFF_NO_PI);
  ROMULUS_CHECK(::ioctl(fd.get(), TUNSETIFF, &request) == 0);
  if (owner >= 0) ROMULUS_CHECK(::ioctl(fd.get(), TUNSETOWNER, owner) == 0);
  ROMULUS_CHECK(::ioctl(fd.get(), TUNSETPERSIST, 1) == 0);
}

// The host's end of a tap: what the guest sends comes out here, what is sent here reaches the
// guest. Whole Ethernet frames.
class TapPeer {
 public:
  explicit TapPeer(const std::string& name)
      : fd_(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETH_P_ALL))) {
    ROMULUS_CHECK(fd_.valid());
    const int ignore = 1;
    ROMULUS_CHECK(
        ::setsockopt(fd_.get(), SOL_PACKET, PACKET_IGNORE_OUTGOING, &ignore, sizeof(ignore)) == 0);
    const int bytes = 64 << 20;
    ROMULUS_CHECK(::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) == 0);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(name.c_str()));
    ROMULUS_CHECK(address.sll_ifindex != 0);
    // SAFETY: the sockets API's way of naming an address.
    ROMULUS_CHECK(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) ==
                  0);
  }
  void Send(const std::string& frame) {
    ROMULUS_CHECK(::send(fd_.get(), frame.data(), frame.size(), 0) ==
                  static_cast<ssize_t>(frame.size()));
  }
  // Waits for the next one.
  std::string Receive() { return *Receive(0); }
  // Nothing if there is none now.
  std::optional<std::string> TryReceive() { return Receive(MSG_DONTWAIT); }

 private:
  std::optional<std::string> Receive(int flags) {
    std::string frame(1 << 17, '\0');
    const ssize_t size = ::recv(fd_.get(), frame.data(), frame.size(), flags);
    if (size < 0) {
      ROMULUS_CHECK(errno == EAGAIN);
      return std::nullopt;
    }
    frame.resize(static_cast<size_t>(size));
    return frame;
  }

  const base::UniqueFd fd_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_NET_NAMESPACE_H_

#include "devices/net_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace romulus::devices {
namespace {

int HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

absl::Status Unfit(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' ", why));
}

// Why no card may have the address; empty if one may (RFC 1122, 3.2.1.3; RFC 1112, 4).
absl::string_view Unfitness(const Ipv4Address& ip) {
  if (ip[0] == 0) return "is no host's address";
  if (ip[0] == 127) return "is a loopback address";
  if (ip[0] >= 224 && ip[0] < 240) return "is a multicast address";
  if (ip[0] >= 240) return "is reserved or broadcast";
  return "";
}

absl::string_view Unfitness(const Ipv6Address& ip) {  // RFC 4291, 2.4
  const bool begins_with_zeros =
      std::all_of(ip.begin(), ip.end() - 1, [](uint8_t b) { return b == 0; });
  if (begins_with_zeros && ip[15] == 0) return "is the unspecified address";
  if (begins_with_zeros && ip[15] == 1) return "is the loopback address";
  if (ip[0] == 0xff) return "is a multicast address";
  return "";
}

}  // namespace

absl::StatusOr<MacAddress> ParseCardMac(absl::string_view text) {
  MacAddress mac;
  bool well_formed = text.size() == 3 * mac.size() - 1;
  for (size_t i = 0; well_formed && i < mac.size(); ++i) {
    const int high = HexDigit(text[3 * i]);
    const int low = HexDigit(text[3 * i + 1]);
    well_formed = high >= 0 && low >= 0 && (i + 1 == mac.size() || text[3 * i + 2] == ':');
    mac[i] = static_cast<uint8_t>(high * 16 + low);
  }
  if (!well_formed) return Unfit(text, "is no MAC address; one looks like 52:54:00:12:34:56");
  // IEEE 802: the first bit that is sent of a group's address is 1.
  if ((mac[0] & 1) != 0) {
    return Unfit(text, "is a group's MAC address; a card's has an even first byte");
  }
  if (mac == MacAddress{}) return Unfit(text, "is no card's MAC address");
  return mac;
}

std::string FormatMac(const MacAddress& mac) {
  return absl::StrFormat("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4],
                         mac[5]);
}

absl::StatusOr<IpAddress> ParseCardIp(absl::string_view text) {
  const std::string terminated(text);
  absl::string_view why;
  IpAddress ip;
  Ipv4Address v4;
  Ipv6Address v6;
  if (terminated.size() != std::strlen(terminated.c_str())) {
    why = "is no IP address";
  } else if (::inet_pton(AF_INET, terminated.c_str(), v4.data()) == 1) {
    why = Unfitness(v4);
    ip = v4;
  } else if (::inet_pton(AF_INET6, terminated.c_str(), v6.data()) == 1) {
    why = Unfitness(v6);
    ip = v6;
  } else {
    why = "is no IP address (without a prefix length); one looks like 10.0.0.7 or fd00::7";
  }
  if (!why.empty()) return Unfit(text, why);
  return ip;
}

}  // namespace romulus::devices

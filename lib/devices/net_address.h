// Addresses of network cards, as configurations write them. Values; any thread.
#ifndef ROMULUS_DEVICES_NET_ADDRESS_H_
#define ROMULUS_DEVICES_NET_ADDRESS_H_

#include <array>
#include <cstdint>
#include <string>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace romulus::devices {

using MacAddress = std::array<uint8_t, 6>;  // in the order of transmission
using Ipv4Address = std::array<uint8_t, 4>;
using Ipv6Address = std::array<uint8_t, 16>;
using IpAddress = std::variant<Ipv4Address, Ipv6Address>;

// "52:54:00:12:34:56". Errors: InvalidArgument that says what is wrong with it: its form, or that
// no card may have it (a group address, or all zero).
absl::StatusOr<MacAddress> ParseCardMac(absl::string_view text);
std::string FormatMac(const MacAddress& mac);

// "10.0.0.7" or "fd00::7", an address that one card may have and announce. Errors: InvalidArgument:
// its form, or that it is a group's, the unspecified one, loopback or broadcast.
absl::StatusOr<IpAddress> ParseCardIp(absl::string_view text);

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_NET_ADDRESS_H_

// What tells a network where a card is now: frames for switches, which learn the port of a MAC from
// any frame that comes from it, and for neighbours, which may know another MAC for an address.
// Pure; any thread.
#ifndef ROMULUS_DEVICES_NET_ANNOUNCE_H_
#define ROMULUS_DEVICES_NET_ANNOUNCE_H_

#include <cstddef>
#include <span>
#include <vector>

#include "devices/net_address.h"

namespace romulus::devices {

using EthernetFrame = std::vector<std::byte>;  // without preamble and checksum; at least 60 bytes

// A broadcast RARP request (RFC 903) by which the card asks for its own address: it claims nothing
// but the MAC, and nobody has to answer.
EthernetFrame RarpRequest(const MacAddress& mac);

// An ARP announcement (RFC 5227, 2.3): a broadcast request for the card's own address.
EthernetFrame ArpAnnouncement(const MacAddress& mac, const Ipv4Address& ip);

// An unsolicited neighbour advertisement to all nodes that overrides what they know (RFC 4861, 4.4
// and 7.2.6). It says that the address is not a router's, which is not known here: a router's next
// advertisement sets that right.
EthernetFrame NeighborAdvertisement(const MacAddress& mac, const Ipv6Address& ip);

// All of them: for the MAC, then for each address.
std::vector<EthernetFrame> Announcements(const MacAddress& mac, std::span<const IpAddress> ips);

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_NET_ANNOUNCE_H_

#include "devices/net_announce.h"

#include <algorithm>
#include <cstdint>
#include <initializer_list>

namespace romulus::devices {
namespace {

constexpr size_t kMinFrameBytes = 60;  // IEEE 802.3, without the checksum
constexpr uint16_t kEtherTypeArp = 0x0806;
constexpr uint16_t kEtherTypeRarp = 0x8035;
constexpr uint16_t kEtherTypeIpv4 = 0x0800;
constexpr uint16_t kEtherTypeIpv6 = 0x86dd;
constexpr MacAddress kBroadcast{0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr MacAddress kAllNodesMac{0x33, 0x33, 0, 0, 0, 1};  // RFC 2464, 7
constexpr Ipv6Address kAllNodes{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
constexpr uint8_t kIcmpV6 = 58;

class FrameWriter {
 public:
  FrameWriter(const MacAddress& to, const MacAddress& from, uint16_t ether_type) {
    Bytes(to).Bytes(from).Word(ether_type);
  }
  FrameWriter& Byte(uint8_t value) {
    frame_.push_back(std::byte{value});
    return *this;
  }
  FrameWriter& Word(uint16_t value) {  // network order
    return Byte(static_cast<uint8_t>(value >> 8)).Byte(static_cast<uint8_t>(value));
  }
  FrameWriter& Bytes(std::span<const uint8_t> bytes) {
    for (const uint8_t byte : bytes) Byte(byte);
    return *this;
  }
  size_t size() const { return frame_.size(); }
  void SetWord(size_t offset, uint16_t value) {
    frame_[offset] = static_cast<std::byte>(value >> 8);
    frame_[offset + 1] = static_cast<std::byte>(value);
  }
  // The sum of 16-bit words (RFC 1071) of an even number of bytes from `offset` to the end.
  uint32_t Sum(size_t offset) const {
    uint32_t sum = 0;
    for (; offset + 1 < frame_.size(); offset += 2) {
      sum += std::to_integer<uint32_t>(frame_[offset]) << 8 |
             std::to_integer<uint32_t>(frame_[offset + 1]);
    }
    return sum;
  }
  EthernetFrame Padded() && {
    frame_.resize(std::max(frame_.size(), kMinFrameBytes));
    return std::move(frame_);
  }

 private:
  EthernetFrame frame_;
};

// RFC 826's packet, which RFC 903 shares.
EthernetFrame ArpLike(uint16_t ether_type, uint16_t operation, const MacAddress& sender,
                      const MacAddress& target, const Ipv4Address& ip) {
  FrameWriter frame(kBroadcast, sender, ether_type);
  frame.Word(1).Word(kEtherTypeIpv4).Byte(6).Byte(4).Word(operation);
  frame.Bytes(sender).Bytes(ip).Bytes(target).Bytes(ip);
  return std::move(frame).Padded();
}

}  // namespace

EthernetFrame RarpRequest(const MacAddress& mac) {
  return ArpLike(kEtherTypeRarp, /*operation=*/3, mac, mac, Ipv4Address{});
}

EthernetFrame ArpAnnouncement(const MacAddress& mac, const Ipv4Address& ip) {
  return ArpLike(kEtherTypeArp, /*operation=*/1, mac, MacAddress{}, ip);
}

EthernetFrame NeighborAdvertisement(const MacAddress& mac, const Ipv6Address& ip) {
  constexpr uint16_t kPayloadBytes = 24 + 8;  // the message and one option
  constexpr uint8_t kAdvertisement = 136;
  constexpr uint8_t kOverride = 0x20;
  constexpr uint8_t kTargetLinkLayerAddress = 2;
  FrameWriter frame(kAllNodesMac, mac, kEtherTypeIpv6);
  // RFC 8200, 3. A receiver insists on the hop limit 255.
  frame.Word(0x6000).Word(0).Word(kPayloadBytes).Byte(kIcmpV6).Byte(255);
  const size_t pseudo_header = frame.size();  // the addresses, and two numbers (RFC 8200, 8.1)
  frame.Bytes(ip).Bytes(kAllNodes);
  const size_t message = frame.size();
  frame.Byte(kAdvertisement).Byte(0).Word(0);
  frame.Byte(kOverride).Byte(0).Word(0).Bytes(ip);
  frame.Byte(kTargetLinkLayerAddress).Byte(1).Bytes(mac);
  uint32_t sum = frame.Sum(pseudo_header) + kPayloadBytes + kIcmpV6;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  frame.SetWord(message + 2, static_cast<uint16_t>(~sum));
  return std::move(frame).Padded();
}

std::vector<EthernetFrame> Announcements(const MacAddress& mac, std::span<const IpAddress> ips) {
  std::vector<EthernetFrame> frames{RarpRequest(mac)};
  for (const IpAddress& ip : ips) {
    const auto* const v4 = std::get_if<Ipv4Address>(&ip);
    frames.push_back(v4 != nullptr ? ArpAnnouncement(mac, *v4)
                                   : NeighborAdvertisement(mac, std::get<Ipv6Address>(ip)));
  }
  return frames;
}

}  // namespace romulus::devices

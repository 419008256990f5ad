// The header in front of each frame (virtio 1.2, 5.1.6) and the one check of it for both
// directions: a driver's header goes to the host's kernel, a tap's to the driver. Values; any
// thread.
#ifndef ROMULUS_DEVICES_VIRTIO_NET_HEADER_H_
#define ROMULUS_DEVICES_VIRTIO_NET_HEADER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace romulus::devices {

// What the receiver of a frame can do with it.
struct NetOffloads {
  bool checksum = false;  // fill in a checksum; none of the others without it
  bool tso4 = false;      // cut TCP over IPv4 into segments
  bool tso6 = false;
  bool ecn = false;  // the same with the ECN bit set

  friend bool operator==(const NetOffloads&, const NetOffloads&) = default;
};

struct NetHeader {
  static constexpr uint8_t kNeedsChecksum = 1;  // flags
  static constexpr uint8_t kDataValid = 2;
  static constexpr uint8_t kGsoNone = 0;  // gso_type
  static constexpr uint8_t kGsoTcp4 = 1;
  static constexpr uint8_t kGsoTcp6 = 4;
  static constexpr uint8_t kGsoEcn = 0x80;

  uint8_t flags = 0;
  uint8_t gso_type = 0;
  uint16_t header_bytes = 0;  // a hint
  uint16_t gso_bytes = 0;     // of payload in a segment
  uint16_t checksum_start = 0;
  uint16_t checksum_offset = 0;  // from checksum_start
  uint16_t buffers = 0;

  friend bool operator==(const NetHeader&, const NetHeader&) = default;
};
static_assert(sizeof(NetHeader) == 12);

inline constexpr size_t kEthernetHeaderBytes = 14;
// An Ethernet header, that of IPv6, and as much as can follow it (5.1.6.3).
inline constexpr size_t kMaxFrameBytes = 14 + 40 + 65535;

// The header that may go with `frame` to a receiver that can do `offloads` and takes frames of at
// most `mtu` bytes of payload that are not to be cut (0: any): hints are bounded by the frame, what
// is not used is zero, flags other than kNeedsChecksum and kDataValid are gone. Nothing: the frame
// cannot be sent, because it is too short or too long, or its header asks for what cannot be.
std::optional<NetHeader> CheckNetHeader(const NetHeader& header, std::span<const std::byte> frame,
                                        const NetOffloads& offloads, uint32_t mtu);

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_NET_HEADER_H_

#include "devices/virtio/net_header.h"

#include <algorithm>

namespace romulus::devices {
namespace {

constexpr size_t kTypeOffset = 12;  // of the EtherType
constexpr size_t kTagBytes = 4;     // 802.1Q

bool IsTagged(std::span<const std::byte> frame) {
  return frame[kTypeOffset] == std::byte{0x81} && frame[kTypeOffset + 1] == std::byte{0x00};
}

bool MayCut(uint8_t type, const NetOffloads& offloads) {
  if ((type & NetHeader::kGsoEcn) != 0 && !offloads.ecn) return false;
  switch (type & ~NetHeader::kGsoEcn) {
    case NetHeader::kGsoTcp4:
      return offloads.tso4;
    case NetHeader::kGsoTcp6:
      return offloads.tso6;
    default:
      return false;
  }
}

}  // namespace

std::optional<NetHeader> CheckNetHeader(const NetHeader& header, std::span<const std::byte> frame,
                                        const NetOffloads& offloads, uint32_t mtu) {
  if (frame.size() < kEthernetHeaderBytes || frame.size() > kMaxFrameBytes) return std::nullopt;
  NetHeader checked;
  checked.header_bytes = static_cast<uint16_t>(std::min<size_t>(header.header_bytes, frame.size()));
  if ((header.flags & NetHeader::kNeedsChecksum) != 0) {
    const size_t end = size_t{header.checksum_start} + header.checksum_offset + sizeof(uint16_t);
    if (!offloads.checksum || end > frame.size()) return std::nullopt;
    checked.flags |= NetHeader::kNeedsChecksum;
    checked.checksum_start = header.checksum_start;
    checked.checksum_offset = header.checksum_offset;
  } else if (offloads.checksum) {
    checked.flags |= header.flags & NetHeader::kDataValid;
  }
  if (header.gso_type != NetHeader::kGsoNone) {
    // To cut a frame is to make checksums anew (5.1.6.2.1).
    const bool has_checksum = (checked.flags & NetHeader::kNeedsChecksum) != 0;
    if (!MayCut(header.gso_type, offloads) || !has_checksum || header.gso_bytes == 0) {
      return std::nullopt;
    }
    checked.gso_type = header.gso_type;
    checked.gso_bytes = header.gso_bytes;
  } else if (mtu != 0 &&
             frame.size() > kEthernetHeaderBytes + (IsTagged(frame) ? kTagBytes : 0) + mtu) {
    return std::nullopt;
  }
  return checked;
}

}  // namespace romulus::devices

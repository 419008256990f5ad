#include "devices/i8042.h"

#include <algorithm>

namespace romulus::devices {
namespace {

constexpr uint8_t kPulseReset = 0xfe;
// Input buffer empty, output buffer empty, self-test passed.
constexpr std::byte kStatusIdle{0x04};

}  // namespace

void I8042CommandPort::Read(uint64_t, std::span<std::byte> data) {
  std::fill(data.begin(), data.end(), kStatusIdle);
}

void I8042CommandPort::Write(uint64_t, std::span<const std::byte> data) {
  if (!data.empty() && static_cast<uint8_t>(data.front()) == kPulseReset) events_.OnReset();
}

void I8042DataPort::Read(uint64_t, std::span<std::byte> data) {
  std::fill(data.begin(), data.end(), std::byte{0});
}

void I8042DataPort::Write(uint64_t, std::span<const std::byte>) {}

}  // namespace romulus::devices

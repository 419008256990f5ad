// Device state from a hostile peer, then I/O from a hostile guest. Whatever a device accepted as
// its state, and whatever the guest did to it then, it can save, and another one can restore that
// to the very same state. Input: three sections, each a 16-bit length and a payload, then I/O of 4
// bytes each.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "base/bytes.h"
#include "base/check.h"
#include "devices/platform.h"
#include "unit/devices_fakes.h"

namespace romulus::devices {
namespace {

constexpr PlatformPorts kPorts{.serial = 0x3f8,
                               .cmos = 0x70,
                               .keyboard_data = 0x60,
                               .keyboard_command = 0x64,
                               .pm = 0x600,
                               .reset = 0xcf9};
constexpr std::array<uint64_t, 6> kFirstPorts{0x3f8, 0x70, 0x60, 0x64, 0x600, 0xcf9};

struct Rig {
  Rig() { ROMULUS_CHECK(platform.MapPorts(bus, kPorts).ok()); }
  state::MachineState Save() {
    state::MachineState out;
    for (Device* device : platform.devices()) ROMULUS_CHECK(device->Save(out).ok());
    return out;
  }

  testing::FakeConsole console;
  testing::FakeEvents events;
  testing::FakeWallClock clock;
  testing::FakeIrq serial_irq, sci;
  Platform platform{{console, events, clock, serial_irq, sci}};
  Bus bus{"pio"};
};

void FuzzOne(std::span<const std::byte> input) {
  base::ByteReader reader(input);
  Rig rig;
  rig.clock.now_ns = static_cast<int64_t>(reader.Read<uint64_t>());
  for (Device* device : rig.platform.devices()) {
    const size_t size = std::min<size_t>(reader.Read<uint16_t>(), reader.remaining());
    const std::span<const std::byte> payload = reader.Take(size);
    state::MachineState in;
    std::string bytes(payload.size(), '\0');
    if (!payload.empty()) std::memcpy(bytes.data(), payload.data(), payload.size());
    in.Put(device->name(), 0, 1, std::move(bytes));
    (void)device->Restore(in);
  }
  struct Access {
    uint8_t port;
    uint8_t shape;  // bit 0: write; bits 1-2: log2 of the size; bit 3: input from the host instead
    uint8_t low;
    uint8_t high;
  };
  while (reader.remaining() >= sizeof(Access)) {
    const auto access = reader.Read<Access>();
    const uint64_t port = kFirstPorts[access.port % kFirstPorts.size()] + access.port / 32;
    std::array<std::byte, 8> data;
    for (size_t i = 0; i < data.size(); ++i) {
      data[i] = static_cast<std::byte>(i % 2 == 0 ? access.low : access.high);
    }
    const std::span<std::byte> bytes(data.data(), size_t{1} << ((access.shape >> 1) & 3));
    if ((access.shape & 8) != 0) {
      rig.platform.serial().Receive(bytes);
    } else if ((access.shape & 1) != 0) {
      rig.bus.Write(port, bytes);
    } else {
      rig.bus.Read(port, bytes);
    }
  }
  state::MachineState saved = rig.Save();
  const state::MachineState expected = saved;
  Rig other;
  other.clock.now_ns = rig.clock.now_ns;
  for (Device* device : other.platform.devices()) {
    ROMULUS_CHECK(device->Restore(saved).ok());
  }
  ROMULUS_CHECK(saved.ExpectEmpty().ok());
  ROMULUS_CHECK(other.Save() == expected);
  ROMULUS_CHECK(other.serial_irq.high == rig.serial_irq.high && other.sci.high == rig.sci.high);
}

}  // namespace
}  // namespace romulus::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  romulus::devices::FuzzOne(std::as_bytes(std::span<const uint8_t>(data, size)));
  return 0;
}

// What a device is plugged into, for tests: each remembers what it was told.
#ifndef ROMULUS_TESTS_UNIT_DEVICES_FAKES_H_
#define ROMULUS_TESTS_UNIT_DEVICES_FAKES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "devices/cmos.h"
#include "devices/device.h"
#include "devices/platform_events.h"
#include "devices/sinks.h"

namespace romulus::devices::testing {

class FakeConsole final : public ConsoleSink {
 public:
  void WriteConsole(std::span<const std::byte> bytes) override {
    for (const std::byte byte : bytes) text += static_cast<char>(byte);
  }
  std::string text;
};

class FakeIrq final : public IrqLine {
 public:
  void Set(bool level) override {
    if (level && !high) ++edges;
    high = level;
    ++calls;
  }
  bool high = false;
  int edges = 0;
  int calls = 0;
};

class FakeEvents final : public PlatformEvents {
 public:
  void OnPowerOff() override { ++power_offs; }
  void OnReset() override { ++resets; }
  int power_offs = 0;
  int resets = 0;
};

class FakeWallClock final : public WallClock {
 public:
  int64_t NowUnixNs() const override { return now_ns; }
  int64_t now_ns = 0;
};

template <typename T>
T ReadAs(IoHandler& handler, uint64_t offset) {
  std::array<std::byte, sizeof(T)> raw;
  raw.fill(std::byte{0xaa});
  handler.Read(offset, raw);
  T value;
  std::memcpy(&value, raw.data(), sizeof(T));
  return value;
}

template <typename T>
void WriteAs(IoHandler& handler, uint64_t offset, T value) {
  handler.Write(offset, std::as_bytes(std::span<const T, 1>(&value, 1)));
}

inline uint8_t Read8(IoHandler& handler, uint64_t offset) {
  return ReadAs<uint8_t>(handler, offset);
}
inline void Write8(IoHandler& handler, uint64_t offset, uint8_t value) {
  WriteAs<uint8_t>(handler, offset, value);
}

}  // namespace romulus::devices::testing

#endif  // ROMULUS_TESTS_UNIT_DEVICES_FAKES_H_

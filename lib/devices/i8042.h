// The keyboard controller as far as a guest without a keyboard needs it: status that says "idle",
// and command 0xfe, which pulses the CPU reset line. Stateless: any thread, nothing to save.
// Commands: IBM PS/2 technical reference, keyboard controller.
#ifndef ROMULUS_DEVICES_I8042_H_
#define ROMULUS_DEVICES_I8042_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "devices/device.h"
#include "devices/platform_events.h"

namespace romulus::devices {

// Port 0x64.
class I8042CommandPort final : public IoHandler {
 public:
  explicit I8042CommandPort(PlatformEvents& events) : events_(events) {}
  void Read(uint64_t offset, std::span<std::byte> data) override;
  void Write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  PlatformEvents& events_;
};

// Port 0x60: no byte ever waits.
class I8042DataPort final : public IoHandler {
 public:
  void Read(uint64_t offset, std::span<std::byte> data) override;
  void Write(uint64_t offset, std::span<const std::byte> data) override;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_I8042_H_

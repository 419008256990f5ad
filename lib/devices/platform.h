// The devices that every machine has, and where they lie: serial, keyboard controller's reset,
// power management, CMOS. Owns the devices; holds references to everything in PlatformParts. Ports
// 0x20, 0x40, 0x61 and 0xa0 are not here: KVM's PIC and PIT (made with KVM_PIT_SPEAKER_DUMMY)
// answer them.
#ifndef ROMULUS_DEVICES_PLATFORM_H_
#define ROMULUS_DEVICES_PLATFORM_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "devices/bus.h"
#include "devices/cmos.h"
#include "devices/device.h"
#include "devices/i8042.h"
#include "devices/platform_events.h"
#include "devices/pm.h"
#include "devices/serial.h"
#include "devices/sinks.h"

namespace romulus::devices {

struct PlatformParts {
  ConsoleSink& console;
  PlatformEvents& events;
  const WallClock& clock;
  IrqLine& serial_irq;  // GSI 4
  IrqLine& sci;         // GSI 9
};

// First port of each device; arch/memory_map.h has the numbers.
struct PlatformPorts {
  uint64_t serial = 0;            // 8 ports
  uint64_t cmos = 0;              // 2
  uint64_t keyboard_data = 0;     // 1
  uint64_t keyboard_command = 0;  // 1
  uint64_t pm = 0;                // 8
  uint64_t reset = 0;             // 1
};

class Platform {
 public:
  explicit Platform(const PlatformParts& parts);

  // Puts the devices on the port bus. Errors: as Bus::Map.
  absl::Status MapPorts(Bus& pio, const PlatformPorts& ports);

  Serial& serial() { return serial_; }
  PowerManagement& pm() { return pm_; }
  Cmos& cmos() { return cmos_; }
  // Those with state, in the order in which they are saved and restored.
  std::vector<Device*> devices() { return {&serial_, &pm_, &cmos_}; }

 private:
  Serial serial_;
  PowerManagement pm_;
  Cmos cmos_;
  I8042CommandPort keyboard_command_;
  I8042DataPort keyboard_data_;
  ResetRegister reset_;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_PLATFORM_H_

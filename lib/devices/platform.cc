#include "devices/platform.h"

#include "base/status.h"

namespace romulus::devices {

Platform::Platform(const PlatformParts& parts)
    : serial_(parts.console, parts.serial_irq),
      pm_(parts.events, parts.sci),
      cmos_(parts.clock),
      keyboard_command_(parts.events),
      reset_(parts.events) {}

absl::Status Platform::MapPorts(Bus& pio, const PlatformPorts& ports) {
  ROMULUS_RETURN_IF_ERROR(pio.Map("serial", ports.serial, 8, &serial_));
  ROMULUS_RETURN_IF_ERROR(pio.Map("cmos", ports.cmos, 2, &cmos_));
  ROMULUS_RETURN_IF_ERROR(pio.Map("keyboard data", ports.keyboard_data, 1, &keyboard_data_));
  ROMULUS_RETURN_IF_ERROR(
      pio.Map("keyboard command", ports.keyboard_command, 1, &keyboard_command_));
  ROMULUS_RETURN_IF_ERROR(pio.Map("pm", ports.pm, 8, &pm_));
  return pio.Map("reset", ports.reset, 1, &reset_);
}

}  // namespace romulus::devices

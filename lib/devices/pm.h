// ACPI's fixed power management registers (PM1a event and control blocks) and the chipset's reset
// register at 0xcf9. Power-off is SLP_EN in PM1a control, whatever SLP_TYP says: the machine has no
// other sleep. I/O from any vCPU thread; PressPowerButton() from any thread.
// Registers: ACPI 6.4, 4.8.3; reset: Intel ICH "Reset Control Register".
#ifndef ROMULUS_DEVICES_PM_H_
#define ROMULUS_DEVICES_PM_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "devices/device.h"
#include "devices/platform_events.h"

namespace romulus::devices {

class PowerManagement final : public Device, public IoHandler {
 public:
  // `sci` is ACPI's interrupt, level triggered.
  PowerManagement(PlatformEvents& events, IrqLine& sci) : events_(events), sci_(sci) {}

  // Asks the guest's operating system to shut down.
  void PressPowerButton();
  // Whether it listens, as far as it has said.
  bool power_button_enabled() const;

  absl::string_view name() const override { return "pm"; }
  absl::Status Save(state::MachineState& out) const override;
  // Restore after KVM's irqchip: it sets the interrupt line anew.
  absl::Status Restore(state::MachineState& in) override;

  // Offsets from the PM1a event block: status 0, enable 2, control 4; 2 bytes each.
  void Read(uint64_t offset, std::span<std::byte> data) override;
  void Write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  void WriteByte(uint64_t offset, uint8_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UpdateSci() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  PlatformEvents& events_;
  IrqLine& sci_;
  mutable absl::Mutex mutex_;
  uint16_t status_ ABSL_GUARDED_BY(mutex_) = 0;
  uint16_t enable_ ABSL_GUARDED_BY(mutex_) = 0;
  uint16_t control_ ABSL_GUARDED_BY(mutex_) = 1;  // SCI_EN: always in ACPI mode
  bool sci_high_ ABSL_GUARDED_BY(mutex_) = false;
};

// Port 0xcf9: bit 2 resets. Stateless; any thread.
class ResetRegister final : public IoHandler {
 public:
  explicit ResetRegister(PlatformEvents& events) : events_(events) {}
  void Read(uint64_t offset, std::span<std::byte> data) override;
  void Write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  PlatformEvents& events_;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_PM_H_

// What the machine asks of every emulated device. A device is owned by the machine; its I/O
// handlers run on vCPU threads (several at once: a device locks itself), Save and Restore run with
// all vCPUs stopped.
#ifndef ROMULUS_DEVICES_DEVICE_H_
#define ROMULUS_DEVICES_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "state/machine_state.h"

namespace romulus::devices {

class Device {
 public:
  virtual ~Device() = default;
  virtual absl::string_view name() const = 0;  // "serial.com1": also the prefix of its sections
  // Finishes or records what is in flight; until Resume() it touches neither memory nor sinks.
  virtual absl::Status Quiesce() { return absl::OkStatus(); }
  virtual void Resume() {}
  virtual absl::Status Save(state::MachineState& out) const = 0;
  // Takes its own sections out of `in`. Errors: as MachineState::Take, or InvalidArgument for
  // values that no device can have (the state came over the network).
  virtual absl::Status Restore(state::MachineState& in) = 0;
};

// One range of port or memory addresses. `offset` counts from the range's start; data is 1, 2, 4 or
// 8 bytes, little-endian.
class IoHandler {
 public:
  virtual ~IoHandler() = default;
  virtual void Read(uint64_t offset, std::span<std::byte> data) = 0;
  virtual void Write(uint64_t offset, std::span<const std::byte> data) = 0;
};

// A level of an interrupt line (GSI); injected by the machine.
class IrqLine {
 public:
  virtual ~IrqLine() = default;
  virtual void Set(bool high) = 0;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_DEVICE_H_

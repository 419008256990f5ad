// A 16550A on COM1. What the guest transmits goes to the ConsoleSink at once, so the transmitter is
// always empty; what the host sends waits in a bounded queue. I/O from any vCPU thread, Receive()
// from any thread. Holds references to sink and interrupt line; owns neither. Registers: National
// Semiconductor PC16550D data sheet.
#ifndef ROMULUS_DEVICES_SERIAL_H_
#define ROMULUS_DEVICES_SERIAL_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "devices/device.h"
#include "devices/sinks.h"

namespace romulus::devices {

class Serial final : public Device, public IoHandler {
 public:
  static constexpr size_t kReceiveCapacity = 4096;  // bytes

  Serial(ConsoleSink& sink, IrqLine& irq) : sink_(sink), irq_(irq) {}

  // Input for the guest. Returns how many bytes were taken; the rest found the queue full.
  size_t Receive(std::span<const std::byte> bytes);

  absl::string_view name() const override { return "serial.com1"; }
  absl::Status Save(state::MachineState& out) const override;
  // Restore after KVM's irqchip: it sets the interrupt line anew.
  absl::Status Restore(state::MachineState& in) override;

  void Read(uint64_t offset, std::span<std::byte> data) override;
  void Write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  uint8_t ReadRegister(uint8_t reg) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteRegister(uint8_t reg, uint8_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Transmit(uint8_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint8_t InterruptId() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint8_t ModemStatus() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void UpdateIrq() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ConsoleSink& sink_;
  IrqLine& irq_;

  mutable absl::Mutex mutex_;
  uint8_t ier_ ABSL_GUARDED_BY(mutex_) = 0;
  uint8_t lcr_ ABSL_GUARDED_BY(mutex_) = 0;
  uint8_t mcr_ ABSL_GUARDED_BY(mutex_) = 0;
  uint8_t scratch_ ABSL_GUARDED_BY(mutex_) = 0;
  uint8_t modem_delta_ ABSL_GUARDED_BY(mutex_) = 0;
  uint16_t divisor_ ABSL_GUARDED_BY(mutex_) = 12;  // 9600 baud, the firmware's habit
  bool fifo_enabled_ ABSL_GUARDED_BY(mutex_) = false;
  bool overrun_ ABSL_GUARDED_BY(mutex_) = false;
  bool transmit_empty_pending_ ABSL_GUARDED_BY(mutex_) = false;
  bool irq_high_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<uint8_t> received_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_SERIAL_H_

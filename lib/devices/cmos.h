// The MC146818 clock and its battery-backed bytes at ports 0x70 and 0x71. The guest's time is the
// host's wall clock plus an offset; both the offset and the last time told are saved, so that the
// time after a promotion continues and never goes back, whatever the other host's clock says. No
// alarm and no periodic interrupt. I/O from any vCPU thread. Registers: Motorola MC146818A data
// sheet; century at 0x32 as in ACPI's FADT.
#ifndef ROMULUS_DEVICES_CMOS_H_
#define ROMULUS_DEVICES_CMOS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "devices/device.h"

namespace romulus::devices {

// The host's time of day, behind a seam for tests and simulation. Any thread.
class WallClock {
 public:
  virtual ~WallClock() = default;
  virtual int64_t NowUnixNs() const = 0;
};

// CLOCK_REALTIME.
class SystemWallClock final : public WallClock {
 public:
  int64_t NowUnixNs() const override;
};

class Cmos final : public Device, public IoHandler {
 public:
  static constexpr size_t kBytes = 128;

  explicit Cmos(const WallClock& clock) : clock_(clock) {}

  absl::string_view name() const override { return "cmos"; }
  absl::Status Save(state::MachineState& out) const override;
  absl::Status Restore(state::MachineState& in) override;

  void Read(uint64_t offset, std::span<std::byte> data) override;
  void Write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  int64_t GuestNowNs() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What a time register shows at guest time `now_ns`, in the format that control B asks for.
  uint8_t TimeRegister(uint8_t index, int64_t now_ns) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Freezes the running time into bytes_, and makes bytes_ the time.
  void LatchTime() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetTimeFromBytes() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  uint8_t ReadRegister() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteRegister(uint8_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const WallClock& clock_;
  mutable absl::Mutex mutex_;
  uint8_t index_ ABSL_GUARDED_BY(mutex_) = 0;
  uint8_t control_a_ ABSL_GUARDED_BY(mutex_) = 0x26;
  uint8_t control_b_ ABSL_GUARDED_BY(mutex_) = 0x02;  // 24 hours, BCD
  int64_t offset_ns_ ABSL_GUARDED_BY(mutex_) = 0;     // guest time - host time
  mutable int64_t last_ns_ ABSL_GUARDED_BY(mutex_) = 0;
  std::array<uint8_t, kBytes> bytes_ ABSL_GUARDED_BY(mutex_) = {};
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_CMOS_H_

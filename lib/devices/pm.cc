#include "devices/pm.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::devices {
namespace {

constexpr uint64_t kEnableOffset = 2;  // after the status, at 0
constexpr uint64_t kControlOffset = 4;
constexpr uint64_t kControlEnd = 6;

// Status and enable: ACPI 6.4, 4.8.3.1. What can be enabled: timer, global lock, power button,
// sleep button, RTC; nothing but the power button ever happens.
constexpr uint16_t kPowerButton = 1u << 8;
constexpr uint16_t kEnableBits = 0x0721;
// Control: 4.8.3.2.
constexpr uint16_t kSciEnable = 1u << 0;
constexpr uint16_t kSleepEnable = 1u << 13;  // write-only
constexpr uint16_t kControlBits = 0x1c07;    // SLP_TYP, GBL_RLS, BM_RLD, SCI_EN

constexpr uint8_t kResetCpu = 0x04;

constexpr uint32_t kStateVersion = 1;
struct PmState {
  uint16_t status = 0;
  uint16_t enable = 0;
  uint16_t control = 0;
  uint16_t reserved = 0;
};

}  // namespace

void PowerManagement::PressPowerButton() {
  absl::MutexLock lock(&mutex_);
  status_ |= kPowerButton;
  UpdateSci();
}

bool PowerManagement::power_button_enabled() const {
  absl::MutexLock lock(&mutex_);
  return (enable_ & kPowerButton) != 0;
}

void PowerManagement::Read(uint64_t offset, std::span<std::byte> data) {
  absl::MutexLock lock(&mutex_);
  for (std::byte& byte : data) {
    uint16_t value = 0;
    if (offset < kEnableOffset) {
      value = status_;
    } else if (offset < kControlOffset) {
      value = enable_;
    } else if (offset < kControlEnd) {
      value = control_;
    }
    byte = static_cast<std::byte>(offset % 2 == 0 ? value & 0xff : value >> 8);
    ++offset;
  }
}

void PowerManagement::Write(uint64_t offset, std::span<const std::byte> data) {
  absl::MutexLock lock(&mutex_);
  for (const std::byte byte : data) WriteByte(offset++, static_cast<uint8_t>(byte));
  UpdateSci();
}

void PowerManagement::WriteByte(uint64_t offset, uint8_t value) {
  const uint16_t shift = offset % 2 == 0 ? 0 : 8;
  const uint16_t bits = static_cast<uint16_t>(value << shift);
  const uint16_t others = static_cast<uint16_t>(0xff00 >> shift);  // the byte that is not written
  if (offset < kEnableOffset) {
    status_ &= static_cast<uint16_t>(~bits);  // write one to clear
  } else if (offset < kControlOffset) {
    enable_ = static_cast<uint16_t>((enable_ & others) | (bits & kEnableBits));
  } else if (offset < kControlEnd) {
    control_ = static_cast<uint16_t>((control_ & others) | (bits & kControlBits) | kSciEnable);
    if ((bits & kSleepEnable) != 0) events_.OnPowerOff();
  }
}

void PowerManagement::UpdateSci() {
  const bool high = (status_ & enable_) != 0;
  if (high == sci_high_) return;
  sci_high_ = high;
  sci_.Set(high);
}

absl::Status PowerManagement::Save(state::MachineState& out) const {
  absl::MutexLock lock(&mutex_);
  out.PutStruct(name(), 0, kStateVersion,
                PmState{.status = status_, .enable = enable_, .control = control_});
  return absl::OkStatus();
}

absl::Status PowerManagement::Restore(state::MachineState& in) {
  ROMULUS_ASSIGN_OR_RETURN(const auto saved, in.TakeStruct<PmState>(name(), 0, kStateVersion));
  if ((saved.status & ~kPowerButton) != 0 || (saved.enable & ~kEnableBits) != 0 ||
      (saved.control & ~kControlBits) != 0 || (saved.control & kSciEnable) == 0 ||
      saved.reserved != 0) {
    return absl::InvalidArgumentError(absl::StrCat(name(), ": a register has impossible bits"));
  }
  absl::MutexLock lock(&mutex_);
  status_ = saved.status;
  enable_ = saved.enable;
  control_ = saved.control;
  // The level of a line is not part of KVM's irqchip state.
  sci_high_ = (status_ & enable_) != 0;
  sci_.Set(sci_high_);
  return absl::OkStatus();
}

void ResetRegister::Read(uint64_t, std::span<std::byte> data) {
  std::fill(data.begin(), data.end(), std::byte{0});
}

void ResetRegister::Write(uint64_t, std::span<const std::byte> data) {
  if (!data.empty() && (static_cast<uint8_t>(data.front()) & kResetCpu) != 0) events_.OnReset();
}

}  // namespace romulus::devices

#include "devices/serial.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/status.h"

namespace romulus::devices {
namespace {

enum Register : uint8_t {
  kData = 0,             // receive buffer, transmit holding; divisor low with DLAB
  kInterruptEnable = 1,  // divisor high with DLAB
  kInterruptId = 2,      // FIFO control when written
  kLineControl = 3,
  kModemControl = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7,
};
constexpr uint64_t kRegisters = 8;

constexpr uint8_t kIerReceived = 0x01;
constexpr uint8_t kIerTransmitEmpty = 0x02;
constexpr uint8_t kIerLineStatus = 0x04;
constexpr uint8_t kIerModemStatus = 0x08;
constexpr uint8_t kIerBits = 0x0f;

constexpr uint8_t kIirModemStatus = 0x00;
constexpr uint8_t kIirNone = 0x01;
constexpr uint8_t kIirTransmitEmpty = 0x02;
constexpr uint8_t kIirReceived = 0x04;
constexpr uint8_t kIirLineStatus = 0x06;
constexpr uint8_t kIirFifoEnabled = 0xc0;

constexpr uint8_t kFcrEnable = 0x01;
constexpr uint8_t kFcrClearReceive = 0x02;

constexpr uint8_t kLcrDivisorAccess = 0x80;

constexpr uint8_t kMcrDtr = 0x01;
constexpr uint8_t kMcrRts = 0x02;
constexpr uint8_t kMcrOut1 = 0x04;
constexpr uint8_t kMcrOut2 = 0x08;
constexpr uint8_t kMcrLoop = 0x10;
constexpr uint8_t kMcrBits = 0x1f;

constexpr uint8_t kLsrDataReady = 0x01;
constexpr uint8_t kLsrOverrun = 0x02;
constexpr uint8_t kLsrTransmitEmpty = 0x60;  // holding register and shift register

constexpr uint8_t kMsrCts = 0x10;
constexpr uint8_t kMsrDsr = 0x20;
constexpr uint8_t kMsrRing = 0x40;
constexpr uint8_t kMsrCarrier = 0x80;

constexpr size_t kLoopbackFifoBytes = 16;
constexpr uint32_t kStateVersion = 1;

// The section's payload: this, then the received bytes.
struct SerialState {
  uint8_t ier = 0;
  uint8_t lcr = 0;
  uint8_t mcr = 0;
  uint8_t scratch = 0;
  uint8_t modem_delta = 0;
  uint8_t fifo_enabled = 0;
  uint8_t overrun = 0;
  uint8_t transmit_empty_pending = 0;
  uint16_t divisor = 0;
  uint16_t received_bytes = 0;
};
static_assert(sizeof(SerialState) == 12);
static_assert(Serial::kReceiveCapacity <= UINT16_MAX);

}  // namespace

size_t Serial::Receive(std::span<const std::byte> bytes) {
  absl::MutexLock lock(&mutex_);
  // In loopback the receiver is cut off from the line.
  const size_t room = (mcr_ & kMcrLoop) != 0 || received_.size() >= kReceiveCapacity
                          ? 0
                          : kReceiveCapacity - received_.size();
  const size_t taken = std::min(room, bytes.size());
  for (const std::byte byte : bytes.first(taken)) received_.push_back(static_cast<uint8_t>(byte));
  UpdateIrq();
  return taken;
}

// A wider access is that many byte accesses at ascending ports, as on an ISA bus.
void Serial::Read(uint64_t offset, std::span<std::byte> data) {
  absl::MutexLock lock(&mutex_);
  for (std::byte& byte : data) {
    byte = offset < kRegisters ? std::byte{ReadRegister(static_cast<uint8_t>(offset))}
                               : std::byte{0xff};
    ++offset;
  }
  UpdateIrq();
}

void Serial::Write(uint64_t offset, std::span<const std::byte> data) {
  absl::MutexLock lock(&mutex_);
  for (const std::byte byte : data) {
    if (offset < kRegisters)
      WriteRegister(static_cast<uint8_t>(offset), static_cast<uint8_t>(byte));
    ++offset;
  }
  UpdateIrq();
}

uint8_t Serial::ReadRegister(uint8_t reg) {
  const bool divisor_access = (lcr_ & kLcrDivisorAccess) != 0;
  switch (reg) {
    case kData: {
      if (divisor_access) return static_cast<uint8_t>(divisor_ & 0xff);
      if (received_.empty()) return 0;
      const uint8_t value = received_.front();
      received_.pop_front();
      return value;
    }
    case kInterruptEnable:
      return divisor_access ? static_cast<uint8_t>(divisor_ >> 8) : ier_;
    case kInterruptId: {
      const uint8_t id = InterruptId();
      // Reading the identification is what acknowledges "transmitter empty".
      if (id == kIirTransmitEmpty) transmit_empty_pending_ = false;
      return static_cast<uint8_t>(id | (fifo_enabled_ ? kIirFifoEnabled : 0));
    }
    case kLineControl:
      return lcr_;
    case kModemControl:
      return mcr_;
    case kLineStatus: {
      uint8_t value = kLsrTransmitEmpty;
      if (!received_.empty()) value |= kLsrDataReady;
      if (std::exchange(overrun_, false)) value |= kLsrOverrun;
      return value;
    }
    case kModemStatus:
      return static_cast<uint8_t>(ModemStatus() | std::exchange(modem_delta_, 0));
    default:
      return scratch_;
  }
}

void Serial::WriteRegister(uint8_t reg, uint8_t value) {
  const bool divisor_access = (lcr_ & kLcrDivisorAccess) != 0;
  switch (reg) {
    case kData:
      if (divisor_access) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
      } else {
        Transmit(value);
      }
      return;
    case kInterruptEnable: {
      if (divisor_access) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0x00ff) | value << 8);
        return;
      }
      const uint8_t risen = static_cast<uint8_t>(value & ~ier_);
      ier_ = value & kIerBits;
      // The transmitter is always empty, and enabling the interrupt while it is raises it at once:
      // Linux starts its output on that, and tests for it (serial8250_do_startup).
      if ((risen & kIerTransmitEmpty) != 0) transmit_empty_pending_ = true;
      return;
    }
    case kInterruptId: {  // FIFO control
      const bool enable = (value & kFcrEnable) != 0;
      if (enable != fifo_enabled_ || (enable && (value & kFcrClearReceive) != 0)) received_.clear();
      fifo_enabled_ = enable;
      return;
    }
    case kLineControl:
      lcr_ = value;
      return;
    case kModemControl: {
      const uint8_t before = ModemStatus();
      mcr_ = value & kMcrBits;
      const uint8_t changed = static_cast<uint8_t>(before ^ ModemStatus());
      // Delta bits; that of the ring indicator tells its trailing edge only.
      modem_delta_ |= static_cast<uint8_t>((changed & ~kMsrRing) >> 4);
      if ((changed & before & kMsrRing) != 0) modem_delta_ |= kMsrRing >> 4;
      return;
    }
    case kScratch:
      scratch_ = value;
      return;
    default:  // line and modem status are read-only
      return;
  }
}

void Serial::Transmit(uint8_t value) {
  if ((mcr_ & kMcrLoop) != 0) {
    if (received_.size() < kLoopbackFifoBytes) {
      received_.push_back(value);
    } else {
      overrun_ = true;
    }
  } else {
    const std::byte byte{value};
    sink_.WriteConsole({&byte, 1});
  }
  transmit_empty_pending_ = true;
}

uint8_t Serial::InterruptId() const {
  if ((ier_ & kIerLineStatus) != 0 && overrun_) return kIirLineStatus;
  if ((ier_ & kIerReceived) != 0 && !received_.empty()) return kIirReceived;
  if ((ier_ & kIerTransmitEmpty) != 0 && transmit_empty_pending_) return kIirTransmitEmpty;
  if ((ier_ & kIerModemStatus) != 0 && modem_delta_ != 0) return kIirModemStatus;
  return kIirNone;
}

uint8_t Serial::ModemStatus() const {
  if ((mcr_ & kMcrLoop) == 0) return kMsrCts | kMsrDsr | kMsrCarrier;  // someone listens
  uint8_t status = 0;
  if ((mcr_ & kMcrRts) != 0) status |= kMsrCts;
  if ((mcr_ & kMcrDtr) != 0) status |= kMsrDsr;
  if ((mcr_ & kMcrOut1) != 0) status |= kMsrRing;
  if ((mcr_ & kMcrOut2) != 0) status |= kMsrCarrier;
  return status;
}

void Serial::UpdateIrq() {
  const bool high = InterruptId() != kIirNone;
  if (high == irq_high_) return;
  irq_high_ = high;
  irq_.Set(high);
}

absl::Status Serial::Save(state::MachineState& out) const {
  absl::MutexLock lock(&mutex_);
  std::string payload;
  base::ByteWriter writer(&payload);
  writer.Write(SerialState{.ier = ier_,
                           .lcr = lcr_,
                           .mcr = mcr_,
                           .scratch = scratch_,
                           .modem_delta = modem_delta_,
                           .fifo_enabled = fifo_enabled_,
                           .overrun = overrun_,
                           .transmit_empty_pending = transmit_empty_pending_,
                           .divisor = divisor_,
                           .received_bytes = static_cast<uint16_t>(received_.size())});
  payload.append(received_.begin(), received_.end());
  out.Put(name(), 0, kStateVersion, payload);
  return absl::OkStatus();
}

absl::Status Serial::Restore(state::MachineState& in) {
  ROMULUS_ASSIGN_OR_RETURN(const state::Section section, in.Take(name(), 0, kStateVersion));
  base::ByteReader reader(std::as_bytes(std::span<const char>(section.payload)));
  const auto saved = reader.Read<SerialState>();
  if (!reader.ok() || saved.received_bytes != reader.remaining() ||
      saved.received_bytes > kReceiveCapacity) {
    return absl::InvalidArgumentError(
        absl::StrCat(name(), ": payload of ", section.payload.size(), " bytes is malformed"));
  }
  if ((saved.ier & ~kIerBits) != 0 || (saved.mcr & ~kMcrBits) != 0 || saved.modem_delta > 0x0f ||
      saved.fifo_enabled > 1 || saved.overrun > 1 || saved.transmit_empty_pending > 1) {
    return absl::InvalidArgumentError(absl::StrCat(name(), ": a register has impossible bits"));
  }
  absl::MutexLock lock(&mutex_);
  ier_ = saved.ier;
  lcr_ = saved.lcr;
  mcr_ = saved.mcr;
  scratch_ = saved.scratch;
  modem_delta_ = saved.modem_delta;
  divisor_ = saved.divisor;
  fifo_enabled_ = saved.fifo_enabled != 0;
  overrun_ = saved.overrun != 0;
  transmit_empty_pending_ = saved.transmit_empty_pending != 0;
  received_.clear();
  for (const std::byte byte : reader.Take(saved.received_bytes)) {
    received_.push_back(static_cast<uint8_t>(byte));
  }
  // KVM does not save the level of a line, only what became of its edges: say it again. At worst
  // the guest sees one interrupt without a cause.
  irq_high_ = InterruptId() != kIirNone;
  irq_.Set(irq_high_);
  return absl::OkStatus();
}

}  // namespace romulus::devices

#include "devices/virtio/console.h"

#include <algorithm>
#include <cstring>

namespace romulus::devices {
namespace {

constexpr size_t kPieceBytes = 4096;

// The device's part of its section; the input follows.
struct ConsoleState {
  uint64_t transmitted_bytes = 0;
  uint64_t input_bytes = 0;
};
static_assert(sizeof(ConsoleState) == 16);

}  // namespace

VirtioConsole::VirtioConsole(VirtioConsoleSink& sink, uint16_t columns, uint16_t rows)
    : sink_(sink) {
  std::memcpy(config_.data(), &columns, sizeof(columns));
  std::memcpy(config_.data() + 2, &rows, sizeof(rows));
}

size_t VirtioConsole::Receive(std::span<const std::byte> bytes) {
  size_t taken = 0;
  {
    absl::MutexLock lock(&input_mutex_);
    taken = std::min(bytes.size(), kReceiveCapacity - input_.size());
    input_.insert(input_.end(), bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken));
  }
  if (taken > 0) host().Kick(kReceiveQueue);
  return taken;
}

void VirtioConsole::OnQueueStopped(int queue) {
  if (queue != kTransmitQueue) return;
  transmitting_.reset();
  transmitted_bytes_ = 0;
}

void VirtioConsole::Reset() {
  OnQueueStopped(kTransmitQueue);
  absl::MutexLock lock(&input_mutex_);
  input_.clear();
}

Progress VirtioConsole::Process(int queue) {
  return queue == kTransmitQueue ? Transmit() : DeliverInput();
}

Progress VirtioConsole::Transmit() {
  size_t budget = kTransmitBytesPerTurn;
  std::array<std::byte, kPieceBytes> piece;
  for (;;) {
    if (!transmitting_) {
      transmitting_ = host().Pop(kTransmitQueue);
      if (!transmitting_) return Progress::kDrained;
    }
    const Chain& chain = *transmitting_;
    // The driver must not put a device-writable buffer in a transmitq (5.3.6.1). A restored device
    // finds the chain as the driver has left it, which may be shorter now.
    if (!chain.writable.empty() || transmitted_bytes_ > chain.readable_bytes) {
      OnQueueStopped(kTransmitQueue);
      host().Fail(VirtioFault::kRequest);
      return Progress::kStalled;
    }
    while (transmitted_bytes_ < chain.readable_bytes) {
      if (budget == 0) return Progress::kAgain;
      const absl::StatusOr<size_t> read =
          Gather(host().memory(), chain.readable, transmitted_bytes_,
                 std::span(piece).first(std::min(budget, piece.size())));
      const size_t offered = read.value_or(0);
      const size_t taken = sink_.TakeConsole(std::span(piece).first(offered));
      transmitted_bytes_ += taken;
      budget -= taken;
      if (taken < offered || offered == 0) return Progress::kStalled;
    }
    host().Push(kTransmitQueue, chain, 0);
    OnQueueStopped(kTransmitQueue);
  }
}

Progress VirtioConsole::DeliverInput() {
  absl::MutexLock lock(&input_mutex_);
  std::array<std::byte, kPieceBytes> piece;
  while (!input_.empty()) {
    const std::optional<Chain> chain = host().Pop(kReceiveQueue);
    if (!chain) return Progress::kDrained;
    // The driver must not put a device-readable buffer in a receiveq (5.3.6.1).
    if (!chain->readable.empty()) {
      host().Fail(VirtioFault::kRequest);
      return Progress::kStalled;
    }
    const size_t size = std::min<uint64_t>({input_.size(), chain->writable_bytes, piece.size()});
    std::copy_n(input_.begin(), size, piece.begin());
    const absl::StatusOr<size_t> written =
        Scatter(host().memory(), chain->writable, 0, std::span(piece).first(size));
    const size_t delivered = written.value_or(0);
    input_.erase(input_.begin(), input_.begin() + static_cast<ptrdiff_t>(delivered));
    host().Push(kReceiveQueue, *chain, static_cast<uint32_t>(delivered));
  }
  return Progress::kStalled;  // Receive() kicks
}

void VirtioConsole::Save(base::ByteWriter& out) const {
  absl::MutexLock lock(&input_mutex_);
  out.Write(ConsoleState{.transmitted_bytes = transmitted_bytes_, .input_bytes = input_.size()});
  for (const std::byte byte : input_) out.Write(byte);
}

absl::Status VirtioConsole::Restore(base::ByteReader& in, uint64_t /*features*/) {
  const auto saved = in.Read<ConsoleState>();
  if (!in.ok() || saved.input_bytes > kReceiveCapacity || saved.input_bytes != in.remaining()) {
    return absl::InvalidArgumentError("the console's state is malformed");
  }
  absl::MutexLock lock(&input_mutex_);
  const std::span<const std::byte> input = in.Take(saved.input_bytes);
  input_.assign(input.begin(), input.end());
  // Of the chain that the transmit queue hands out first: Transmit() checks that it is so long.
  transmitting_.reset();
  transmitted_bytes_ = saved.transmitted_bytes;
  return absl::OkStatus();
}

}  // namespace romulus::devices

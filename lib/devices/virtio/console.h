// The virtio console (virtio 1.2, 5.3), one port. What the guest transmits goes to a sink that says
// how much it takes; while it takes nothing the guest's buffers wait, and so does the guest (P6).
// What the host sends waits in a bounded queue.
//
// Thread rules: device.h. Receive() and OnSinkReady() come from any thread. Holds a reference to
// its sink.
#ifndef ROMULUS_DEVICES_VIRTIO_CONSOLE_H_
#define ROMULUS_DEVICES_VIRTIO_CONSOLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "devices/virtio/device.h"

namespace romulus::devices {

// Takes the console's bytes, in order, as ConsoleSink does, but from the device thread and with a
// count. Never blocks.
class VirtioConsoleSink {
 public:
  virtual ~VirtioConsoleSink() = default;
  // Returns how many of the bytes, from the first, were taken. After fewer than all, whoever owns
  // the sink calls OnSinkReady() when there is room again.
  virtual size_t TakeConsole(std::span<const std::byte> bytes) = 0;
};

class VirtioConsole final : public VirtioDevice {
 public:
  static constexpr uint32_t kDeviceId = 3;
  static constexpr uint16_t kQueueSize = 64;
  static constexpr int kReceiveQueue = 0;
  static constexpr int kTransmitQueue = 1;
  static constexpr uint64_t kFeatureSize = 1;       // VIRTIO_CONSOLE_F_SIZE
  static constexpr size_t kReceiveCapacity = 4096;  // bytes
  // In one turn, whatever the chains' lengths say.
  static constexpr size_t kTransmitBytesPerTurn = 64u << 10;

  VirtioConsole(VirtioConsoleSink& sink, uint16_t columns, uint16_t rows);

  // Input for the guest. Returns how many bytes were taken; the rest found the queue full.
  size_t Receive(std::span<const std::byte> bytes);
  // The sink takes bytes again.
  void OnSinkReady() { host().Kick(kTransmitQueue); }

  uint32_t device_id() const override { return kDeviceId; }
  uint64_t features() const override { return kFeatureSize; }
  std::vector<uint16_t> queue_sizes() const override { return {kQueueSize, kQueueSize}; }
  std::span<const std::byte> config() const override { return config_; }
  void OnQueueStopped(int queue) override;
  void Reset() override;
  Progress Process(int queue) override;
  void Save(base::ByteWriter& out) const override;
  absl::Status Restore(base::ByteReader& in, uint64_t features) override;

 private:
  Progress Transmit();
  Progress DeliverInput();

  VirtioConsoleSink& sink_;
  std::array<std::byte, 12> config_{};  // 5.3.4

  // The chain that is being transmitted, and how far: its bytes up to there have been said, and are
  // not said again by a restored device.
  std::optional<Chain> transmitting_;
  uint64_t transmitted_bytes_ = 0;

  mutable absl::Mutex input_mutex_;  // after the transport's lock
  std::deque<std::byte> input_ ABSL_GUARDED_BY(input_mutex_);
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_CONSOLE_H_

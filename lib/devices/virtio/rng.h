// The virtio entropy device (virtio 1.2, 5.4). Its bytes come from the host and differ from run to
// run; what reached the guest is tracked as every write into its memory is, so a promoted guest has
// them too. Thread rules: device.h. Has no state of its own.
#ifndef ROMULUS_DEVICES_VIRTIO_RNG_H_
#define ROMULUS_DEVICES_VIRTIO_RNG_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "devices/virtio/device.h"

namespace romulus::devices {

// Where random bytes come from. Called on the device thread; must not block.
class EntropySource {
 public:
  virtual ~EntropySource() = default;
  // Errors: errno of the source; nothing of `into` is used then.
  virtual absl::Status Fill(std::span<std::byte> into) = 0;
};

// getrandom(2).
class HostEntropy final : public EntropySource {
 public:
  absl::Status Fill(std::span<std::byte> into) override;
};

class VirtioRng final : public VirtioDevice {
 public:
  static constexpr uint32_t kDeviceId = 4;
  static constexpr uint16_t kQueueSize = 64;
  // In one chain; a driver that wants more asks again (5.4.6.2 lets the device use less).
  static constexpr size_t kMaxBytes = 1024;

  explicit VirtioRng(EntropySource& source) : source_(source) {}

  uint32_t device_id() const override { return kDeviceId; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override { return {kQueueSize}; }
  void Reset() override {}
  Progress Process(int queue) override;

  uint64_t failed_reads() const { return failed_reads_; }

 private:
  EntropySource& source_;
  uint64_t failed_reads_ = 0;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_RNG_H_

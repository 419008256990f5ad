// The virtio block device (virtio 1.2, 5.2), one queue: read, write, flush, discard, write zeroes,
// serial number.
//
// Bytes are copied between guest and request, once: a request that the disk works on during a pause
// then touches no guest memory, and what is written cannot be changed between the disk and the
// epoch's record of it. Requests and bytes under way are bounded; beyond that the guest waits, and
// so it does while the backend is full.
//
// What is in flight at a pause is in the queue's state and begun again by a restored device: to
// write or read the same sectors twice changes nothing as long as nobody was told of the first
// time. Thread rules: device.h. Holds a reference to its backend, which may call back after the
// device is gone.
#ifndef ROMULUS_DEVICES_VIRTIO_BLOCK_H_
#define ROMULUS_DEVICES_VIRTIO_BLOCK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "devices/virtio/block_backend.h"
#include "devices/virtio/device.h"

namespace romulus::devices {

namespace virtio {

inline constexpr uint64_t kBlockSizeMax = uint64_t{1} << 1;  // 5.2.3
inline constexpr uint64_t kBlockSegMax = uint64_t{1} << 2;
inline constexpr uint64_t kBlockReadOnly = uint64_t{1} << 5;
inline constexpr uint64_t kBlockBlkSize = uint64_t{1} << 6;
inline constexpr uint64_t kBlockFlush = uint64_t{1} << 9;
inline constexpr uint64_t kBlockDiscard = uint64_t{1} << 13;
inline constexpr uint64_t kBlockWriteZeroes = uint64_t{1} << 14;

}  // namespace virtio

class VirtioBlock final : public VirtioDevice {
 public:
  static constexpr uint32_t kDeviceId = 2;
  static constexpr uint16_t kQueueSize = 128;
  static constexpr size_t kSerialBytes = 20;
  static constexpr uint32_t kMaxSegments = 64;
  static constexpr uint32_t kMaxSegmentBytes = 64u << 10;
  static constexpr uint64_t kMaxRequestBytes = uint64_t{kMaxSegments} * kMaxSegmentBytes;
  static constexpr uint64_t kMaxInFlightBytes = 4 * kMaxRequestBytes;
  static constexpr int kMaxInFlight = 64;  // requests
  static constexpr uint64_t kBytesPerTurn = 1u << 20;
  // Of discard and write zeroes, which carry no bytes: 1 GiB.
  static constexpr uint32_t kMaxRangeSectors = 1u << 21;

  // `serial`: what the guest shows as the disk's, cut to 20 bytes.
  VirtioBlock(BlockBackend& backend, absl::string_view serial);

  uint32_t device_id() const override { return kDeviceId; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override { return {kQueueSize}; }
  std::span<const std::byte> config() const override { return config_; }
  void OnDriverOk(uint64_t features) override { features_ = features; }
  void OnQueueStopped(int queue) override;
  void Reset() override;
  Progress Process(int queue) override;
  void Save(base::ByteWriter& out) const override;
  absl::Status Restore(base::ByteReader& in, uint64_t features) override;

 private:
  static constexpr size_t kConfigBytes = 60;  // up to and with unused1 of 5.2.4
  enum class Status : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };  // 5.2.6

  // Has the queue looked at again when the backend takes requests again.
  void AwaitRoom(int queue);
  // Starts the chain's request, or answers it. Returns about how many bytes were copied.
  uint64_t Begin(const Chain& chain);
  // The request for the backend, or the answer if there is none to make.
  Status Translate(const Chain& chain, uint32_t type, uint64_t sector, BlockRequest& request);
  Status TranslateRange(const Chain& chain, BlockRequest& request);
  bool InDisk(uint64_t sector, uint64_t size_bytes) const;
  uint64_t AnswerId(const Chain& chain);
  void Complete(const Chain& chain, uint64_t read_bytes, uint32_t generation,
                const BlockResult& result);
  void Finish(const Chain& chain, Status status, uint64_t data_bytes);

  BlockBackend& backend_;
  const std::string serial_;
  std::array<std::byte, kConfigBytes> config_{};

  uint64_t features_ = 0;
  uint32_t generation_ = 0;       // rises when what is in flight becomes void
  int in_flight_ = 0;             // of this generation
  int stale_ = 0;                 // of earlier ones: nothing new is begun before they are done
  uint64_t in_flight_bytes_ = 0;  // of all
  std::optional<Chain> waiting_;  // popped, not begun
  bool stalled_ = false;
  bool awaiting_room_ = false;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_BLOCK_H_

// The virtio network card (virtio 1.2, 5.1): one receive and one transmit queue, mergeable receive
// buffers, checksum and TCP segmentation offload in both directions, MAC, MTU and link status.
//
// A frame is copied out of the guest once, checked, and offered to a NetSink; while that refuses it
// the guest's other frames wait in its queue (P6). Frames that come in are asked for only while the
// guest has buffers for them, so what it does not take waits at the host, which bounds it.
//
// A restored card begins transmissions anew that no sink had taken. What was received and had not
// reached the guest's memory dies with the host, as frames do that a network loses. Thread rules:
// device.h. Holds references to its source, sink and counters, which outlive it.
#ifndef ROMULUS_DEVICES_VIRTIO_NET_H_
#define ROMULUS_DEVICES_VIRTIO_NET_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/net_address.h"
#include "devices/sinks.h"
#include "devices/virtio/device.h"
#include "devices/virtio/net_backend.h"
#include "devices/virtio/net_header.h"

namespace romulus::devices {

namespace virtio {

inline constexpr uint64_t kNetChecksum = uint64_t{1} << 0;  // 5.1.3; VIRTIO_NET_F_CSUM
inline constexpr uint64_t kNetGuestChecksum = uint64_t{1} << 1;
inline constexpr uint64_t kNetMtu = uint64_t{1} << 3;
inline constexpr uint64_t kNetMac = uint64_t{1} << 5;
inline constexpr uint64_t kNetGuestTso4 = uint64_t{1} << 7;
inline constexpr uint64_t kNetGuestTso6 = uint64_t{1} << 8;
inline constexpr uint64_t kNetGuestEcn = uint64_t{1} << 9;
inline constexpr uint64_t kNetHostTso4 = uint64_t{1} << 11;
inline constexpr uint64_t kNetHostTso6 = uint64_t{1} << 12;
inline constexpr uint64_t kNetHostEcn = uint64_t{1} << 13;
inline constexpr uint64_t kNetMergeBuffers = uint64_t{1} << 15;
inline constexpr uint64_t kNetStatus = uint64_t{1} << 16;

}  // namespace virtio

// Any thread.
struct NetCardCounters {
  std::atomic<uint64_t> frames_in{0};  // delivered to the guest
  std::atomic<uint64_t> bytes_in{0};   // of frames, without headers
  std::atomic<uint64_t> dropped_in{
      0};  // had a form that the guest did not agree to, or no buffers fit
  std::atomic<uint64_t> bad_out{0};  // of the guest's, dropped: no network could carry them
};

class VirtioNet final : public VirtioDevice, private NetPlug {
 public:
  static constexpr uint32_t kDeviceId = 1;
  static constexpr uint16_t kQueueSize = 256;
  static constexpr int kReceiveQueue = 0;
  static constexpr int kTransmitQueue = 1;
  static constexpr size_t kBytesPerTurn = 512u << 10;

  // `mtu`: the largest payload of a frame, 68 to 65,535 bytes (5.1.4.1).
  VirtioNet(const MacAddress& mac, uint16_t mtu, NetSource& source, NetSink& sink,
            NetCardCounters& counters);
  ~VirtioNet() override;

  uint32_t device_id() const override { return kDeviceId; }
  uint64_t features() const override;
  std::vector<uint16_t> queue_sizes() const override { return {kQueueSize, kQueueSize}; }
  std::span<const std::byte> config() const override { return config_; }
  void OnDriverOk(uint64_t features) override { SetFeatures(features); }
  void OnQueueStopped(int queue) override;
  void Reset() override;
  Progress Process(int queue) override;
  void Save(base::ByteWriter& out) const override;
  // Errors: also FailedPrecondition if the saved card had another MAC or MTU.
  absl::Status Restore(base::ByteReader& in, uint64_t features) override;

 private:
  void OnFramesReady() override { host().Kick(kReceiveQueue); }
  void OnSinkReady() override { host().Kick(kTransmitQueue); }

  bool Agreed(uint64_t feature) const { return (features_ & feature) != 0; }
  void SetFeatures(uint64_t features);

  Progress Transmit();
  // Takes the next chain's frame into outgoing_. False: it had none that could be sent, and was
  // given back, or the card has failed.
  bool TakeOut(const Chain& chain);

  Progress Receive();
  // Has a frame that the guest may get in incoming_. False: there is none now.
  bool TakeIn();
  enum class Room : uint8_t { kEnough, kNotYet, kNever, kFault };
  Room FindRoom();
  void Deliver();

  const MacAddress mac_;
  const uint16_t mtu_;
  NetSource& source_;
  NetSink& sink_;
  NetCardCounters& counters_;
  std::array<std::byte, 12> config_{};  // 5.1.4, up to and with mtu

  uint64_t features_ = 0;
  NetOffloads sent_offloads_;      // what may be asked of the host
  NetOffloads received_offloads_;  // and of the guest

  // A header and a frame that the sink has not taken, and the chain it came in.
  std::optional<Chain> transmitting_;
  std::vector<std::byte> outgoing_;

  // A header and a frame that the guest has no buffers for yet, and those buffers that it has.
  std::vector<std::byte> incoming_;
  size_t incoming_bytes_ = 0;  // 0: none
  std::vector<Chain> buffers_;
  uint64_t buffer_bytes_ = 0;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_NET_H_

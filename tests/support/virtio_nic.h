// Both sides of a virtio network card: what it is plugged into, in memory, and a driver's buffers.
#ifndef ROMULUS_TESTS_SUPPORT_VIRTIO_NIC_H_
#define ROMULUS_TESTS_SUPPORT_VIRTIO_NIC_H_

#include <cstring>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/net.h"
#include "support/virtio_rig.h"

namespace romulus::devices::testing {

inline constexpr MacAddress kCardMac{0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
inline constexpr size_t kNetHeaderBytes = sizeof(NetHeader);

inline std::string WithHeader(const NetHeader& header, const std::string& frame) {
  std::string bytes(sizeof(header), '\0');
  std::memcpy(bytes.data(), &header, sizeof(header));
  return bytes + frame;
}
inline NetHeader HeaderOf(const std::string& header_and_frame) {
  NetHeader header;
  std::memcpy(&header, header_and_frame.data(), sizeof(header));
  return header;
}

// A frame of `size` bytes that no other `seed` gives.
inline std::string TestFrame(size_t size, uint8_t seed = 1) {
  std::string frame(size, '\0');
  for (size_t i = 0; i < size; ++i) frame[i] = static_cast<char>(seed * 31 + i * 7 + i / 256);
  if (size > 13) {
    frame[12] = 0x08;
    frame[13] = 0x00;
  }
  return frame;
}

class MemoryNetwork final : public NetSource, public NetSink {
 public:
  void Plug(NetPlug* to) override { plug = to; }
  NetOffloads offloads() const override { return host; }
  void SetGuestOffloads(const NetOffloads& offloads) override { guest = offloads; }
  size_t ReadFrame(std::span<std::byte> into) override {
    ++reads;
    if (waiting.empty()) return 0;
    const size_t size = std::min(into.size(), waiting.front().size());
    std::memcpy(into.data(), waiting.front().data(), size);
    waiting.pop_front();
    return size;
  }
  bool TakeFrame(std::span<const std::byte> header_and_frame) override {
    ++offers;
    if (room == 0) return false;
    --room;
    sent.emplace_back(reinterpret_cast<const char*>(header_and_frame.data()),
                      header_and_frame.size());
    return true;
  }

  NetOffloads host{true, true, true, true};
  NetOffloads guest;
  std::deque<std::string> waiting;  // with headers
  std::vector<std::string> sent;
  size_t room = SIZE_MAX;  // frames
  int reads = 0;
  int offers = 0;
  NetPlug* plug = nullptr;
  NetCardCounters counters;
};

inline constexpr uint64_t kAllNetFeatures =
    kAllRingFeatures | virtio::kNetChecksum | virtio::kNetGuestChecksum | virtio::kNetMtu |
    virtio::kNetMac | virtio::kNetGuestTso4 | virtio::kNetGuestTso6 | virtio::kNetGuestEcn |
    virtio::kNetHostTso4 | virtio::kNetHostTso6 | virtio::kNetHostEcn | virtio::kNetMergeBuffers |
    virtio::kNetStatus;

struct NetRig : VirtioRig {
  static constexpr uint16_t kSize = 16;
  static constexpr uint64_t kOut = kBuffers + 0x110000;

  explicit NetRig(MemoryNetwork& memory_network, uint64_t features = kAllNetFeatures)
      : VirtioRig(std::make_unique<VirtioNet>(kCardMac, uint16_t{1500}, memory_network,
                                              memory_network, memory_network.counters)),
        network(memory_network) {
    BringUp(features, 2, kSize);
  }
  NetRig(MemoryNetwork& memory_network, memory::GuestMemory& shared, uint16_t mtu = 1500,
         MacAddress mac = kCardMac)
      : VirtioRig(std::make_unique<VirtioNet>(mac, mtu, memory_network, memory_network,
                                              memory_network.counters),
                  shared),
        network(memory_network) {}

  DriverQueue& rx() { return queues[0]; }
  DriverQueue& tx() { return queues[1]; }
  // A receive buffer of `size` bytes, `head` * 64 KiB from the first.
  static uint64_t BufferAt(uint16_t head) { return kBuffers + 0x10000ull * head; }
  void OfferBuffer(uint16_t head, uint32_t size) {
    rx().OfferChain(head, {{BufferAt(head), size, kDescWrite, 0}});
  }
  std::string BufferText(uint16_t head, size_t size) { return cpu.Text(BufferAt(head), size); }
  // Offers a header and frame in one buffer.
  void OfferFrame(uint16_t head, const std::string& header_and_frame) {
    const uint64_t gpa = kOut + 0x10000ull * head;
    cpu.Write(gpa, header_and_frame.data(), header_and_frame.size());
    tx().OfferChain(head, {{gpa, static_cast<uint32_t>(header_and_frame.size()), 0, 0}});
  }
  void Send(uint16_t head, const std::string& header_and_frame) {
    OfferFrame(head, header_and_frame);
    Notify(VirtioNet::kTransmitQueue);
  }
  // A frame comes in from the network.
  void Arrive(const std::string& header_and_frame) {
    network.waiting.push_back(header_and_frame);
    network.plug->OnFramesReady();
    executor.Run();
  }

  MemoryNetwork& network;
};

}  // namespace romulus::devices::testing

#endif  // ROMULUS_TESTS_SUPPORT_VIRTIO_NIC_H_

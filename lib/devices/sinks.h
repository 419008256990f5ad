// Where devices put what the guest says to the outside. The epoch library implements these with its
// output gate (P1: nothing leaves before its epoch is acked); devices never know.
#ifndef ROMULUS_DEVICES_SINKS_H_
#define ROMULUS_DEVICES_SINKS_H_

#include <cstddef>
#include <span>

namespace romulus::devices {

// Bytes of the guest's console, in order. Called from vCPU threads; never blocks and never drops:
// when the gate is at its cap it asks for the guest to wait (vmm throttles vCPUs between exits).
class ConsoleSink {
 public:
  virtual ~ConsoleSink() = default;
  virtual void WriteConsole(std::span<const std::byte> bytes) = 0;
};

// Ethernet frames that the guest transmits, in order, each behind its virtio_net_hdr (12 bytes:
// virtio 1.2, 5.1.6). Called from the device thread; never blocks.
class NetSink {
 public:
  virtual ~NetSink() = default;
  // False: no room. The frame stays the guest's, and whoever owns the sink tells the device when
  // there is room again (P6: at a cap the guest waits).
  virtual bool TakeFrame(std::span<const std::byte> header_and_frame) = 0;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_SINKS_H_

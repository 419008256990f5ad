// What a network card is plugged into, for frames that come in; those that go out have a NetSink.
// Implemented by the daemon over a tap. Called on the device thread, except where noted; never
// blocks.
#ifndef ROMULUS_DEVICES_VIRTIO_NET_BACKEND_H_
#define ROMULUS_DEVICES_VIRTIO_NET_BACKEND_H_

#include <cstddef>
#include <span>

#include "devices/virtio/net_header.h"

namespace romulus::devices {

// The card, as those around it wake it. Any thread, never blocks.
class NetPlug {
 public:
  virtual ~NetPlug() = default;
  virtual void OnFramesReady() = 0;  // ReadFrame() has returned 0 and now has something
  virtual void OnSinkReady() = 0;    // the sink has refused a frame and now has room
};

class NetSource {
 public:
  virtual ~NetSource() = default;
  // Who is to be woken: a card says so when it is made, and null when it goes. Nobody is woken
  // before ReadFrame() or the sink had nothing. Any thread; when it returns the former plug is not
  // used any more.
  virtual void Plug(NetPlug* plug) = 0;

  // What this host can do for frames that the guest sends; constant, and the same on both hosts.
  virtual NetOffloads offloads() const = 0;
  // What the guest can do for frames that it receives, from now on. Any thread.
  virtual void SetGuestOffloads(const NetOffloads& offloads) = 0;

  // The next frame that came in, behind its header, as NetSink has them; returns its size in bytes.
  // 0: there is none now. What does not fit is cut off. A frame that nobody asks for stays where it
  // is, and the host drops what comes beyond its own bound: networks may.
  virtual size_t ReadFrame(std::span<std::byte> header_and_frame) = 0;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_NET_BACKEND_H_

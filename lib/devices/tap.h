// A tap device of the host: Ethernet frames, each behind a virtio_net_hdr of 12 bytes (virtio 1.2,
// 5.1.6; Linux Documentation/networking/tuntap.rst). Non-blocking. The object owns the descriptor,
// not the device, which somebody made and put where the guest's network is. Read and Write on one
// thread, SetOffloads on any.
#ifndef ROMULUS_DEVICES_TAP_H_
#define ROMULUS_DEVICES_TAP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/unique_fd.h"
#include "devices/virtio/net_header.h"

namespace romulus::devices {

class Tap {
 public:
  // Whether there is such a tap and its MTU is not below `mtu` (bytes of payload), as far as can be
  // told without taking it. Errors as Open()'s, but not those of /dev/net/tun and of its user.
  static absl::Status Check(absl::string_view name, uint32_t mtu);
  // Creates none: a new one would be in no bridge, and the guest in no network. Every error names
  // the device and what to do: InvalidArgument for a name that cannot be one's, PermissionDenied,
  // NotFound (no such device; no /dev/net/tun), AlreadyExists (another process has it), and
  // FailedPrecondition (it is no tap, has several queues, or its MTU is too small).
  static absl::StatusOr<std::unique_ptr<Tap>> Open(absl::string_view name, uint32_t mtu);

  // Reads the next frame with its header; returns its size. Errors: Unavailable if there is none
  // now (wait until the descriptor is readable), FailedPrecondition if the device is down, else
  // errno.
  absl::StatusOr<size_t> Read(std::span<std::byte> header_and_frame);
  // Errors: Unavailable if there is no room now (wait until the descriptor is writable),
  // FailedPrecondition if the device is down, InvalidArgument if the kernel refuses the frame, else
  // errno.
  absl::Status Write(std::span<const std::byte> header_and_frame);

  // What the kernel can do for frames that are written, and for those that are read, if asked to.
  NetOffloads offloads() const { return offloads_; }
  // What the reader can do. Errors: errno; never for a part of offloads().
  absl::Status SetOffloads(const NetOffloads& offloads);

  int fd() const { return fd_.get(); }
  const std::string& name() const { return name_; }

 private:
  Tap(std::string name, base::UniqueFd fd) : name_(std::move(name)), fd_(std::move(fd)) {}

  const std::string name_;
  const base::UniqueFd fd_;
  NetOffloads offloads_;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_TAP_H_

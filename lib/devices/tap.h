// A tap device of the host: Ethernet frames, each behind a virtio_net_hdr of 12 bytes (virtio 1.2,
// 5.1.6; Linux Documentation/networking/tuntap.rst). Non-blocking. The object owns the descriptor;
// a device that Open() has created goes away with it. Read and Write on one thread, SetOffloads on
// any.
#ifndef ROMULUS_DEVICES_TAP_H_
#define ROMULUS_DEVICES_TAP_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/unique_fd.h"
#include "devices/virtio/net_header.h"

namespace romulus::devices {

class Tap {
 public:
  // `mtu` (bytes of payload) is given to a device that is created here, which is also brought up;
  // one that was there must not have a smaller one. Every error names the device and what to do:
  // InvalidArgument for a name that cannot be one's, PermissionDenied, NotFound (no /dev/net/tun;
  // no such device, and it may not be created), AlreadyExists (another process has it), and
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
  bool created() const { return created_; }

 private:
  Tap(std::string name, base::UniqueFd fd, bool created)
      : name_(std::move(name)), fd_(std::move(fd)), created_(created) {}

  const std::string name_;
  const base::UniqueFd fd_;
  const bool created_;
  NetOffloads offloads_;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_TAP_H_

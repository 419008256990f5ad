#include "devices/virtio/rng.h"

#include <sys/random.h>

#include <cerrno>

#include "base/status.h"

namespace romulus::devices {

absl::Status HostEntropy::Fill(std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t got = ::getrandom(into.data(), into.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return base::ErrnoStatus(errno, "getrandom");
    into = into.subspan(static_cast<size_t>(got));
  }
  return absl::OkStatus();
}

Progress VirtioRng::Process(int queue) {
  std::array<std::byte, kMaxBytes> buffer;
  while (std::optional<Chain> chain = host().Pop(queue)) {
    // The driver must not place device-readable buffers into the queue (5.4.6.1).
    if (!chain->readable.empty()) {
      host().Fail(VirtioFault::kRequest);
      break;
    }
    const std::span<std::byte> bytes(buffer.data(),
                                     std::min<uint64_t>(chain->writable_bytes, buffer.size()));
    size_t written = 0;
    if (source_.Fill(bytes).ok()) {
      const absl::StatusOr<size_t> copied = Scatter(host().memory(), chain->writable, 0, bytes);
      written = copied.value_or(0);
    } else {
      ++failed_reads_;  // no bytes rather than bad ones
    }
    host().Push(queue, *chain, static_cast<uint32_t>(written));
  }
  return Progress::kDrained;
}

}  // namespace romulus::devices

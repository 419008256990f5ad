// One address space of I/O: ports or MMIO. Built before the vCPUs run; Read and Write may then come
// from any vCPU thread at once (the handlers lock themselves). Does not own its handlers.
#ifndef ROMULUS_DEVICES_BUS_H_
#define ROMULUS_DEVICES_BUS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "devices/device.h"

namespace romulus::devices {

class Bus {
 public:
  // `name` is for messages: "pio", "mmio".
  explicit Bus(absl::string_view name) : name_(name) {}
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  // Addresses [start, start + size) go to `handler`. Errors: InvalidArgument for an empty or
  // wrapping range; AlreadyExists if it overlaps another, which is named. Not after the vCPUs run.
  absl::Status Map(absl::string_view owner, uint64_t start, uint64_t size, IoHandler* handler);

  // An access that no range holds from first to last byte reads all ones and writes nothing, as on
  // a real bus, and is counted.
  void Read(uint64_t address, std::span<std::byte> data);
  void Write(uint64_t address, std::span<const std::byte> data);

  uint64_t unmapped_reads() const { return unmapped_reads_.load(std::memory_order_relaxed); }
  uint64_t unmapped_writes() const { return unmapped_writes_.load(std::memory_order_relaxed); }

 private:
  struct Range {
    uint64_t start;
    uint64_t last;  // inclusive, so that a range may end at the top
    IoHandler* handler;
    std::string owner;
  };
  const Range* Find(uint64_t address, size_t size) const;

  std::string name_;
  std::vector<Range> ranges_;  // ascending
  std::atomic<uint64_t> unmapped_reads_{0};
  std::atomic<uint64_t> unmapped_writes_{0};
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_BUS_H_

// What a virtio driver can do wrong, by name, and how often it did. The counters are for metrics: a
// guest that breaks a rule harms itself only (P7), but somebody should see it. Any thread.
#ifndef ROMULUS_DEVICES_VIRTIO_FAULT_H_
#define ROMULUS_DEVICES_VIRTIO_FAULT_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace romulus::devices {

// Sections are of the virtio 1.2 specification. All but kRegister need a reset of the device.
enum class VirtioFault : uint8_t {
  kAvailIndex,             // more chains offered than the queue has entries (2.7.13)
  kHeadIndex,              // a head beyond the descriptor table (2.7.6)
  kHeadInUse,              // a head offered again before it was used (2.7.13)
  kDescriptorIndex,        // `next` beyond its table (2.7.5)
  kChainTooLong,           // a loop, or more descriptors than a chain may have (2.7.5, 2.7.4)
  kChainBytes,             // more than 2^32 bytes (2.7.5)
  kZeroLength,             // a buffer without bytes (2.7.13.1: every element has one)
  kBufferAddress,          // a buffer not wholly in guest memory
  kReadableAfterWritable,  // 2.7.4.2
  kIndirectNotOffered,     // without VIRTIO_F_INDIRECT_DESC (2.7.5.3.1)
  kIndirectNested,         // within an indirect table (2.7.5.3.1)
  kIndirectWithNext,       // 2.7.5.3.1
  kIndirectTable,          // its length is no positive multiple of 16, or it is not in memory
  kQueueSize,              // no power of two, or beyond QueueNumMax (2.7, 4.2.2.2)
  kQueueAddress,           // a ring misaligned or not wholly in guest memory (2.7)
  kQueueLive,              // configured while QueueReady (4.2.2.2)
  kQueueIndex,             // a queue that the device does not have was set up or notified
  kStatus,                 // a status bit cleared, or set out of order (2.1.1, 3.1.1)
  kFeatures,               // features changed after FEATURES_OK (3.1.1)
  kRegisterWidth,          // a register accessed with other than 4 aligned bytes (4.2.2.2)
  kRequest,                // a chain that this type of device cannot have
  kRegister,               // wrote a register that cannot be written: ignored
  kCount,
};
inline constexpr size_t kVirtioFaults = static_cast<size_t>(VirtioFault::kCount);

// For metrics' labels and messages: "avail_index".
absl::string_view VirtioFaultName(VirtioFault fault);

// InvalidArgument with the fault's name in its message.
absl::Status VirtioFaultStatus(VirtioFault fault);

class VirtioFaultCounters {
 public:
  void Count(VirtioFault fault) {
    counts_[static_cast<size_t>(fault)].fetch_add(1, std::memory_order_relaxed);
  }
  uint64_t count(VirtioFault fault) const {
    return counts_[static_cast<size_t>(fault)].load(std::memory_order_relaxed);
  }
  uint64_t total() const;

 private:
  std::array<std::atomic<uint64_t>, kVirtioFaults> counts_{};
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_FAULT_H_

// A descriptor chain as the device may use it: checked, and copied out of the guest's reach. The
// buffers' addresses cannot change any more; their bytes still can (the guest runs meanwhile), so a
// device copies what it decides on, once. A value; any thread.
#ifndef ROMULUS_DEVICES_VIRTIO_CHAIN_H_
#define ROMULUS_DEVICES_VIRTIO_CHAIN_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memory/guest_memory.h"

namespace romulus::devices {

// A buffer, or a part of one, wholly in guest memory.
struct Segment {
  Gpa gpa;
  uint32_t size_bytes = 0;  // > 0

  friend bool operator==(const Segment&, const Segment&) = default;
};

struct Chain {
  uint16_t head = 0;              // the descriptor that names it in the used ring
  uint32_t generation = 0;        // of the queue it came from: a chain from before a reset is void
  std::vector<Segment> readable;  // for the device; before the writable ones
  std::vector<Segment> writable;
  uint64_t readable_bytes = 0;
  uint64_t writable_bytes = 0;
};

// A chain to be given back. `chain` is only pointed at.
struct UsedChain {
  const Chain* chain = nullptr;
  uint32_t written_bytes = 0;
};

// Copies from the segments' bytes [offset, ...) until `into` is full or they end; returns how many
// bytes. Errors: as GuestMemory::Read, which a checked chain never gives.
absl::StatusOr<size_t> Gather(const memory::GuestMemory& memory, std::span<const Segment> segments,
                              uint64_t offset, std::span<std::byte> into);
// The other way; what is written is marked (P4).
absl::StatusOr<size_t> Scatter(memory::GuestMemory& memory, std::span<const Segment> segments,
                               uint64_t offset, std::span<const std::byte> from);

// The segments' bytes [offset, offset + size_bytes) as pieces of segments. Errors: OutOfRange.
absl::StatusOr<std::vector<Segment>> Slice(std::span<const Segment> segments, uint64_t offset,
                                           uint64_t size_bytes);

// The segments as they lie in our address space, for readv and writev: valid as long as `memory`.
// Whoever lets a kernel write through WritableSpans() calls MarkWritten() when it has, and may not
// do either between Quiesce() and Resume(). Errors: as GuestMemory's.
absl::StatusOr<std::vector<std::span<const std::byte>>> ReadableSpans(
    const memory::GuestMemory& memory, std::span<const Segment> segments);
absl::StatusOr<std::vector<std::span<std::byte>>> WritableSpans(memory::GuestMemory& memory,
                                                                std::span<const Segment> segments);
// Marks the first `size_bytes` of the segments, or all if there are fewer.
absl::Status MarkWritten(memory::GuestMemory& memory, std::span<const Segment> segments,
                         uint64_t size_bytes);

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_CHAIN_H_

// What a disk is to the virtio block device: requests that own their bytes, done some time later.
// The daemon puts a file behind it, and what records an epoch's writes.
#ifndef ROMULUS_DEVICES_VIRTIO_BLOCK_BACKEND_H_
#define ROMULUS_DEVICES_VIRTIO_BLOCK_BACKEND_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"

namespace romulus::devices {

inline constexpr uint64_t kSectorBytes = 512;  // virtio's unit, whatever the disk's is (5.2.4)

struct BlockRequest {
  enum class Kind : uint8_t { kRead, kWrite, kFlush, kDiscard, kWriteZeroes };
  Kind kind = Kind::kRead;
  uint64_t offset_bytes = 0;  // multiples of a sector, within the disk; 0 for kFlush
  uint64_t size_bytes = 0;
  std::vector<std::byte> data;  // kWrite: size_bytes
  bool durable = false;         // kWrite: done only when it would survive a power loss
  bool may_unmap = false;       // kWriteZeroes: may give the blocks back to the file system
};

struct BlockResult {
  absl::Status status;
  std::vector<std::byte> data;  // kRead: size_bytes, if OK
};

class BlockBackend {
 public:
  virtual ~BlockBackend() = default;
  virtual uint64_t size_bytes() const = 0;  // a multiple of a sector; constant
  virtual bool read_only() const = 0;
  // Begins a request; never blocks. Called from within a turn of the device thread, hence never in
  // a pause: what was submitted before it belongs to the epoch that ends there. Calls `done`
  // exactly once, on the device thread, but not from within Submit(). Requests under way at once
  // may be done in any order; kFlush is about writes that were done before it was submitted.
  virtual void Submit(BlockRequest request, std::function<void(BlockResult)> done) = 0;
  // True: the device shall submit nothing now (what is recorded for a secondary is at its cap).
  virtual bool Full() const { return false; }
  // Calls `ready` once, when it is not full, on the device thread, not from within.
  virtual void WhenRoom(std::function<void()> /*ready*/) {}
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_BLOCK_BACKEND_H_

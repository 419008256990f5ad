// A split virtqueue from the device's side (virtio 1.2, 2.7). Everything in guest memory is the
// driver's to change at any time: it is read once, into a local, and checked there; no loop is
// longer than the queue. After a fault the queue gives nothing more until Reset().
//
// It also knows which chains the device holds: they are part of its saved state, and a restored
// queue hands them out again, before all others. One thread at a time (the transport's lock). Holds
// a reference to the memory.
#ifndef ROMULUS_DEVICES_VIRTIO_QUEUE_H_
#define ROMULUS_DEVICES_VIRTIO_QUEUE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/bytes.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/fault.h"
#include "memory/guest_memory.h"

namespace romulus::devices {

// Where the driver put it: registers 4.2.2 QueueNum, QueueDesc, QueueDriver, QueueDevice.
struct QueueSetup {
  uint32_t size = 0;         // entries; a power of two
  uint64_t descriptors = 0;  // guest physical addresses
  uint64_t driver = 0;       // the available ring
  uint64_t device = 0;       // the used ring

  friend bool operator==(const QueueSetup&, const QueueSetup&) = default;
};

struct QueueFeatures {
  bool indirect = false;     // VIRTIO_F_INDIRECT_DESC
  bool event_index = false;  // VIRTIO_F_EVENT_IDX

  friend bool operator==(const QueueFeatures&, const QueueFeatures&) = default;
};

class VirtQueue {
 public:
  static constexpr uint32_t kMaxSize = 1024;  // entries that a device here may offer
  // Descriptors in one chain. Linux lets an indirect chain be longer than the queue,
  // against 2.7.5.3.1.
  static constexpr uint32_t kMaxChain = 1024;

  VirtQueue(memory::GuestMemory& memory, uint32_t max_size)
      : memory_(memory), max_size_(max_size) {}

  uint32_t max_size() const { return max_size_; }
  bool ready() const { return ready_; }
  const QueueSetup& setup() const { return setup_; }

  // Begins to use the rings, from index 0. If they break a rule: the rule, and the queue stays off.
  std::optional<VirtioFault> Enable(const QueueSetup& setup, QueueFeatures features);
  // Turns it off: chains that the device still holds are void.
  void Reset();

  // The next chain, or nothing when there is none. An error is a fault of the driver: fault() names
  // it, and the queue is broken.
  absl::StatusOr<std::optional<Chain>> Pop();
  std::optional<VirtioFault> fault() const { return fault_; }

  // Whether the chain is still the device's: its buffers may be written.
  bool Holds(const Chain& chain) const {
    return ready_ && !fault_ && chain.generation == generation_;
  }
  // Gives a chain back with the number of bytes written to it. Nothing if the chain is void.
  void Push(const Chain& chain, uint32_t written_bytes);
  // The same with several, of which the driver sees all or none as used.
  void PushTogether(std::span<const UsedChain> used);
  // After some Push()es: whether the driver wants to be interrupted for them (2.7.7.2).
  bool NeedsInterrupt();
  // Asks the driver to notify for new chains, or not to care to (2.7.10). True if there already are
  // chains that came before it was told.
  bool SetNotifications(bool wanted);

  // Chains popped and not pushed, in the order of Pop(), including those that wait to be handed out
  // again.
  std::vector<uint16_t> InFlight() const;

  // State: see the .cc. Restore() only checks and takes; memory is first looked at by Pop().
  // Errors: InvalidArgument.
  void Save(base::ByteWriter& out) const;
  absl::Status Restore(base::ByteReader& in, QueueFeatures features);

 private:
  struct Descriptor;

  std::optional<VirtioFault> CheckSetup(const QueueSetup& setup) const;
  absl::Status Break(VirtioFault fault);
  absl::StatusOr<Chain> Walk(uint16_t head);
  // Adds a buffer to the chain.
  std::optional<VirtioFault> Add(const Descriptor& descriptor, Chain& chain) const;

  // A 16-bit field of a ring, which both sides access. `gpa` lies in a ring that was checked.
  std::atomic_ref<uint16_t> Field(uint64_t gpa) const;
  uint16_t LoadAvailIndex() const;

  memory::GuestMemory& memory_;
  const uint32_t max_size_;
  bool ready_ = false;
  QueueSetup setup_;
  QueueFeatures features_;
  std::optional<VirtioFault> fault_;
  uint32_t generation_ = 1;

  uint16_t next_avail_ = 0;  // free-running, as all indices of rings
  uint16_t next_used_ = 0;
  uint16_t signalled_used_ = 0;      // next_used_ when NeedsInterrupt() was asked last
  std::vector<uint16_t> in_flight_;  // in the order of Pop()
  std::vector<bool> is_in_flight_;   // by head
  std::deque<uint16_t> replay_;      // restored, to be handed out again
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_QUEUE_H_

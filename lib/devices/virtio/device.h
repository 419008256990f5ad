// What a virtio device is apart from its transport: a type, features, a configuration space and
// what it does with chains. One object per device, made before the transport that drives it.
//
// The transport calls everything here with its own lock held, so a device needs none: Process() and
// what went through VirtioHost::Bind() on the device thread, the rest on the vCPU thread that
// touched a register, Save and Restore with the guest paused. None of it may block. What a device
// offers to the outside (a console's input) comes from any thread and says so.
#ifndef ROMULUS_DEVICES_VIRTIO_DEVICE_H_
#define ROMULUS_DEVICES_VIRTIO_DEVICE_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/bytes.h"
#include "devices/virtio/chain.h"
#include "devices/virtio/fault.h"
#include "memory/guest_memory.h"

namespace romulus::devices {

// The transport, as the device sees it. Except for Kick(), only from within the calls named above.
class VirtioHost {
 public:
  virtual ~VirtioHost() = default;
  virtual memory::GuestMemory& memory() = 0;
  // The queue's next chain; nothing when there is none now, or the work of this turn is done, or
  // the driver broke a rule.
  virtual std::optional<Chain> Pop(int queue) = 0;
  // Whether a chain that was kept for later is still the device's: if not, its buffers are the
  // driver's again and must not be touched.
  virtual bool Holds(int queue, const Chain& chain) = 0;
  // Gives it back. A chain from before a reset is ignored. The interrupt follows by itself.
  virtual void Push(int queue, const Chain& chain, uint32_t written_bytes) = 0;
  // The same with several, of which the driver sees all or none as used.
  virtual void PushTogether(int queue, std::span<const UsedChain> used) = 0;
  // Entries that the driver gave the queue: so many chains the device can hold, at most. 0: the
  // queue is off.
  virtual uint32_t QueueSize(int queue) = 0;
  // The driver broke a rule: it must reset the device, which does nothing more until then.
  virtual void Fail(VirtioFault fault) = 0;
  // Has Process(queue) called, soon, on the device thread. Any thread, any time, never blocks.
  virtual void Kick(int queue) = 0;
  // The configuration space changed.
  virtual void ConfigChanged() = 0;
  // Something to be called once from the device thread without any lock, such as a completion:
  // it runs `work` under the transport's lock; after the pause if the device is quiet; never if the
  // transport is gone by then.
  virtual std::function<void()> Bind(std::function<void()> work) = 0;
};

enum class Progress : uint8_t {
  kDrained,  // Pop() gave nothing more: wake me by a notification
  kStalled,  // I cannot take chains now, and shall Kick() myself
  kAgain,    // I did enough for one turn
};

class VirtioDevice {
 public:
  virtual ~VirtioDevice() = default;

  virtual uint32_t device_id() const = 0;                 // virtio 1.2, 5
  virtual uint64_t features() const = 0;                  // of this type, bits 0 to 23
  virtual std::vector<uint16_t> queue_sizes() const = 0;  // at most; powers of two
  // The configuration space from its start; beyond its end a driver reads zeros.
  virtual std::span<const std::byte> config() const { return {}; }
  virtual void WriteConfig(uint64_t /*offset*/, std::span<const std::byte> /*data*/) {}

  // Called once, before anything else; `host` outlives the device's use.
  void Attach(VirtioHost& host) { host_ = &host; }

  // The driver is ready: `features` are those agreed on.
  virtual void OnDriverOk(uint64_t /*features*/) {}
  // The driver took a queue away: chains of it are void.
  virtual void OnQueueStopped(int /*queue*/) {}
  // As if new. What is in flight outside may still end, and then must change nothing in the guest.
  virtual void Reset() = 0;
  // Takes chains and works on them, at most what is quick (some hundred KiB of copying).
  virtual Progress Process(int queue) = 0;

  // What is not in the queues. After Restore() chains that were in flight are popped again, in the
  // same order and before all others: a device begins them anew. Errors: InvalidArgument; those of
  // a device that this host has differently.
  virtual void Save(base::ByteWriter& /*out*/) const {}
  virtual absl::Status Restore(base::ByteReader& /*in*/, uint64_t /*features*/) {
    return absl::OkStatus();
  }

 protected:
  VirtioHost& host() { return *host_; }

 private:
  VirtioHost* host_ = nullptr;
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_DEVICE_H_

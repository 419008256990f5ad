// virtio over MMIO, version 2 (virtio 1.2, 4.2): registers, negotiation, queues, interrupt, and the
// turn-taking between vCPUs and the device thread. Owns its VirtioDevice; holds references to
// memory, interrupt line and executor.
//
// Registers are read and written from any vCPU thread. A notification only posts work to the
// executor, whose one thread runs the device, a bounded turn at a time, under the transport's lock.
// Interrupt status, its acknowledgement and notifications take no lock that a turn holds.
//
// Between Quiesce() and Resume(), and from Restore() to Resume(), nothing touches guest memory:
// turns wait, completions wait, and what is in flight is in the saved state.
#ifndef ROMULUS_DEVICES_VIRTIO_MMIO_H_
#define ROMULUS_DEVICES_VIRTIO_MMIO_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/executor.h"
#include "devices/device.h"
#include "devices/virtio/device.h"
#include "devices/virtio/fault.h"
#include "devices/virtio/queue.h"
#include "memory/guest_memory.h"

namespace romulus::devices {

// InterruptStatus and the line that follows it: high while any bit is set. Any thread.
class VirtioInterrupt {
 public:
  static constexpr uint32_t kUsedBuffer = 1;  // 4.2.2, InterruptStatus
  static constexpr uint32_t kConfigChange = 2;

  explicit VirtioInterrupt(IrqLine& line) : line_(line) {}
  void Raise(uint32_t bits);
  void Acknowledge(uint32_t bits);
  uint32_t status() const;
  // Sets the status, and the line in any case: KVM does not save the level of a line.
  void Restore(uint32_t bits);

 private:
  IrqLine& line_;
  mutable absl::Mutex mutex_;
  uint32_t status_ ABSL_GUARDED_BY(mutex_) = 0;
};

namespace virtio {

inline constexpr uint32_t kAcknowledge = 1;  // device status, 2.1
inline constexpr uint32_t kDriver = 2;
inline constexpr uint32_t kDriverOk = 4;
inline constexpr uint32_t kFeaturesOk = 8;
inline constexpr uint32_t kNeedsReset = 64;
inline constexpr uint32_t kFailed = 128;

inline constexpr uint64_t kFeatureIndirectDesc = uint64_t{1} << 28;  // 6
inline constexpr uint64_t kFeatureEventIdx = uint64_t{1} << 29;
inline constexpr uint64_t kFeatureVersion1 = uint64_t{1} << 32;

}  // namespace virtio

class VirtioMmio final : public Device, public IoHandler, private VirtioHost {
 public:
  // Chains per turn: what a pause may have to wait for.
  static constexpr int kChainsPerTurn = 64;

  // `name` is unique in the machine: "virtio.rng". `executor` must outlive what is posted to it.
  VirtioMmio(absl::string_view name, std::unique_ptr<VirtioDevice> device,
             memory::GuestMemory& memory, IrqLine& irq, base::Executor& executor);
  // Posted work that has not run yet does nothing then.
  ~VirtioMmio() override;

  absl::string_view name() const override { return name_; }
  absl::Status Quiesce() override;
  void Resume() override;
  absl::Status Save(state::MachineState& out) const override;
  // The device is quiet until Resume(). Restore after KVM's irqchip: it sets the line anew.
  absl::Status Restore(state::MachineState& in) override;

  // Offsets from the window's start.
  void Read(uint64_t offset, std::span<std::byte> data) override;
  void Write(uint64_t offset, std::span<const std::byte> data) override;

  // What a write of QueueNotify does, for an ioeventfd. Any thread.
  void Notify(uint32_t queue);

  // As the driver reads it (2.1).
  uint32_t status() const;
  const VirtioFaultCounters& faults() const { return faults_; }
  VirtioDevice& device() { return *device_; }

 private:
  // Work that was posted reaches the transport through this, and finds it gone if it is.
  struct Anchor {
    absl::Mutex mutex;
    VirtioMmio* transport ABSL_GUARDED_BY(mutex) = nullptr;
  };
  // A queue, and what the driver has told of it so far.
  struct QueueSlot {
    VirtQueue queue;
    QueueSetup setup;
  };

  // VirtioHost:
  memory::GuestMemory& memory() override { return memory_; }
  std::optional<Chain> Pop(int queue) override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  bool Holds(int queue, const Chain& chain) override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void Push(int queue, const Chain& chain,
            uint32_t written_bytes) override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void PushTogether(int queue,
                    std::span<const UsedChain> used) override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  uint32_t QueueSize(int queue) override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void Fail(VirtioFault fault) override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void Kick(int queue) override;
  void ConfigChanged() override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  std::function<void()> Bind(std::function<void()> work) override;

  // mmio.cc: registers.
  uint32_t ReadRegister(uint64_t offset) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteRegister(uint64_t offset, uint32_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteQueueRegister(uint64_t offset, uint32_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteDriverFeatures(uint32_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteStatus(uint32_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteQueueReady(int queue, uint32_t value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ResetDevice() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  QueueSlot* Selected() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<QueueSlot> MakeQueues() const;
  uint64_t OfferedFeatures() const;
  static QueueFeatures RingFeatures(uint64_t features);
  bool Running() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // mmio_work.cc: the device thread.
  void KickAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PostTurn();
  void TakeTurn();
  void RunQueue(int queue) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunBound(std::function<void()> work);
  void SignalUsed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string name_;
  memory::GuestMemory& memory_;
  base::Executor& executor_;
  VirtioFaultCounters faults_;
  VirtioInterrupt interrupt_;
  const std::shared_ptr<Anchor> anchor_;

  std::atomic<uint64_t> pending_{0};      // queues to run, a bit each
  std::atomic<bool> turn_posted_{false};  // or quiet: Resume() posts it
  // Set before the lock is taken, so that a device with turn after turn to do does not keep the
  // pause waiting for the lock; cleared under it.
  std::atomic<bool> quiet_{false};

  mutable absl::Mutex mutex_;
  const std::unique_ptr<VirtioDevice> device_;  // its methods under mutex_
  const size_t queue_count_;
  std::vector<QueueSlot> queues_ ABSL_GUARDED_BY(mutex_);
  uint32_t status_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t config_generation_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t device_features_sel_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t driver_features_sel_ ABSL_GUARDED_BY(mutex_) = 0;
  uint32_t queue_sel_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t driver_features_ ABSL_GUARDED_BY(mutex_) = 0;
  bool restored_ ABSL_GUARDED_BY(mutex_) = false;  // and not resumed since
  int chains_left_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::function<void()>> held_ ABSL_GUARDED_BY(mutex_);  // completions in a pause
};

}  // namespace romulus::devices

#endif  // ROMULUS_DEVICES_VIRTIO_MMIO_H_

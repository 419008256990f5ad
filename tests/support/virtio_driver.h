// The other side of a virtio device: a driver that builds its rings in guest memory and negotiates
// over the registers, in the order of virtio 1.2, 3.1.1 and 4.2.3. What it writes into guest memory
// stands for what a guest's CPU writes, so it is not marked in the write log; and it can be told to
// write nonsense. One thread at a time per queue.
#ifndef ROMULUS_TESTS_SUPPORT_VIRTIO_DRIVER_H_
#define ROMULUS_TESTS_SUPPORT_VIRTIO_DRIVER_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/executor.h"
#include "devices/device.h"
#include "devices/virtio/mmio.h"
#include "memory/guest_memory.h"

namespace romulus::devices::testing {

// Work waits until the test runs it: the test is the device thread.
class ManualExecutor final : public base::Executor {
 public:
  void Post(std::function<void()> work) override { work_.push_back(std::move(work)); }
  void PostAfter(uint64_t, std::function<void()> work) override { Post(std::move(work)); }
  // Runs what is posted, and what that posts, at most `limit` pieces. Returns how many ran.
  int Run(int limit = 1'000'000) {
    int ran = 0;
    for (; ran < limit && !work_.empty(); ++ran) {
      std::function<void()> work = std::move(work_.front());
      work_.pop_front();
      work();
    }
    return ran;
  }
  size_t waiting() const { return work_.size(); }

 private:
  std::deque<std::function<void()>> work_;
};

// Guest memory as a guest's CPU sees it.
class GuestCpu {
 public:
  explicit GuestCpu(memory::GuestMemory& memory) : memory_(&memory) {}
  void Write(uint64_t gpa, const void* from, size_t size) {
    auto span = memory_->WritableSpan(Gpa(gpa), size);
    ROMULUS_CHECK(span.ok());
    std::memcpy(span->data(), from, size);
  }
  template <typename T>
  void Put(uint64_t gpa, T value) {
    Write(gpa, &value, sizeof(value));
  }
  template <typename T>
  T Get(uint64_t gpa) const {
    return *memory_->ReadObject<T>(Gpa(gpa));
  }
  std::string Text(uint64_t gpa, size_t size) const {
    std::string text(size, '\0');
    ROMULUS_CHECK(
        memory_->Read(Gpa(gpa), std::as_writable_bytes(std::span<char>(text.data(), size))).ok());
    return text;
  }
  // A ring's index or flags, which the device accesses at the same time.
  std::atomic_ref<uint16_t> Field(uint64_t gpa) const {
    auto span = memory_->WritableSpan(Gpa(gpa), sizeof(uint16_t));
    ROMULUS_CHECK(span.ok());
    return std::atomic_ref<uint16_t>(*reinterpret_cast<uint16_t*>(span->data()));
  }
  memory::GuestMemory& memory() { return *memory_; }

 private:
  memory::GuestMemory* memory_;
};

inline constexpr uint16_t kDescNext = 1, kDescWrite = 2, kDescIndirect = 4;

struct RawDescriptor {
  uint64_t address = 0;
  uint32_t size_bytes = 0;
  uint16_t flags = 0;
  uint16_t next = 0;
};
static_assert(sizeof(RawDescriptor) == 16);

struct UsedEntry {
  uint32_t id = 0;
  uint32_t size_bytes = 0;
  friend bool operator==(const UsedEntry&, const UsedEntry&) = default;
};

// One queue's rings, from the driver's side. A value, apart from the memory: copied, it is the
// driver of a restored guest.
class DriverQueue {
 public:
  // Rings of `size` entries at `base` (page aligned): descriptors, available, used; a page each.
  DriverQueue(GuestCpu cpu, uint64_t base, uint16_t size, bool event_index)
      : cpu_(cpu), base_(base), size_(size), event_index_(event_index) {}

  uint64_t descriptors() const { return base_; }
  uint64_t avail() const { return base_ + 4 * kPageSize; }
  uint64_t used() const { return base_ + 5 * kPageSize; }
  uint64_t used_event() const { return avail() + 4 + 2 * uint64_t{size_}; }
  uint64_t avail_event() const { return used() + 4 + 8 * uint64_t{size_}; }
  uint16_t size() const { return size_; }

  void PutDescriptor(uint64_t index, const RawDescriptor& descriptor) {
    cpu_.Put(descriptors() + 16 * index, descriptor);
  }
  // Offers a head without caring what it says. True if the device wants to be notified.
  bool Offer(uint16_t head) {
    cpu_.Put<uint16_t>(avail() + 4 + 2 * (avail_index_ % size_), head);
    return SetAvailIndex(static_cast<uint16_t>(avail_index_ + 1));
  }
  bool SetAvailIndex(uint16_t index) {
    const uint16_t old = std::exchange(avail_index_, index);
    cpu_.Field(avail() + 2).store(index, std::memory_order_seq_cst);
    if (!event_index_) return (cpu_.Field(used()).load(std::memory_order_seq_cst) & 1) == 0;
    const uint16_t event = cpu_.Field(avail_event()).load(std::memory_order_seq_cst);
    return static_cast<uint16_t>(index - event - 1) < static_cast<uint16_t>(index - old);
  }
  // A chain of descriptors from `head` on, in that order.
  bool OfferChain(uint16_t head, std::vector<RawDescriptor> chain) {
    for (size_t i = 0; i < chain.size(); ++i) {
      if (i + 1 < chain.size()) {
        chain[i].flags |= kDescNext;
        chain[i].next = static_cast<uint16_t>(head + i + 1);
      }
      PutDescriptor(head + i, chain[i]);
    }
    return Offer(head);
  }
  // The same through an indirect table at `table`.
  bool OfferIndirect(uint16_t head, uint64_t table, std::vector<RawDescriptor> chain) {
    for (size_t i = 0; i < chain.size(); ++i) {
      if (i + 1 < chain.size()) {
        chain[i].flags |= kDescNext;
        chain[i].next = static_cast<uint16_t>(i + 1);
      }
      cpu_.Put(table + 16 * i, chain[i]);
    }
    return OfferChain(head, {{table, static_cast<uint32_t>(16 * chain.size()), kDescIndirect, 0}});
  }
  uint16_t UsedIndex() const { return cpu_.Field(used() + 2).load(std::memory_order_seq_cst); }
  // The next used entry that was not seen yet.
  std::optional<UsedEntry> PollUsed() {
    if (UsedIndex() == seen_used_) return std::nullopt;
    return cpu_.Get<UsedEntry>(used() + 4 + 8 * uint64_t{uint16_t(seen_used_++ % size_)});
  }
  // Without the event index: asks not to be interrupted. With: from `index` on.
  void SetNoInterrupt(bool no) { cpu_.Field(avail()).store(no ? 1 : 0); }
  void SetUsedEvent(uint16_t index) { cpu_.Field(used_event()).store(index); }

 private:
  GuestCpu cpu_;
  uint64_t base_;
  uint16_t size_;
  bool event_index_;
  uint16_t avail_index_ = 0;
  uint16_t seen_used_ = 0;
};

// Registers, 4.2.2.
namespace mmio {
inline constexpr uint64_t kMagic = 0x00, kVersion = 0x04, kDeviceId = 0x08, kVendor = 0x0c,
                          kDeviceFeatures = 0x10, kDeviceFeaturesSel = 0x14, kDriverFeatures = 0x20,
                          kDriverFeaturesSel = 0x24, kQueueSel = 0x30, kQueueNumMax = 0x34,
                          kQueueNum = 0x38, kQueueReady = 0x44, kQueueNotify = 0x50,
                          kInterruptStatus = 0x60, kInterruptAck = 0x64, kStatus = 0x70,
                          kDescLow = 0x80, kDriverLow = 0x90, kDeviceLow = 0xa0,
                          kConfigGeneration = 0xfc, kConfig = 0x100;
}  // namespace mmio

// The registers of one device.
class DriverPort {
 public:
  explicit DriverPort(IoHandler& device) : device_(&device) {}

  template <typename T = uint32_t>
  T Read(uint64_t offset) {
    T value{};
    device_->Read(offset, std::as_writable_bytes(std::span<T, 1>(&value, 1)));
    return value;
  }
  template <typename T = uint32_t>
  void Write(uint64_t offset, T value) {
    device_->Write(offset, std::as_bytes(std::span<const T, 1>(&value, 1)));
  }
  uint32_t status() { return Read(mmio::kStatus); }
  void AddStatus(uint32_t bit) { Write(mmio::kStatus, status() | bit); }
  uint64_t DeviceFeatures() {
    uint64_t features = 0;
    for (uint32_t word : {0u, 1u}) {
      Write(mmio::kDeviceFeaturesSel, word);
      features |= uint64_t{Read(mmio::kDeviceFeatures)} << (32 * word);
    }
    return features;
  }
  void SetDriverFeatures(uint64_t features) {
    for (uint32_t word : {0u, 1u}) {
      Write(mmio::kDriverFeaturesSel, word);
      Write(mmio::kDriverFeatures, static_cast<uint32_t>(features >> (32 * word)));
    }
  }
  // Steps 1 to 6 of 3.1.1. True if the device agreed.
  bool Negotiate(uint64_t features) {
    Write(mmio::kStatus, uint32_t{0});
    ROMULUS_CHECK(status() == 0);
    AddStatus(virtio::kAcknowledge);
    AddStatus(virtio::kDriver);
    SetDriverFeatures(features);
    AddStatus(virtio::kFeaturesOk);
    return (status() & virtio::kFeaturesOk) != 0;
  }
  void PutQueue(uint32_t index, uint32_t size, uint64_t descriptors, uint64_t avail,
                uint64_t used) {
    Write(mmio::kQueueSel, index);
    Write(mmio::kQueueNum, size);
    const std::pair<uint64_t, uint64_t> areas[] = {
        {mmio::kDescLow, descriptors}, {mmio::kDriverLow, avail}, {mmio::kDeviceLow, used}};
    for (const auto& [reg, address] : areas) {
      Write(reg, static_cast<uint32_t>(address));
      Write(reg + 4, static_cast<uint32_t>(address >> 32));
    }
    Write(mmio::kQueueReady, uint32_t{1});
  }
  // Step 7, for one queue (4.2.3.2). True if the device took it.
  bool SetUpQueue(uint32_t index, const DriverQueue& queue) {
    Write(mmio::kQueueSel, index);
    if (Read(mmio::kQueueReady) != 0 || Read(mmio::kQueueNumMax) < queue.size()) return false;
    PutQueue(index, queue.size(), queue.descriptors(), queue.avail(), queue.used());
    return Read(mmio::kQueueReady) == 1;
  }
  void Notify(uint32_t queue) { Write(mmio::kQueueNotify, queue); }

 private:
  IoHandler* device_;
};

}  // namespace romulus::devices::testing

#endif  // ROMULUS_TESTS_SUPPORT_VIRTIO_DRIVER_H_

#include "devices/virtio/mmio.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace romulus::devices {
namespace {

// Offsets of 4.2.2, MMIO Device Register Layout.
enum Register : uint64_t {
  kMagicValue = 0x000,
  kVersion = 0x004,
  kDeviceId = 0x008,
  kVendorId = 0x00c,
  kDeviceFeatures = 0x010,
  kDeviceFeaturesSel = 0x014,
  kDriverFeatures = 0x020,
  kDriverFeaturesSel = 0x024,
  kQueueSel = 0x030,
  kQueueNumMax = 0x034,
  kQueueNum = 0x038,
  kQueueReady = 0x044,
  kQueueNotify = 0x050,
  kInterruptStatus = 0x060,
  kInterruptAck = 0x064,
  kStatus = 0x070,
  kQueueDescLow = 0x080,
  kQueueDescHigh = 0x084,
  kQueueDriverLow = 0x090,
  kQueueDriverHigh = 0x094,
  kQueueDeviceLow = 0x0a0,
  kQueueDeviceHigh = 0x0a4,
  kShmSel = 0x0ac,
  kShmLenLow = 0x0b0,
  kShmLenHigh = 0x0b4,
  kShmBaseLow = 0x0b8,
  kShmBaseHigh = 0x0bc,
  kConfigGeneration = 0x0fc,
  kConfig = 0x100,
};
constexpr uint32_t kMagic = 0x74726976;   // "virt"
constexpr uint32_t kVendor = 0x554d4f52;  // "ROMU"
constexpr uint32_t kDriverStatusBits = virtio::kAcknowledge | virtio::kDriver | virtio::kDriverOk |
                                       virtio::kFeaturesOk | virtio::kFailed;

void SetLow(uint64_t& address, uint32_t value) { address = (address & ~uint64_t{~0u}) | value; }
void SetHigh(uint64_t& address, uint32_t value) {
  address = (address & ~0u) | (uint64_t{value} << 32);
}

}  // namespace

// --- interrupt -----------------------------------------------------------------------------------

void VirtioInterrupt::Raise(uint32_t bits) {
  absl::MutexLock lock(&mutex_);
  const bool was_high = status_ != 0;
  status_ |= bits;
  if (!was_high && status_ != 0) line_.Set(true);
}

void VirtioInterrupt::Acknowledge(uint32_t bits) {
  absl::MutexLock lock(&mutex_);
  const bool was_high = status_ != 0;
  status_ &= ~bits;
  if (was_high && status_ == 0) line_.Set(false);
}

uint32_t VirtioInterrupt::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

void VirtioInterrupt::Restore(uint32_t bits) {
  absl::MutexLock lock(&mutex_);
  status_ = bits;
  line_.Set(status_ != 0);
}

// --- making --------------------------------------------------------------------------------------

VirtioMmio::VirtioMmio(absl::string_view name, std::unique_ptr<VirtioDevice> device,
                       memory::GuestMemory& memory, IrqLine& irq, base::Executor& executor)
    : name_(name),
      memory_(memory),
      executor_(executor),
      interrupt_(irq),
      anchor_(std::make_shared<Anchor>()),
      device_(std::move(device)),
      queue_count_(device_->queue_sizes().size()) {
  ROMULUS_CHECK(queue_count_ > 0 && queue_count_ <= 64);  // the bits of pending_
  queues_ = MakeQueues();
  {
    absl::MutexLock lock(&anchor_->mutex);
    anchor_->transport = this;
  }
  device_->Attach(*this);
}

VirtioMmio::~VirtioMmio() {
  absl::MutexLock lock(&anchor_->mutex);
  anchor_->transport = nullptr;
}

std::vector<VirtioMmio::QueueSlot> VirtioMmio::MakeQueues() const {
  std::vector<QueueSlot> queues;
  for (const uint16_t size : device_->queue_sizes()) {
    ROMULUS_CHECK(std::has_single_bit(size) && size <= VirtQueue::kMaxSize);
    queues.push_back({VirtQueue(memory_, size), {}});
  }
  return queues;
}

uint64_t VirtioMmio::OfferedFeatures() const {
  return device_->features() | virtio::kFeatureVersion1 | virtio::kFeatureIndirectDesc |
         virtio::kFeatureEventIdx;
}

QueueFeatures VirtioMmio::RingFeatures(uint64_t features) {
  return {.indirect = (features & virtio::kFeatureIndirectDesc) != 0,
          .event_index = (features & virtio::kFeatureEventIdx) != 0};
}

uint32_t VirtioMmio::status() const {
  absl::MutexLock lock(&mutex_);
  return status_;
}

// --- access --------------------------------------------------------------------------------------

void VirtioMmio::Read(uint64_t offset, std::span<std::byte> data) {
  std::fill(data.begin(), data.end(), std::byte{0});
  if (offset == kInterruptStatus && data.size() == sizeof(uint32_t)) {
    const uint32_t value = interrupt_.status();
    std::memcpy(data.data(), &value, sizeof(value));
    return;
  }
  absl::MutexLock lock(&mutex_);
  if (offset >= kConfig) {
    // Fields are 1, 2 or 4 bytes wide; any split of them reads the same.
    const std::span<const std::byte> config = device_->config();
    const uint64_t start = offset - kConfig;
    if (start >= config.size()) return;
    const std::span<const std::byte> found = config.subspan(start);
    std::copy_n(found.begin(), std::min(found.size(), data.size()), data.begin());
    return;
  }
  if (data.size() != sizeof(uint32_t) || offset % sizeof(uint32_t) != 0) {
    Fail(VirtioFault::kRegisterWidth);
    return;
  }
  const uint32_t value = ReadRegister(offset);
  std::memcpy(data.data(), &value, sizeof(value));
}

void VirtioMmio::Write(uint64_t offset, std::span<const std::byte> data) {
  uint32_t value = 0;
  if (offset < kConfig && data.size() == sizeof(uint32_t)) {
    std::memcpy(&value, data.data(), sizeof(value));
    if (offset == kQueueNotify) return Notify(value);
    if (offset == kInterruptAck) return interrupt_.Acknowledge(value);
  }
  absl::MutexLock lock(&mutex_);
  if (offset >= kConfig) {
    device_->WriteConfig(offset - kConfig, data);
  } else if (data.size() != sizeof(uint32_t) || offset % sizeof(uint32_t) != 0) {
    Fail(VirtioFault::kRegisterWidth);
  } else {
    WriteRegister(offset, value);
  }
}

void VirtioMmio::Notify(uint32_t queue) {
  if (queue < queue_count_) return Kick(static_cast<int>(queue));
  absl::MutexLock lock(&mutex_);
  Fail(VirtioFault::kQueueIndex);
}

VirtioMmio::QueueSlot* VirtioMmio::Selected() {
  return queue_sel_ < queues_.size() ? &queues_[queue_sel_] : nullptr;
}

uint32_t VirtioMmio::ReadRegister(uint64_t offset) {
  const QueueSlot* const slot = Selected();
  switch (offset) {
    case kMagicValue:
      return kMagic;
    case kVersion:
      return 2;
    case kDeviceId:
      return device_->device_id();
    case kVendorId:
      return kVendor;
    case kDeviceFeatures:
      return device_features_sel_ < 2
                 ? static_cast<uint32_t>(OfferedFeatures() >> (32 * device_features_sel_))
                 : 0;
    case kQueueNumMax:
      return slot != nullptr ? slot->queue.max_size() : 0;
    case kQueueReady:
      return slot != nullptr && slot->queue.ready() ? 1 : 0;
    case kStatus:
      return status_;
    case kShmLenLow:
    case kShmLenHigh:
    case kShmBaseLow:
    case kShmBaseHigh:
      return ~0u;  // no region has any id (2.10)
    case kConfigGeneration:
      return config_generation_;
    default:
      return 0;  // write-only, or of a later version
  }
}

void VirtioMmio::WriteRegister(uint64_t offset, uint32_t value) {
  switch (offset) {
    case kDeviceFeaturesSel:
      device_features_sel_ = value;
      return;
    case kDriverFeatures:
      return WriteDriverFeatures(value);
    case kDriverFeaturesSel:
      driver_features_sel_ = value;
      return;
    case kQueueSel:
      queue_sel_ = value;
      return;
    case kStatus:
      return WriteStatus(value);
    case kQueueNum:
    case kQueueReady:
    case kQueueDescLow:
    case kQueueDescHigh:
    case kQueueDriverLow:
    case kQueueDriverHigh:
    case kQueueDeviceLow:
    case kQueueDeviceHigh:
      return WriteQueueRegister(offset, value);
    case kShmSel:
      return;
    default:
      faults_.Count(VirtioFault::kRegister);
  }
}

// --- negotiation (3.1.1) -------------------------------------------------------------------------

void VirtioMmio::WriteDriverFeatures(uint32_t value) {
  if ((status_ & virtio::kFeaturesOk) != 0) return Fail(VirtioFault::kFeatures);
  if (driver_features_sel_ > 1) {
    // Bits that nobody offers: the driver may only write zeros.
    if (value != 0) Fail(VirtioFault::kFeatures);
    return;
  }
  if (driver_features_sel_ == 0) {
    SetLow(driver_features_, value);
  } else {
    SetHigh(driver_features_, value);
  }
}

void VirtioMmio::WriteStatus(uint32_t value) {
  if (value == 0) return ResetDevice();
  value &= ~virtio::kNeedsReset;  // ours; a driver that read it writes it back
  const uint32_t cleared = status_ & ~virtio::kNeedsReset & ~value;
  if ((value & ~kDriverStatusBits) != 0 || cleared != 0) return Fail(VirtioFault::kStatus);
  const uint32_t added = value & ~status_;
  if ((added & virtio::kFeaturesOk) != 0 && ((driver_features_ & ~OfferedFeatures()) != 0 ||
                                             (driver_features_ & virtio::kFeatureVersion1) == 0)) {
    value &= ~virtio::kFeaturesOk;  // how the device says no: the driver reads it back (2.2.2)
  }
  if ((added & virtio::kDriverOk) != 0 && (value & virtio::kFeaturesOk) == 0) {
    return Fail(VirtioFault::kStatus);
  }
  status_ |= value;
  if ((added & virtio::kDriverOk) != 0) {
    device_->OnDriverOk(driver_features_);
    KickAll();
  }
}

void VirtioMmio::ResetDevice() {
  status_ = 0;
  driver_features_ = 0;
  device_features_sel_ = driver_features_sel_ = queue_sel_ = 0;
  for (QueueSlot& slot : queues_) {
    slot.queue.Reset();
    slot.setup = {};
  }
  device_->Reset();
  interrupt_.Acknowledge(~0u);
}

// --- queues (4.2.3.2) ----------------------------------------------------------------------------

void VirtioMmio::WriteQueueRegister(uint64_t offset, uint32_t value) {
  QueueSlot* const slot = Selected();
  if (slot == nullptr) return Fail(VirtioFault::kQueueIndex);
  if (offset == kQueueReady) return WriteQueueReady(static_cast<int>(queue_sel_), value);
  if (slot->queue.ready()) return Fail(VirtioFault::kQueueLive);
  switch (offset) {
    case kQueueNum:
      slot->setup.size = value;
      return;
    case kQueueDescLow:
      return SetLow(slot->setup.descriptors, value);
    case kQueueDescHigh:
      return SetHigh(slot->setup.descriptors, value);
    case kQueueDriverLow:
      return SetLow(slot->setup.driver, value);
    case kQueueDriverHigh:
      return SetHigh(slot->setup.driver, value);
    case kQueueDeviceLow:
      return SetLow(slot->setup.device, value);
    case kQueueDeviceHigh:
      return SetHigh(slot->setup.device, value);
    default:
      return;
  }
}

void VirtioMmio::WriteQueueReady(int queue, uint32_t value) {
  QueueSlot& slot = queues_[static_cast<size_t>(queue)];
  if ((value & 1) == 0) {
    // Nothing runs on the queue now, since a turn holds the lock; what is in flight becomes void.
    slot.queue.Reset();
    device_->OnQueueStopped(queue);
    return;
  }
  if (slot.queue.ready()) return;
  if ((status_ & virtio::kFeaturesOk) == 0) return Fail(VirtioFault::kStatus);
  if (std::optional<VirtioFault> fault =
          slot.queue.Enable(slot.setup, RingFeatures(driver_features_))) {
    Fail(*fault);
  }
}

}  // namespace romulus::devices

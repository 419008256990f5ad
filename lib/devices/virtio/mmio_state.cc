// How the transport, its queues and its device save and restore themselves: one section.
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/status.h"
#include "devices/virtio/mmio.h"

namespace romulus::devices {
namespace {

constexpr uint32_t kStateVersion = 1;
constexpr uint32_t kStatusBits = virtio::kAcknowledge | virtio::kDriver | virtio::kDriverOk |
                                 virtio::kFeaturesOk | virtio::kNeedsReset | virtio::kFailed;
constexpr uint32_t kInterruptBits = VirtioInterrupt::kUsedBuffer | VirtioInterrupt::kConfigChange;

// The section's payload: this; for each queue what its registers say (QueueRegisters) and its own
// state; then the device's.
struct MmioState {
  uint64_t driver_features = 0;
  uint32_t device_id = 0;
  uint32_t queues = 0;
  uint32_t status = 0;
  uint32_t interrupt_status = 0;
  uint32_t config_generation = 0;
  uint32_t device_features_sel = 0;
  uint32_t driver_features_sel = 0;
  uint32_t queue_sel = 0;
};
static_assert(sizeof(MmioState) == 40);

struct QueueRegisters {
  uint64_t descriptors = 0;
  uint64_t driver = 0;
  uint64_t device = 0;
  uint64_t size = 0;
};
static_assert(sizeof(QueueRegisters) == 32);

}  // namespace

absl::Status VirtioMmio::Save(state::MachineState& out) const {
  absl::MutexLock lock(&mutex_);
  std::string payload;
  base::ByteWriter writer(&payload);
  writer.Write(MmioState{.driver_features = driver_features_,
                         .device_id = device_->device_id(),
                         .queues = static_cast<uint32_t>(queues_.size()),
                         .status = status_,
                         .interrupt_status = interrupt_.status(),
                         .config_generation = config_generation_,
                         .device_features_sel = device_features_sel_,
                         .driver_features_sel = driver_features_sel_,
                         .queue_sel = queue_sel_});
  for (const QueueSlot& slot : queues_) {
    writer.Write(QueueRegisters{.descriptors = slot.setup.descriptors,
                                .driver = slot.setup.driver,
                                .device = slot.setup.device,
                                .size = slot.setup.size});
    slot.queue.Save(writer);
  }
  device_->Save(writer);
  out.Put(name_, 0, kStateVersion, payload);
  return absl::OkStatus();
}

absl::Status VirtioMmio::Restore(state::MachineState& in) {
  ROMULUS_ASSIGN_OR_RETURN(const state::Section section, in.Take(name_, 0, kStateVersion));
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(name_, ": ", why));
  };
  base::ByteReader reader(std::as_bytes(std::span<const char>(section.payload)));
  const auto saved = reader.Read<MmioState>();
  absl::MutexLock lock(&mutex_);
  if (!reader.ok() || saved.queues != queues_.size()) return refuse("the state is malformed");
  if (saved.device_id != device_->device_id()) return refuse("the state is of another device");
  if ((saved.status & ~kStatusBits) != 0 || (saved.interrupt_status & ~kInterruptBits) != 0) {
    return refuse("a register has impossible bits");
  }
  const bool features_ok = (saved.status & virtio::kFeaturesOk) != 0;
  if (features_ok && ((saved.driver_features & ~OfferedFeatures()) != 0 ||
                      (saved.driver_features & virtio::kFeatureVersion1) == 0)) {
    return refuse("the driver agreed on features that this device does not offer");
  }
  if ((saved.status & virtio::kDriverOk) != 0 && !features_ok) {
    return refuse("the driver is ready without features");
  }
  const QueueFeatures features = RingFeatures(saved.driver_features);
  std::vector<QueueSlot> queues = MakeQueues();
  for (QueueSlot& slot : queues) {
    const auto registers = reader.Read<QueueRegisters>();
    if (!reader.ok() || registers.size > UINT32_MAX) return refuse("a queue's state is malformed");
    slot.setup = {.size = static_cast<uint32_t>(registers.size),
                  .descriptors = registers.descriptors,
                  .driver = registers.driver,
                  .device = registers.device};
    ROMULUS_RETURN_IF_ERROR(base::Annotate(slot.queue.Restore(reader, features), name_));
    if (!slot.queue.ready()) continue;
    if (!features_ok || slot.queue.setup() != slot.setup) {
      return refuse("a queue is ready that cannot be");
    }
  }
  ROMULUS_RETURN_IF_ERROR(base::Annotate(device_->Restore(reader, saved.driver_features), name_));
  if (!reader.ok() || reader.remaining() != 0) return refuse("the device's state is malformed");
  queues_ = std::move(queues);
  status_ = saved.status;
  config_generation_ = saved.config_generation;
  device_features_sel_ = saved.device_features_sel;
  driver_features_sel_ = saved.driver_features_sel;
  queue_sel_ = saved.queue_sel;
  driver_features_ = saved.driver_features;
  held_.clear();
  pending_.store(0);
  quiet_.store(true);
  restored_ = true;
  interrupt_.Restore(saved.interrupt_status);
  return absl::OkStatus();
}

}  // namespace romulus::devices

// A virtio device with all that it is plugged into, and a driver's ports and queues for it.
#ifndef ROMULUS_TESTS_SUPPORT_VIRTIO_RIG_H_
#define ROMULUS_TESTS_SUPPORT_VIRTIO_RIG_H_

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/mmio.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"
#include "support/virtio_driver.h"

namespace romulus::devices::testing {

class LevelIrq final : public IrqLine {
 public:
  void Set(bool level) override {
    rises += level && !high ? 1 : 0;
    high = level;
  }
  std::atomic<bool> high{false};
  std::atomic<int> rises{0};
};

inline constexpr uint64_t kAllRingFeatures =
    virtio::kFeatureVersion1 | virtio::kFeatureIndirectDesc | virtio::kFeatureEventIdx;

// Queue i's rings are at kRings + i * kRingsBytes; buffers from kBuffers on.
inline constexpr uint64_t kRings = 0x10000, kRingsBytes = 0x8000, kBuffers = 0x100000;

struct VirtioRig {
  explicit VirtioRig(std::unique_ptr<VirtioDevice> device, uint64_t memory_mib = 4)
      : owned_memory(*memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(memory_mib))),
        memory(*owned_memory),
        transport("virtio.test", std::move(device), memory, irq, executor) {}
  // Another machine with the same memory: that of a replica, byte for byte.
  VirtioRig(std::unique_ptr<VirtioDevice> device, memory::GuestMemory& shared)
      : memory(shared), transport("virtio.test", std::move(device), memory, irq, executor) {}

  // Brings the device up with `count` queues of `size` entries.
  void BringUp(uint64_t features, int count, uint16_t size) {
    ROMULUS_CHECK(port.Negotiate(features));
    queues.clear();
    for (int i = 0; i < count; ++i) {
      queues.emplace_back(cpu, kRings + static_cast<uint64_t>(i) * kRingsBytes, size,
                          (features & virtio::kFeatureEventIdx) != 0);
      // Fresh rings are zero.
      ROMULUS_CHECK(
          memory.Fill(Gpa(queues.back().descriptors()), std::byte{0}, 6 * kPageSize).ok());
      ROMULUS_CHECK(port.SetUpQueue(static_cast<uint32_t>(i), queues.back()));
    }
    port.AddStatus(virtio::kDriverOk);
    executor.Run();
    WrittenPages();
  }
  // Which pages the VMM wrote since it was last asked.
  std::set<uint64_t> WrittenPages() {
    memory::PageSet pages(memory.layout().gfn_end());
    memory.write_log().Drain(pages);
    std::set<uint64_t> gfns;
    for (const Gfn gfn : pages.pages()) gfns.insert(gfn.value());
    return gfns;
  }
  // All pages' bytes, to find out which ones changed.
  std::string Snapshot() const {
    std::string bytes;
    for (uint64_t i = 0; i < memory.layout().page_count(); ++i) {
      const auto page = memory.Page(memory.layout().GfnAt(i));
      bytes.append(reinterpret_cast<const char*>(page.data()), page.size());
    }
    return bytes;
  }
  std::set<uint64_t> PagesChangedSince(const std::string& before) const {
    const std::string now = Snapshot();
    std::set<uint64_t> gfns;
    for (uint64_t i = 0; i * kPageSize < now.size(); ++i) {
      if (now.compare(i * kPageSize, kPageSize, before, i * kPageSize, kPageSize) != 0) {
        gfns.insert(memory.layout().GfnAt(i).value());
      }
    }
    return gfns;
  }
  void Notify(uint32_t queue) {
    port.Notify(queue);
    executor.Run();
  }
  state::MachineState Save() {
    state::MachineState out;
    ROMULUS_CHECK(transport.Save(out).ok());
    return out;
  }
  bool NeedsReset() { return (port.status() & virtio::kNeedsReset) != 0; }

  std::unique_ptr<memory::GuestMemory> owned_memory;
  memory::GuestMemory& memory;
  GuestCpu cpu{memory};
  LevelIrq irq;
  ManualExecutor executor;
  VirtioMmio transport;
  DriverPort port{transport};
  std::vector<DriverQueue> queues;
};

// A device that keeps every chain until the test gives it back.
class HoldingDevice final : public VirtioDevice {
 public:
  static constexpr uint16_t kSize = 128;
  uint32_t device_id() const override { return 42; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override { return {kSize, kSize}; }
  std::span<const std::byte> config() const override { return config_bytes; }
  void WriteConfig(uint64_t offset, std::span<const std::byte> data) override {
    config_writes.emplace_back(offset, data.size());
  }
  void OnDriverOk(uint64_t features) override { agreed = features; }
  void OnQueueStopped(int) override { ++stops; }
  void Reset() override { ++resets; }
  Progress Process(int queue) override {
    ++turns;
    while (std::optional<Chain> chain = host().Pop(queue)) {
      held.emplace_back(queue, *std::move(chain));
    }
    return Progress::kDrained;
  }
  // As a completion from outside: writes the chain's buffers and gives it back.
  std::function<void()> Completion(size_t index, std::string text) {
    return host().Bind([this, index, text = std::move(text)] {
      const auto& [queue, chain] = held[index];
      if (!host().Holds(queue, chain)) return;
      const auto written =
          Scatter(host().memory(), chain.writable, 0, base::AsBytes({text.data(), text.size()}));
      host().Push(queue, chain, static_cast<uint32_t>(written.value_or(0)));
    });
  }
  VirtioHost& seen_host() { return host(); }

  std::vector<std::pair<int, Chain>> held;
  std::array<std::byte, 8> config_bytes{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4},
                                        std::byte{5}, std::byte{6}, std::byte{7}, std::byte{8}};
  std::vector<std::pair<uint64_t, size_t>> config_writes;
  uint64_t agreed = 0;
  int resets = 0, stops = 0, turns = 0;
};

struct HoldingRig : VirtioRig {
  explicit HoldingRig(uint64_t memory_mib = 4)
      : VirtioRig(std::make_unique<HoldingDevice>(), memory_mib) {}
  explicit HoldingRig(memory::GuestMemory& shared)
      : VirtioRig(std::make_unique<HoldingDevice>(), shared) {}
  HoldingDevice& device() { return static_cast<HoldingDevice&>(transport.device()); }
  void BringUp(uint64_t features = kAllRingFeatures) {
    VirtioRig::BringUp(features, 2, HoldingDevice::kSize);
  }
  void Complete(size_t index, std::string text = "") {
    device().Completion(index, std::move(text))();
  }
};

}  // namespace romulus::devices::testing

#endif  // ROMULUS_TESTS_SUPPORT_VIRTIO_RIG_H_

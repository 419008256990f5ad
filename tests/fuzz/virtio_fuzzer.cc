// A hostile driver: any registers, any rings, any descriptors, at any time. Whatever it does, the
// device writes no page without marking it, and what it saves, another device restores to the very
// same state and goes on with. Input: virtio_script.h.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "devices/virtio/block.h"
#include "devices/virtio/console.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "fuzz/virtio_script.h"
#include "support/virtio_disk.h"
#include "support/virtio_nic.h"
#include "support/virtio_rig.h"

namespace romulus::devices {
namespace {

using testing::VirtioStep;
using testing::VirtioStepBytes;

constexpr uint64_t kWatchedBytes = 256u << 10;  // where rings and most buffers are
constexpr uint64_t kQueueBytes = 0x8000;
constexpr size_t kMaxSteps = 512;

class Source final : public EntropySource {
 public:
  absl::Status Fill(std::span<std::byte> into) override {
    for (std::byte& byte : into) byte = static_cast<std::byte>(++next_ | 1);
    return absl::OkStatus();
  }

 private:
  uint8_t next_ = 0;
};

class Sink final : public VirtioConsoleSink {
 public:
  size_t TakeConsole(std::span<const std::byte> bytes) override {
    const size_t taken = std::min(bytes.size(), room);
    room -= taken;
    return taken;
  }
  size_t room = 1000;
};

// What leaves is well formed: no header asks the host's kernel for what lies beyond its frame.
class Network final : public NetSource, public NetSink {
 public:
  void Plug(NetPlug* to) override { plug = to; }
  NetOffloads offloads() const override { return kAll; }
  void SetGuestOffloads(const NetOffloads& offloads) override { guest_ = offloads; }
  size_t ReadFrame(std::span<std::byte> into) override {
    if (frames == 0) return 0;
    --frames;
    ROMULUS_CHECK(frame_bytes <= into.size());
    std::memcpy(into.data(), &header, sizeof(header));
    for (size_t i = sizeof(header); i < frame_bytes; ++i) into[i] = std::byte(i);
    return frame_bytes;
  }
  bool TakeFrame(std::span<const std::byte> header_and_frame) override {
    if (room == 0) return false;
    --room;
    NetHeader sent;
    ROMULUS_CHECK(header_and_frame.size() >= sizeof(sent));
    std::memcpy(&sent, header_and_frame.data(), sizeof(sent));
    const size_t frame_size = header_and_frame.size() - sizeof(sent);
    const bool has_checksum = sent.flags == NetHeader::kNeedsChecksum;
    ROMULUS_CHECK(frame_size >= 14 && frame_size <= kMaxFrameBytes);
    ROMULUS_CHECK(sent.flags == 0 || has_checksum);
    ROMULUS_CHECK(sent.header_bytes <= frame_size && sent.buffers == 0);
    ROMULUS_CHECK(size_t{sent.checksum_start} + sent.checksum_offset + (has_checksum ? 2 : 0) <=
                  (has_checksum ? frame_size : 0));
    const int kind = sent.gso_type & ~NetHeader::kGsoEcn;
    ROMULUS_CHECK(sent.gso_type == 0
                      ? sent.gso_bytes == 0
                      : (kind == 1 || kind == 4) && has_checksum && sent.gso_bytes != 0);
    return true;
  }

  NetPlug* plug = nullptr;
  NetCardCounters counters;
  size_t room = 4;  // frames
  size_t frames = 0;
  size_t frame_bytes = 72;
  NetHeader header;

 private:
  static constexpr NetOffloads kAll{true, true, true, true};
  NetOffloads guest_;
};

// One memory for all inputs: it is costly to make.
memory::GuestMemory& Memory() {
  static const std::unique_ptr<memory::GuestMemory> memory =
      *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4));
  return *memory;
}

class Machine {
 public:
  explicit Machine(uint8_t kind) : kind_(kind % 4), rig_(MakeDevice(), Memory()) {}

  void Do(const VirtioStepBytes& step) {
    const std::vector<uint16_t> sizes = rig_.transport.device().queue_sizes();
    const uint64_t ring = (step.low % sizes.size()) * kQueueBytes;
    switch (static_cast<VirtioStep>(step.step % static_cast<uint8_t>(VirtioStep::kCount))) {
      case VirtioStep::kPutWord:
        return rig_.cpu.Put(uint64_t{step.place} * 4, step.value);
      case VirtioStep::kPutAddress:
        return rig_.cpu.Put(std::min<uint64_t>(uint64_t{step.place} * 4, kWatchedBytes - 8),
                            uint64_t{step.value} | uint64_t{step.low} << 56);
      case VirtioStep::kDescriptor:
        return rig_.cpu.Put(ring + 16 * (step.place & 0xfu),
                            testing::RawDescriptor{step.value % (1u << 22), step.value >> 22 << 2,
                                                   static_cast<uint16_t>(step.place >> 4 & 7),
                                                   static_cast<uint16_t>(step.place >> 8)});
      case VirtioStep::kOffer: {
        const uint16_t index = rig_.cpu.Get<uint16_t>(ring + 0x4002);
        rig_.cpu.Put(ring + 0x4004 + 2 * (index % size_), static_cast<uint16_t>(step.value));
        return rig_.cpu.Put(ring + 0x4002, static_cast<uint16_t>(index + 1));
      }
      case VirtioStep::kAvailIndex:
        return rig_.cpu.Put(ring + 0x4002, static_cast<uint16_t>(step.value));
      case VirtioStep::kRegister:
        return rig_.port.Write(uint64_t{step.low} * 4, step.value);
      case VirtioStep::kAccess:
        return Access(step);
      case VirtioStep::kNotify:
        rig_.port.Notify(step.low);
        return Run(8);
      case VirtioStep::kRun:
        return Run(step.low);
      case VirtioStep::kBringUp:
        return BringUp(step, sizes);
      case VirtioStep::kOutside:
        return Outside(step);
      case VirtioStep::kPause:
        ROMULUS_CHECK(rig_.transport.Quiesce().ok());
        if (!disk_.pending.empty()) disk_.Do(0);
        CompareWithAnother(step.place, step.low);
        return rig_.transport.Resume();
      case VirtioStep::kCount:
        return;
    }
  }

  // What this device saves, another restores to the same. So it does with a state that was bent on
  // its way, if it takes it at all.
  void CompareWithAnother(uint16_t place, uint8_t bend) {
    const state::Section section = rig_.Save().sections().front();
    Machine other(kind_);
    ROMULUS_CHECK(other.Restore(section));
    ROMULUS_CHECK(other.rig_.Save().sections().front() == section);
    ROMULUS_CHECK(other.rig_.irq.high == rig_.irq.high);
    state::Section bent = section;
    bent.payload[place % bent.payload.size()] ^= static_cast<char>(bend);
    Machine third(kind_);
    if (third.Restore(bent)) ROMULUS_CHECK(third.rig_.Save().sections().front() == bent);
  }
  // Another device goes on in this one's place.
  void HandOver(Machine& other) {
    ROMULUS_CHECK(rig_.transport.Quiesce().ok());
    ROMULUS_CHECK(other.Restore(rig_.Save().sections().front()));
    other.rig_.transport.Resume();
    other.Run(64);
    while (!other.disk_.pending.empty()) other.disk_.Do(0);
    other.Run(64);
  }

 private:
  std::unique_ptr<VirtioDevice> MakeDevice() {
    switch (kind_) {
      case 0:
        return std::make_unique<VirtioRng>(source_);
      case 1:
        return std::make_unique<VirtioConsole>(sink_, 80, 25);
      case 3:
        return std::make_unique<VirtioNet>(testing::kCardMac, uint16_t{1500}, network_, network_,
                                           network_.counters);
      default:
        return std::make_unique<VirtioBlock>(disk_, "serial");
    }
  }

  bool Restore(const state::Section& section) {
    state::MachineState in;
    in.Put(section.kind, section.instance, section.version, section.payload);
    return rig_.transport.Restore(in).ok() && in.ExpectEmpty().ok();
  }

  void Access(const VirtioStepBytes& step) {
    std::array<std::byte, 8> data;
    for (size_t i = 0; i < data.size(); ++i) data[i] = std::byte(step.value >> (8 * (i % 4)));
    const std::span<std::byte> bytes(data.data(), size_t{1} << ((step.low >> 1) & 3));
    const uint64_t offset = step.place % 0x1000;
    if ((step.low & 1) != 0) {
      rig_.transport.Write(offset, bytes);
    } else {
      rig_.transport.Read(offset, bytes);
    }
  }

  void BringUp(const VirtioStepBytes& step, const std::vector<uint16_t>& sizes) {
    const uint64_t features = (step.low & 1) != 0
                                  ? rig_.port.DeviceFeatures()
                                  : rig_.port.DeviceFeatures() & ~virtio::kFeatureEventIdx;
    if (!rig_.port.Negotiate(features)) return;
    size_ = static_cast<uint16_t>(1u << (step.value % 8));
    for (uint32_t i = 0; i < sizes.size(); ++i) {
      const uint64_t ring = i * kQueueBytes;
      rig_.cpu.Put<uint32_t>(ring + 0x4000, 0);
      rig_.cpu.Put<uint32_t>(ring + 0x5000, 0);
      const uint16_t size = std::min(size_, sizes[i]);
      rig_.port.PutQueue(i, size, ring, ring + 0x4000, ring + 0x5000);
    }
    rig_.port.AddStatus(virtio::kDriverOk);
  }

  void Outside(const VirtioStepBytes& step) {
    if (kind_ == 2 && !disk_.pending.empty()) {
      disk_.Do(step.place % disk_.pending.size(),
               (step.low & 1) != 0 ? absl::OkStatus() : absl::DataLossError("medium"));
    } else if (kind_ == 1) {
      auto& console = static_cast<VirtioConsole&>(rig_.transport.device());
      sink_.room = step.value % 4096;
      console.OnSinkReady();
      const std::array<std::byte, 16> typed{};
      console.Receive(std::span(typed).first(step.low % 16));
    } else if (kind_ == 3) {
      network_.room = step.low % 8;
      network_.frames = step.low >> 3 & 7;
      network_.frame_bytes = step.place % (sizeof(NetHeader) + kMaxFrameBytes);
      network_.header = {.flags = static_cast<uint8_t>(step.value),
                         .gso_type = static_cast<uint8_t>(step.value >> 8),
                         .gso_bytes = static_cast<uint16_t>(step.value >> 16),
                         .checksum_start = static_cast<uint16_t>(step.value >> 20),
                         .checksum_offset = static_cast<uint16_t>(step.value >> 26)};
      network_.plug->OnSinkReady();
      network_.plug->OnFramesReady();
    }
    Run(8);
  }

  // P4: every page that changed is marked.
  void Run(int limit) {
    rig_.WrittenPages();
    std::vector<char> before(kWatchedBytes);
    const auto view = std::as_writable_bytes(std::span(before));
    ROMULUS_CHECK(Memory().Read(Gpa(0), view).ok());
    rig_.executor.Run(limit);
    const std::set<uint64_t> marked = rig_.WrittenPages();
    for (uint64_t gfn = 0; gfn < kWatchedBytes >> kPageShift; ++gfn) {
      const auto page = Memory().Page(Gfn(gfn));
      if (std::memcmp(page.data(), before.data() + gfn * kPageSize, kPageSize) != 0) {
        ROMULUS_CHECK(marked.contains(gfn));
      }
    }
  }

  const uint8_t kind_;
  uint16_t size_ = 1;
  Source source_;
  Sink sink_;
  Network network_;
  testing::MemoryDisk disk_{64 * kSectorBytes};
  testing::VirtioRig rig_;
};

void FuzzOne(std::span<const std::byte> input) {
  ROMULUS_CHECK(Memory().Fill(Gpa(0), std::byte{0}, kWatchedBytes).ok());
  base::ByteReader reader(input);
  const auto kind = reader.Read<uint8_t>();
  Machine machine(kind);
  for (size_t i = 0; i < kMaxSteps && reader.remaining() >= sizeof(VirtioStepBytes); ++i) {
    machine.Do(reader.Read<VirtioStepBytes>());
  }
  Machine other(kind);
  machine.HandOver(other);
}

}  // namespace
}  // namespace romulus::devices

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  romulus::devices::FuzzOne(std::as_bytes(std::span<const uint8_t>(data, size)));
  return 0;
}

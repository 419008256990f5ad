// virtio devices of a Machine on real KVM: made, mapped, quiet when they must be, saved and
// restored with it. The driver is the test's (support/virtio_driver.h); the ledger runs beside it.
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "arch/acpi.h"
#include "arch/memory_map.h"
#include "devices/virtio/rng.h"
#include "kvm/vmm_rig.h"
#include "memory/page_set.h"
#include "support/thread_executor.h"
#include "support/virtio_driver.h"
#include "support/virtio_rig.h"
#include "vmm/machine.h"

namespace romulus::testing {
namespace {

using devices::testing::DriverPort;
using devices::testing::DriverQueue;
using devices::testing::GuestCpu;
using devices::testing::HoldingDevice;
using devices::testing::kAllRingFeatures;
using devices::testing::kDescWrite;
using devices::testing::ManualExecutor;
using vmm::Machine;

// Where the ledger has nothing: above its data of a few pages.
constexpr uint64_t kQueueAt = 0xa00000, kBuffersAt = 0xb00000;

class CountingEntropy final : public devices::EntropySource {
 public:
  absl::Status Fill(std::span<std::byte> into) override {
    for (std::byte& byte : into) byte = std::byte{++last};
    return absl::OkStatus();
  }
  uint8_t last = 0;
};

// Always has more to do.
class RestlessDevice final : public devices::VirtioDevice {
 public:
  explicit RestlessDevice(std::atomic<uint64_t>& turns) : turns_(turns) {}
  uint32_t device_id() const override { return 42; }
  uint64_t features() const override { return 0; }
  std::vector<uint16_t> queue_sizes() const override { return {8, 8}; }
  void Reset() override {}
  devices::Progress Process(int) override {
    ++turns_;
    turns_.notify_all();
    return devices::Progress::kAgain;
  }

 private:
  std::atomic<uint64_t>& turns_;
};

class VmmVirtioTest : public VmmTest {
 protected:
  vmm::VirtioSpec Rng(const std::string& name = "virtio.rng") {
    return {name, [this] { return std::make_unique<devices::VirtioRng>(entropy_); }};
  }
  // Of the machine that was made last.
  vmm::VirtioSpec Holding() {
    return {"virtio.holding", [this] {
              auto device = std::make_unique<HoldingDevice>();
              holding_ = device.get();
              return device;
            }};
  }
  vmm::MachineSpec SpecWith(Witness& witness, std::vector<vmm::VirtioSpec> virtio) {
    vmm::MachineSpec spec = Spec(witness, 1, "report_ms=2 pages=16");
    spec.virtio = std::move(virtio);
    spec.device_loop = &loop_;
    return spec;
  }
  // Brings the machine's device up with one queue of 8 entries.
  static DriverQueue BringUp(Machine& machine, int device) {
    DriverPort port(machine.virtio(device));
    EXPECT_TRUE(port.Negotiate(kAllRingFeatures));
    DriverQueue queue(GuestCpu(machine.memory()), kQueueAt, 8, /*event_index=*/true);
    EXPECT_TRUE(port.SetUpQueue(0, queue));
    port.AddStatus(devices::virtio::kDriverOk);
    return queue;
  }
  static bool LineIsHigh(Machine& machine, int device) {
    const auto ioapic = machine.vm().GetIrqChip(kvm::IrqChip::kIoapic);
    EXPECT_TRUE(ioapic.ok()) << ioapic.status();
    return (ioapic->chip.ioapic.irr >> arch::VirtioGsi(device) & 1) != 0;
  }

  CountingEntropy entropy_;
  HoldingDevice* holding_ = nullptr;
  ManualExecutor loop_;
};

TEST_F(VmmVirtioTest, RefusesBadSpecsByName) {
  Witness witness;
  auto refusal = [&](std::vector<vmm::VirtioSpec> virtio, bool with_loop = true) {
    vmm::MachineSpec spec = SpecWith(witness, std::move(virtio));
    if (!with_loop) spec.device_loop = nullptr;
    return std::string(Machine::Boot(*system_, spec).status().message());
  };
  std::vector<vmm::VirtioSpec> nine;
  for (int i = 0; i < 9; ++i) nine.push_back(Rng(absl::StrCat("virtio.rng", i)));
  EXPECT_THAT(refusal(nine), ::testing::HasSubstr("9 virtio devices, at most 8"));
  EXPECT_THAT(refusal({Rng("virtio.a"), Rng("virtio.b"), Rng("virtio.a")}),
              ::testing::HasSubstr("two virtio devices are named 'virtio.a'"));
  EXPECT_THAT(refusal({Rng("serial.com1")}), ::testing::HasSubstr("'serial.com1'"));
  EXPECT_THAT(refusal({Rng("")}), ::testing::HasSubstr("''"));
  EXPECT_THAT(refusal({Rng()}, /*with_loop=*/false), ::testing::HasSubstr("device loop"));
  EXPECT_THAT(refusal({{"virtio.none", [] { return nullptr; }}}),
              ::testing::HasSubstr("virtio.none"));
  EXPECT_THAT(refusal({{"virtio.none", nullptr}}), ::testing::HasSubstr("virtio.none"));
}

TEST_F(VmmVirtioTest, AcpiTellsTheGuestOfEachDevice) {
  Witness witness;
  ASSERT_OK_AND_ASSIGN(
      auto machine,
      Machine::Boot(*system_, SpecWith(witness, {Rng("virtio.a"), Holding(), Rng("virtio.b")})));
  arch::AcpiSpec wanted{.vcpu_count = 1, .virtio = {}};
  for (int i = 0; i < 3; ++i) {
    wanted.virtio.push_back({arch::VirtioWindow(i), 0x1000, arch::VirtioGsi(i)});
  }
  ASSERT_OK_AND_ASSIGN(const std::string tables, arch::BuildAcpiTables(wanted));
  std::string found(tables.size(), '\0');
  ASSERT_OK(machine->memory().Read(Gpa(arch::kAcpiTables.start),
                                   std::as_writable_bytes(std::span<char>(found))));
  EXPECT_EQ(found, tables);
  EXPECT_EQ(DriverPort(machine->virtio(1)).Read(devices::testing::mmio::kDeviceId), 42u);
}

// By the guest's own load and store: the window of the second device, a write and a read of it.
TEST_F(VmmVirtioTest, TheGuestReachesThemOnItsBus) {
  Witness witness;
  vmm::MachineSpec spec = SpecWith(witness, {Rng(), Holding()});
  const std::string code(
      "\xa1\x00\x10\x00\xd0"  // mov eax, [0xd0001000]: the magic number
      "\xba\xf8\x03\x00\x00"  // mov edx, 0x3f8
      "\xb9\x04\x00\x00\x00"  // mov ecx, 4
      "\xee\xc1\xe8\x08\x49"  // out dx, al; shr eax, 8; dec ecx
      "\x75\xf9"              // jnz to the out
      "\xb8\x01\x00\x00\x00"  // mov eax, 1
      "\xa3\x70\x10\x00\xd0"  // mov [0xd0001070], eax: the status, ACKNOWLEDGE
      "\xa1\x70\x10\x00\xd0"  // mov eax, [0xd0001070]
      "\x04\x30\xee"          // add al, '0'; out dx, al
      "\xba\x04\x06\x00\x00"  // mov edx, 0x604
      "\xb8\x00\x20\x00\x00"  // mov eax, 0x2000
      "\x66\xef"              // out dx, ax: power off
      "\xf4\xeb\xfd",         // hlt; jmp to the hlt
      55);
  spec.boot.kernel_path = WritePvhElf(::testing::TempDir() + "/bus.elf", code);
  spec.boot.command_line.clear();
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(witness.AwaitStop());
  EXPECT_EQ(witness.stop(), vmm::GuestStop::kPowerOff) << witness.detail();
  EXPECT_EQ(witness.text(), "virt1");
  EXPECT_EQ(DriverPort(machine->virtio(0)).status(), 0u) << "the other device";
}

// Not before Start(), not in a pause, not after Stop(): a device works between them only, and what
// the driver asked for meanwhile is done then.
TEST_F(VmmVirtioTest, P4_DevicesAreQuietWhileTheGuestStandsStill) {
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, SpecWith(witness, {Rng()})));
  DriverQueue queue = BringUp(*machine, 0);
  DriverPort port(machine->virtio(0));
  const auto ask = [&](uint16_t head) {
    queue.OfferChain(head, {{kBuffersAt + head * kPageSize, 64, kDescWrite, 0}});
    port.Notify(0);
    loop_.Run();
  };
  const auto drain = [&] {
    memory::PageSet pages(machine->memory().layout().gfn_end());
    machine->memory().write_log().Drain(pages);
    return pages;
  };
  ask(0);
  EXPECT_EQ(queue.UsedIndex(), 0) << "before Start()";
  ASSERT_OK(machine->Start());
  loop_.Run();
  EXPECT_EQ(queue.UsedIndex(), 1);
  EXPECT_TRUE(LineIsHigh(*machine, 0));

  ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
  drain();
  ask(1);
  EXPECT_EQ(queue.UsedIndex(), 1) << "in a pause";
  EXPECT_TRUE(drain().empty()) << "a device wrote into the memory of a paused guest";
  paused.reset();
  loop_.Run();
  EXPECT_EQ(queue.UsedIndex(), 2);
  const memory::PageSet written = drain();
  EXPECT_TRUE(written.Contains(GfnOf(Gpa(kBuffersAt + kPageSize))));

  ASSERT_OK_AND_ASSIGN(paused, machine->Pause({}));
  machine->Stop();
  paused.reset();  // ends the pause of a machine that is dead by now
  ask(2);
  EXPECT_EQ(queue.UsedIndex(), 2) << "after Stop()";
}

TEST_F(VmmVirtioTest, P2_WhatIsInFlightMovesToTheOtherMachine) {
  auto witness = std::make_unique<Witness>();
  vmm::MachineSpec spec = SpecWith(*witness, {Rng(), Holding()});
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  DriverQueue queue = BringUp(*machine, 1);
  DriverPort port(machine->virtio(1));
  for (uint16_t head : {0, 1, 2}) {
    queue.OfferChain(head, {{kBuffersAt + head * kPageSize, 64, kDescWrite, 0}});
  }
  port.Notify(0);
  loop_.Run();
  ASSERT_EQ(holding_->held.size(), 3u);
  holding_->Completion(1, "one")();
  loop_.Run();
  EXPECT_TRUE(LineIsHigh(*machine, 1));

  ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
  ASSERT_OK_AND_ASSIGN(state::MachineState state, paused->TakeState());
  const std::string console = witness->text();
  auto next = std::make_unique<Witness>();
  spec.memory = CopyOf(machine->memory());
  spec.console = next.get();
  spec.listener = next.get();
  spec.cpuid = machine->cpuid();
  paused.reset();
  machine.reset();
  witness = std::move(next);

  ASSERT_OK_AND_ASSIGN(machine, Machine::Restore(*system_, spec, std::move(state)));
  EXPECT_TRUE(LineIsHigh(*machine, 1)) << "KVM does not carry the level of a line";
  EXPECT_FALSE(LineIsHigh(*machine, 0));
  loop_.Run();
  EXPECT_TRUE(holding_->held.empty()) << "before Start() nothing is begun anew";
  // A pause of a machine that waits for its Start() does not let it loose either.
  ASSERT_OK(machine->Pause({}).status());
  loop_.Run();
  EXPECT_TRUE(holding_->held.empty());
  ASSERT_OK(machine->Start());
  loop_.Run();
  ASSERT_EQ(holding_->held.size(), 2u) << "of three chains one was given back before";
  EXPECT_EQ(holding_->held[0].second.head, 0);
  EXPECT_EQ(holding_->held[1].second.head, 2);
  holding_->Completion(0, "null")();
  EXPECT_EQ(GuestCpu(machine->memory()).Text(kBuffersAt, 4), "null");
  // The ledger goes on too.
  ASSERT_TRUE(witness->AwaitLines(3)) << console << witness->text();
  EXPECT_EQ(witness->stops(), 0);
  machine->Stop();
}

TEST_F(VmmVirtioTest, RefusesTheStateOfOtherDevices) {
  Witness witness;
  vmm::MachineSpec spec = SpecWith(witness, {Rng("virtio.a")});
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  const auto save = [&] {
    auto paused = machine->Pause({});
    EXPECT_TRUE(paused.ok());
    return *(*paused)->TakeState();
  };
  const auto refusal = [&](std::vector<vmm::VirtioSpec> virtio) {
    spec.virtio = std::move(virtio);
    spec.memory = NewMemory();
    return std::string(Machine::Restore(*system_, spec, save()).status().message());
  };
  EXPECT_EQ(refusal({Rng("virtio.a")}), "");
  EXPECT_THAT(refusal({Rng("virtio.b")}), ::testing::HasSubstr("virtio.b"));
  EXPECT_THAT(refusal({}), ::testing::HasSubstr("virtio.a"));
  EXPECT_THAT(refusal({{"virtio.a", [] { return std::make_unique<HoldingDevice>(); }}}),
              ::testing::HasSubstr("virtio.a"));
}

TEST_F(VmmVirtioTest, P7_ADriverThatBreaksARuleIsCountedAndSaid) {
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine,
                       Machine::Boot(*system_, SpecWith(witness, {Rng("virtio.a"), Rng()})));
  ASSERT_OK(machine->Start());
  DriverQueue queue = BringUp(*machine, 1);
  DriverPort port(machine->virtio(1));
  queue.OfferChain(0, {{0xffff'ffff'0000, 64, kDescWrite, 0}});
  port.Notify(0);
  loop_.Run();
  const std::vector<vmm::VirtioFacts> facts = machine->virtio_facts();
  ASSERT_EQ(facts.size(), 2u);
  EXPECT_EQ(facts[0].name, "virtio.a");
  EXPECT_FALSE(facts[0].needs_reset);
  EXPECT_EQ(facts[1].name, "virtio.rng");
  EXPECT_TRUE(facts[1].needs_reset);
  EXPECT_EQ(facts[1].faults[static_cast<size_t>(devices::VirtioFault::kBufferAddress)], 1u);
  port.Write(devices::testing::mmio::kStatus, uint32_t{0});
  EXPECT_FALSE(machine->virtio_facts()[1].needs_reset);
}

TEST_F(VmmVirtioTest, ADeviceThatAlwaysHasWorkDoesNotHoldUpAPause) {
  Witness witness;
  std::atomic<uint64_t> turns{0};
  ThreadExecutor loop;
  vmm::MachineSpec spec = SpecWith(
      witness, {{"virtio.restless", [&turns] { return std::make_unique<RestlessDevice>(turns); }}});
  spec.device_loop = &loop;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  BringUp(*machine, 0);
  for (int i = 0; i < 300; ++i) {
    const uint64_t before = turns;
    turns.wait(before);
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({.capture_state = i % 2 == 0}));
    const uint64_t quiet = turns;
    std::this_thread::yield();
    EXPECT_EQ(turns, quiet) << "a turn began in a pause";
  }
  EXPECT_EQ(witness.stops(), 0);
  machine.reset();  // while the loop still has turns of it
}

TEST_F(VmmVirtioTest, WorkThatOutlivesTheMachineDoesNothing) {
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, SpecWith(witness, {Holding()})));
  ASSERT_OK(machine->Start());
  DriverQueue queue = BringUp(*machine, 0);
  queue.OfferChain(0, {{kBuffersAt, 64, kDescWrite, 0}});
  loop_.Run();
  DriverPort(machine->virtio(0)).Notify(0);
  loop_.Run();
  ASSERT_EQ(holding_->held.size(), 1u);
  std::function<void()> completion = holding_->Completion(0, "late");
  DriverPort(machine->virtio(0)).Notify(0);
  EXPECT_GT(loop_.waiting(), 0u);
  const std::shared_ptr<memory::GuestMemory> memory = NewMemory();
  machine.reset();
  loop_.Run();
  completion();
}

}  // namespace
}  // namespace romulus::testing

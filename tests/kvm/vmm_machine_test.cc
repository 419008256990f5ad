// A Machine with the ledger guest: boot, end, pause, capture, restore on a copy of memory.
#include <atomic>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/spare_cpu.h"
#include "kvm/vmm_rig.h"
#include "vmm/machine.h"

namespace romulus::testing {
namespace {

using vmm::Machine;

class PerVcpuCount : public VmmTest, public ::testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Vcpus, PerVcpuCount, ::testing::Values(1, 2, 4),
                         [](const auto& each) { return absl::StrCat(each.param); });

TEST_P(PerVcpuCount, RunsTheLedgerToItsPowerOff) {
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine,
                       Machine::Boot(*system_, Spec(witness, GetParam(), "steps=20 report_ms=5")));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(witness.AwaitStop());
  EXPECT_EQ(witness.stop(), vmm::GuestStop::kPowerOff) << witness.detail();
  EXPECT_TRUE(LedgerIsIntact(witness.text(), 20));
  machine->Stop();
  EXPECT_EQ(witness.stops(), 1);
}

// The guest moves from machine to machine, each on a copy of the memory of the one before.
TEST_P(PerVcpuCount, GoesOnInAnotherMachine) {
  const int vcpus = GetParam();
  constexpr int kHops = 8;
  std::string console;
  auto witness = std::make_unique<Witness>();
  vmm::MachineSpec spec = Spec(*witness, vcpus, "steps=300 report_ms=4 pages=200 verify=4");
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  for (int hop = 0; hop < kHops; ++hop) {
    ASSERT_TRUE(witness->AwaitLines(5)) << console << witness->text() << witness->detail();
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    ASSERT_OK_AND_ASSIGN(state::MachineState state, paused->TakeState());
    const std::string wire = state.Serialize();
    console += witness->text();
    auto next_witness = std::make_unique<Witness>();
    spec.memory = CopyOf(machine->memory());
    spec.console = next_witness.get();
    spec.listener = next_witness.get();
    spec.cpuid = machine->cpuid();
    paused.reset();
    machine->Stop();
    ASSERT_OK_AND_ASSIGN(state::MachineState arrived, state::MachineState::Parse(wire));
    ASSERT_OK_AND_ASSIGN(machine, Machine::Restore(*system_, spec, std::move(arrived)));
    witness = std::move(next_witness);
    ASSERT_OK(machine->Start());
  }
  ASSERT_TRUE(witness->AwaitStop());
  EXPECT_EQ(witness->stop(), vmm::GuestStop::kPowerOff) << witness->detail();
  EXPECT_TRUE(LedgerIsIntact(console + witness->text(), 300));
  machine->Stop();
}

TEST_P(PerVcpuCount, SurvivesAPauseStorm) {
  const int vcpus = GetParam();
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine,
                       Machine::Boot(*system_, Spec(witness, vcpus, "report_ms=2 pages=100")));
  ASSERT_OK(machine->Start());
  std::mt19937 random(7);
  for (int i = 0; i < 400; ++i) {
    const bool capture = random() % 2 == 0;
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({.capture_state = capture}));
    const uint64_t writes = LedgerWrites(machine->memory(), vcpus);
    if (random() % 4 == 0) {
      std::this_thread::yield();
      EXPECT_EQ(LedgerWrites(machine->memory(), vcpus), writes) << "it runs while paused";
    }
    if (random() % 2 == 0) {
      EXPECT_EQ(paused->TakeState().ok(), capture);
    }
    paused.reset();
    if (random() % 8 == 0) {
      while (LedgerWrites(machine->memory(), vcpus) == writes && witness.stops() == 0) {
        std::this_thread::yield();
      }
    }
  }
  ASSERT_TRUE(witness.AwaitLines(3));
  EXPECT_EQ(witness.stops(), 0) << witness.text() << witness.detail();
  machine->Stop();
}

// With one vCPU and steps by writes the console is a function of the guest's input. The UART is
// polled before each byte, so nearly every pause finds the guest inside a port access.
TEST_F(VmmTest, PausesInsidePortAccessesLoseNothing) {
  const std::string options = "steps=12 report_every=40 lsr=2 tsc_khz=1000000";
  Witness undisturbed;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, Spec(undisturbed, 1, options)));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(undisturbed.AwaitStop());
  machine->Stop();
  ASSERT_TRUE(LedgerIsIntact(undisturbed.text(), 12));

  auto witness = std::make_unique<Witness>();
  std::string console;
  vmm::MachineSpec spec = Spec(*witness, 1, options);
  ASSERT_OK_AND_ASSIGN(machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  int hops = 0;
  while (witness->stops() == 0 && hops < 200) {
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    if (witness->stops() > 0) break;
    ASSERT_OK_AND_ASSIGN(state::MachineState state, paused->TakeState());
    if (++hops % 4 != 0) continue;
    console += witness->text();
    auto next = std::make_unique<Witness>();
    spec.memory = CopyOf(machine->memory());
    spec.console = next.get();
    spec.listener = next.get();
    paused.reset();
    machine->Stop();
    ASSERT_OK_AND_ASSIGN(machine, Machine::Restore(*system_, spec, std::move(state)));
    witness = std::move(next);
    ASSERT_OK(machine->Start());
  }
  EXPECT_GT(hops, 20);
  ASSERT_TRUE(witness->AwaitStop());
  machine->Stop();
  EXPECT_EQ(console + witness->text(), undisturbed.text());
}

TEST_F(VmmTest, AResetEndsTheGuestAndSaysSo) {
  Witness witness;
  ASSERT_OK_AND_ASSIGN(
      auto machine,
      Machine::Boot(*system_, Spec(witness, 1, "steps=2 report_ms=1 reset_at_end=1")));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(witness.AwaitStop());
  EXPECT_EQ(witness.stop(), vmm::GuestStop::kReset);
}

// The last epoch of a guest that powered itself off can still be cut.
TEST_F(VmmTest, AFinishedGuestCanBePausedUntilItIsStopped) {
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine,
                       Machine::Boot(*system_, Spec(witness, 2, "steps=2 report_ms=1")));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(witness.AwaitStop());
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    EXPECT_TRUE(paused->TakeState().ok());
  }
  EXPECT_EQ(witness.stops(), 1);
  machine->Stop();
  machine->Stop();
  EXPECT_EQ(machine->Pause({}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(machine->Start().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(VmmTest, PausesBeforeItStarts) {
  Witness witness;
  const vmm::MachineSpec spec = Spec(witness, 2, "steps=3 report_ms=1");
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
  ASSERT_OK_AND_ASSIGN(state::MachineState state, paused->TakeState());
  EXPECT_FALSE(paused->TakeState().ok()) << "once per pause";
  EXPECT_FALSE(machine->Pause({}).ok()) << "one pause at a time";
  ASSERT_OK(machine->Start());
  EXPECT_EQ(witness.text(), "");
  paused->Resume();
  ASSERT_TRUE(witness.AwaitStop());
  EXPECT_TRUE(LedgerIsIntact(witness.text(), 3));
  machine->Stop();

  // A state of before the first instruction is a state too.
  Witness other;
  vmm::MachineSpec again = Spec(other, 2, "steps=3 report_ms=1");
  ASSERT_OK_AND_ASSIGN(auto source, Machine::Boot(*system_, again));
  again.memory = CopyOf(source->memory());
  source.reset();
  ASSERT_OK_AND_ASSIGN(machine, Machine::Restore(*system_, again, std::move(state)));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(other.AwaitStop());
  EXPECT_TRUE(LedgerIsIntact(other.text(), 3));
  machine->Stop();
}

uint64_t DrainRings(Machine& machine, int vcpus) {
  uint64_t harvested = 0;
  for (int i = 0; i < vcpus; ++i) {
    kvm::DirtyRing& ring = *machine.dirty_ring(i);
    std::vector<uint64_t> pages;
    harvested += ring.Harvest([&](uint32_t slot, uint64_t offset) {
      EXPECT_EQ(slot, 0u);
      EXPECT_LT(offset, machine.memory().layout().page_count());
      pages.push_back(offset);
    });
    for (const uint64_t page : pages) ring.GiveBack(0, page);
  }
  uint64_t reset = 0;
  while (reset < harvested) {
    absl::StatusOr<uint32_t> count = machine.vm().ResetDirtyRings();
    EXPECT_TRUE(count.ok()) << count.status();
    if (!count.ok() || *count == 0) break;
    reset += *count;
  }
  EXPECT_EQ(reset, harvested);
  return harvested;
}

TEST_P(PerVcpuCount, AFullRingStopsItsVcpuUntilAPauseHasEmptiedIt) {
  const int vcpus = GetParam();
  Witness witness;
  vmm::MachineSpec spec = Spec(witness, vcpus, "report_ms=10 pages=1200 workload=sequential");
  spec.ring_entries = system_->capabilities().min_ring_entries();
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(witness.AwaitLines(2));
  EXPECT_EQ(witness.ring_full(), 0) << "nothing is logged yet";
  ASSERT_OK(machine->SetDirtyLogging(true));
  for (int round = 0; round < 5; ++round) {
    ASSERT_TRUE(witness.AwaitRingFull(round * vcpus + 1)) << witness.text();
    // Every vCPU writes more pages than a ring has room for, so each of them ends up waiting.
    ASSERT_TRUE(witness.AwaitRingFull((round + 1) * vcpus));
    const uint64_t writes = LedgerWrites(machine->memory(), vcpus);
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    EXPECT_EQ(LedgerWrites(machine->memory(), vcpus), writes) << "a full vCPU went on";
    EXPECT_TRUE(paused->TakeState().ok());
    EXPECT_GE(DrainRings(*machine, vcpus),
              uint64_t{machine->dirty_ring(0)->soft_limit()} * static_cast<uint64_t>(vcpus));
  }
  EXPECT_EQ(witness.stops(), 0);
  machine->Stop();
}

// Notes which vCPUs' threads ask for alarms, and which of them leave the guest by one.
class AlarmWitness final : public vmm::GuestListener {
 public:
  void OnDirtyRingFull() override {}
  uint64_t NextAlarmNs() override {
    absl::MutexLock lock(&mutex_);
    asked_.insert(std::this_thread::get_id());
    return base::MonotonicClock().NowNs() + 1'000'000;
  }
  void OnAlarm() override {
    absl::MutexLock lock(&mutex_);
    stopped_.insert(std::this_thread::get_id());
  }
  void OnGuestStopped(vmm::GuestStop, const absl::Status&) override {}

  size_t asked() const {
    absl::MutexLock lock(&mutex_);
    return asked_.size();
  }
  bool AwaitStoppedByAlarm(size_t count) const {
    absl::MutexLock lock(&mutex_);
    const auto enough = [&] { return stopped_.size() >= count; };
    return mutex_.AwaitWithTimeout(absl::Condition(&enough), absl::Seconds(60));
  }

 private:
  mutable absl::Mutex mutex_;
  std::set<std::thread::id> asked_;
  std::set<std::thread::id> stopped_;
};

TEST_P(PerVcpuCount, AllHaveAlarmsWhereNobodyElseHasACpuToStopThem) {
  const int vcpus = GetParam();
  Witness witness;
  AlarmWitness alarms;
  vmm::MachineSpec spec = Spec(witness, vcpus, "report_ms=10 pages=20");
  spec.listener = &alarms;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  if (vcpus == 1 || !base::LeavesACpu(vcpus, spec.vcpu_cpus)) {
    EXPECT_TRUE(alarms.AwaitStoppedByAlarm(static_cast<size_t>(vcpus)));
  } else {
    ASSERT_TRUE(witness.AwaitLines(5)) << witness.text();
    EXPECT_EQ(alarms.asked(), 0u);
  }
  machine->Stop();
}

class TestGate final : public vmm::ThrottleGate {
 public:
  bool MustWait() const override { return closed; }
  std::atomic<bool> closed{false};
};

TEST_F(VmmTest, AClosedGateHoldsTheGuestAndNotThePause) {
  Witness witness;
  TestGate gate;
  vmm::MachineSpec spec = Spec(witness, 1, "report_every=10");
  spec.throttle = &gate;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(witness.AwaitLines(3));
  gate.closed = true;
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));  // also makes sure that it is out
    ASSERT_OK(paused->TakeState().status());
  }
  const std::string held = witness.text();
  const auto exits = machine->exit_counts();
  ASSERT_OK(machine->Pause({}).status());
  EXPECT_EQ(witness.text(), held);
  EXPECT_EQ(machine->exit_counts(), exits);
  gate.closed = false;
  machine->WakeThrottled();
  ASSERT_TRUE(witness.AwaitLines(10));
  gate.closed = true;
  machine->Stop();  // must not hang
}

// 5 GiB: three below the hole for devices, two from 4 GiB on. Its pages come only when touched.
TEST_F(VmmTest, RunsWithMemoryOnBothSidesOfTheHole) {
  Witness witness;
  vmm::MachineSpec spec = Spec(witness, 2, "steps=5 report_ms=2");
  spec.memory = NewMemory(5120);
  ASSERT_EQ(spec.memory->layout().regions().size(), 2u);
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(witness.AwaitStop());
  EXPECT_EQ(witness.stop(), vmm::GuestStop::kPowerOff) << witness.detail();
  EXPECT_TRUE(LedgerIsIntact(witness.text(), 5));
  machine->Stop();
}

// A baseline CPU, where the host has it: the guest works with it, and its state has no MSR that
// another host with no more than the baseline could lack.
TEST_F(VmmTest, ABaselineCpuMovesWithTheGuest) {
  for (const arch::CpuModel model : {arch::CpuModel::kX86_64V2, arch::CpuModel::kX86_64V3}) {
    auto witness = std::make_unique<Witness>();
    vmm::MachineSpec spec = Spec(*witness, 2, "steps=60 report_ms=4 pages=100");
    spec.cpu_model = model;
    absl::StatusOr<std::unique_ptr<Machine>> booted = Machine::Boot(*system_, spec);
    if (absl::IsFailedPrecondition(booted.status())) {
      EXPECT_THAT(std::string(booted.status().message()), ::testing::HasSubstr("CPU model"));
      GTEST_LOG_(INFO) << "not here: " << booted.status();
      continue;
    }
    ASSERT_OK(booted.status());
    std::unique_ptr<Machine> machine = *std::move(booted);
    ASSERT_OK(machine->Start());
    ASSERT_TRUE(witness->AwaitLines(20)) << witness->text() << witness->detail();
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    ASSERT_OK_AND_ASSIGN(state::MachineState state, paused->TakeState());
    std::string console = witness->text();
    auto next = std::make_unique<Witness>();
    spec.memory = CopyOf(machine->memory());
    spec.console = next.get();
    spec.listener = next.get();
    spec.cpuid = machine->cpuid();
    paused.reset();
    machine.reset();
    witness = std::move(next);
    // Fewer MSRs than a guest of this host's own CPU has, or at least no more.
    state::MachineState copy = *state::MachineState::Parse(state.Serialize());
    ASSERT_OK_AND_ASSIGN(const state::Section msrs, copy.Take("vcpu.msrs", 0, 1));
    EXPECT_LE(msrs.payload.size() / sizeof(kvm_msr_entry), 19u + 12 + 16 + 32);
    ASSERT_OK_AND_ASSIGN(machine, Machine::Restore(*system_, spec, std::move(state)));
    ASSERT_OK(machine->Start());
    ASSERT_TRUE(witness->AwaitStop());
    EXPECT_TRUE(LedgerIsIntact(console + witness->text(), 60));
    machine->Stop();
  }
}

TEST_F(VmmTest, RefusesBadSpecsByName) {
  Witness witness;
  auto refusal = [&](auto change) {
    vmm::MachineSpec spec = Spec(witness, 1, "");
    change(spec);
    return std::string(Machine::Boot(*system_, spec).status().message());
  };
  EXPECT_THAT(refusal([](auto& s) { s.vcpu_count = 9; }), ::testing::HasSubstr("9 vCPUs"));
  EXPECT_THAT(refusal([](auto& s) { s.vcpu_count = 0; }), ::testing::HasSubstr("0 vCPUs"));
  EXPECT_THAT(refusal([](auto& s) { s.memory = nullptr; }), ::testing::HasSubstr("memory"));
  EXPECT_THAT(refusal([](auto& s) { s.console = nullptr; }), ::testing::HasSubstr("console"));
  EXPECT_THAT(refusal([](auto& s) { s.ring_entries = 1000; }),
              ::testing::HasSubstr("power of two"));
  EXPECT_THAT(refusal([](auto& s) { s.ring_entries = 1u << 20; }), ::testing::HasSubstr("maximum"));
  EXPECT_THAT(refusal([](auto& s) { s.boot.kernel_path = "/nowhere"; }),
              ::testing::HasSubstr("/nowhere"));
}

}  // namespace
}  // namespace romulus::testing

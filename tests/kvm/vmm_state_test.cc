// A machine state may come from anywhere: whatever it says, restoring ends in a Status, and what a
// good one says arrives.
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "kvm/vmm_rig.h"

namespace romulus::testing {
namespace {

using state::MachineState;
using state::Section;
using vmm::Machine;

class StateTest : public VmmTest {
 protected:
  // The state of a ledger that has run for a while; its memory goes with it.
  void Capture(int vcpus) {
    vcpus_ = vcpus;
    vmm::MachineSpec spec = Spec(witness_, vcpus, "steps=12 report_ms=3 pages=50");
    ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
    ASSERT_OK(machine->Start());
    ASSERT_TRUE(witness_.AwaitLines(4));
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    ASSERT_OK_AND_ASSIGN(state_, paused->TakeState());
    memory_ = CopyOf(machine->memory());
    console_ = witness_.text();
    paused.reset();
    machine->Stop();
  }
  vmm::MachineSpec SpecOf(Witness& witness, std::shared_ptr<memory::GuestMemory> memory) {
    vmm::MachineSpec spec = Spec(witness, vcpus_, "");
    spec.memory = std::move(memory);
    return spec;
  }
  // The state with each section passed through `change`, which returns false to leave it out.
  MachineState Changed(const std::function<bool(Section&)>& change) const {
    MachineState result;
    std::vector<Section> sections = state_.sections();
    for (Section& section : sections) {
      if (!change(section)) continue;
      result.Put(section.kind, section.instance, section.version, section.payload);
    }
    return result;
  }
  absl::Status RestoreOf(MachineState state) {
    Witness witness;
    return Machine::Restore(*system_, SpecOf(witness, memory_), std::move(state)).status();
  }
  // Offset of an MSR's value in the payload of a "vcpu.msrs" section.
  static size_t MsrAt(const Section& section, uint32_t msr) {
    for (size_t at = 0; at + 16 <= section.payload.size(); at += 16) {
      uint32_t index;
      std::memcpy(&index, section.payload.data() + at, sizeof(index));
      if (index == msr) return at;
    }
    return std::string::npos;
  }

  int vcpus_ = 1;
  Witness witness_;
  MachineState state_;
  std::shared_ptr<memory::GuestMemory> memory_;
  std::string console_;
};

TEST_F(StateTest, APreparedMachineRestoresOnceAndGoesOn) {
  Capture(2);
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Prepare(*system_, SpecOf(witness, CopyOf(*memory_))));
  ASSERT_OK(machine->RestoreState(state_));
  EXPECT_EQ(machine->RestoreState(state_).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_OK(machine->Start());
  EXPECT_EQ(machine->RestoreState(state_).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(witness.AwaitStop());
  EXPECT_TRUE(LedgerIsIntact(console_ + witness.text(), 12));
  machine->Stop();
}

// A secondary's machine is made ahead, and its guest must not see another CPU than it saw before.
TEST_F(StateTest, APreparedMachineShowsTheCpuidOfThePrimary) {
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto primary, Machine::Boot(*system_, Spec(witness, 2, "")));
  vmm::MachineSpec spec = Spec(witness, 2, "");
  spec.cpuid = primary->cpuid();
  for (arch::CpuidEntry& entry : spec.cpuid) {
    if (entry.function == 1) entry.ecx &= ~(1u << 24);      // a primary without the deadline timer
    if (entry.function == 0x40000010) entry.eax += 12'345;  // with another TSC
  }
  ASSERT_OK_AND_ASSIGN(auto prepared, Machine::Prepare(*system_, spec));
  EXPECT_EQ(prepared->cpuid(), spec.cpuid);
  // This host's own values, where they are the primary's.
  spec.cpuid = primary->cpuid();
  ASSERT_OK_AND_ASSIGN(prepared, Machine::Prepare(*system_, spec));
  EXPECT_EQ(prepared->cpuid(), spec.cpuid);
  // And a primary that does not tell its frequency.
  std::erase_if(spec.cpuid, [](const auto& entry) { return entry.function == 0x40000010; });
  for (arch::CpuidEntry& entry : spec.cpuid) {
    if (entry.function == 0x40000000) entry.eax = 0x40000001;
  }
  ASSERT_OK_AND_ASSIGN(prepared, Machine::Prepare(*system_, spec));
  EXPECT_EQ(prepared->cpuid(), spec.cpuid);
}

// Those that this KVM takes; it need not take any.
TEST_F(StateTest, EveryVcpuBootsWithWhatFirmwareWouldHaveSet) {
  ASSERT_OK_AND_ASSIGN(auto bare_vm, system_->CreateVm());
  ASSERT_OK(bare_vm->CreateIrqChip());
  ASSERT_OK_AND_ASSIGN(auto bare, bare_vm->CreateVcpu(0));
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, Spec(witness, 2, "")));
  ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
  ASSERT_OK_AND_ASSIGN(MachineState state, paused->TakeState());
  for (const arch::MsrValue& msr : arch::BootMsrs()) {
    if (!bare->SetMsr(msr.index, msr.value).ok()) continue;
    for (const Section& section : state.sections()) {
      if (section.kind != "vcpu.msrs") continue;
      const size_t at = MsrAt(section, msr.index);
      ASSERT_NE(at, std::string::npos) << std::hex << msr.index;
      uint64_t value = 0;
      std::memcpy(&value, section.payload.data() + at + 8, sizeof(value));
      EXPECT_EQ(value, msr.value) << std::hex << msr.index << " of vCPU " << section.instance;
    }
  }
}

// Restored and captured again without having run, everything but time is the same.
TEST_F(StateTest, WhatIsRestoredIsWhatWasCaptured) {
  for (const int vcpus : {1, 2}) {
    Capture(vcpus);
    Witness witness;
    // Prepared before, so that hardly any time passes in which a clock set back could catch up.
    ASSERT_OK_AND_ASSIGN(auto machine, Machine::Prepare(*system_, SpecOf(witness, memory_)));
    ASSERT_OK(machine->RestoreState(state_));
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    ASSERT_OK_AND_ASSIGN(MachineState again, paused->TakeState());
    for (const Section& before : state_.sections()) {
      auto after = again.Take(before.kind, before.instance, before.version);
      ASSERT_OK(after.status());
      const std::string name = absl::StrCat(before.kind, "[", before.instance, "]");
      if (before.kind == "vm.clock") {
        uint64_t was = 0;
        uint64_t is = 0;
        std::memcpy(&was, before.payload.data(), 8);
        std::memcpy(&is, after->payload.data(), 8);
        EXPECT_GE(is, was) << "guest time went back";
      } else if (before.kind == "vm.pit" || before.kind == "cmos") {
        // Both hold a time of the host.
        EXPECT_EQ(after->payload.size(), before.payload.size());
      } else if (before.kind == "vcpu.msrs") {
        const size_t tsc = MsrAt(before, 0x10);
        ASSERT_EQ(tsc, MsrAt(*after, 0x10));
        uint64_t was = 0;
        uint64_t is = 0;
        std::memcpy(&was, before.payload.data() + tsc + 8, 8);
        std::memcpy(&is, after->payload.data() + tsc + 8, 8);
        EXPECT_TRUE(is >= was || !machine->restore_notes().empty()) << "the TSC went back";
        std::memcpy(after->payload.data() + tsc + 8, &was, 8);
        EXPECT_EQ(after->payload, before.payload) << name;
      } else {
        EXPECT_EQ(after->payload, before.payload) << name;
      }
    }
    ASSERT_OK(again.ExpectEmpty());
  }
}

// The guest may come from a host that lacks some of this one's MSRs, and go on to a third.
TEST_F(StateTest, P2_MsrsThatTheGuestCameWithoutDoNotComeIntoItsState) {
  Capture(1);
  constexpr size_t kRemoved = 3;
  std::string kept;
  const MachineState fewer = Changed([&](Section& s) {
    if (s.kind == "vcpu.msrs") {
      kept = s.payload.erase(5 * sizeof(kvm_msr_entry), kRemoved * sizeof(kvm_msr_entry));
    }
    return true;
  });
  Witness witness;
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Prepare(*system_, SpecOf(witness, memory_)));
  ASSERT_OK(machine->RestoreState(fewer));
  std::string first;  // the second time some are as they were, and not read again
  for (int capture = 0; capture < 2; ++capture) {
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    ASSERT_OK_AND_ASSIGN(MachineState again, paused->TakeState());
    ASSERT_OK_AND_ASSIGN(const Section msrs, MachineState(again).Take("vcpu.msrs", 0, 1));
    ASSERT_EQ(msrs.payload.size(), kept.size());
    for (size_t at = 0; at < kept.size(); at += sizeof(kvm_msr_entry)) {
      EXPECT_EQ(msrs.payload.substr(at, 4), kept.substr(at, 4)) << at;
    }
    // But for the TSC, which comes first.
    if (capture == 0) first = msrs.payload;
    EXPECT_EQ(msrs.payload.substr(sizeof(kvm_msr_entry)), first.substr(sizeof(kvm_msr_entry)));
    ASSERT_OK(RestoreOf(std::move(again)));
  }
}

TEST_F(StateTest, RefusesWhatIsMissingOrTooMuch) {
  Capture(1);
  for (const Section& victim : state_.sections()) {
    const std::string name = absl::StrCat(victim.kind, "[", victim.instance, "]");
    EXPECT_FALSE(RestoreOf(Changed([&](Section& s) { return !(s == victim); })).ok()) << name;
    for (const size_t size : {size_t{0}, victim.payload.size() - 1, victim.payload.size() + 1}) {
      EXPECT_FALSE(RestoreOf(Changed([&](Section& s) {
                     if (s == victim) s.payload.resize(size);
                     return true;
                   })).ok())
          << name << " of " << size << " bytes";
    }
    EXPECT_FALSE(RestoreOf(Changed([&](Section& s) {
                   if (s == victim) s.version = 99;
                   return true;
                 })).ok())
        << name;
  }
  MachineState more = state_;
  more.Put("vcpu.regs", 7, 1, "");
  EXPECT_FALSE(RestoreOf(std::move(more)).ok());
}

TEST_F(StateTest, RefusesAnotherMachineByName) {
  Capture(1);
  auto with = [&](absl::string_view kind, auto value) {
    return std::string(RestoreOf(Changed([&](Section& s) {
                         if (s.kind == kind) std::memcpy(s.payload.data(), &value, sizeof(value));
                         return true;
                       })).message());
  };
  EXPECT_THAT(with("vm.vcpus", uint32_t{2}), ::testing::HasSubstr("2 vCPUs"));
  if (!system_->capabilities().tsc_control) {
    EXPECT_THAT(with("vm.tsc_khz", uint32_t{1000}), ::testing::HasSubstr("1000 kHz"));
  }
  EXPECT_THAT(with("vcpu.msrs", uint32_t{0xdeadbeef}), ::testing::HasSubstr("0xdeadbeef"));
  EXPECT_THAT(with("vm.irqchip", uint32_t{9}), ::testing::HasSubstr("chip 9"));
}

// Every byte of it may be noise: a Status or a guest that does what noise does, never a crash.
TEST_F(StateTest, NoiseIsNeverMoreThanAnErrorOrABadGuest) {
  Capture(1);
  std::mt19937 random(11);
  int restored = 0;
  for (int round = 0; round < 60; ++round) {
    const size_t victim = random() % state_.sections().size();
    size_t at = 0;
    MachineState noisy = Changed([&](Section& s) {
      if (at++ == victim) {
        for (int i = 0; i < 4; ++i) {
          s.payload[random() % s.payload.size()] = static_cast<char>(random());
        }
      }
      return true;
    });
    Witness witness;
    ASSERT_OK_AND_ASSIGN(auto machine,
                         Machine::Prepare(*system_, SpecOf(witness, CopyOf(*memory_))));
    if (!machine->RestoreState(std::move(noisy)).ok()) {
      EXPECT_FALSE(machine->Start().ok());
      continue;
    }
    ++restored;
    ASSERT_OK(machine->Start());
    EXPECT_TRUE(machine->Pause({}).ok());
    machine->Stop();
  }
  EXPECT_GT(restored, 0);
}

// The guest's clocks go on as if it had run meanwhile: TSC and kvmclock, together.
TEST_F(StateTest, ClocksGoForwardByTheOutage) {
  Capture(2);
  struct Clocks {
    uint64_t tsc_ns;
    uint64_t kvmclock_ns;
  };
  const auto clocks = [](const MachineState& state) {
    Clocks found{};
    uint64_t tsc = 0;
    uint32_t khz = 1;
    for (const Section& section : state.sections()) {
      if (section.kind == "vcpu.msrs" && section.instance == 0) {
        std::memcpy(&tsc, section.payload.data() + MsrAt(section, 0x10) + 8, sizeof(tsc));
      } else if (section.kind == "vm.clock") {
        std::memcpy(&found.kvmclock_ns, section.payload.data(), sizeof(found.kvmclock_ns));
      } else if (section.kind == "vm.tsc_khz") {
        std::memcpy(&khz, section.payload.data(), sizeof(khz));
      }
    }
    found.tsc_ns = static_cast<uint64_t>(static_cast<unsigned __int128>(tsc) * 1'000'000 / khz);
    return found;
  };
  const Clocks before = clocks(state_);
  constexpr uint64_t kSecond = 1'000'000'000;
  for (const uint64_t outage_ns : {uint64_t{0}, 7 * kSecond, uint64_t{3600} * kSecond}) {
    Witness witness;
    ASSERT_OK_AND_ASSIGN(auto machine,
                         Machine::Prepare(*system_, SpecOf(witness, CopyOf(*memory_))));
    const auto begun = std::chrono::steady_clock::now();
    ASSERT_OK(machine->RestoreState(state_, outage_ns));
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    ASSERT_OK_AND_ASSIGN(const MachineState state, paused->TakeState());
    const uint64_t took_ns =
        static_cast<uint64_t>((std::chrono::steady_clock::now() - begun).count());
    const Clocks after = clocks(state);
    const uint64_t forward_ns = std::min(outage_ns, Machine::kMaxOutageNs);
    // What a clock may be off by, for the readings at different moments and for its own speed.
    const uint64_t slack_ns = took_ns + forward_ns / 1000 + 1'000'000;
    EXPECT_GE(after.kvmclock_ns + 1'000'000, before.kvmclock_ns + forward_ns);
    EXPECT_LE(after.kvmclock_ns, before.kvmclock_ns + forward_ns + slack_ns);
    std::vector<std::string> notes = machine->restore_notes();
    if (outage_ns > forward_ns) {
      ASSERT_FALSE(notes.empty());
      EXPECT_THAT(notes[0], ::testing::HasSubstr("300 s only"));
      notes.erase(notes.begin());
    }
    if (notes.empty()) {
      EXPECT_GE(after.tsc_ns + 1'000'000, before.tsc_ns + forward_ns);
    } else {  // kvm-pvm gives the guest the host's TSC as it is, which may run ahead, too
      EXPECT_THAT(notes[0], ::testing::HasSubstr("cannot set the guest's TSC"));
    }
    paused.reset();
    ASSERT_OK(machine->Start());
    ASSERT_TRUE(witness.AwaitStop());
    EXPECT_TRUE(LedgerIsIntact(console_ + witness.text(), 12));
  }
}

TEST_F(StateTest, ATripleFaultEndsTheGuest) {
  Witness witness;
  vmm::MachineSpec spec = Spec(witness, 1, "");
  // An empty IDT, then an undefined instruction.
  const std::string code(
      "\x0f\x01\x1d\x10\x00\x10\x00"  // lidt [0x100010]
      "\x0f\x0b"                      // ud2
      "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
      25);
  spec.boot.kernel_path = WritePvhElf(::testing::TempDir() + "/triple.elf", code);
  spec.boot.command_line.clear();
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, spec));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(witness.AwaitStop());
  // A KVM that emulates kernel code may give up on the instruction instead.
  EXPECT_TRUE(witness.stop() == vmm::GuestStop::kTripleFault ||
              witness.stop() == vmm::GuestStop::kError)
      << static_cast<int>(*witness.stop());
  EXPECT_FALSE(witness.detail().ok());
  ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
  EXPECT_TRUE(paused->TakeState().ok());
}

}  // namespace
}  // namespace romulus::testing

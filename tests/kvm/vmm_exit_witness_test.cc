// State that is not read again because nothing can have changed it is what it would be if it were.
#include <cstring>
#include <string>
#include <thread>

#include "base/bytes.h"
#include "kvm/vmm_rig.h"
#include "vmm/exit_witness.h"

namespace romulus::testing {
namespace {

using state::MachineState;
using vmm::ExitWitness;
using vmm::Machine;

// What the guest `registers` says it has done (tests/guests/registers).
constexpr Gpa kCount(0x180000);
constexpr uint32_t kMtrrPhysBase0 = 0x200;

class ExitWitnessTest : public VmmTest {
 protected:
  vmm::MachineSpec SpecOf(const std::string& guest) {
    vmm::MachineSpec spec = Spec(console_, 1, "");
    spec.boot.kernel_path = GUESTS + guest + ".elf";
    return spec;
  }
  // The struct that a section of the vCPU begins with.
  template <typename T>
  static T Of(MachineState& state, const char* kind) {
    T value{};
    for (const state::Section& section : state.sections()) {
      if (section.kind != kind) continue;
      EXPECT_GE(section.payload.size(), sizeof(value));
      std::memcpy(&value, section.payload.data(), sizeof(value));
    }
    return value;
  }

  static uint64_t MsrOf(const MachineState& state, uint32_t index) {
    for (const state::Section& section : state.sections()) {
      if (section.kind != "vcpu.msrs") continue;
      base::ByteReader reader(base::AsBytes(section.payload));
      while (reader.remaining() > 0) {
        if (const auto msr = reader.Read<kvm_msr_entry>(); msr.index == index) return msr.data;
      }
    }
    ADD_FAILURE() << "no MSR 0x" << std::hex << index;
    return 0;
  }

  // False if the guest has stopped.
  bool AwaitNextCount(const memory::GuestMemory& memory) {
    const uint32_t before = *memory.ReadObject<uint32_t>(kCount);
    while (*memory.ReadObject<uint32_t>(kCount) == before) {
      if (console_.stops() != 0) return false;
      std::this_thread::yield();
    }
    return true;
  }

  Witness console_;
};

TEST_F(ExitWitnessTest, DebugRegistersXcr0AndMsrsAreThoseOfTheMoment) {
  ASSERT_OK_AND_ASSIGN(auto machine, Machine::Boot(*system_, SpecOf("registers")));
  ASSERT_OK(machine->Start());
  ASSERT_TRUE(console_.AwaitLines(1));
  for (int round = 0; round < 40; ++round) {
    // Two looks at a time: what did not change in between, and what did.
    const bool goes_on = round % 2 == 1 || AwaitNextCount(machine->memory());
    ASSERT_TRUE(goes_on) << console_.detail();
    ASSERT_OK_AND_ASSIGN(auto paused, machine->Pause({}));
    ASSERT_OK_AND_ASSIGN(MachineState state, paused->TakeState());
    ASSERT_OK_AND_ASSIGN(const uint32_t count, machine->memory().ReadObject<uint32_t>(kCount));
    const auto dr0 = Of<kvm_debugregs>(state, "vcpu.debugregs").db[0];
    EXPECT_TRUE(dr0 == count || dr0 == count + 1) << dr0 << " at " << count;
    const auto xcr0 = Of<kvm_xcrs>(state, "vcpu.xcrs").xcrs[0].value;
    const auto of = [](uint64_t n) { return 1 + 2 * (n >> 2 & 1); };
    // It is set before DR0 is.
    const bool is_told = xcr0 == of(count) || xcr0 == of(dr0) || xcr0 == of(dr0 + 1);
    EXPECT_TRUE(is_told || count < 4) << xcr0 << " at " << count;
    // And so is this.
    const uint64_t base = MsrOf(state, kMtrrPhysBase0) >> kPageShift;
    const auto multiple = [](uint64_t n) { return n & 0xffffc; };  // the address has 32 bits
    EXPECT_TRUE(base == multiple(count) || base == multiple(count + 1)) << base << " at " << count;
  }
  machine->Stop();
}

kvm::VcpuExits Exits(uint64_t all, uint64_t page_faults, uint64_t interrupts, uint64_t emulated) {
  return {all, page_faults, interrupts, emulated};
}

class JudgeTest : public ::testing::Test {
 protected:
  // What is unchanged after these exits since the last look: "x" XCR0 and MSRs, "d" debug
  // registers.
  std::string After(uint64_t all, uint64_t page_faults, uint64_t interrupts,
                    uint64_t emulated = 0) {
    const kvm::VcpuExits now = Exits(last_.all + all, last_.page_faults + page_faults,
                                     last_.interrupts + interrupts, last_.emulated + emulated);
    const auto unchanged = ExitWitness::Judge(last_, now, &may_be_open_);
    last_ = now;
    if (!unchanged) return "distrust";
    return std::string(unchanged->intercepted ? "x" : "") + (unchanged->debug_registers ? "d" : "");
  }

  kvm::VcpuExits last_ = Exits(100, 50, 20, 7);
  bool may_be_open_ = false;
};

TEST_F(JudgeTest, EachExitMustBeAFaultOrAnInterrupt) {
  EXPECT_EQ(After(0, 0, 0), "xd");
  EXPECT_EQ(After(4, 3, 1), "xd");
  EXPECT_EQ(After(5, 3, 1), "") << "one more";
}

TEST_F(JudgeTest, WhatTheEmulatorDoesIsNotSeen) { EXPECT_EQ(After(4, 3, 1, 1), ""); }

// KVM lets a guest write them without leaving, from a MOV DR until its next exit, and may be told
// to stop the vCPU in between.
TEST_F(JudgeTest, P2_DebugRegistersMayBeOpenUntilTheNextExit) {
  EXPECT_EQ(After(1, 0, 0), "") << "a MOV DR, and a signal before the guest is entered again";
  EXPECT_EQ(After(0, 0, 0), "x") << "not entered";
  EXPECT_EQ(After(1, 0, 1), "x") << "written meanwhile, and closed by this exit";
  EXPECT_EQ(After(1, 0, 1), "xd");
}

TEST_F(JudgeTest, ExitsThatCountTwiceProveNothing) { EXPECT_EQ(After(3, 3, 1), "distrust"); }

}  // namespace
}  // namespace romulus::testing

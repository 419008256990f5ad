// A vCPU thread with a host of its own, so that commands arrive at exact moments: from inside the
// handling of an exit.
#include <functional>
#include <initializer_list>
#include <memory>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/synchronization/notification.h"
#include "base/clock.h"
#include "kvm/vmm_rig.h"
#include "vmm/kick_signal.h"
#include "vmm/msr_list.h"
#include "vmm/vcpu_thread.h"

namespace romulus::testing {
namespace {

using vmm::AfterExit;
using vmm::VcpuCommand;
using vmm::VcpuPhase;
using vmm::VcpuThread;

constexpr uint64_t kCode = 0x1000;

class VcpuThreadTest : public VmmTest, private vmm::VcpuHost {
 protected:
  void Create(std::initializer_list<uint8_t> code) {
    ASSERT_OK(vmm::InstallKickSignal());
    memory_ = NewMemory(4);
    const std::vector<uint8_t> bytes(code);
    ASSERT_OK(memory_->Write(Gpa(kCode), std::as_bytes(std::span(bytes))));
    ASSERT_OK_AND_ASSIGN(vm_, system_->CreateVm());
    ASSERT_OK(vm_->SetTssAddress(Gpa(0xfffbd000)));
    ASSERT_OK(vm_->CreateIrqChip());
    const memory::Region& region = memory_->layout().regions()[0];
    ASSERT_OK(
        vm_->SetMemorySlot(0, region.gpa, region.size_bytes, memory_->HostAddress(region), {}));
    ASSERT_OK_AND_ASSIGN(vcpu_, vm_->CreateVcpu(0));
    kvm_sregs sregs = *vcpu_->GetSregs();
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    ASSERT_OK(vcpu_->SetSregs(sregs));
    kvm_regs regs{};
    regs.rip = kCode;
    regs.rflags = 2;
    ASSERT_OK(vcpu_->SetRegs(regs));
    ASSERT_OK_AND_ASSIGN(const std::vector<uint32_t> msrs,
                         vmm::FindStateMsrs(*system_, *vcpu_, arch::CpuModel::kHost));
    state_ = std::make_unique<vmm::VcpuState>(msrs, vcpu_->xsave_bytes(), 3, true);
    thread_ = std::make_unique<VcpuThread>(*vcpu_, *state_, static_cast<vmm::VcpuHost&>(*this),
                                           /*alone=*/true, /*has_alarm=*/true,
                                           std::chrono::nanoseconds(0));
  }
  void TearDown() override { thread_.reset(); }

  // Runs on, and stops in the middle of the first exit that `at` accepts.
  kvm_regs RunAndParkAt(std::function<bool(const kvm::Exit&)> at) {
    park_at_ = std::move(at);
    Expect();
    EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
    return Captured();
  }
  kvm_regs Captured() {
    captured_.Wait(std::chrono::nanoseconds(0));
    EXPECT_TRUE(thread_->capture_status().ok()) << thread_->capture_status();
    state::MachineState state;
    state_->Put(state, 0);
    return *state.TakeStruct<kvm_regs>("vcpu.regs", 0, 1);
  }
  void Expect() {
    stopped_.Set(1);
    captured_.Set(1);
  }

  AfterExit HandleExit(const kvm::Exit& exit) override {
    if (auto* io = std::get_if<kvm::ExitIo>(&exit); io != nullptr && !io->is_write) {
      for (std::byte& b : io->data) b = std::byte{0x77};
    }
    if (park_at_ && park_at_(exit)) {
      park_at_ = nullptr;
      EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
    }
    return AfterExit::kReenter;
  }
  void OnRunFailed(const absl::Status& status) override { ADD_FAILURE() << status; }
  bool GuestStopped() const override { return guest_stopped_; }
  bool MustThrottle() const override { return false; }
  uint64_t NextAlarmNs() override {
    asked_for_ns_ = alarm_after_ns_.load();
    return alarms_ < alarms_wanted_ ? base::MonotonicClock().NowNs() + alarm_after_ns_ : 0;
  }
  void OnAlarm() override {
    if (park_in_alarm_) {
      Expect();
      EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
      thread_->ParkHere();
      EXPECT_TRUE(thread_->capture_status().ok());
      EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
    }
    if (++alarms_ == alarms_wanted_ && !alarms_done_.HasBeenNotified()) alarms_done_.Notify();
  }
  void OnStopped() override { stopped_.CountDown(); }
  void AwaitAllStopped() override {}
  void OnCaptured() override { captured_.CountDown(); }

  std::shared_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<kvm::Vm> vm_;
  std::unique_ptr<kvm::Vcpu> vcpu_;
  std::unique_ptr<vmm::VcpuState> state_;
  std::function<bool(const kvm::Exit&)> park_at_;
  std::atomic<bool> guest_stopped_{false};
  std::atomic<int> alarms_wanted_{0};
  std::atomic<uint64_t> alarm_after_ns_{100'000};
  std::atomic<uint64_t> asked_for_ns_{0};
  std::atomic<bool> park_in_alarm_{false};
  std::atomic<int> alarms_{0};
  absl::Notification alarms_done_;
  base::CountdownLatch stopped_;
  base::CountdownLatch captured_;
  std::unique_ptr<VcpuThread> thread_;
};

bool IsIo(const kvm::Exit& exit) { return std::holds_alternative<kvm::ExitIo>(exit); }

TEST_F(VcpuThreadTest, AnAccessIsCompleteBeforeStateIsRead) {
  Create({0xe4, 0x60,    // in al, 0x60
          0xe6, 0x61,    // out 0x61, al
          0xeb, 0xfe});  // jmp itself
  kvm_regs regs = RunAndParkAt(IsIo);
  EXPECT_EQ(regs.rax & 0xff, 0x77u);
  EXPECT_EQ(regs.rip, kCode + 2) << "the input would be read a second time";
  regs = RunAndParkAt(IsIo);
  EXPECT_EQ(regs.rip, kCode + 4) << "the output would be written a second time";
}

TEST_F(VcpuThreadTest, LeavesALoopThatNeverExits) {
  Create({0xeb, 0xfe});
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
    Expect();
    EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
    EXPECT_EQ(Captured().rip, kCode);
  }
  EXPECT_EQ(thread_->phase(), VcpuPhase::kPaused);
}

TEST_F(VcpuThreadTest, AnAlarmGetsItOutOfALoopThatNeverExits) {
  alarms_wanted_ = 50;
  Create({0xeb, 0xfe});
  EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
  alarms_done_.WaitForNotification();
  Expect();
  EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
  EXPECT_EQ(Captured().rip, kCode);
}

// The guest is stopped before its alarm comes, and has another one when it goes on.
TEST_F(VcpuThreadTest, TheAlarmIsTheOneThatWasAskedForLast) {
  constexpr uint64_t kMs = 1'000'000;
  constexpr uint64_t kHour = 3'600'000 * kMs;
  // Of which the first is in the timer when the second is asked for.
  constexpr std::pair<uint64_t, uint64_t> kAfterNs[] = {{20 * kMs, 40 * kMs}, {kHour, kMs}};
  Create({0xeb, 0xfe});
  for (const auto& [first_ns, second_ns] : kAfterNs) {
    alarms_wanted_ = alarms_ + 1;
    alarm_after_ns_ = first_ns;
    EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
    while (asked_for_ns_ != first_ns) std::this_thread::yield();
    Expect();
    EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
    Captured();
    if (alarms_ == alarms_wanted_) continue;  // a host so slow that the first one came
    const uint64_t began_ns = base::MonotonicClock().NowNs();
    alarm_after_ns_ = second_ns;
    EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
    while (alarms_ != alarms_wanted_) std::this_thread::yield();
    EXPECT_GE(base::MonotonicClock().NowNs() - began_ns, second_ns);
    Expect();
    EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
    Captured();
  }
}

// An alarm may come with any exit: what is read of a device then reaches the guest all the same.
TEST_F(VcpuThreadTest, AnAlarmComesBetweenAccessesOnly) {
  alarms_wanted_ = 200;
  park_in_alarm_ = true;
  Create({0xe4, 0x60,    // in al, 0x60
          0x3c, 0x77,    // cmp al, 0x77
          0x74, 0xfa,    // je to the beginning
          0xe6, 0x62,    // out 0x62, al
          0xeb, 0xfe});  // jmp itself
  EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
  alarms_done_.WaitForNotification();
  Expect();
  EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
  EXPECT_LT(Captured().rip, kCode + 6) << "it has read something else";
}

TEST_F(VcpuThreadTest, AStoppedGuestNeverRunsButStillAnswers) {
  Create({0xe4, 0x60, 0xeb, 0xfc});  // in al, 0x60; again
  RunAndParkAt(IsIo);
  EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
  guest_stopped_ = true;
  thread_->Interrupt();
  Expect();
  EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
  const kvm_regs regs = Captured();
  EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
  Expect();
  EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
  EXPECT_EQ(Captured().rip, regs.rip);
  thread_->End();
  EXPECT_FALSE(thread_->Post(VcpuCommand::kRun));
  thread_->Join();
}

// The end may come at any point of a pause: whoever waits for the vCPU gets an answer.
TEST_F(VcpuThreadTest, TheEndAnswersAPauseThatIsUnderWay) {
  for (int i = 0; i < 50; ++i) {
    Create({0xeb, 0xfe});
    EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
    Expect();
    std::thread ender([this] { thread_->End(); });
    if (thread_->Post(VcpuCommand::kParkAndCapture)) {
      stopped_.Wait(std::chrono::nanoseconds(0));
      captured_.Wait(std::chrono::nanoseconds(0));
    }
    ender.join();
    thread_.reset();
  }
}

// In a guest that never exits by itself: it halts with interrupts off.
TEST_F(VcpuThreadTest, HasAPulseWhileItRuns) {
  Create({0xe4, 0x60,    // in al, 0x60
          0xf4,          // hlt
          0xeb, 0xfb});  // again
  EXPECT_FALSE(thread_->TakePulse().owes) << "it stands still";
  for (int round = 0; round < 3; ++round) {
    EXPECT_TRUE(thread_->Post(VcpuCommand::kRun));
    while (!thread_->TakePulse().owes) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const uint64_t before = thread_->TakePulse().answers;
    // Now and then, as a watchdog does: the signals of a storm queue up and leave no time for
    // anything else.
    while (thread_->TakePulse().answers < before + 10) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    Expect();
    EXPECT_TRUE(thread_->Post(VcpuCommand::kParkAndCapture));
    Captured();
    EXPECT_FALSE(thread_->TakePulse().owes);
  }
  thread_->End();
  EXPECT_FALSE(thread_->TakePulse().owes);
}

TEST_F(VcpuThreadTest, APulseNeitherDelaysNorHidesACommand) {
  Create({0xe4, 0x60, 0xeb, 0xfc});  // in al, 0x60; again
  // One a round, a little later each time: before, in and behind the exit that is waited for. More
  // would keep the guest from coming to it at all.
  std::atomic<uint32_t> round{0};
  std::atomic<bool> done{false};
  std::thread asker([&] {
    for (uint32_t seen = 0; !done;) {
      const uint32_t now = round;
      if (now == seen) continue;
      seen = now;
      for (volatile uint32_t spins = (now % 50) * 200; spins != 0;) spins = spins - 1;
      thread_->TakePulse();
    }
  });
  for (int i = 0; i < 200; ++i) {
    ++round;
    const kvm_regs regs = RunAndParkAt(IsIo);
    EXPECT_EQ(regs.rax & 0xff, 0x77u);
  }
  done = true;
  asker.join();
}

}  // namespace
}  // namespace romulus::testing

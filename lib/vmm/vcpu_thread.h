// One vCPU's thread, as an explicit state machine:
//
//      +--------- kRun ---------+
//      v                        |
//   Running -- kPark[Capture] -> Paused
//      |
//      +-- the guest has stopped -> Finished: obeys kPark, never runs again
//
// Running includes waiting outside the guest, on a full ring or a closed throttle gate. Commands
// are words with a generation: a thread that missed one obeys the latest. End() ends the thread
// itself, in any state.
//
// Post() from one thread at a time; the other calls from any thread, this one too. The thread owns
// nothing; VcpuHost, Vcpu and state must outlive it.
#ifndef ROMULUS_VMM_VCPU_THREAD_H_
#define ROMULUS_VMM_VCPU_THREAD_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <thread>

#include "absl/status/status.h"
#include "base/clock.h"
#include "base/wait.h"
#include "kvm/exit.h"
#include "kvm/vcpu.h"
#include "vmm/alarm_timer.h"
#include "vmm/vcpu_state.h"

namespace romulus::vmm {

// What to do after an exit was handled.
enum class AfterExit : uint8_t {
  kReenter,
  kStayOut,  // until the next pause has come and gone
};

// The machine, as a vCPU thread sees it. Called from all vCPU threads at once.
class VcpuHost {
 public:
  virtual ~VcpuHost() = default;
  virtual AfterExit HandleExit(const kvm::Exit& exit) = 0;
  // KVM_RUN failed: the guest has stopped for good.
  virtual void OnRunFailed(const absl::Status& status) = 0;
  virtual bool GuestStopped() const = 0;
  virtual bool MustThrottle() const = 0;
  // GuestListener's.
  virtual uint64_t NextAlarmNs() = 0;
  virtual void OnAlarm() = 0;
  // This vCPU is out of the guest, its I/O complete (or its thread ends).
  virtual void OnStopped() = 0;
  // And until the devices are quiet.
  virtual void AwaitAllStopped() = 0;
  // After OnStopped(), if a capture was asked for.
  virtual void OnCaptured() = 0;
};

enum class VcpuCommand : uint32_t { kPark = 0, kParkAndCapture = 1, kRun = 2 };
enum class VcpuPhase : uint32_t { kPaused, kRunning, kFinished };

class VcpuThread final : private VcpuCaptureHooks {
 public:
  // Starts the thread, Paused. `alone`: the machine has no other vCPU. `has_alarm`: it asks the
  // host for one.
  VcpuThread(kvm::Vcpu& vcpu, VcpuState& state, VcpuHost& host, bool alone, bool has_alarm,
             std::chrono::nanoseconds resume_spin);
  // Keeps the thread on these host CPUs. Errors: InvalidArgument, errno of sched_setaffinity.
  absl::Status KeepOn(std::span<const int> cpus);
  // Ends and joins.
  ~VcpuThread();

  // False if the thread ends: it will not obey, nor report to the host.
  bool Post(VcpuCommand command);
  void End();
  void Join();
  // The thread that calls, if it is a vCPU's.
  static VcpuThread* Current();
  // On the thread itself, from within OnDirtyRingFull() or OnAlarm(): parks, if that was posted,
  // without going back to where the thread would find the command.
  void ParkHere();
  // Makes it look again whether it must throttle.
  void Wake();
  // Makes it leave the guest and look again whether the guest has stopped.
  void Interrupt();

  // Asks the thread for a sign of life, which costs the guest one exit, and says what came of such
  // questions before: `answers` rises as long as the thread gets around. It owes none while it is
  // told to stand still, or has ended.
  struct Pulse {
    uint64_t answers = 0;
    bool owes = false;
  };
  Pulse TakePulse();

  VcpuPhase phase() const { return phase_.load(std::memory_order_acquire); }
  // Of the last capture; valid after the host's OnCaptured().
  const absl::Status& capture_status() const { return capture_status_; }
  // State was written to the vCPU from outside: what kvm_run holds is stale.
  void ForgetSyncRegs() { sync_regs_fresh_ = false; }

 private:
  void Main();
  void RunGuest(uint32_t command_word);
  void AnswerPulse();
  void Park(VcpuCommand command);
  absl::Status CompleteIo();
  void NoteExit(const kvm::Exit& exit);
  bool Superseded(uint32_t command_word) const {
    return command_.load(std::memory_order_seq_cst) != command_word;
  }
  // Sets the alarm that the host wants, if it wants another.
  void SetAlarm(uint64_t now_ns);
  // If its time has come, answers it, and says so.
  bool AnswerAlarm(uint64_t now_ns);
  // Waits outside the guest until the command changes, or `until()` holds after a Wake().
  template <typename Until>
  void StayOut(uint32_t command_word, std::chrono::nanoseconds spin, Until until);

  void AwaitAllStopped() override { host_.AwaitAllStopped(); }

  kvm::Vcpu& vcpu_;
  VcpuState& state_;
  VcpuHost& host_;
  const bool alone_;
  const bool has_alarm_;
  const std::chrono::nanoseconds resume_spin_;

  // {generation, command, end bit}; see the .cc.
  std::atomic<uint32_t> command_{0};
  std::atomic<uint32_t> tid_{0};
  std::atomic<VcpuPhase> phase_{VcpuPhase::kPaused};
  std::atomic<uint32_t> wakeups_{0};  // changes with each command and each Wake()
  // Between its waking up and the next guest entry it looks at all it has to obey: no signal is
  // needed.
  std::atomic<bool> stays_out_{false};
  std::atomic<bool> pulse_asked_{false};
  std::atomic<uint64_t> pulse_answers_{0};

  // The thread's own:
  uint32_t obeyed_ = 0;
  bool io_pending_ = false;
  bool sync_regs_fresh_ = false;
  std::optional<AlarmTimer> alarm_;
  uint64_t alarm_ns_ = 0;  // 0: to be asked for
  uint64_t timer_ns_ = 0;  // what alarm_ was set to last
  base::MonotonicClock clock_;
  absl::Status capture_status_;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_VCPU_THREAD_H_

#include "vmm/vcpu_thread.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "base/cpu_affinity.h"
#include "base/status.h"
#include "vmm/kick_signal.h"

namespace romulus::vmm {
namespace {

// The command word: bit 0 is "end", bits 1-2 the command, the rest a generation, so that two
// equal commands in a row are two words.
constexpr uint32_t kEndBit = 1;
constexpr unsigned kCommandShift = 1;
constexpr uint32_t kCommandMask = 3;
constexpr unsigned kGenerationShift = 3;

constexpr std::chrono::nanoseconds kNoSpin{0};
constexpr uint64_t kNoAlarm = ~uint64_t{0};

thread_local VcpuThread* current_vcpu_thread = nullptr;

VcpuCommand CommandOf(uint32_t word) {
  return static_cast<VcpuCommand>((word >> kCommandShift) & kCommandMask);
}

uint32_t NextWord(uint32_t word, VcpuCommand command) {
  return (((word >> kGenerationShift) + 1) << kGenerationShift) |
         (static_cast<uint32_t>(command) << kCommandShift);
}

}  // namespace

VcpuThread::VcpuThread(kvm::Vcpu& vcpu, VcpuState& state, VcpuHost& host, bool alone,
                       bool has_alarm, std::chrono::nanoseconds resume_spin)
    : vcpu_(vcpu),
      state_(state),
      host_(host),
      alone_(alone),
      has_alarm_(has_alarm),
      resume_spin_(resume_spin) {
  thread_ = std::thread([this] { Main(); });
  base::WaitFor(tid_, std::chrono::nanoseconds(0), [](uint32_t tid) { return tid != 0; });
}

VcpuThread::~VcpuThread() {
  End();
  Join();
}

void VcpuThread::Join() {
  if (thread_.joinable()) thread_.join();
}

absl::Status VcpuThread::KeepOn(std::span<const int> cpus) {
  return base::Annotate(base::KeepThreadOn(static_cast<pid_t>(tid_.load()), cpus),
                        absl::StrCat("keeping vCPU ", vcpu_.id(), " on its CPUs"));
}

bool VcpuThread::Post(VcpuCommand command) {
  uint32_t word = command_.load(std::memory_order_seq_cst);
  do {
    if ((word & kEndBit) != 0) return false;
  } while (
      !command_.compare_exchange_weak(word, NextWord(word, command), std::memory_order_seq_cst));
  if (command == VcpuCommand::kRun) {
    Wake();
  } else {
    Interrupt();
  }
  return true;
}

void VcpuThread::End() {
  command_.fetch_or(kEndBit, std::memory_order_seq_cst);
  Interrupt();
}

void VcpuThread::Wake() {
  wakeups_.fetch_add(1, std::memory_order_seq_cst);
  wakeups_.notify_all();
}

// immediate_exit before the signal: a signal that arrives before KVM_RUN is entered would be lost
// without it. The thread clears it only before it looks at what it has to obey (RunGuest), so it
// cannot clear ours and miss the reason for it.
void VcpuThread::Interrupt() {
  Wake();
  vcpu_.SetImmediateExit(true);
  if (phase() == VcpuPhase::kRunning && !stays_out_.load(std::memory_order_seq_cst)) {
    Kick(static_cast<pid_t>(tid_.load(std::memory_order_relaxed)));
  }
}

// The question after immediate_exit: the thread, which sees them in the other order, would else
// clear an immediate_exit that is set later, or never clear this one, and enter no guest any more.
VcpuThread::Pulse VcpuThread::TakePulse() {
  const bool ends = (command_.load(std::memory_order_seq_cst) & kEndBit) != 0;
  if (ends || phase() != VcpuPhase::kRunning) return {pulse_answers_.load(), false};
  vcpu_.SetImmediateExit(true);
  pulse_asked_.store(true, std::memory_order_seq_cst);
  Wake();
  if (!stays_out_.load(std::memory_order_seq_cst)) {
    Kick(static_cast<pid_t>(tid_.load(std::memory_order_relaxed)));
  }
  return {pulse_answers_.load(), true};
}

// Before the thread looks at what it has to obey, as it may clear what was set for that.
void VcpuThread::AnswerPulse() {
  if (!pulse_asked_.exchange(false, std::memory_order_seq_cst)) return;
  vcpu_.SetImmediateExit(false);
  pulse_answers_.fetch_add(1);
}

void VcpuThread::Main() {
  current_vcpu_thread = this;
  SetKickFlag(vcpu_.immediate_exit());
  UnblockKickSignal();
  if (has_alarm_) {
    // Without one somebody else kicks.
    if (absl::StatusOr<AlarmTimer> alarm = AlarmTimer::Create(); alarm.ok()) {
      alarm_.emplace(*std::move(alarm));
    }
  }
  ::pthread_setname_np(::pthread_self(), absl::StrCat("vcpu", vcpu_.id()).c_str());
  tid_.store(static_cast<uint32_t>(::syscall(SYS_gettid)), std::memory_order_release);
  tid_.notify_all();

  for (;;) {
    uint32_t word = command_.load(std::memory_order_seq_cst);
    if (word == obeyed_) {
      const uint32_t seen = wakeups_.load(std::memory_order_seq_cst);
      if ((word = command_.load(std::memory_order_seq_cst)) == obeyed_) {
        base::WaitFor(wakeups_, resume_spin_, [seen](uint32_t now) { return now != seen; });
        continue;
      }
    }
    if ((word & kEndBit) != 0) {
      // A pause that asked before the end still waits for an answer.
      if ((word & ~kEndBit) != obeyed_ && CommandOf(word) != VcpuCommand::kRun) {
        capture_status_ = absl::FailedPreconditionError("the guest was stopped");
        host_.OnStopped();
        if (CommandOf(word) == VcpuCommand::kParkAndCapture) host_.OnCaptured();
      }
      return;
    }
    obeyed_ = word;
    if (CommandOf(word) == VcpuCommand::kRun) {
      RunGuest(word);
    } else {
      Park(CommandOf(word));
    }
  }
}

VcpuThread* VcpuThread::Current() { return current_vcpu_thread; }

void VcpuThread::ParkHere() {
  const uint32_t word = command_.load(std::memory_order_seq_cst) & ~kEndBit;
  if (word == obeyed_ || CommandOf(word) == VcpuCommand::kRun) return;
  obeyed_ = word;
  Park(CommandOf(word));
}

void VcpuThread::RunGuest(uint32_t command_word) {
  phase_.store(VcpuPhase::kRunning, std::memory_order_seq_cst);
  vcpu_.SetImmediateExit(false);
  alarm_ns_ = 0;
  pulse_answers_.fetch_add(1);  // a guest that stands still again and again lives, too
  for (;;) {
    AnswerPulse();
    if (Superseded(command_word)) return;
    if (host_.GuestStopped()) {
      phase_.store(VcpuPhase::kFinished, std::memory_order_seq_cst);
      return StayOut(command_word, kNoSpin, [] { return false; });
    }
    if (host_.MustThrottle()) {
      StayOut(command_word, kNoSpin,
              [this] { return host_.GuestStopped() || !host_.MustThrottle(); });
      continue;
    }
    const uint64_t now_ns = alarm_ ? clock_.NowNs() : 0;
    if (AnswerAlarm(now_ns)) continue;
    SetAlarm(now_ns);
    absl::StatusOr<kvm::Exit> exit = vcpu_.Run();
    if (!exit.ok()) {
      io_pending_ = false;
      host_.OnRunFailed(exit.status());
      continue;
    }
    NoteExit(*exit);
    if (std::holds_alternative<kvm::ExitInterrupted>(*exit)) vcpu_.SetImmediateExit(false);
    // Until it is back in StayOut(), which looks at all there is to obey.
    if (std::holds_alternative<kvm::ExitDirtyRingFull>(*exit)) stays_out_.store(true);
    if (host_.HandleExit(*exit) == AfterExit::kStayOut) {
      // After a full ring the checkpoint that empties it is about to come.
      StayOut(command_word, resume_spin_, [this] { return host_.GuestStopped(); });
    }
  }
}

// Cheap when nothing changes: the host is asked again only after an alarm, or a pause. A timer that
// is set for an earlier time is left alone, and set anew when it has come: most epochs end before
// their alarm, and setting a timer takes longer than all else here.
void VcpuThread::SetAlarm(uint64_t now_ns) {
  if (!alarm_) return;
  if (alarm_ns_ == 0) {
    alarm_ns_ = host_.NextAlarmNs();
    if (alarm_ns_ == 0) alarm_ns_ = kNoAlarm;
  }
  if (alarm_ns_ == kNoAlarm) return;
  if (now_ns < timer_ns_ && timer_ns_ <= alarm_ns_) return;
  timer_ns_ = alarm_ns_;
  if (alarm_->Set(alarm_ns_)) return;
  timer_ns_ = 0;
  alarm_ns_ = kNoAlarm;
}

// The last exit has been handled: a checkpoint now completes its I/O as any does.
bool VcpuThread::AnswerAlarm(uint64_t now_ns) {
  if (alarm_ns_ == 0 || alarm_ns_ == kNoAlarm || now_ns < alarm_ns_) return false;
  alarm_ns_ = 0;
  stays_out_.store(true, std::memory_order_seq_cst);  // it looks at all it has to obey from here on
  host_.OnAlarm();
  stays_out_.store(false, std::memory_order_seq_cst);
  return true;
}

void VcpuThread::NoteExit(const kvm::Exit& exit) {
  sync_regs_fresh_ = true;
  io_pending_ =
      std::holds_alternative<kvm::ExitIo>(exit) || std::holds_alternative<kvm::ExitMmio>(exit);
}

template <typename Until>
void VcpuThread::StayOut(uint32_t command_word, std::chrono::nanoseconds spin, Until until) {
  stays_out_.store(true, std::memory_order_seq_cst);
  for (;;) {
    const uint32_t seen = wakeups_.load(std::memory_order_seq_cst);
    AnswerPulse();
    if (Superseded(command_word) || until()) break;
    base::WaitFor(wakeups_, spin, [seen](uint32_t now) { return now != seen; });
  }
  // Before whoever called looks again: what is asked from here on comes with a signal.
  stays_out_.store(false, std::memory_order_seq_cst);
}

// An access that KVM split into several exits comes back with its next part; each is handled.
absl::Status VcpuThread::CompleteIo() {
  vcpu_.SetImmediateExit(true);
  while (io_pending_) {
    absl::StatusOr<kvm::Exit> exit = vcpu_.Run();
    if (!exit.ok()) return exit.status();
    sync_regs_fresh_ = true;
    io_pending_ =
        std::holds_alternative<kvm::ExitIo>(*exit) || std::holds_alternative<kvm::ExitMmio>(*exit);
    // What else it says (a power-off, a full ring) comes up again when the vCPU runs on.
    host_.HandleExit(*exit);
  }
  return absl::OkStatus();
}

void VcpuThread::Park(VcpuCommand command) {
  absl::Status status = CompleteIo();
  if (phase() == VcpuPhase::kRunning) {
    phase_.store(VcpuPhase::kPaused, std::memory_order_seq_cst);
  }
  host_.OnStopped();
  if (command != VcpuCommand::kParkAndCapture) return;
  if (status.ok()) {
    status = state_.Capture(vcpu_, sync_regs_fresh_, alone_, *this);
  }
  if (!status.ok()) {  // or a text would be made for nothing in each pause
    status = base::Annotate(status, absl::StrCat("capturing vCPU ", vcpu_.id()));
  }
  capture_status_ = std::move(status);
  host_.OnCaptured();
}

}  // namespace romulus::vmm

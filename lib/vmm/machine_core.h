// What a Machine is made of: VM, vCPUs, devices, buses, and how its exits are handled and its vCPUs
// stopped together. Internal to lib/vmm; Machine (machine.h) is the door and states the threads.
#ifndef ROMULUS_VMM_MACHINE_CORE_H_
#define ROMULUS_VMM_MACHINE_CORE_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/wait.h"
#include "devices/bus.h"
#include "devices/platform.h"
#include "kvm/system.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "vmm/exit_counters.h"
#include "vmm/gsi_line.h"
#include "vmm/guest.h"
#include "vmm/machine.h"
#include "vmm/vcpu_state.h"
#include "vmm/vcpu_thread.h"
#include "vmm/virtio_devices.h"
#include "vmm/vm_state.h"

namespace romulus::vmm {

class MachineCore final : private VcpuHost, private devices::PlatformEvents {
 public:
  // A machine without vCPUs; then the steps of Machine::Prepare, in the order given there.
  MachineCore(const kvm::System& system, const MachineSpec& spec, std::unique_ptr<kvm::Vm> vm);
  ~MachineCore() override;

  absl::Status CreateChips();
  absl::Status CreateDevices();
  absl::Status EnableDirtyTracking();
  absl::Status MapMemory(bool log_dirty);
  absl::Status CreateVcpus();
  // Sets the boot processor up as `registers` say.
  absl::Status SetBootRegisters(const arch::BootRegisters& registers);
  absl::Status StartThreads();

  absl::Status RestoreState(state::MachineState state, uint64_t outage_ns);

  absl::Status Start();
  void Stop();
  absl::Status SetDirtyLogging(bool enabled);

  // The parts of a pause, for PausedMachine. BeginPause() leaves nothing behind if it fails.
  absl::Status BeginPause(const PauseOptions& options);
  absl::StatusOr<state::MachineState> TakeState();
  absl::Status FillRings();
  void EndPause();

  void WakeThrottled();
  VcpuThread::Pulse TakePulse(int index) {
    return threads_[static_cast<size_t>(index)]->TakePulse();
  }

  const MachineSpec& spec() const { return spec_; }
  kvm::Vm& vm() { return *vm_; }
  kvm::Vcpu& vcpu(int index) { return *vcpus_[static_cast<size_t>(index)]; }
  devices::Platform& platform() { return *platform_; }
  VirtioDevices& virtio() { return virtio_; }
  const std::vector<arch::CpuidEntry>& cpuid() const { return cpuid_; }
  uint32_t tsc_khz() const { return tsc_khz_; }
  const std::vector<std::string>& restore_notes() const { return notes_; }
  bool dirty_logging() const { return dirty_logging_; }
  const ExitCounters& exits() const { return exits_; }

 private:
  enum class Life : uint8_t { kNew, kRestored, kStarted, kDead };

  // VcpuHost:
  AfterExit HandleExit(const kvm::Exit& exit) override;
  void OnRunFailed(const absl::Status& status) override;
  bool GuestStopped() const override { return guest_stopped_.load(std::memory_order_seq_cst); }
  bool MustThrottle() const override;
  uint64_t NextAlarmNs() override { return spec_.listener->NextAlarmNs(); }
  void OnAlarm() override { spec_.listener->OnAlarm(); }
  void OnStopped() override { stopping_.CountDown(); }
  void AwaitAllStopped() override {
    stopping_.Wait(stop_spin_);
    quieting_.Wait(stop_spin_);
  }
  void OnCaptured() override { capturing_.CountDown(); }

  // devices::PlatformEvents, with a device's lock held: only noted, HandleExit acts.
  void OnPowerOff() override { Note(GuestStop::kPowerOff); }
  void OnReset() override { Note(GuestStop::kReset); }
  void Note(GuestStop reason) { noted_stop_.store(static_cast<int>(reason) + 1); }

  AfterExit AfterIo();
  AfterExit StopGuest(GuestStop reason, const absl::Status& detail);
  // Devices counted from the first are those that were quiesced.
  absl::Status AskToStop(const PauseOptions& options);
  void LetRun(size_t quiet_devices);
  void ResumeThreads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status DoRestoreState(state::MachineState state, uint64_t outage_ns);
  absl::Status CheckTscFrequency(uint32_t saved_khz);
  absl::Status RestoreTscs(uint64_t outage_ns);

  const kvm::System& system_;
  const MachineSpec spec_;
  const std::unique_ptr<kvm::Vm> vm_;

  GsiLine serial_irq_;
  GsiLine sci_;
  devices::SystemWallClock system_clock_;
  devices::Bus pio_{"pio"};
  devices::Bus mmio_{"mmio"};
  std::unique_ptr<devices::Platform> platform_;
  VirtioDevices virtio_;
  std::vector<devices::Device*> devices_;  // in the order in which they are saved and restored

  std::vector<arch::CpuidEntry> cpuid_;
  uint32_t tsc_khz_ = 0;
  std::vector<std::string> notes_;
  bool dirty_logging_ = false;

  // Held while commands go out to the vCPU threads, never while waiting for them.
  absl::Mutex mutex_;
  Life life_ ABSL_GUARDED_BY(mutex_) = Life::kNew;
  bool paused_ ABSL_GUARDED_BY(mutex_) = false;
  // The pausing thread's:
  PauseOptions pause_options_;
  bool state_taken_ = false;
  size_t last_sections_ = 0;  // of the last state taken: the next one is likely to be as large
  size_t last_state_bytes_ = 0;

  std::atomic<int> noted_stop_{0};  // GuestStop + 1
  std::atomic<bool> guest_stopped_{false};
  ExitCounters exits_;

  std::chrono::nanoseconds stop_spin_;
  std::chrono::nanoseconds resume_spin_;
  base::CountdownLatch stopping_;
  base::CountdownLatch quieting_;
  base::CountdownLatch capturing_;
  VmState vm_state_;
  // Destroyed in reverse: threads end before what they use.
  std::vector<std::unique_ptr<kvm::Vcpu>> vcpus_;
  std::vector<std::unique_ptr<VcpuState>> states_;
  std::vector<std::unique_ptr<VcpuThread>> threads_;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_MACHINE_CORE_H_

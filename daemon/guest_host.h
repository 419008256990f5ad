// One guest with everything around it that makes it protectable: machine, virtio devices, tracker,
// staging, output gate, checkpoint loop, plugged together. Two ways to get one: Boot a kernel, or
// Prepare an empty machine on a replica's memory and later Restore it.
//
// The control loop's worker threads call it, one at a time; the callbacks it implements come from
// vCPU threads, the device loop and the checkpoint thread. Destruction order: vCPUs and checkpoints
// end before anything that they use, devices before what is behind them. Owns all but the console
// and the listener.
#ifndef ROMULUS_DAEMON_GUEST_HOST_H_
#define ROMULUS_DAEMON_GUEST_HOST_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "arch/cpuid.h"
#include "base/clock.h"
#include "daemon/audited_disks.h"
#include "daemon/console.h"
#include "daemon/guest_devices.h"
#include "daemon/serial_guest.h"
#include "devices/sinks.h"
#include "epoch/auditor.h"
#include "epoch/checkpoint_loop.h"
#include "epoch/disk_auditor.h"
#include "epoch/output_gate.h"
#include "epoch/staging_pool.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"
#include "romulus/v1/config.pb.h"
#include "tracker/tracker.h"
#include "vmm/guest.h"
#include "vmm/machine.h"
#include "vmm/throttle_gate.h"

namespace romulus::daemon {

// Told by vCPU threads, the device loop and the checkpoint thread; must not block (posts to the
// control loop).
class GuestHostListener {
 public:
  virtual ~GuestHostListener() = default;
  virtual void OnGuestStopped(vmm::GuestStop reason, const absl::Status& detail) = 0;
  virtual void OnCheckpointFailed(EpochId epoch, const absl::Status& why) = 0;
  virtual void OnProtectionGaveUp(const absl::Status& why) = 0;
  // Of the network card that the machine calls `device`: frames come in that say they are from it;
  // its tap gives or takes no frames, or, with an OK status, does again.
  virtual void OnMacClash(const std::string& device) = 0;
  virtual void OnTapFailure(const std::string& device, const absl::Status& why) = 0;
};

struct GuestHostOptions {
  const kvm::System* system = nullptr;
  const romulus::v1::Config* config = nullptr;
  Console* console = nullptr;
  const base::Clock* clock = nullptr;
  GuestHostListener* listener = nullptr;
  const DiskCopies* disks = nullptr;  // those of the configuration; null: it has none
  // What kvm::RingResetsWhatEntriesSay() has found.
  bool steer_rings = false;
};

class GuestHost final : public devices::ConsoleSink,
                        public devices::VirtioConsoleSink,
                        public vmm::GuestListener,
                        public vmm::ThrottleGate,
                        public epoch::CheckpointListener {
 public:
  // A new guest, ready to Start(). Errors: of memory, GuestDevices::Create, Machine::Boot, the
  // staging pool.
  static absl::StatusOr<std::unique_ptr<GuestHost>> Boot(const GuestHostOptions& options);
  // A machine on `memory` with the primary's CPUID, waiting for Restore(). Of disks and network
  // nothing is touched before Start().
  static absl::StatusOr<std::unique_ptr<GuestHost>> Prepare(
      const GuestHostOptions& options, std::shared_ptr<memory::GuestMemory> memory,
      std::vector<arch::CpuidEntry> cpuid);
  ~GuestHost() override;

  // After Prepare(), once: the guest's state, and where its console stream goes on. `tail` is said
  // again, from `console_offset` on. The state is of `outage_ns` ago. Errors:
  // Machine::RestoreState.
  absl::Status Restore(state::MachineState state, uint64_t outage_ns, uint64_t console_offset,
                       const std::string& tail);

  absl::Status Start();
  // Ends vCPUs and checkpoints. Idempotent.
  void Stop();

  // Dirty logging costs a solo guest time for nothing, so it is on only while somebody listens.
  absl::Status SetDirtyLogging(bool enabled);
  // Keeps the vCPUs out of the guest, or lets them in again. Checkpoints go on meanwhile.
  absl::Status SetPausedByOperator(bool paused);
  bool paused_by_operator() const { return operator_paused_; }
  // The console can take bytes again.
  void OnConsoleRoom();

  // All that the guest says to the outside, console and network cards, at once: as
  // epoch::HeldOutput says. Exists from Boot() or Restore() on.
  void OpenOutput();
  void HoldOutput();
  void DiscardOutput();
  // Until all that was released has left this process; whether it has.
  bool AwaitOutputGone(absl::Duration timeout);
  // After a promotion: the network learns where the guest's cards are now.
  void AnnounceNics() { devices_->Announce(); }

  vmm::Machine& machine() { return *machine_; }
  memory::GuestMemory& memory() { return *memory_; }
  // Exist from Boot() or Restore() on.
  epoch::OutputGate& gate() { return *gate_; }
  epoch::CheckpointLoop& loop() { return *loop_; }
  const epoch::StagingPool& staging() const { return *staging_; }
  // Null: memory is not audited.
  const epoch::Auditor* auditor() const { return auditor_.get(); }
  // Null: nor are disks, or there are none.
  epoch::DiskAuditor* disk_auditor() { return disk_auditor_.get(); }
  const GuestDevices& devices() const { return *devices_; }
  base::Executor& device_loop() { return devices_->loop(); }
  // Null: no disk of the guest is replicated.
  epoch::DiskLog* disk_log() { return devices_->disk_log(); }
  bool assembled() const { return loop_ != nullptr; }
  std::string tracker_name() const;
  uint32_t ring_entries() const;
  // The other one's name, if it would do better with so many dirty pages an epoch, and this host
  // has it; else empty.
  std::string BetterTracker(uint64_t pages_per_epoch) const;

 private:
  explicit GuestHost(const GuestHostOptions& options) : options_(options) {}
  absl::StatusOr<vmm::MachineSpec> Spec();
  // Everything behind the machine.
  absl::Status Assemble(uint64_t console_offset);

  void WriteConsole(std::span<const std::byte> bytes) override;
  size_t TakeConsole(std::span<const std::byte> bytes) override;
  void OnDirtyRingFull() override;
  uint64_t NextAlarmNs() override;
  void OnAlarm() override;
  void OnGuestStopped(vmm::GuestStop reason, const absl::Status& detail) override;
  bool MustWait() const override;
  void OnCheckpointFailed(EpochId epoch, epoch::CutReason reason, const absl::Status& why) override;
  void OnGaveUp(const absl::Status& why) override;

  const GuestHostOptions options_;
  std::shared_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<epoch::OutputGate> gate_;
  std::atomic<bool> operator_paused_{false};
  vmm::DirtyLogMode dirty_log_ = vmm::DirtyLogMode::kNone;
  std::unique_ptr<GuestDevices> devices_;
  std::unique_ptr<vmm::Machine> machine_;
  std::unique_ptr<SerialGuest> guest_;
  std::unique_ptr<tracker::Tracker> tracker_;
  std::unique_ptr<epoch::StagingPool> staging_;
  std::unique_ptr<epoch::Auditor> auditor_;
  std::unique_ptr<AuditedDisks> audited_disks_;
  std::unique_ptr<epoch::DiskAuditor> disk_auditor_;
  std::unique_ptr<epoch::CheckpointLoop> loop_;
};

// Which log a configuration means on this host.
vmm::DirtyLogMode ChooseDirtyLog(const romulus::v1::Tracking& tracking,
                                 const kvm::Capabilities& capabilities);
epoch::GovernorOptions GovernorFrom(const romulus::v1::Checkpoint& checkpoint);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_GUEST_HOST_H_

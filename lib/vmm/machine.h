// The guest as KVM runs it: VM, vCPUs and their threads, devices. Three ways to get one:
//   Boot     a new guest from a kernel image
//   Prepare  an empty machine on a replica's memory, made ahead of a promotion; then, once,
//            RestoreState(): all that a promotion has to do before Start()
//   Restore  both steps at once
//
// Threads: one per vCPU, owned here. Pause(), and what it returns, from one checkpoint thread at a
// time; Start(), Stop(), RestoreState() and SetDirtyLogging() from one controlling thread, never
// from a vCPU thread or the device loop; WakeThrottled(), exit_counts() and the constant getters
// from any thread. Owns everything but what MachineSpec points to, which must outlive it. What was
// posted to the device loop and has not run when the machine goes does nothing.
#ifndef ROMULUS_VMM_MACHINE_H_
#define ROMULUS_VMM_MACHINE_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "arch/boot.h"
#include "arch/cpuid.h"
#include "base/executor.h"
#include "devices/bus.h"
#include "devices/device.h"
#include "devices/platform.h"
#include "devices/sinks.h"
#include "devices/virtio/device.h"
#include "devices/virtio/fault.h"
#include "devices/virtio/mmio.h"
#include "kvm/system.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/guest_memory.h"
#include "state/machine_state.h"
#include "vmm/exit_counters.h"
#include "vmm/guest.h"
#include "vmm/throttle_gate.h"

namespace romulus::vmm {

// How KVM tells which pages the guest wrote. Ring and bitmap exclude each other per VM.
enum class DirtyLogMode : uint8_t { kNone, kRing, kBitmap };

// A virtio device of the machine. `make` is called once, when the machine is made.
struct VirtioSpec {
  // Unique, begins with "virtio."; also names its state's section: "virtio.block.root".
  std::string name;
  std::function<std::unique_ptr<devices::VirtioDevice>()> make;
};

// What one virtio device has been through, for metrics and status.
struct VirtioFacts {
  std::string name;
  bool needs_reset = false;  // the driver broke a rule and has not reset the device since
  std::array<uint64_t, devices::kVirtioFaults> faults{};  // by devices::VirtioFault
};

struct MachineSpec {
  int vcpu_count = 1;  // 1 to arch::kMaxVcpus
  std::shared_ptr<memory::GuestMemory> memory;
  DirtyLogMode dirty_log = DirtyLogMode::kRing;
  uint32_t ring_entries = 4096;  // per vCPU; kRing only
  // Host CPUs that vCPU threads run on, any of them; empty: wherever the process may run.
  std::vector<int> vcpu_cpus;
  // The primary's CPUID of vCPU 0, when this machine is to be the secondary of a guest that already
  // runs elsewhere. Empty: what this host supports (arch::BuildGuestCpuid).
  std::vector<arch::CpuidEntry> cpuid;
  arch::CpuModel cpu_model = arch::CpuModel::kHost;

  arch::BootSpec boot;  // Boot() only

  // At most arch::kMaxVirtioDevices: device i has window i and interrupt i (arch/memory_map.h). The
  // same on both nodes. `device_loop` is the one thread that they work on; must be set if there are
  // any, and outlives the machine. They are quiet until Start(), in every pause, and from Stop()
  // on.
  std::vector<VirtioSpec> virtio;
  base::Executor* device_loop = nullptr;

  devices::ConsoleSink* console = nullptr;    // must be set
  const devices::WallClock* clock = nullptr;  // null: the host's
  GuestListener* listener = nullptr;          // must be set
  const ThrottleGate* throttle = nullptr;     // null: never waits
};

class MachineCore;

class Machine final : public Guest {
 public:
  // The guest is ready to Start(). Errors: as Prepare(), arch::LoadKernel, arch::WriteAcpiTables.
  static absl::StatusOr<std::unique_ptr<Machine>> Boot(const kvm::System& system,
                                                       const MachineSpec& spec);

  // Everything that can be done before the state is known. Dirty logging is off until
  // SetDirtyLogging(true). Errors: InvalidArgument for a bad spec, FailedPrecondition naming what
  // the host or its CPU lacks, else the ioctl that failed.
  static absl::StatusOr<std::unique_ptr<Machine>> Prepare(const kvm::System& system,
                                                          const MachineSpec& spec);
  // Prepare() and RestoreState().
  static absl::StatusOr<std::unique_ptr<Machine>> Restore(const kvm::System& system,
                                                          const MachineSpec& spec,
                                                          state::MachineState state);
  ~Machine() override;

  // On a machine from Prepare(), once, before Start(). The state may come from anywhere. After an
  // error the machine can only be destroyed. Errors: FailedPrecondition if it ran or was restored
  // already, or if this host cannot continue that guest (TSC frequency, an MSR); InvalidArgument,
  // NotFound for a malformed state.
  //
  // The state is of `outage_ns` ago, by a clock of this host that no difference between two hosts'
  // clocks can mislead. The guest's TSC and kvmclock go forward by that, as they would have if it
  // had run: its wall clock is right then, and its timers expire. By kMaxOutageNs at most, since
  // Linux may miscount a clock source that jumps further; what is missing is in restore_notes().
  static constexpr uint64_t kMaxOutageNs = 300'000'000'000;
  absl::Status RestoreState(state::MachineState state, uint64_t outage_ns = 0);
  // What could not be restored as it was, and is worth a line in the log: a guest that lives on
  // with it is better than one that does not.
  const std::vector<std::string>& restore_notes() const;

  // Guest:
  absl::StatusOr<std::unique_ptr<PausedGuest>> Pause(const PauseOptions& options) override;
  absl::Status Start() override;
  void Stop() override;
  int vcpu_count() const override;

  // Slots 0..n-1 are the memory layout's regions in order. Switches KVM's dirty logging of all of
  // them, pausing the guest for it if it runs; not while a PausedGuest lives.
  absl::Status SetDirtyLogging(bool enabled);
  bool dirty_logging() const;

  // For the tracker.
  kvm::Vm& vm();
  kvm::DirtyRing* dirty_ring(int vcpu);  // null without rings
  memory::GuestMemory& memory();

  // For the handshake: what vCPU 0's guest sees, and the frequency of its TSC.
  const std::vector<arch::CpuidEntry>& cpuid() const;
  uint32_t tsc_khz() const;

  // In the order of the spec. Any thread; waits at most for a device's turn.
  std::vector<VirtioFacts> virtio_facts() const;
  // As the guest finds the devices on its bus, for tests: device `index` of the spec.
  devices::VirtioMmio& virtio(int index);

  devices::Serial& serial();
  devices::PowerManagement& pm();

  // A sign of life of vCPU `index`'s thread: VcpuThread::TakePulse(). Any thread, once made.
  struct Pulse {
    uint64_t answers = 0;
    bool owes = false;
  };
  Pulse TakePulse(int index);

  // The throttle gate has opened.
  void WakeThrottled();
  // Index is kvm::Exit::index(), names are kvm::kExitNames.
  std::array<uint64_t, ExitCounters::kKinds> exit_counts() const;

 private:
  explicit Machine(std::unique_ptr<MachineCore> core);

  std::unique_ptr<MachineCore> core_;
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_MACHINE_H_

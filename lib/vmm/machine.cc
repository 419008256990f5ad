#include "vmm/machine.h"

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "arch/acpi.h"
#include "arch/memory_map.h"
#include "base/check.h"
#include "base/status.h"
#include "vmm/kick_signal.h"
#include "vmm/machine_core.h"

namespace romulus::vmm {
namespace {

class PausedMachine final : public PausedGuest {
 public:
  explicit PausedMachine(MachineCore& core) : core_(&core) {}
  ~PausedMachine() override { Resume(); }

  absl::StatusOr<state::MachineState> TakeState() override {
    if (core_ == nullptr) return absl::FailedPreconditionError("the guest runs again");
    return core_->TakeState();
  }
  absl::Status FillRings() override {
    if (core_ == nullptr) return absl::FailedPreconditionError("the guest runs again");
    return core_->FillRings();
  }
  void Resume() override {
    if (core_ != nullptr) std::exchange(core_, nullptr)->EndPause();
  }

 private:
  MachineCore* core_;
};

absl::Status CheckVirtio(const MachineSpec& spec) {
  if (spec.virtio.size() > arch::kMaxVirtioDevices) {
    return absl::InvalidArgumentError(absl::StrCat(spec.virtio.size(), " virtio devices, at most ",
                                                   arch::kMaxVirtioDevices, " are possible"));
  }
  if (!spec.virtio.empty() && spec.device_loop == nullptr) {
    return absl::InvalidArgumentError("virtio devices need a device loop");
  }
  std::set<absl::string_view> names;
  for (const VirtioSpec& device : spec.virtio) {
    if (!absl::StartsWith(device.name, "virtio.")) {
      return absl::InvalidArgumentError(
          absl::StrCat("a virtio device is named '", device.name, "', not 'virtio.SOMETHING'"));
    }
    if (!names.insert(device.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("two virtio devices are named '", device.name, "'"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckSpec(const MachineSpec& spec) {
  if (spec.vcpu_count < 1 || spec.vcpu_count > arch::kMaxVcpus) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.vcpu_count, " vCPUs: must be 1 to ", arch::kMaxVcpus));
  }
  if (spec.memory == nullptr) return absl::InvalidArgumentError("a machine needs memory");
  if (spec.console == nullptr) return absl::InvalidArgumentError("a machine needs a console sink");
  if (spec.listener == nullptr) return absl::InvalidArgumentError("a machine needs a listener");
  return CheckVirtio(spec);
}

}  // namespace

// Three recipes. Each line depends on those above it; what is not obvious is said.

absl::StatusOr<std::unique_ptr<Machine>> Machine::Prepare(const kvm::System& system,
                                                          const MachineSpec& spec) {
  ROMULUS_RETURN_IF_ERROR(CheckSpec(spec));
  ROMULUS_RETURN_IF_ERROR(system.RequireForMachine());
  ROMULUS_RETURN_IF_ERROR(InstallKickSignal());
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<kvm::Vm> vm, system.CreateVm());
  auto core = std::make_unique<MachineCore>(system, spec, std::move(vm));
  ROMULUS_RETURN_IF_ERROR(core->CreateChips());  // before any vCPU, which gets its LAPIC
  ROMULUS_RETURN_IF_ERROR(core->CreateDevices());
  ROMULUS_RETURN_IF_ERROR(core->EnableDirtyTracking());  // before any vCPU, which gets its ring
  ROMULUS_RETURN_IF_ERROR(core->MapMemory(/*log_dirty=*/false));
  ROMULUS_RETURN_IF_ERROR(core->CreateVcpus());
  ROMULUS_RETURN_IF_ERROR(core->StartThreads());  // paused
  return std::unique_ptr<Machine>(new Machine(std::move(core)));
}

absl::StatusOr<std::unique_ptr<Machine>> Machine::Boot(const kvm::System& system,
                                                       const MachineSpec& spec) {
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<Machine> machine, Prepare(system, spec));
  ROMULUS_RETURN_IF_ERROR(arch::WriteAcpiTables(
      *spec.memory,
      {.vcpu_count = spec.vcpu_count, .virtio = machine->core_->virtio().AcpiNodes()}));
  ROMULUS_ASSIGN_OR_RETURN(const arch::BootPlan plan, arch::LoadKernel(*spec.memory, spec.boot));
  ROMULUS_RETURN_IF_ERROR(machine->core_->SetBootRegisters(plan.registers));
  return machine;
}

absl::StatusOr<std::unique_ptr<Machine>> Machine::Restore(const kvm::System& system,
                                                          const MachineSpec& spec,
                                                          state::MachineState state) {
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<Machine> machine, Prepare(system, spec));
  ROMULUS_RETURN_IF_ERROR(machine->RestoreState(std::move(state)));
  return machine;
}

Machine::Machine(std::unique_ptr<MachineCore> core) : core_(std::move(core)) {}
Machine::~Machine() = default;

absl::Status Machine::RestoreState(state::MachineState state, uint64_t outage_ns) {
  return core_->RestoreState(std::move(state), outage_ns);
}

const std::vector<std::string>& Machine::restore_notes() const { return core_->restore_notes(); }

absl::StatusOr<std::unique_ptr<PausedGuest>> Machine::Pause(const PauseOptions& options) {
  ROMULUS_RETURN_IF_ERROR(core_->BeginPause(options));
  return std::make_unique<PausedMachine>(*core_);
}

absl::Status Machine::Start() { return core_->Start(); }
void Machine::Stop() { core_->Stop(); }
int Machine::vcpu_count() const { return core_->spec().vcpu_count; }

absl::Status Machine::SetDirtyLogging(bool enabled) { return core_->SetDirtyLogging(enabled); }
bool Machine::dirty_logging() const { return core_->dirty_logging(); }

kvm::Vm& Machine::vm() { return core_->vm(); }
kvm::DirtyRing* Machine::dirty_ring(int vcpu) {
  ROMULUS_CHECK(vcpu >= 0 && vcpu < vcpu_count());
  return core_->vcpu(vcpu).dirty_ring();
}
memory::GuestMemory& Machine::memory() { return *core_->spec().memory; }

const std::vector<arch::CpuidEntry>& Machine::cpuid() const { return core_->cpuid(); }
uint32_t Machine::tsc_khz() const { return core_->tsc_khz(); }

std::vector<VirtioFacts> Machine::virtio_facts() const { return core_->virtio().Facts(); }
devices::VirtioMmio& Machine::virtio(int index) { return core_->virtio().transport(index); }

devices::Serial& Machine::serial() { return core_->platform().serial(); }
devices::PowerManagement& Machine::pm() { return core_->platform().pm(); }

void Machine::WakeThrottled() { core_->WakeThrottled(); }
Machine::Pulse Machine::TakePulse(int index) {
  const VcpuThread::Pulse pulse = core_->TakePulse(index);
  return {pulse.answers, pulse.owes};
}
std::array<uint64_t, ExitCounters::kKinds> Machine::exit_counts() const {
  return core_->exits().Read();
}

}  // namespace romulus::vmm

#include "vmm/machine_core.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "arch/memory_map.h"
#include "base/check.h"
#include "base/spare_cpu.h"
#include "base/status.h"
#include "vmm/cpuid.h"
#include "vmm/msr_list.h"
#include "vmm/ring_ballast.h"

namespace romulus::vmm {
namespace {

constexpr uint32_t kVersion = 1;
// KVM's own tsc_tolerance_ppm: within it KVM does not scale either (arch/x86/kvm/x86.c).
constexpr uint64_t kTscTolerancePpm = 250;
// As far apart as KVM still takes two TSC writes for an attempt to make vCPUs agree, in seconds.
constexpr uint64_t kTscSyncSeconds = 1;

// By which a state may be longer than the one before it without taking memory twice, in bytes.
constexpr size_t kStateGrowth = 512;

template <typename... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <typename... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

bool LeavesACpu(const MachineSpec& spec) {
  return base::LeavesACpu(spec.vcpu_count, spec.vcpu_cpus);
}

std::chrono::nanoseconds SpinFor(const MachineSpec& spec) {
  if (LeavesACpu(spec)) return std::chrono::microseconds(100);
  // vCPUs that have all processors stop within that of each other; one alone waits for no other.
  return std::chrono::microseconds(spec.vcpu_count > 1 ? 50 : 10);
}

}  // namespace

MachineCore::MachineCore(const kvm::System& system, const MachineSpec& spec,
                         std::unique_ptr<kvm::Vm> vm)
    : system_(system),
      spec_(spec),
      vm_(std::move(vm)),
      serial_irq_(*vm_, arch::kSerialGsi),
      sci_(*vm_, arch::kSciGsi),
      stop_spin_(SpinFor(spec)),
      resume_spin_(SpinFor(spec)) {}

MachineCore::~MachineCore() { Stop(); }

absl::Status MachineCore::CreateChips() {
  ROMULUS_RETURN_IF_ERROR(vm_->SetIdentityMapAddress(Gpa(arch::kKvmIdentityMap.start)));
  ROMULUS_RETURN_IF_ERROR(vm_->SetTssAddress(Gpa(arch::kKvmTss.start)));
  ROMULUS_RETURN_IF_ERROR(vm_->CreateIrqChip());
  return vm_->CreatePit();
}

absl::Status MachineCore::CreateDevices() {
  const devices::WallClock& clock = spec_.clock != nullptr ? *spec_.clock : system_clock_;
  platform_ = std::make_unique<devices::Platform>(
      devices::PlatformParts{*spec_.console, *this, clock, serial_irq_, sci_});
  ROMULUS_RETURN_IF_ERROR(
      platform_->MapPorts(pio_, {.serial = arch::kSerialPorts.start,
                                 .cmos = arch::kCmosPorts.start,
                                 .keyboard_data = arch::kKeyboardDataPort.start,
                                 .keyboard_command = arch::kKeyboardCommandPort.start,
                                 .pm = arch::kPmPorts.start,
                                 .reset = arch::kResetPort.start}));
  ROMULUS_RETURN_IF_ERROR(virtio_.Create(spec_, *vm_, mmio_));
  devices_ = platform_->devices();
  for (devices::Device* device : virtio_.devices()) devices_.push_back(device);
  return absl::OkStatus();
}

absl::Status MachineCore::EnableDirtyTracking() {
  switch (spec_.dirty_log) {
    case DirtyLogMode::kNone:
      return absl::OkStatus();
    case DirtyLogMode::kRing:
      return vm_->EnableDirtyRing(spec_.ring_entries);
    case DirtyLogMode::kBitmap:
      return vm_->EnableManualDirtyLogProtect();
  }
  return absl::InvalidArgumentError("unknown dirty log mode");
}

absl::Status MachineCore::MapMemory(bool log_dirty) {
  uint32_t slot = 0;
  for (const memory::Region& region : spec_.memory->layout().regions()) {
    ROMULUS_RETURN_IF_ERROR(vm_->SetMemorySlot(slot++, region.gpa, region.size_bytes,
                                               spec_.memory->HostAddress(region),
                                               {.log_dirty = log_dirty}));
  }
  dirty_logging_ = log_dirty;
  return absl::OkStatus();
}

absl::Status MachineCore::CreateVcpus() {
  for (int i = 0; i < spec_.vcpu_count; ++i) {
    ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<kvm::Vcpu> vcpu,
                             vm_->CreateVcpu(static_cast<uint32_t>(i)));
    vcpus_.push_back(std::move(vcpu));
  }
  ROMULUS_ASSIGN_OR_RETURN(tsc_khz_, vcpus_[0]->GetTscKhz());
  for (int i = 0; i < spec_.vcpu_count; ++i) {
    ROMULUS_ASSIGN_OR_RETURN(std::vector<arch::CpuidEntry> entries,
                             GuestCpuid(system_, spec_, tsc_khz_, i));
    ROMULUS_RETURN_IF_ERROR(vcpu(i).SetCpuid(ToKvm(entries)));
    if (i == 0) cpuid_ = std::move(entries);
  }
  ROMULUS_ASSIGN_OR_RETURN(const std::vector<uint32_t> msrs,
                           FindStateMsrs(system_, *vcpus_[0], spec_.cpu_model));
  for (const std::unique_ptr<kvm::Vcpu>& vcpu : vcpus_) {
    states_.push_back(std::make_unique<VcpuState>(
        msrs, vcpu->xsave_bytes(), arch::ShownXcr0(cpuid_), system_.capabilities().sregs2));
  }
  return absl::OkStatus();
}

absl::Status MachineCore::StartThreads() {
  VcpuHost& host = *this;
  const bool alone = vcpus_.size() == 1;
  const bool have_alarms = alone || !LeavesACpu(spec_);
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    threads_.push_back(std::make_unique<VcpuThread>(*vcpus_[i], *states_[i], host, alone,
                                                    have_alarms, resume_spin_));
    if (spec_.vcpu_cpus.empty()) continue;
    ROMULUS_RETURN_IF_ERROR(threads_.back()->KeepOn(spec_.vcpu_cpus));
  }
  return absl::OkStatus();
}

absl::Status MachineCore::Start() {
  absl::MutexLock lock(&mutex_);
  if (life_ != Life::kNew && life_ != Life::kRestored) {
    return absl::FailedPreconditionError("the machine has run already");
  }
  life_ = Life::kStarted;
  if (paused_) return absl::OkStatus();
  virtio_.Resume();
  ResumeThreads();
  return absl::OkStatus();
}

void MachineCore::ResumeThreads() {
  for (const std::unique_ptr<VcpuThread>& thread : threads_) thread->Post(VcpuCommand::kRun);
}

void MachineCore::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    life_ = Life::kDead;
  }
  for (const std::unique_ptr<VcpuThread>& thread : threads_) thread->End();
  for (const std::unique_ptr<VcpuThread>& thread : threads_) thread->Join();
  // For ever: nobody resumes a dead machine's devices. Whoever lost the guest must not write its
  // disks or take its frames any more (P3).
  virtio_.Quiesce();
}

// --- exits ---------------------------------------------------------------------------------------

AfterExit MachineCore::HandleExit(const kvm::Exit& exit) {
  exits_.Count(exit);
  return std::visit(
      Overloaded{
          [this](const kvm::ExitIo& io) {
            // A string instruction's repetitions are single accesses to the device.
            for (size_t at = 0; io.size_bytes > 0 && at + io.size_bytes <= io.data.size();
                 at += io.size_bytes) {
              const std::span<std::byte> data = io.data.subspan(at, io.size_bytes);
              if (io.is_write) {
                pio_.Write(io.port, data);
              } else {
                pio_.Read(io.port, data);
              }
            }
            return AfterIo();
          },
          [this](const kvm::ExitMmio& mmio) {
            if (mmio.is_write) {
              mmio_.Write(mmio.gpa, mmio.data);
            } else {
              mmio_.Read(mmio.gpa, mmio.data);
            }
            return AfterIo();
          },
          [](const kvm::ExitInterrupted&) { return AfterExit::kReenter; },
          [this](const kvm::ExitDirtyRingFull&) {
            spec_.listener->OnDirtyRingFull();
            return AfterExit::kStayOut;
          },
          [this](const kvm::ExitShutdown&) {
            return StopGuest(GuestStop::kTripleFault, absl::AbortedError("triple fault"));
          },
          [this](const kvm::ExitSystemEvent& event) {
            switch (event.type) {
              case KVM_SYSTEM_EVENT_SHUTDOWN:
                return StopGuest(GuestStop::kPowerOff, absl::OkStatus());
              case KVM_SYSTEM_EVENT_RESET:
                return StopGuest(GuestStop::kReset, absl::OkStatus());
              default:
                return StopGuest(GuestStop::kError,
                                 absl::AbortedError(absl::StrCat("KVM system event ", event.type)));
            }
          },
          [this](const kvm::ExitHlt&) {
            return StopGuest(GuestStop::kError,
                             absl::InternalError("HLT exit in spite of the in-kernel irqchip"));
          },
          [this](const kvm::ExitInternalError& error) {
            std::string text = absl::StrCat("KVM internal error, suberror ", error.suberror);
            for (uint32_t i = 0; i < error.data_count; ++i) {
              absl::StrAppend(&text, i == 0 ? ", data" : "", " 0x", absl::Hex(error.data[i]));
            }
            return StopGuest(GuestStop::kError, absl::InternalError(text));
          },
          [this](const kvm::ExitFailEntry& error) {
            return StopGuest(GuestStop::kError,
                             absl::InternalError(absl::StrCat("guest entry failed, reason 0x",
                                                              absl::Hex(error.hardware_reason))));
          },
          [this](const kvm::ExitUnknown& unknown) {
            return StopGuest(GuestStop::kError, absl::UnimplementedError(absl::StrCat(
                                                    "unknown KVM exit ", unknown.reason)));
          },
      },
      exit);
}

AfterExit MachineCore::AfterIo() {
  const int noted = noted_stop_.load(std::memory_order_relaxed);
  if (noted == 0) return AfterExit::kReenter;
  return StopGuest(static_cast<GuestStop>(noted - 1), absl::OkStatus());
}

void MachineCore::OnRunFailed(const absl::Status& status) { StopGuest(GuestStop::kError, status); }

AfterExit MachineCore::StopGuest(GuestStop reason, const absl::Status& detail) {
  if (!guest_stopped_.exchange(true)) {
    for (const std::unique_ptr<VcpuThread>& thread : threads_) thread->Interrupt();
    spec_.listener->OnGuestStopped(reason, detail);
  }
  return AfterExit::kStayOut;
}

bool MachineCore::MustThrottle() const {
  return spec_.throttle != nullptr && spec_.throttle->MustWait();
}

void MachineCore::WakeThrottled() {
  for (const std::unique_ptr<VcpuThread>& thread : threads_) thread->Wake();
}

// --- pause ---------------------------------------------------------------------------------------

absl::Status MachineCore::BeginPause(const PauseOptions& options) {
  ROMULUS_RETURN_IF_ERROR(AskToStop(options));
  // While the vCPUs are on their way out. One that still touches a device's register changes the
  // device, but has no turn run: those wait. No vCPU's local APIC is read before this is done
  // (AwaitAllStopped): an interrupt that a device raised between the reading of a LAPIC and that of
  // the IOAPIC would be in neither.
  size_t quiet = 0;
  absl::Status status;
  for (devices::Device* device : devices_) {
    if (status = device->Quiesce(); !status.ok()) break;
    ++quiet;
  }
  quieting_.CountDown();
  if (VcpuThread* const own = VcpuThread::Current()) own->ParkHere();
  stopping_.Wait(stop_spin_);
  if (!status.ok()) LetRun(quiet);
  return status;
}

absl::Status MachineCore::AskToStop(const PauseOptions& options) {
  absl::MutexLock lock(&mutex_);
  if (paused_) return absl::FailedPreconditionError("the guest is paused already");
  if (life_ == Life::kDead) return absl::FailedPreconditionError("the guest was stopped");
  paused_ = true;
  pause_options_ = options;
  state_taken_ = false;
  const uint32_t count = static_cast<uint32_t>(threads_.size());
  stopping_.Set(count);
  quieting_.Set(1);
  capturing_.Set(options.capture_state ? count : 0);
  const VcpuCommand command =
      options.capture_state ? VcpuCommand::kParkAndCapture : VcpuCommand::kPark;
  for (const std::unique_ptr<VcpuThread>& thread : threads_) {
    if (!thread->Post(command)) {
      stopping_.CountDown();
      if (options.capture_state) capturing_.CountDown();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<state::MachineState> MachineCore::TakeState() {
  if (!pause_options_.capture_state) {
    return absl::FailedPreconditionError("this pause was asked for without capturing state");
  }
  if (std::exchange(state_taken_, true)) {
    return absl::FailedPreconditionError("this pause's state was taken already");
  }
  state::MachineState out;
  out.Reserve(last_sections_, last_state_bytes_ + kStateGrowth);
  out.PutStruct("vm.vcpus", 0, kVersion, static_cast<uint32_t>(vcpus_.size()));
  out.PutStruct("vm.tsc_khz", 0, kVersion, tsc_khz_);
  // The vCPUs' own threads read theirs meanwhile.
  ROMULUS_RETURN_IF_ERROR(vm_state_.Capture(*vm_));
  vm_state_.Put(out);
  for (const devices::Device* device : devices_) {
    ROMULUS_RETURN_IF_ERROR(device->Save(out));
  }
  capturing_.Wait(stop_spin_);
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    ROMULUS_RETURN_IF_ERROR(threads_[i]->capture_status());
    states_[i]->Put(out, static_cast<uint32_t>(i));
  }
  last_sections_ = out.section_count();
  last_state_bytes_ = out.Serialize().size();
  return out;
}

absl::Status MachineCore::FillRings() {
  capturing_.Wait(stop_spin_);  // what is read of an MSR must not be what FillRing() writes
  for (const std::unique_ptr<kvm::Vcpu>& vcpu : vcpus_) {
    if (vcpu->dirty_ring() == nullptr) return absl::FailedPreconditionError("no dirty rings");
    ROMULUS_RETURN_IF_ERROR(FillRing(*vcpu, *spec_.memory));
  }
  return absl::OkStatus();
}

void MachineCore::EndPause() { LetRun(devices_.size()); }

void MachineCore::LetRun(size_t quiet_devices) {
  capturing_.Wait(stop_spin_);
  absl::MutexLock lock(&mutex_);
  ROMULUS_CHECK(paused_);
  paused_ = false;
  if (life_ != Life::kStarted) return;  // the devices wait for Start(), or stay quiet for ever
  for (size_t i = 0; i < quiet_devices; ++i) devices_[i]->Resume();
  ResumeThreads();
}

absl::Status MachineCore::SetDirtyLogging(bool enabled) {
  if (enabled == dirty_logging_) return absl::OkStatus();
  if (enabled && spec_.dirty_log == DirtyLogMode::kNone) {
    return absl::FailedPreconditionError("the machine was made without a dirty log");
  }
  ROMULUS_RETURN_IF_ERROR(BeginPause({.capture_state = false}));
  absl::Status status = MapMemory(enabled);
  EndPause();
  return status;
}

// --- restore -------------------------------------------------------------------------------------

// The order: first all sections are taken and checked, so that a malformed state changes nothing;
// then vCPUs, VM, devices. vCPUs before the VM's chips: see VmState::Restore. Devices after the
// chips, since they raise their interrupt lines anew.
absl::Status MachineCore::RestoreState(state::MachineState state, uint64_t outage_ns) {
  {
    absl::MutexLock lock(&mutex_);
    if (life_ != Life::kNew || paused_) {
      return absl::FailedPreconditionError("only a new machine can be restored, and only once");
    }
    life_ = Life::kDead;  // until all of it has succeeded
  }
  if (outage_ns > Machine::kMaxOutageNs) {
    notes_.push_back(absl::StrCat("the guest stood still for ", outage_ns / 1'000'000'000,
                                  " s; its clocks go forward by ",
                                  Machine::kMaxOutageNs / 1'000'000'000, " s only"));
    outage_ns = Machine::kMaxOutageNs;
  }
  outage_ns -= outage_ns % 1'000'000;  // kvmclock and TSC by the same, which counts in kHz
  ROMULUS_RETURN_IF_ERROR(DoRestoreState(std::move(state), outage_ns));
  absl::MutexLock lock(&mutex_);
  life_ = Life::kRestored;
  return absl::OkStatus();
}

absl::Status MachineCore::DoRestoreState(state::MachineState state, uint64_t outage_ns) {
  ROMULUS_ASSIGN_OR_RETURN(const uint32_t vcpu_count,
                           state.TakeStruct<uint32_t>("vm.vcpus", 0, kVersion));
  if (vcpu_count != vcpus_.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the state has ", vcpu_count, " vCPUs, this machine ", vcpus_.size()));
  }
  ROMULUS_ASSIGN_OR_RETURN(const uint32_t saved_khz,
                           state.TakeStruct<uint32_t>("vm.tsc_khz", 0, kVersion));
  ROMULUS_RETURN_IF_ERROR(vm_state_.Take(state));
  for (uint32_t i = 0; i < vcpu_count; ++i) ROMULUS_RETURN_IF_ERROR(states_[i]->Take(state, i));

  ROMULUS_RETURN_IF_ERROR(CheckTscFrequency(saved_khz));
  ROMULUS_RETURN_IF_ERROR(RestoreTscs(outage_ns));
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    ROMULUS_RETURN_IF_ERROR(
        base::Annotate(states_[i]->Restore(*vcpus_[i]), absl::StrCat("restoring vCPU ", i)));
    threads_[i]->ForgetSyncRegs();
  }
  ROMULUS_RETURN_IF_ERROR(base::Annotate(vm_state_.Restore(*vm_, outage_ns), "restoring the VM"));
  if (outage_ns > 0) {
    for (const std::unique_ptr<kvm::Vcpu>& vcpu : vcpus_) {
      vcpu->NoteGuestPaused().IgnoreError();  // a guest without kvmclock has no place to note it
    }
  }
  for (devices::Device* device : devices_) {
    ROMULUS_RETURN_IF_ERROR(device->Restore(state));
  }
  return state.ExpectEmpty();
}

// vCPUs were read one after the other; those whose TSCs ran together go on with the latest of the
// values, since one that went on with less could see time that another has seen already go by
// again.
//
// A write of the TSC is not enough: one that is within a second of what KVM expects is taken for an
// attempt to make vCPUs agree, and KVM then keeps its own value (kvm_synchronize_tsc). A machine
// made shortly before its guest booted elsewhere would fall back in time. So the offsets are set,
// where KVM lets us, from one and the same reading.
absl::Status MachineCore::RestoreTscs(uint64_t outage_ns) {
  const uint64_t outage_ticks = outage_ns / 1'000'000 * tsc_khz_;  // both bounded: no overflow
  uint64_t latest = 0;
  for (const std::unique_ptr<VcpuState>& vcpu : states_) latest = std::max(latest, vcpu->tsc());
  const uint64_t together = kTscSyncSeconds * 1000 * tsc_khz_;
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    if (latest - states_[i]->tsc() <= together) states_[i]->set_tsc(latest);
    states_[i]->set_tsc(states_[i]->tsc() + outage_ticks);
    ROMULUS_RETURN_IF_ERROR(vcpus_[i]->SetMsr(kMsrTsc, states_[i]->tsc()));
  }
  if (absl::StatusOr<uint64_t> offset = vcpus_[0]->GetTscOffset(); offset.ok()) {
    ROMULUS_ASSIGN_OR_RETURN(const uint64_t now, vcpus_[0]->GetMsr(kMsrTsc));
    for (size_t i = 0; i < vcpus_.size(); ++i) {
      // Modulo 2^64, as offsets are.
      ROMULUS_RETURN_IF_ERROR(vcpus_[i]->SetTscOffset(*offset + (states_[i]->tsc() - now)));
    }
  }
  ROMULUS_ASSIGN_OR_RETURN(const uint64_t now, vcpus_[0]->GetMsr(kMsrTsc));
  if (now < states_[0]->tsc()) {
    notes_.push_back(absl::StrCat("this host's KVM cannot set the guest's TSC: it is ",
                                  (states_[0]->tsc() - now) / std::max(1u, tsc_khz_),
                                  " ms behind"));
  }
  return absl::OkStatus();
}

absl::Status MachineCore::CheckTscFrequency(uint32_t saved_khz) {
  const uint64_t difference = saved_khz > tsc_khz_ ? saved_khz - tsc_khz_ : tsc_khz_ - saved_khz;
  if (difference * 1'000'000 <= uint64_t{tsc_khz_} * kTscTolerancePpm) return absl::OkStatus();
  if (!system_.capabilities().tsc_control) {
    return absl::FailedPreconditionError(
        absl::StrCat("the guest's TSC runs at ", saved_khz, " kHz, this host's at ", tsc_khz_,
                     " kHz, and KVM here cannot scale it (KVM_CAP_TSC_CONTROL)"));
  }
  for (const std::unique_ptr<kvm::Vcpu>& vcpu : vcpus_) {
    ROMULUS_RETURN_IF_ERROR(vcpu->SetTscKhz(saved_khz));
  }
  tsc_khz_ = saved_khz;
  return absl::OkStatus();
}

}  // namespace romulus::vmm

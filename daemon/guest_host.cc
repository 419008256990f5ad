#include "daemon/guest_host.h"

#include <utility>

#include "base/bytes.h"
#include "base/cond_var.h"
#include "base/status.h"
#include "epoch/log_advice.h"
#include "memory/lock.h"
#include "memory/memory_layout.h"
#include "tracker/bitmap_source.h"
#include "tracker/ring_source.h"

namespace romulus::daemon {
namespace {

std::unique_ptr<tracker::DirtySource> MakeSource(vmm::Machine& machine, vmm::DirtyLogMode mode,
                                                 const GuestHostOptions& options) {
  const memory::MemoryLayout& layout = machine.memory().layout();
  const kvm::Capabilities& host = options.system->capabilities();
  if (mode == vmm::DirtyLogMode::kBitmap) {
    return std::make_unique<tracker::BitmapSource>(&machine.vm(), layout,
                                                   host.manual_dirty_log_protect != 0);
  }
  std::vector<kvm::DirtyRing*> rings;
  for (int vcpu = 0; vcpu < machine.vcpu_count(); ++vcpu) {
    rings.push_back(machine.dirty_ring(vcpu));
  }
  return std::make_unique<tracker::RingSource>(
      &machine.vm(), std::move(rings), layout,
      tracker::RingSourceOptions{
          .steer = options.steer_rings,
          .max_hot_pages = host.pml ? 0 : options.config->tracking().hot_pages()});
}

std::vector<int> VcpuCpus(const romulus::v1::Config& config) {
  return {config.cpus().vcpus().begin(), config.cpus().vcpus().end()};
}

}  // namespace

vmm::DirtyLogMode ChooseDirtyLog(const romulus::v1::Tracking& tracking,
                                 const kvm::Capabilities& capabilities) {
  if (tracking.mode() == romulus::v1::Tracking::MODE_BITMAP) return vmm::DirtyLogMode::kBitmap;
  if (tracking.mode() == romulus::v1::Tracking::MODE_RING) return vmm::DirtyLogMode::kRing;
  return capabilities.max_ring_entries() > 0 ? vmm::DirtyLogMode::kRing
                                             : vmm::DirtyLogMode::kBitmap;
}

epoch::GovernorOptions GovernorFrom(const romulus::v1::Checkpoint& checkpoint) {
  epoch::GovernorOptions governor;
  governor.max_dirty_pages = checkpoint.max_dirty_pages();
  governor.max_interval_ns = uint64_t{checkpoint.max_interval_us()} * 1000;
  governor.min_interval_ns = uint64_t{checkpoint.min_interval_us()} * 1000;
  governor.idle_interval_ns = uint64_t{checkpoint.idle_interval_us()} * 1000;
  return governor;
}

absl::StatusOr<vmm::MachineSpec> GuestHost::Spec() {
  const romulus::v1::Config& config = *options_.config;
  dirty_log_ = ChooseDirtyLog(config.tracking(), options_.system->capabilities());
  vmm::MachineSpec spec;
  spec.vcpu_count = static_cast<int>(config.guest().vcpus());
  spec.memory = memory_;
  spec.dirty_log = dirty_log_;
  spec.ring_entries = config.tracking().ring_entries();
  spec.vcpu_cpus = VcpuCpus(config);
  spec.console = this;
  spec.listener = this;
  spec.throttle = this;
  ROMULUS_ASSIGN_OR_RETURN(spec.cpu_model, arch::ParseCpuModel(config.guest().cpu_model()));
  GuestDeviceEvents events;
  events.on_mac_clash = [to = options_.listener](const std::string& device) {
    to->OnMacClash(device);
  };
  events.on_tap_failure = [to = options_.listener](const std::string& device,
                                                   const absl::Status& why) {
    to->OnTapFailure(device, why);
  };
  ROMULUS_ASSIGN_OR_RETURN(
      devices_,
      GuestDevices::Create(config, options_.disks != nullptr ? *options_.disks : DiskCopies(),
                           *this, std::move(events)));
  devices_->AddTo(spec);
  return spec;
}

absl::StatusOr<std::unique_ptr<GuestHost>> GuestHost::Boot(const GuestHostOptions& options) {
  std::unique_ptr<GuestHost> host(new GuestHost(options));
  const romulus::v1::Guest& guest = options.config->guest();
  ROMULUS_ASSIGN_OR_RETURN(const memory::MemoryLayout layout,
                           memory::MemoryLayout::ForMib(guest.memory_mib()));
  ROMULUS_ASSIGN_OR_RETURN(host->memory_, memory::GuestMemory::Create(layout));
  if (options.config->lock_memory()) ROMULUS_RETURN_IF_ERROR(memory::LockInRam(*host->memory_));
  ROMULUS_ASSIGN_OR_RETURN(vmm::MachineSpec spec, host->Spec());
  spec.boot.kernel_path = guest.kernel();
  spec.boot.initrd_path = guest.initrd();
  spec.boot.command_line = guest.command_line();
  ROMULUS_ASSIGN_OR_RETURN(host->machine_, vmm::Machine::Boot(*options.system, spec));
  ROMULUS_RETURN_IF_ERROR(host->Assemble(/*console_offset=*/0));
  return host;
}

absl::StatusOr<std::unique_ptr<GuestHost>> GuestHost::Prepare(
    const GuestHostOptions& options, std::shared_ptr<memory::GuestMemory> memory,
    std::vector<arch::CpuidEntry> cpuid) {
  std::unique_ptr<GuestHost> host(new GuestHost(options));
  host->memory_ = std::move(memory);
  ROMULUS_ASSIGN_OR_RETURN(vmm::MachineSpec spec, host->Spec());
  spec.cpuid = std::move(cpuid);
  ROMULUS_ASSIGN_OR_RETURN(host->machine_, vmm::Machine::Prepare(*options.system, spec));
  return host;
}

GuestHost::~GuestHost() {
  Stop();
  // A disk that still has writes to do would tell the checkpoint loop that the log is full.
  if (devices_ != nullptr) devices_->StopLoop();
  loop_.reset();
  tracker_.reset();
  guest_.reset();
  machine_.reset();
}

absl::Status GuestHost::Restore(state::MachineState state, uint64_t outage_ns,
                                uint64_t console_offset, const std::string& tail) {
  ROMULUS_RETURN_IF_ERROR(machine_->RestoreState(std::move(state), outage_ns));
  ROMULUS_RETURN_IF_ERROR(Assemble(console_offset));
  gate_->WriteConsole(base::AsBytes(tail));  // the gate is open: it is said at once
  return absl::OkStatus();
}

absl::Status GuestHost::Assemble(uint64_t console_offset) {
  const romulus::v1::Checkpoint& checkpoint = options_.config->checkpoint();
  gate_ = std::make_unique<epoch::OutputGate>(
      epoch::OutputGate::Options{.cap_bytes = uint64_t{checkpoint.held_output_kib()} << 10,
                                 .start_offset = console_offset},
      options_.console);
  ROMULUS_ASSIGN_OR_RETURN(staging_,
                           epoch::StagingPool::Create(uint64_t{checkpoint.staging_mib()} << 20));
  guest_ = std::make_unique<SerialGuest>(machine_.get());
  tracker_ = std::make_unique<tracker::Tracker>(MakeSource(*machine_, dirty_log_, options_),
                                                memory_.get(), /*failpoints=*/nullptr);
  epoch::CheckpointParts parts;
  parts.guest = guest_.get();
  parts.memory = memory_.get();
  parts.tracker = tracker_.get();
  parts.staging = staging_.get();
  parts.gate = gate_.get();
  parts.clock = options_.clock;
  parts.disk_log = devices_->disk_log();
  parts.outputs = devices_->outputs();
  if (const uint64_t pass_s = options_.config->audit().pass_seconds(); pass_s != 0) {
    auditor_ = std::make_unique<epoch::Auditor>(
        memory_.get(), options_.clock, epoch::AuditOptions{.pass_ns = pass_s * 1'000'000'000});
    parts.auditor = auditor_.get();
  }
  const uint64_t disk_pass_s = options_.config->audit().disk_pass_seconds();
  if (disk_pass_s != 0 && devices_->disk_log() != nullptr) {
    audited_disks_ = std::make_unique<AuditedDisks>(*options_.disks);
    disk_auditor_ = std::make_unique<epoch::DiskAuditor>(
        epoch::DiskAuditOptions{.pass_ns = disk_pass_s * 1'000'000'000,
                                .disk_sizes = audited_disks_->sizes()},
        audited_disks_.get(), devices_->disk_log(), options_.clock);
    devices_->disk_log()->SetObserver(disk_auditor_.get());
    parts.disk_auditor = disk_auditor_.get();
  }
  epoch::CheckpointLoopOptions loop;
  loop.governor = GovernorFrom(checkpoint);
  loop.max_unacked_epochs = checkpoint.max_unacked_epochs();
  const auto vcpus = static_cast<int>(options_.config->guest().vcpus());
  const std::vector<int> vcpu_cpus = VcpuCpus(*options_.config);
  loop.spin_ns = epoch::SpinNs(vcpus, vcpu_cpus);
  loop.cut_on_vcpu = true;
  loop.look_on_vcpu = epoch::LookOnVcpu(vcpus, vcpu_cpus);
  loop.copying.helpers = epoch::CopyHelpers(vcpu_cpus);
  loop_ = std::make_unique<epoch::CheckpointLoop>(parts, loop, this);
  gate_->SetOutputWaiting([this] { loop_->OnOutputWaiting(); });
  gate_->SetRoom([this] { OnConsoleRoom(); });
  devices_->SetOutputWaiting([this] { loop_->OnOutputWaiting(); });
  return absl::OkStatus();
}

absl::Status GuestHost::Start() {
  loop_->Start();
  if (disk_auditor_ != nullptr) disk_auditor_->Start();
  ROMULUS_RETURN_IF_ERROR(guest_->SetDirtyLogging(false));
  devices_->Activate();
  return guest_->Start();
}

void GuestHost::Stop() {
  if (loop_ != nullptr) loop_->Stop();
  if (guest_ != nullptr) {
    guest_->Stop();
  } else if (machine_ != nullptr) {
    machine_->Stop();
  }
}

absl::Status GuestHost::SetDirtyLogging(bool enabled) { return guest_->SetDirtyLogging(enabled); }

absl::Status GuestHost::SetPausedByOperator(bool paused) {
  operator_paused_ = paused;
  if (epoch::DiskLog* const log = devices_->disk_log(); log != nullptr) {
    // Else requests that it left in a queue would be done after its last epoch.
    paused ? log->Close() : log->Open();
  }
  if (!paused) {
    machine_->WakeThrottled();
    return absl::OkStatus();
  }
  // One short pause brings every vCPU out; before it runs again it asks MustWait().
  absl::StatusOr<std::unique_ptr<vmm::PausedGuest>> kicked =
      guest_->Pause(vmm::PauseOptions{.capture_state = false});
  return kicked.status();
}

void GuestHost::OnConsoleRoom() {
  if (machine_ != nullptr) machine_->WakeThrottled();
  devices_->OnConsoleRoom();
}

void GuestHost::OpenOutput() {
  gate_->Open();
  for (epoch::HeldOutput* output : devices_->outputs()) output->Open();
}

void GuestHost::HoldOutput() {
  gate_->Hold();
  for (epoch::HeldOutput* output : devices_->outputs()) output->Hold();
}

void GuestHost::DiscardOutput() {
  gate_->Discard();
  for (epoch::HeldOutput* output : devices_->outputs()) output->Discard();
}

bool GuestHost::AwaitOutputGone(absl::Duration timeout) {
  const base::CondVar::Deadline deadline = base::CondVar::After(timeout);
  if (!options_.console->AwaitWritten(timeout)) return false;
  for (epoch::HeldOutput* output : devices_->outputs()) {
    if (!output->AwaitEmitted(base::CondVar::Left(deadline))) return false;
  }
  return true;
}

std::string GuestHost::tracker_name() const {
  return tracker_ == nullptr ? "" : std::string(tracker_->source().name());
}

uint32_t GuestHost::ring_entries() const {
  return dirty_log_ == vmm::DirtyLogMode::kRing ? options_.config->tracking().ring_entries() : 0;
}

std::string GuestHost::BetterTracker(uint64_t pages_per_epoch) const {
  const kvm::Capabilities& host = options_.system->capabilities();
  if (tracker_ == nullptr || pages_per_epoch == 0 || host.max_ring_entries() == 0) return "";
  const epoch::DirtyLog now =
      dirty_log_ == vmm::DirtyLogMode::kRing ? epoch::DirtyLog::kRing : epoch::DirtyLog::kBitmap;
  const epoch::DirtyLog better = epoch::BetterLog(
      {.memory_bytes = memory_->layout().size_bytes(),
       .pages_per_epoch = pages_per_epoch,
       .ring_stops_itself = options_.steer_rings && options_.config->guest().vcpus() == 1},
      now);
  if (better == now) return "";
  if (better == epoch::DirtyLog::kBitmap && host.manual_dirty_log_protect == 0) return "";
  return better == epoch::DirtyLog::kRing ? "ring" : "bitmap";
}

void GuestHost::WriteConsole(std::span<const std::byte> bytes) { gate_->WriteConsole(bytes); }

// The fast console's bytes join the serial port's stream in the order in which they come. All or
// nothing: whoever got nothing saw a cap exceeded, and hears when it no longer is (P6). So the cap
// is overshot by one call's bytes at most, as it is by a vCPU's.
size_t GuestHost::TakeConsole(std::span<const std::byte> bytes) {
  if (gate_->OverCap() || options_.console->OverCap()) return 0;
  gate_->WriteConsole(bytes);
  return bytes.size();
}

void GuestHost::OnDirtyRingFull() { loop_->OnDirtyRingFull(); }
uint64_t GuestHost::NextAlarmNs() { return loop_->NextAlarmNs(); }
void GuestHost::OnAlarm() { loop_->OnAlarm(); }

void GuestHost::OnGuestStopped(vmm::GuestStop reason, const absl::Status& detail) {
  options_.listener->OnGuestStopped(reason, detail);
}

bool GuestHost::MustWait() const {
  return operator_paused_.load(std::memory_order_acquire) ||
         (gate_ != nullptr && gate_->OverCap()) || options_.console->OverCap();
}

void GuestHost::OnCheckpointFailed(EpochId epoch, epoch::CutReason, const absl::Status& why) {
  options_.listener->OnCheckpointFailed(epoch, why);
}

void GuestHost::OnGaveUp(const absl::Status& why) { options_.listener->OnProtectionGaveUp(why); }

}  // namespace romulus::daemon

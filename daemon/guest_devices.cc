#include "daemon/guest_devices.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "devices/virtio/block.h"

namespace romulus::daemon {
namespace {

constexpr uint16_t kColumns = 80;  // what a console without a terminal behind it says
constexpr uint16_t kRows = 25;

std::string BlockName(absl::string_view disk) { return absl::StrCat("virtio.block.", disk); }
std::string NetName(int index) { return absl::StrCat("virtio.net.", index); }
constexpr char kConsoleName[] = "virtio.console";
constexpr char kRngName[] = "virtio.rng";

}  // namespace

std::vector<std::string> VirtioDeviceNames(const romulus::v1::Guest& guest) {
  std::vector<std::string> names;
  for (const romulus::v1::Disk& disk : guest.disks()) names.push_back(BlockName(disk.name()));
  for (int i = 0; i < guest.nics_size(); ++i) names.push_back(NetName(i));
  if (guest.virtio_console()) names.push_back(kConsoleName);
  if (guest.rng()) names.push_back(kRngName);
  return names;
}

absl::StatusOr<std::unique_ptr<GuestDevices>> GuestDevices::Create(
    const romulus::v1::Config& config, const DiskCopies& disks, devices::VirtioConsoleSink& console,
    GuestDeviceEvents events) {
  std::unique_ptr<GuestDevices> devices(new GuestDevices(config, console));
  devices->OpenDisks(disks);
  ROMULUS_RETURN_IF_ERROR(devices->OpenNics(events));
  return devices;
}

GuestDevices::~GuestDevices() {
  loop_.Stop();
  nics_.clear();
  disks_.clear();
}

void GuestDevices::OpenDisks(const DiskCopies& copies) {
  epoch::DiskLog::Options options;
  options.cap_bytes = uint64_t{config_.checkpoint().disk_log_mib()} << 20;
  bool any_replicated = false;
  for (const std::shared_ptr<disk::DiskCopy>& copy : copies) {
    any_replicated |= !copy->spec().read_only;
    options.disk_sizes.push_back(copy->spec().read_only ? 0 : copy->size_bytes());
  }
  if (any_replicated) disk_log_ = std::make_unique<epoch::DiskLog>(options);
  for (const std::shared_ptr<disk::DiskCopy>& copy : copies) {
    Disk& disk = disks_.emplace_back();
    disk.name = copy->spec().name;
    disk.file = std::make_unique<disk::FileDisk>(copy->file(), loop_);
    if (copy->spec().read_only) continue;
    disk.logged =
        std::make_unique<epoch::LoggedDisk>(copy->spec().disk, *disk.file, *disk_log_, loop_);
  }
}

absl::Status GuestDevices::OpenNics(const GuestDeviceEvents& events) {
  for (int i = 0; i < config_.guest().nics_size(); ++i) {
    ROMULUS_ASSIGN_OR_RETURN(const NicOptions options,
                             NicOptionsFrom(config_.guest().nics(i), config_.checkpoint(), i));
    NicEvents of_nic;
    of_nic.on_mac_clash = [name = NetName(i), told = events.on_mac_clash] {
      if (told) told(name);
    };
    of_nic.on_tap_failure = [name = NetName(i),
                             told = events.on_tap_failure](const absl::Status& why) {
      if (told) told(name, why);
    };
    ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<Nic> nic,
                             Nic::Open(options, loop_, std::move(of_nic)));
    outputs_.push_back(&nic->output());
    nics_.push_back(std::move(nic));
  }
  return absl::OkStatus();
}

void GuestDevices::AddTo(vmm::MachineSpec& spec) {
  spec.device_loop = &loop_;
  for (const Disk& disk : disks_) {
    devices::BlockBackend* const backend =
        disk.logged != nullptr ? static_cast<devices::BlockBackend*>(disk.logged.get())
                               : disk.file.get();
    spec.virtio.push_back({BlockName(disk.name), [backend, serial = disk.name] {
                             return std::make_unique<devices::VirtioBlock>(*backend, serial);
                           }});
  }
  for (const std::unique_ptr<Nic>& nic : nics_) spec.virtio.push_back(nic->Spec());
  if (config_.guest().virtio_console()) {
    spec.virtio.push_back({kConsoleName, [this] {
                             auto device = std::make_unique<devices::VirtioConsole>(
                                 console_sink_, kColumns, kRows);
                             console_ = device.get();
                             return device;
                           }});
  }
  if (config_.guest().rng()) {
    spec.virtio.push_back(
        {kRngName, [this] { return std::make_unique<devices::VirtioRng>(entropy_); }});
  }
}

void GuestDevices::Activate() {
  for (const std::unique_ptr<Nic>& nic : nics_) nic->Activate();
}

void GuestDevices::Announce() {
  for (const std::unique_ptr<Nic>& nic : nics_) nic->Announce();
}

void GuestDevices::OnConsoleRoom() {
  if (console_ != nullptr) console_->OnSinkReady();
}

void GuestDevices::SetOutputWaiting(const std::function<void()>& callback) {
  for (const std::unique_ptr<Nic>& nic : nics_) nic->SetOutputWaiting(callback);
  if (disk_log_ != nullptr) disk_log_->SetOnFull(callback);
}

std::vector<metrics::DiskTotals> GuestDevices::disk_totals() const {
  std::vector<metrics::DiskTotals> all;
  for (const Disk& disk : disks_) {
    const disk::FileDiskCounters& of_disk = disk.file->counters();
    all.push_back({.reads = of_disk.reads,
                   .read_bytes = of_disk.read_bytes,
                   .writes = of_disk.writes,
                   .write_bytes = of_disk.write_bytes,
                   .zeroes = of_disk.zeroes,
                   .flushes = of_disk.flushes,
                   .errors = of_disk.errors});
  }
  return all;
}

std::vector<metrics::NicTotals> GuestDevices::nic_totals() const {
  std::vector<metrics::NicTotals> all;
  for (const std::unique_ptr<Nic>& nic : nics_) {
    const NicCounters of_nic = nic->counters();
    all.push_back({.frames_in = of_nic.frames_in,
                   .bytes_in = of_nic.bytes_in,
                   .frames_out = of_nic.frames_out,
                   .bytes_out = of_nic.bytes_out,
                   .dropped_in = of_nic.frames_dropped_in,
                   .dropped_out = of_nic.frames_dropped_out,
                   .bad_frames = of_nic.bad_frames,
                   .mac_clashes = of_nic.mac_clashes,
                   .held_bytes = of_nic.held_bytes,
                   .queued_bytes = of_nic.queued_bytes,
                   .cap_bytes_used = of_nic.cap_bytes_used});
  }
  return all;
}

std::vector<DeviceCounters> GuestDevices::counters() const {
  std::vector<DeviceCounters> all;
  for (const Disk& disk : disks_) {
    const disk::FileDiskCounters& of_disk = disk.file->counters();
    all.push_back({BlockName(disk.name),
                   {{"reads", of_disk.reads},
                    {"read_bytes", of_disk.read_bytes},
                    {"writes", of_disk.writes},
                    {"write_bytes", of_disk.write_bytes},
                    {"zeroes", of_disk.zeroes},
                    {"flushes", of_disk.flushes},
                    {"errors", of_disk.errors}}});
  }
  for (size_t i = 0; i < nics_.size(); ++i) {
    const NicCounters of_nic = nics_[i]->counters();
    all.push_back({NetName(static_cast<int>(i)),
                   {{"frames_out", of_nic.frames_out},
                    {"bytes_out", of_nic.bytes_out},
                    {"frames_in", of_nic.frames_in},
                    {"bytes_in", of_nic.bytes_in},
                    {"held_frames", of_nic.held_frames},
                    {"held_bytes", of_nic.held_bytes},
                    {"queued_bytes", of_nic.queued_bytes},
                    {"frames_dropped_in", of_nic.frames_dropped_in},
                    {"frames_dropped_out", of_nic.frames_dropped_out},
                    {"bad_frames", of_nic.bad_frames},
                    {"mac_clashes", of_nic.mac_clashes},
                    {"frames_announced", of_nic.frames_announced}}});
  }
  return all;
}

}  // namespace romulus::daemon

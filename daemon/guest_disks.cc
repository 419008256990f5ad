#include "daemon/guest_disks.h"

#include <utility>

#include "base/status.h"

namespace romulus::daemon {

absl::StatusOr<DiskCopies> OpenDiskCopies(const romulus::v1::Config& config) {
  DiskCopies copies;
  for (const romulus::v1::Disk& disk : config.guest().disks()) {
    disk::CopySpec spec;
    spec.vm_uuid = config.uuid();
    spec.node = config.node_name();
    spec.disk = static_cast<uint32_t>(copies.size());
    spec.name = disk.name();
    spec.path = disk.path();
    spec.state_dir = disk.state_dir();
    spec.read_only = disk.read_only();
    ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<disk::DiskCopy> copy,
                             disk::DiskCopy::Open(spec, disk::PosixFiles()));
    copies.push_back(std::move(copy));
  }
  return copies;
}

}  // namespace romulus::daemon

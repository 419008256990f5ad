#include "daemon/guest_disks.h"

#include <utility>

#include "base/status.h"

namespace romulus::daemon {

disk::CopySpec CopySpecOf(const romulus::v1::Config& config, int disk) {
  const romulus::v1::Disk& configured = config.guest().disks(disk);
  disk::CopySpec spec;
  spec.vm_uuid = config.uuid();
  spec.node = config.node_name();
  spec.disk = static_cast<uint32_t>(disk);
  spec.name = configured.name();
  spec.path = configured.path();
  spec.state_dir = configured.state_dir();
  spec.read_only = configured.read_only();
  return spec;
}

absl::StatusOr<DiskCopies> OpenDiskCopies(const romulus::v1::Config& config, disk::Files& files) {
  DiskCopies copies;
  for (int i = 0; i < config.guest().disks_size(); ++i) {
    ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<disk::DiskCopy> copy,
                             disk::DiskCopy::Open(CopySpecOf(config, i), files));
    copies.push_back(std::move(copy));
  }
  return copies;
}

}  // namespace romulus::daemon

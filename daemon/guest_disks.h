// The disks that a configuration names, on this node. A function over files; once per process,
// because a disk is locked by whoever opened it.
#ifndef ROMULUS_DAEMON_GUEST_DISKS_H_
#define ROMULUS_DAEMON_GUEST_DISKS_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "disk/copy.h"
#include "romulus/v1/config.pb.h"

namespace romulus::daemon {

// In the order of the configuration. Shared by the guest's devices, which use the file while the
// guest runs here, and by the replica, which does while it does not.
using DiskCopies = std::vector<std::shared_ptr<disk::DiskCopy>>;

disk::CopySpec CopySpecOf(const romulus::v1::Config& config, int disk);
// Opens and locks all of them. Errors: DiskCopy::Open's, which name the file and the remedy.
absl::StatusOr<DiskCopies> OpenDiskCopies(const romulus::v1::Config& config, disk::Files& files);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_GUEST_DISKS_H_

// The guest's disks, as the full sync reads them: the files, and the log of what the guest writes
// to them meanwhile. The sync's thread; shares the copies, borrows the log.
#ifndef ROMULUS_DAEMON_GUEST_DISK_SYNC_H_
#define ROMULUS_DAEMON_GUEST_DISK_SYNC_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "daemon/disk_stamps.h"
#include "epoch/disk_log.h"
#include "wire/disk_sync.h"

namespace romulus::daemon {

class GuestDiskSync final : public wire::DiskSyncSource {
 public:
  // `copies`: those that are replicated.
  GuestDiskSync(DiskCopies copies, epoch::DiskLog* log) : copies_(std::move(copies)), log_(log) {}

  codec::DiskLayout disks() const override;
  absl::Status BeginTracking() override;
  absl::Status Read(uint32_t disk, uint64_t offset_bytes, std::span<std::byte> into) override;
  absl::StatusOr<wire::DiskRange> NextData(uint32_t disk, uint64_t offset_bytes) override;
  absl::StatusOr<std::vector<wire::DiskRange>> TakeDirty(uint32_t disk) override;
  absl::Status SwitchToLogging() override;

 private:
  // Errors: NotFound.
  absl::StatusOr<disk::DiskCopy*> Find(uint32_t disk) const;

  const DiskCopies copies_;
  epoch::DiskLog* const log_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_GUEST_DISK_SYNC_H_

#include "daemon/guest_disk_sync.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::daemon {
namespace {

// A disk that does not end a write for so long is broken: the sync is given up, the guest goes on.
constexpr absl::Duration kWriteTimeout = absl::Seconds(60);

}  // namespace

absl::StatusOr<disk::DiskCopy*> GuestDiskSync::Find(uint32_t disk) const {
  for (const auto& copy : copies_) {
    if (copy->spec().disk == disk) return copy.get();
  }
  return absl::NotFoundError(absl::StrCat("disk ", disk, " is not replicated"));
}

codec::DiskLayout GuestDiskSync::disks() const {
  codec::DiskLayout layout;
  for (const auto& copy : copies_) layout.push_back({copy->spec().disk, copy->size_bytes()});
  return layout;
}

absl::Status GuestDiskSync::BeginTracking() {
  log_->BeginTracking();
  return absl::OkStatus();
}

absl::Status GuestDiskSync::Read(uint32_t disk, uint64_t offset_bytes, std::span<std::byte> into) {
  ROMULUS_ASSIGN_OR_RETURN(disk::DiskCopy* const copy, Find(disk));
  return copy->file()->Read(offset_bytes, into);
}

absl::StatusOr<wire::DiskRange> GuestDiskSync::NextData(uint32_t disk, uint64_t offset_bytes) {
  ROMULUS_ASSIGN_OR_RETURN(disk::DiskCopy* const copy, Find(disk));
  ROMULUS_ASSIGN_OR_RETURN(const disk::Extent data, copy->file()->NextData(offset_bytes));
  if (data.size_bytes == 0) return wire::DiskRange{copy->size_bytes(), copy->size_bytes()};
  return wire::DiskRange{data.offset_bytes, data.offset_bytes + data.size_bytes};
}

absl::StatusOr<std::vector<wire::DiskRange>> GuestDiskSync::TakeDirty(uint32_t disk) {
  ROMULUS_ASSIGN_OR_RETURN(disk::DiskCopy* const copy, Find(disk));
  std::vector<wire::DiskRange> ranges;
  for (const epoch::DiskBlockRange& blocks : log_->TakeDirtyBlocks(disk)) {
    ranges.push_back(
        {blocks.first * codec::kDiskBlockBytes,
         std::min(copy->size_bytes(), (blocks.first + blocks.count) * codec::kDiskBlockBytes)});
  }
  return ranges;
}

absl::Status GuestDiskSync::SwitchToLogging() {
  ROMULUS_RETURN_IF_ERROR(log_->SwitchToLogging());
  return base::Annotate(log_->AwaitUnlogged(kWriteTimeout), "waiting for the guest's disk writes");
}

}  // namespace romulus::daemon

// Stamps as messages, for those who print them or get them from another node. Any thread.
#ifndef ROMULUS_DISK_STAMP_PROTO_H_
#define ROMULUS_DISK_STAMP_PROTO_H_

#include "absl/status/statusor.h"
#include "disk/stamp.h"
#include "romulus/v1/disk_stamp.pb.h"

namespace romulus::disk {

v1::DiskStamp MessageOf(const Stamp& stamp);
// Of anybody's message. Errors: as ParseStamp().
absl::StatusOr<Stamp> StampOf(const v1::DiskStamp& message);

}  // namespace romulus::disk

#endif  // ROMULUS_DISK_STAMP_PROTO_H_

// The guest's disks, as the audit reads them: the files, past the guest. Any thread; shares the
// copies.
#ifndef ROMULUS_DAEMON_AUDITED_DISKS_H_
#define ROMULUS_DAEMON_AUDITED_DISKS_H_

#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "daemon/guest_disks.h"
#include "epoch/disk_auditor.h"

namespace romulus::daemon {

class AuditedDisks final : public epoch::DiskBlockSource {
 public:
  // `copies`: by their index in the configuration.
  explicit AuditedDisks(DiskCopies copies) : copies_(std::move(copies)) {}

  absl::StatusOr<epoch::DiskHash> Hash(const epoch::DiskBlock& block) override;
  absl::StatusOr<std::vector<std::byte>> Read(const epoch::DiskBlock& block) override;

  // 0 for one that is not replicated.
  std::vector<uint64_t> sizes() const;

 private:
  const DiskCopies copies_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_AUDITED_DISKS_H_

#include "daemon/audited_disks.h"

#include <algorithm>

#include "base/status.h"
#include "replica/audit.h"

namespace romulus::daemon {

absl::StatusOr<epoch::DiskHash> AuditedDisks::Hash(const epoch::DiskBlock& block) {
  return replica::HashFileBlock(*copies_.at(block.disk)->file(), block.block);
}

absl::StatusOr<std::vector<std::byte>> AuditedDisks::Read(const epoch::DiskBlock& block) {
  disk::DiskCopy& copy = *copies_.at(block.disk);
  const uint64_t begin = block.offset_bytes();
  std::vector<std::byte> bytes(std::min(epoch::kDiskBlockBytes, copy.size_bytes() - begin));
  ROMULUS_RETURN_IF_ERROR(copy.file()->Read(begin, bytes));
  return bytes;
}

std::vector<uint64_t> AuditedDisks::sizes() const {
  std::vector<uint64_t> sizes;
  for (const auto& copy : copies_) {
    sizes.push_back(copy->spec().read_only ? 0 : copy->size_bytes());
  }
  return sizes;
}

}  // namespace romulus::daemon

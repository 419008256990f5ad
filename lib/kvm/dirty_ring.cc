#include "kvm/dirty_ring.h"

#include <bit>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "base/types.h"

namespace romulus::kvm {

DirtyRing::DirtyRing(std::span<std::byte> memory, uint32_t entries, uint32_t soft_limit)
    // SAFETY: the size is checked below; a dirty_gfn is a trivially copyable kernel struct.
    : ring_(reinterpret_cast<kvm_dirty_gfn*>(memory.data())),
      entries_(entries),
      soft_limit_(soft_limit) {
  ROMULUS_CHECK(std::has_single_bit(entries));
  ROMULUS_CHECK(memory.size() >= uint64_t{entries} * sizeof(kvm_dirty_gfn));
}

DirtyRing::DirtyRing(base::MappedRegion mapping, uint32_t entries, uint32_t soft_limit)
    : DirtyRing(mapping.bytes(), entries, soft_limit) {
  mapping_ = std::move(mapping);
}

absl::StatusOr<DirtyRing> DirtyRing::Map(int vcpu_fd, uint32_t entries, uint32_t soft_limit) {
  absl::StatusOr<base::MappedRegion> mapping =
      base::MappedRegion::MapShared(vcpu_fd, uint64_t{KVM_DIRTY_LOG_PAGE_OFFSET} * kPageSize,
                                    size_t{entries} * sizeof(kvm_dirty_gfn));
  if (!mapping.ok()) return base::Annotate(mapping.status(), "mapping a dirty ring");
  return DirtyRing(*std::move(mapping), entries, soft_limit);
}

}  // namespace romulus::kvm

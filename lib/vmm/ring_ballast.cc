#include "vmm/ring_ballast.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>

#include "base/status.h"
#include "base/types.h"

namespace romulus::vmm {
namespace {

// Documentation/virt/kvm/x86/msr.rst: address of a struct pvclock_wall_clock, which KVM fills in
// whenever this is written. One for the VM; 0: none.
constexpr uint32_t kMsrWallClock = 0x4b564d00;
constexpr uint64_t kWallClockBytes = 12;
constexpr uint32_t kEntriesPerWrite = 3;  // version odd, time, version even
// KVM_SET_MSRS takes fewer than 256 (MAX_IO_MSRS).
constexpr uint32_t kWritesPerCall = 255;

// Bytes of guest memory, put back when this ends: as many as there are at `gpa`.
class Preserved {
 public:
  Preserved(memory::GuestMemory& memory, Gpa gpa) {
    for (uint64_t size = kWallClockBytes; size > 0 && bytes_.empty(); --size) {
      if (auto span = memory.WritableSpan(gpa, size); span.ok()) bytes_ = *span;
    }
    std::copy(bytes_.begin(), bytes_.end(), saved_.begin());
  }
  ~Preserved() { std::copy_n(saved_.begin(), bytes_.size(), bytes_.begin()); }
  Preserved(const Preserved&) = delete;
  Preserved& operator=(const Preserved&) = delete;

 private:
  std::span<std::byte> bytes_;
  std::array<std::byte, kWallClockBytes> saved_{};
};

absl::Status WriteWallClock(kvm::Vcpu& vcpu, Gpa where, uint32_t times) {
  kvm::MsrsStruct msrs(times);
  msrs.header().nmsrs = times;
  for (kvm_msr_entry& entry : msrs.entries()) {
    entry.index = kMsrWallClock;
    entry.data = where.value();
  }
  ROMULUS_ASSIGN_OR_RETURN(const size_t written, vcpu.SetMsrs(msrs));
  if (written != times) return absl::UnimplementedError("KVM takes no MSR_KVM_WALL_CLOCK_NEW");
  return absl::OkStatus();
}

// Whatever waits in the ring is outstanding then. What is not ballast KVM wrote just now, as no
// vCPU runs: as if the VMM had.
void KeepEntries(kvm::DirtyRing& ring, memory::GuestMemory& memory, std::span<const Gfn> ballast) {
  ring.Harvest([&](uint32_t slot, uint64_t offset_pages) {
    const auto& regions = memory.layout().regions();
    if (slot >= regions.size()) return;
    const Gfn gfn(GfnOf(regions[slot].gpa).value() + offset_pages);
    if (std::find(ballast.begin(), ballast.end(), gfn) != ballast.end()) return;
    memory.MarkWritten(GpaOf(gfn), 1).IgnoreError();  // no such page: nothing to mark
  });
}

}  // namespace

absl::Status FillRing(kvm::Vcpu& vcpu, memory::GuestMemory& memory) {
  kvm::DirtyRing& ring = *vcpu.dirty_ring();
  const absl::StatusOr<uint64_t> before = vcpu.GetMsr(kMsrWallClock);
  if (!before.ok()) return base::Annotate(before.status(), "MSR_KVM_WALL_CLOCK_NEW");
  const Gpa scratch = GpaOf(memory.layout().GfnAt(1));
  const std::array ballast = {GfnOf(scratch), GfnOf(Gpa(*before)),
                              GfnOf(Gpa(*before + kWallClockBytes - 1))};
  const Preserved scratch_bytes(memory, scratch);
  const Preserved wall_clock(memory, Gpa(*before));
  absl::Status filled;
  while (filled.ok() && ring.outstanding() < ring.soft_limit()) {
    const uint32_t outstanding = ring.outstanding();
    const uint32_t missing = ring.soft_limit() - outstanding;
    filled = WriteWallClock(
        vcpu, scratch,
        std::min((missing + kEntriesPerWrite - 1) / kEntriesPerWrite, kWritesPerCall));
    KeepEntries(ring, memory, ballast);
    if (filled.ok() && ring.outstanding() == outstanding) {
      filled = absl::UnimplementedError("KVM logs no page that it writes itself");
    }
  }
  // In any case: the MSR is part of the guest's state.
  filled.Update(WriteWallClock(vcpu, Gpa(*before), 1));
  KeepEntries(ring, memory, ballast);
  return filled;
}

}  // namespace romulus::vmm

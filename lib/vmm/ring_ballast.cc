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

// Bytes of guest memory, put back when this ends. None if there is no memory at `gpa`: KVM writes
// nothing there either.
class Preserved {
 public:
  Preserved(memory::GuestMemory& memory, Gpa gpa) {
    absl::StatusOr<std::span<std::byte>> span = memory.WritableSpan(gpa, kWallClockBytes);
    if (!span.ok()) return;
    bytes_ = *span;
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

void KeepEntries(kvm::DirtyRing& ring) {
  ring.Harvest([](uint32_t, uint64_t) {});
}

}  // namespace

absl::Status FillRing(kvm::Vcpu& vcpu, memory::GuestMemory& memory) {
  kvm::DirtyRing& ring = *vcpu.dirty_ring();
  KeepEntries(ring);
  const Gpa scratch = GpaOf(memory.layout().GfnAt(1));
  const absl::StatusOr<uint64_t> before = vcpu.GetMsr(kMsrWallClock);
  if (!before.ok()) return base::Annotate(before.status(), "MSR_KVM_WALL_CLOCK_NEW");
  const Preserved scratch_bytes(memory, scratch);
  const Preserved wall_clock(memory, Gpa(*before));
  while (ring.outstanding() < ring.soft_limit()) {
    const uint32_t outstanding = ring.outstanding();
    const uint32_t missing = ring.soft_limit() - outstanding;
    ROMULUS_RETURN_IF_ERROR(WriteWallClock(
        vcpu, scratch,
        std::min((missing + kEntriesPerWrite - 1) / kEntriesPerWrite, kWritesPerCall)));
    KeepEntries(ring);
    if (ring.outstanding() == outstanding) {
      return absl::UnimplementedError("KVM logs no page that it writes itself");
    }
  }
  ROMULUS_RETURN_IF_ERROR(WriteWallClock(vcpu, Gpa(*before), 1));
  KeepEntries(ring);
  return absl::OkStatus();
}

}  // namespace romulus::vmm

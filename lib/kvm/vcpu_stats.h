// Counters that KVM keeps of one vCPU's exits (KVM_GET_STATS_FD: Documentation/virt/kvm/api.rst,
// 4.133). Reading them is a pread() of a file, which does not load the vCPU, as any ioctl on it
// does. Owns its descriptor; any thread.
#ifndef ROMULUS_KVM_VCPU_STATS_H_
#define ROMULUS_KVM_VCPU_STATS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "base/unique_fd.h"

namespace romulus::kvm {

// Since the vCPU was made.
struct VcpuExits {
  uint64_t all = 0;          // "exits"
  uint64_t page_faults = 0;  // "pf_taken": the guest touched a page that KVM had to see to
  uint64_t interrupts = 0;   // "irq_exits": an interrupt of the host
  uint64_t emulated = 0;     // "insn_emulation": instructions that KVM's emulator was asked to do
};

class VcpuStats {
 public:
  // Errors: of the ioctl and pread; Unimplemented if this KVM lacks one of the counters.
  static absl::StatusOr<VcpuStats> Open(int vcpu_fd);

  absl::StatusOr<VcpuExits> Read() const;

 private:
  static constexpr size_t kCounters = 4;

  VcpuStats(base::UniqueFd fd, uint64_t data_offset, std::array<uint32_t, kCounters> offsets,
            size_t bytes)
      : fd_(std::move(fd)), data_offset_(data_offset), offsets_(offsets), bytes_(bytes) {}

  base::UniqueFd fd_;
  uint64_t data_offset_;                     // in the file
  std::array<uint32_t, kCounters> offsets_;  // of the counters, in the data
  size_t bytes_;                             // up to the end of the last of them
};

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_VCPU_STATS_H_

// Puts a kernel, its initrd and its command line into guest memory, and says with which registers
// the boot processor starts. Two kinds of kernel:
//   - PVH ELF (32 or 64 bit, Xen note 18): https://xenbits.xen.org/docs/unstable/misc/pvh.html
//   - Linux bzImage, boot protocol >= 2.12, entered at its 64-bit entry point:
//     https://docs.kernel.org/arch/x86/boot.html#id1
// The images are hostile: every offset and size is checked, errors name the file and the reason.
// Free functions over values; one thread per memory. Everything written is marked in the write log.
#ifndef ROMULUS_ARCH_BOOT_H_
#define ROMULUS_ARCH_BOOT_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "arch/image.h"
#include "memory/guest_memory.h"

namespace romulus::arch {

enum class KernelKind { kPvhElf, kLinuxBzImage };

struct BootSpec {
  std::string kernel_path;
  std::string initrd_path;  // empty: none
  std::string command_line;
};

// As KVM's struct kvm_segment, field by field.
struct SegmentState {
  uint64_t base = 0;
  uint32_t limit = 0;
  uint16_t selector = 0;
  uint8_t type = 0;
  bool present = false;
  uint8_t dpl = 0;
  bool db = false;
  bool s = false;  // code or data, not system
  bool l = false;
  bool g = false;
  bool avl = false;
};

// What differs from the state after reset. vmm reads the vCPU's sregs, overwrites these fields (ds
// also goes into es, fs, gs and ss; ldt and idt stay) and sets regs with everything else zero.
struct BootRegisters {
  uint64_t rip = 0;
  uint64_t rflags = 2;
  uint64_t rbx = 0;  // PVH: hvm_start_info
  uint64_t rsi = 0;  // Linux: boot_params
  uint64_t cr0 = 0;
  uint64_t cr3 = 0;
  uint64_t cr4 = 0;
  uint64_t efer = 0;
  SegmentState cs;
  SegmentState data;  // ds, es, fs, gs, ss
  SegmentState tr;
  uint64_t gdt_base = 0;
  uint16_t gdt_limit = 0;
};

struct BootPlan {
  KernelKind kind = KernelKind::kPvhElf;
  BootRegisters registers;
  uint64_t kernel_start = 0;  // guest physical, [start, end)
  uint64_t kernel_end = 0;
  uint64_t initrd_start = 0;  // 0: none
  uint64_t initrd_size_bytes = 0;
};

struct MsrValue {
  uint32_t index = 0;
  uint64_t value = 0;
};

// MSRs that firmware would have set, for every vCPU before it first runs. KVM of some hosts knows
// not all of them: one that KVM_SET_MSRS refuses is skipped.
std::span<const MsrValue> BootMsrs();

// Loads everything but the ACPI tables (acpi.h), which must be, or come to be, at kAcpiRsdp.
// `memory` must be fresh: all zero, nothing is cleared.
// Errors: NotFound/PermissionDenied (path named); InvalidArgument for a bad image or command line;
// ResourceExhausted when kernel and initrd do not fit into memory.
absl::StatusOr<BootPlan> LoadKernel(memory::GuestMemory& memory, const BootSpec& spec);

// The same from images already open; `initrd` may be null.
absl::StatusOr<BootPlan> LoadKernelImages(memory::GuestMemory& memory, const Image& kernel,
                                          const Image* initrd, absl::string_view command_line);

}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_BOOT_H_

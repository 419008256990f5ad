// The boot processor's first state: the descriptors and page tables in guest memory and the
// registers that point at them. One thread per memory.
#ifndef ROMULUS_ARCH_BOOT_CPU_H_
#define ROMULUS_ARCH_BOOT_CPU_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "arch/boot.h"
#include "memory/guest_memory.h"

namespace romulus::arch {

// 32-bit protected mode, flat, paging off; ebx = start_info. Writes the GDT.
absl::StatusOr<BootRegisters> PreparePvhCpu(memory::GuestMemory& memory, uint64_t entry,
                                            uint64_t start_info);

// 64-bit mode, the first 4 GiB mapped one to one; rsi = boot_params. Writes GDT and page tables.
absl::StatusOr<BootRegisters> PrepareLinuxCpu(memory::GuestMemory& memory, uint64_t entry,
                                              uint64_t boot_params);

// The segment as a descriptor table holds it (Intel SDM vol. 3A, 3.4.5).
uint64_t EncodeDescriptor(const SegmentState& segment);

}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_BOOT_CPU_H_

#include "arch/boot_cpu.h"

#include <array>

#include "arch/memory_map.h"
#include "base/status.h"

namespace romulus::arch {
namespace {

// Linux asks for these two selectors (__BOOT_CS, __BOOT_DS); PVH leaves them free.
constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;
constexpr uint16_t kTssSelector = 0x20;

constexpr uint64_t kCr0ProtectedMode = 1u << 0;
constexpr uint64_t kCr0ExtensionType = 1u << 4;  // hard-wired to 1
constexpr uint64_t kCr0NumericError = 1u << 5;
constexpr uint64_t kCr0Paging = 1u << 31;
constexpr uint64_t kCr4Pae = 1u << 5;
constexpr uint64_t kEferLongModeEnable = 1u << 8;
constexpr uint64_t kEferLongModeActive = 1u << 10;

constexpr uint8_t kTypeCode = 0xb;  // execute, read, accessed
constexpr uint8_t kTypeData = 0x3;  // read, write, accessed
constexpr uint8_t kTypeBusyTss = 0xb;

constexpr uint64_t kPagePresent = 1u << 0;
constexpr uint64_t kPageWritable = 1u << 1;
constexpr uint64_t kPageLarge = 1u << 7;
constexpr uint64_t kLargePageBytes = 2u << 20;
constexpr size_t kTableEntries = 512;
using PageTable = std::array<uint64_t, kTableEntries>;

SegmentState FlatSegment(uint16_t selector, uint8_t type) {
  return {.limit = 0xffffffff,
          .selector = selector,
          .type = type,
          .present = true,
          .s = true,
          .g = true};
}

// CS, data and TR as registers, and the GDT that holds the same.
absl::StatusOr<BootRegisters> PrepareSegments(memory::GuestMemory& memory, bool long_mode) {
  BootRegisters registers;
  registers.cs = FlatSegment(kCodeSelector, kTypeCode);
  registers.cs.l = long_mode;
  registers.cs.db = !long_mode;
  registers.data = FlatSegment(kDataSelector, kTypeData);
  registers.data.db = true;
  registers.tr = {.limit = 0x67, .selector = kTssSelector, .type = kTypeBusyTss, .present = true};

  std::array<uint64_t, 6> gdt{};  // the last entry is the upper half of a 64-bit TSS descriptor
  gdt[kCodeSelector / 8] = EncodeDescriptor(registers.cs);
  gdt[kDataSelector / 8] = EncodeDescriptor(registers.data);
  gdt[kTssSelector / 8] = EncodeDescriptor(registers.tr);
  static_assert(sizeof(gdt) <= kGdt.size_bytes);
  ROMULUS_RETURN_IF_ERROR(memory.WriteObject(Gpa(kGdt.start), gdt));
  registers.gdt_base = kGdt.start;
  registers.gdt_limit = sizeof(gdt) - 1;
  return registers;
}

absl::Status WriteIdentityMap(memory::GuestMemory& memory) {
  constexpr uint64_t kPml4 = kPageTables.start;
  constexpr uint64_t kPdpt = kPml4 + kPageSize;
  constexpr uint64_t kDirectories = kPdpt + kPageSize;
  constexpr uint64_t kDirectoryCount = 4;  // 1 GiB each
  static_assert(kDirectories + kDirectoryCount * kPageSize == kPageTables.end());

  PageTable table{};
  table[0] = kPdpt | kPagePresent | kPageWritable;
  ROMULUS_RETURN_IF_ERROR(memory.WriteObject(Gpa(kPml4), table));
  table = {};
  for (uint64_t i = 0; i < kDirectoryCount; ++i) {
    table[i] = (kDirectories + i * kPageSize) | kPagePresent | kPageWritable;
  }
  ROMULUS_RETURN_IF_ERROR(memory.WriteObject(Gpa(kPdpt), table));
  for (uint64_t i = 0; i < kDirectoryCount; ++i) {
    for (uint64_t j = 0; j < kTableEntries; ++j) {
      table[j] =
          (i * kTableEntries + j) * kLargePageBytes | kPagePresent | kPageWritable | kPageLarge;
    }
    ROMULUS_RETURN_IF_ERROR(memory.WriteObject(Gpa(kDirectories + i * kPageSize), table));
  }
  return absl::OkStatus();
}

}  // namespace

uint64_t EncodeDescriptor(const SegmentState& segment) {
  const uint64_t limit = segment.g ? segment.limit >> 12 : segment.limit;
  uint64_t descriptor = limit & 0xffff;
  descriptor |= (segment.base & 0xffffff) << 16;
  descriptor |= uint64_t{segment.type} << 40;
  descriptor |= uint64_t{segment.s} << 44;
  descriptor |= uint64_t{segment.dpl} << 45;
  descriptor |= uint64_t{segment.present} << 47;
  descriptor |= ((limit >> 16) & 0xf) << 48;
  descriptor |= uint64_t{segment.avl} << 52;
  descriptor |= uint64_t{segment.l} << 53;
  descriptor |= uint64_t{segment.db} << 54;
  descriptor |= uint64_t{segment.g} << 55;
  descriptor |= ((segment.base >> 24) & 0xff) << 56;
  return descriptor;
}

absl::StatusOr<BootRegisters> PreparePvhCpu(memory::GuestMemory& memory, uint64_t entry,
                                            uint64_t start_info) {
  ROMULUS_ASSIGN_OR_RETURN(BootRegisters registers, PrepareSegments(memory, /*long_mode=*/false));
  registers.rip = entry;
  registers.rbx = start_info;
  registers.cr0 = kCr0ProtectedMode | kCr0ExtensionType;
  return registers;
}

absl::StatusOr<BootRegisters> PrepareLinuxCpu(memory::GuestMemory& memory, uint64_t entry,
                                              uint64_t boot_params) {
  ROMULUS_ASSIGN_OR_RETURN(BootRegisters registers, PrepareSegments(memory, /*long_mode=*/true));
  ROMULUS_RETURN_IF_ERROR(WriteIdentityMap(memory));
  registers.rip = entry;
  registers.rsi = boot_params;
  registers.cr0 = kCr0ProtectedMode | kCr0ExtensionType | kCr0NumericError | kCr0Paging;
  registers.cr3 = kPageTables.start;
  registers.cr4 = kCr4Pae;
  registers.efer = kEferLongModeEnable | kEferLongModeActive;
  return registers;
}

}  // namespace romulus::arch

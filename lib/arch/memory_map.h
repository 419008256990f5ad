// Every guest physical address and port that Romulus chooses, in one table; static_asserts below
// keep the pieces apart. A value; any thread.
//
//   0x0000_1000  GDT                        0x000e_0000  ACPI tables (RSDP first)
//   0x0000_2000  PVH start info             0x0010_0000  kernel, then free RAM, initrd at its end
//   0x0000_3000  Linux boot_params          0xc000_0000  hole: virtio-mmio, IOAPIC, LAPIC, KVM
//   pages 0x0000_9000  page tables                0x1_0000_0000  RAM beyond 3 GiB 0x0002_0000
//   command line
#ifndef ROMULUS_ARCH_MEMORY_MAP_H_
#define ROMULUS_ARCH_MEMORY_MAP_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "memory/memory_layout.h"

namespace romulus::arch {

// [start, start + size_bytes) of guest physical addresses.
struct AddressRange {
  uint64_t start = 0;
  uint64_t size_bytes = 0;

  constexpr uint64_t end() const { return start + size_bytes; }
  constexpr bool Overlaps(const AddressRange& other) const {
    return start < other.end() && other.start < end();
  }
  friend constexpr bool operator==(const AddressRange&, const AddressRange&) = default;
};

inline constexpr int kMaxVcpus = 8;

// --- RAM that the loader writes ----------------------------------------------------------------
inline constexpr AddressRange kGdt{0x1000, 0x1000};
inline constexpr AddressRange kPvhStartInfo{0x2000, 0x1000};  // start info, modules, memory map
inline constexpr AddressRange kLinuxBootParams{0x3000, 0x1000};
// PML4, PDPT and four page directories: the first 4 GiB, one to one, in 2 MiB pages.
inline constexpr AddressRange kPageTables{0x9000, 0x6000};
inline constexpr AddressRange kCommandLine{0x20000, 0x10000};
// Where a PC keeps its EBDA and video memory: RAM to KVM, reserved to the guest.
inline constexpr AddressRange kLegacyReserved{0x9fc00, 0xe0000 - 0x9fc00};
// In the area that a guest without a pointer searches for the RSDP (ACPI 6.4, 5.2.5.1).
inline constexpr AddressRange kAcpiTables{0xe0000, 0x20000};
inline constexpr uint64_t kAcpiRsdp = kAcpiTables.start;
// First byte that a kernel image may occupy.
inline constexpr uint64_t kHighMemoryStart = 0x100000;

// --- the hole below 4 GiB ----------------------------------------------------------------------
inline constexpr int kMaxVirtioDevices = 8;
inline constexpr uint64_t kVirtioWindowBytes = 0x1000;
inline constexpr AddressRange kVirtioMmio{0xd0000000, kMaxVirtioDevices* kVirtioWindowBytes};
inline constexpr AddressRange kIoApic{0xfec00000, 0x1000};
inline constexpr AddressRange kLocalApic{0xfee00000, 0x1000};
// For KVM_SET_IDENTITY_MAP_ADDR (one page) and KVM_SET_TSS_ADDR (three); only some Intel CPUs use
// them.
inline constexpr AddressRange kKvmIdentityMap{0xfffbc000, 0x1000};
inline constexpr AddressRange kKvmTss{0xfffbd000, 0x3000};

// --- interrupts (GSIs) -------------------------------------------------------------------------
inline constexpr uint32_t kSerialGsi = 4;
inline constexpr uint32_t kRtcGsi = 8;
inline constexpr uint32_t kSciGsi = 9;
inline constexpr uint32_t kVirtioFirstGsi = 16;  // the IOAPIC's pins beyond the PIC's: one each
inline constexpr uint32_t kIoApicPins = 24;
inline constexpr uint8_t kIoApicId = 0xf;  // none of the vCPUs' APIC ids

constexpr uint64_t VirtioWindow(int device) {
  return kVirtioMmio.start + static_cast<uint64_t>(device) * kVirtioWindowBytes;
}
constexpr uint32_t VirtioGsi(int device) { return kVirtioFirstGsi + static_cast<uint32_t>(device); }

// --- ports -------------------------------------------------------------------------------------
inline constexpr AddressRange kSerialPorts{0x3f8, 8};
inline constexpr AddressRange kCmosPorts{0x70, 2};
inline constexpr AddressRange kKeyboardDataPort{0x60, 1};
inline constexpr AddressRange kKeyboardCommandPort{0x64, 1};
inline constexpr AddressRange kResetPort{0xcf9, 1};
// PM1a event block (4), then PM1a control (2): see acpi.h.
inline constexpr AddressRange kPmPorts{0x600, 8};
inline constexpr uint16_t kPm1aEventPort = 0x600;
inline constexpr uint16_t kPm1aControlPort = 0x604;

namespace internal {

template <size_t N>
constexpr bool Apart(const std::array<AddressRange, N>& ranges) {
  for (size_t i = 0; i < N; ++i) {
    for (size_t j = i + 1; j < N; ++j) {
      if (ranges[i].Overlaps(ranges[j])) return false;
    }
  }
  return true;
}

template <size_t N>
constexpr bool Within(const std::array<AddressRange, N>& ranges, AddressRange limits) {
  for (const AddressRange& range : ranges) {
    if (range.start < limits.start || range.end() > limits.end()) return false;
  }
  return true;
}

inline constexpr std::array kLowRam{kGdt,         kPvhStartInfo,   kLinuxBootParams, kPageTables,
                                    kCommandLine, kLegacyReserved, kAcpiTables};
inline constexpr std::array kHole{kVirtioMmio, kIoApic, kLocalApic, kKvmIdentityMap, kKvmTss};
// 0x20-0x21, 0x40-0x43, 0x61 and 0xa0-0xa1 belong to KVM's PIC and PIT.
inline constexpr std::array kPorts{kSerialPorts,
                                   kCmosPorts,
                                   kKeyboardDataPort,
                                   kKeyboardCommandPort,
                                   kResetPort,
                                   kPmPorts,
                                   AddressRange{0x20, 2},
                                   AddressRange{0x40, 4},
                                   AddressRange{0x61, 1},
                                   AddressRange{0xa0, 2}};

static_assert(Apart(kLowRam), "the loader's areas overlap");
static_assert(Within(kLowRam, {0x1000, kHighMemoryStart - 0x1000}), "page 0 stays empty");
static_assert(Apart(kHole), "MMIO windows overlap");
static_assert(Within(kHole, {memory::kHoleStart, memory::kHoleEnd - memory::kHoleStart}),
              "an MMIO window lies over RAM");
static_assert(Apart(kPorts), "port ranges overlap");
static_assert(kVirtioFirstGsi + kMaxVirtioDevices <= kIoApicPins, "more devices than IOAPIC pins");
static_assert(kIoApicId >= kMaxVcpus, "the IOAPIC's id is a vCPU's");
static_assert(memory::kMinMemoryMib << 20 > kHighMemoryStart, "no room for a kernel");

}  // namespace internal
}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_MEMORY_MAP_H_

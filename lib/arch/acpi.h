// The ACPI tables of the machine: RSDP, XSDT, FADT, FACS, MADT, DSDT. Stock kernels without MP
// tables learn of CPUs, IOAPIC, poweroff and virtio-mmio devices only here.
//
// Classic ACPI, not hardware-reduced: Linux drops the PIC and the PIT's timer interrupt on a
// hardware-reduced machine, and this machine has both. Its fixed registers are the PM1a blocks, and
// a power-off is SLP_TYP 0 with SLP_EN (0x2000) written to port 0x604, as on QEMU's PIIX4. Spec:
// https://uefi.org/specs/ACPI/6.4/ . Pure functions; one thread per memory.
#ifndef ROMULUS_ARCH_ACPI_H_
#define ROMULUS_ARCH_ACPI_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "memory/guest_memory.h"

namespace romulus::arch {

struct VirtioMmioNode {
  uint64_t window = 0;  // guest physical, below 4 GiB
  uint32_t window_bytes = 0;
  uint32_t gsi = 0;  // level triggered, active high
};

struct AcpiSpec {
  int vcpu_count = 1;
  std::vector<VirtioMmioNode> virtio;  // \_SB.VR00, VR01, ... in this order
};

// The tables as they lie from kAcpiTables.start on; the RSDP is at offset 0.
// Errors: InvalidArgument for a spec out of range; ResourceExhausted beyond kAcpiTables.
absl::StatusOr<std::string> BuildAcpiTables(const AcpiSpec& spec);

// Builds them and writes them into guest memory.
absl::Status WriteAcpiTables(memory::GuestMemory& memory, const AcpiSpec& spec);

}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_ACPI_H_

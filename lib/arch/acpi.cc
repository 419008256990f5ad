#include "arch/acpi.h"

#include <cstring>
#include <limits>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "arch/aml.h"
#include "arch/memory_map.h"
#include "base/bytes.h"
#include "base/status.h"

namespace romulus::arch {
namespace {

constexpr char kOemId[] = "ROMULS";
constexpr char kOemTableId[] = "ROMULUS ";
constexpr uint64_t kTableAlignment = 64;  // FACS needs 64; the others do not mind

#pragma pack(push, 1)

// ACPI 6.4, 5.2.6
struct TableHeader {
  char signature[4];
  uint32_t length_bytes;
  uint8_t revision;
  uint8_t checksum;
  char oem_id[6];
  char oem_table_id[8];
  uint32_t oem_revision;
  char creator_id[4];
  uint32_t creator_revision;
};
static_assert(sizeof(TableHeader) == 36);

// 5.2.5.3
struct Rsdp {
  char signature[8];
  uint8_t checksum;  // of the first 20 bytes
  char oem_id[6];
  uint8_t revision;
  uint32_t rsdt;
  uint32_t length_bytes;
  uint64_t xsdt;
  uint8_t extended_checksum;  // of all
  uint8_t reserved[3];
};
static_assert(sizeof(Rsdp) == 36);

// 5.2.3.2
struct GenericAddress {
  uint8_t space;  // 1: port
  uint8_t width_bits;
  uint8_t offset_bits;
  uint8_t access_size;  // 1: byte, 2: word
  uint64_t address;
};
static_assert(sizeof(GenericAddress) == 12);

// 5.2.9
struct Fadt {
  TableHeader header;
  uint32_t facs;
  uint32_t dsdt;
  uint8_t reserved0;
  uint8_t preferred_profile;
  uint16_t sci_interrupt;
  uint32_t smi_command;
  uint8_t acpi_enable;
  uint8_t acpi_disable;
  uint8_t s4bios_request;
  uint8_t pstate_control;
  uint32_t pm1a_event;
  uint32_t pm1b_event;
  uint32_t pm1a_control;
  uint32_t pm1b_control;
  uint32_t pm2_control;
  uint32_t pm_timer;
  uint32_t gpe0;
  uint32_t gpe1;
  uint8_t pm1_event_bytes;
  uint8_t pm1_control_bytes;
  uint8_t pm2_control_bytes;
  uint8_t pm_timer_bytes;
  uint8_t gpe0_bytes;
  uint8_t gpe1_bytes;
  uint8_t gpe1_base;
  uint8_t cstate_control;
  uint16_t c2_latency_us;
  uint16_t c3_latency_us;
  uint16_t flush_size;
  uint16_t flush_stride;
  uint8_t duty_offset;
  uint8_t duty_width;
  uint8_t day_alarm;
  uint8_t month_alarm;
  uint8_t century;
  uint16_t ia_boot_flags;
  uint8_t reserved1;
  uint32_t flags;
  GenericAddress reset_register;
  uint8_t reset_value;
  uint16_t arm_boot_flags;
  uint8_t minor_revision;
  uint64_t x_facs;
  uint64_t x_dsdt;
  GenericAddress x_pm1a_event;
  GenericAddress x_pm1b_event;
  GenericAddress x_pm1a_control;
  GenericAddress x_pm1b_control;
  GenericAddress x_pm2_control;
  GenericAddress x_pm_timer;
  GenericAddress x_gpe0;
  GenericAddress x_gpe1;
  GenericAddress sleep_control;
  GenericAddress sleep_status;
  uint64_t hypervisor_vendor;
};
static_assert(sizeof(Fadt) == 276);

// 5.2.10
struct Facs {
  char signature[4];
  uint32_t length_bytes;
  uint32_t hardware_signature;
  uint32_t waking_vector;
  uint32_t global_lock;
  uint32_t flags;
  uint64_t x_waking_vector;
  uint8_t version;
  uint8_t reserved[31];
};
static_assert(sizeof(Facs) == 64);

// 5.2.12 and its entries
struct MadtHeader {
  TableHeader header;
  uint32_t local_apic;
  uint32_t flags;
};
struct MadtLocalApic {
  uint8_t type = 0;
  uint8_t length_bytes = 8;
  uint8_t processor_uid = 0;
  uint8_t apic_id = 0;
  uint32_t flags = 1;  // enabled
};
struct MadtIoApic {
  uint8_t type = 1;
  uint8_t length_bytes = 12;
  uint8_t id = kIoApicId;
  uint8_t reserved = 0;
  uint32_t address = kIoApic.start;
  uint32_t first_gsi = 0;
};
struct MadtInterruptOverride {
  uint8_t type = 2;
  uint8_t length_bytes = 10;
  uint8_t bus = 0;  // ISA
  uint8_t irq = 0;
  uint32_t gsi = 0;
  uint16_t flags = 0;
};
struct MadtLocalNmi {
  uint8_t type = 4;
  uint8_t length_bytes = 6;
  uint8_t processor_uid = 0xff;  // all
  uint16_t flags = 0;
  uint8_t lint = 1;
};
static_assert(sizeof(MadtHeader) == 44 && sizeof(MadtLocalApic) == 8 && sizeof(MadtIoApic) == 12 &&
              sizeof(MadtInterruptOverride) == 10 && sizeof(MadtLocalNmi) == 6);

#pragma pack(pop)

constexpr uint8_t kSystemIo = 1;
constexpr uint8_t kPm1EventBytes = 4;
constexpr uint8_t kPm1ControlBytes = 2;

constexpr uint16_t kIaBootLegacyDevices = 1u << 0;  // ports of an ISA machine: COM1
constexpr uint16_t kIaBootNoVga = 1u << 2;
constexpr uint16_t kIaBootNoMsi = 1u << 3;
// Bit 1, "8042 present", stays clear: Linux then does not probe for a keyboard for seconds.

constexpr uint32_t kFadtWbinvd = 1u << 0;
constexpr uint32_t kFadtC1 = 1u << 2;
// Bit 4 clear: the power button is in PM1a, so that the host can ask the guest to shut down.
constexpr uint32_t kFadtNoSleepButton = 1u << 5;
constexpr uint32_t kFadtNoFixedRtcWake = 1u << 6;
constexpr uint32_t kFadtResetRegister = 1u << 10;
constexpr uint32_t kFadtHeadless = 1u << 12;

constexpr uint8_t kResetValue = 0x06;  // RST_CPU | SYS_RST
constexpr uint8_t kCenturyRegister = 0x32;

template <typename T>
requires std::is_trivially_copyable_v<T>
void AppendStruct(std::string* out, const T& value) { base::ByteWriter(out).Write(value); }

uint8_t ChecksumOf(absl::string_view bytes) {
  uint8_t sum = 0;
  for (const char c : bytes) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(c));
  return static_cast<uint8_t>(-sum);
}

TableHeader Header(const char* signature, uint8_t revision) {
  TableHeader header{};
  std::memcpy(header.signature, signature, sizeof(header.signature));
  header.revision = revision;
  std::memcpy(header.oem_id, kOemId, sizeof(header.oem_id));
  std::memcpy(header.oem_table_id, kOemTableId, sizeof(header.oem_table_id));
  header.oem_revision = 1;
  std::memcpy(header.creator_id, "ROMU", sizeof(header.creator_id));
  header.creator_revision = 1;
  return header;
}

// Fills in length and checksum of a finished table.
void Seal(std::string* table) {
  const uint32_t length_bytes = static_cast<uint32_t>(table->size());
  std::memcpy(table->data() + offsetof(TableHeader, length_bytes), &length_bytes,
              sizeof(length_bytes));
  (*table)[offsetof(TableHeader, checksum)] = 0;
  (*table)[offsetof(TableHeader, checksum)] = static_cast<char>(ChecksumOf(*table));
}

std::string BuildDsdt(const AcpiSpec& spec) {
  using namespace aml;  // NOLINT: the terms read as ASL
  std::string devices;
  devices += Device(
      "COM1",
      Name("_HID", EisaId("PNP0501")) + Name("_UID", Integer(1)) +
          Name("_CRS", ResourceTemplate({IoPorts(static_cast<uint16_t>(kSerialPorts.start),
                                                 static_cast<uint8_t>(kSerialPorts.size_bytes)),
                                         IsaIrq(kSerialGsi)})));
  devices += Device(
      "RTC",
      Name("_HID", EisaId("PNP0B00")) +
          Name("_CRS", ResourceTemplate({IoPorts(static_cast<uint16_t>(kCmosPorts.start),
                                                 static_cast<uint8_t>(kCmosPorts.size_bytes)),
                                         IsaIrq(kRtcGsi)})));
  for (size_t i = 0; i < spec.virtio.size(); ++i) {
    const VirtioMmioNode& node = spec.virtio[i];
    // Bound by Linux's virtio_mmio driver.
    devices += Device(
        absl::StrCat("VR", absl::Dec(i, absl::kZeroPad2)),
        Name("_HID", String("LNRO0005")) + Name("_UID", Integer(i)) + Name("_CCA", Integer(1)) +
            Name("_CRS",
                 ResourceTemplate({Memory32(static_cast<uint32_t>(node.window), node.window_bytes),
                                   LevelInterrupt(node.gsi)})));
  }
  std::string table;
  AppendStruct(&table, Header("DSDT", 2));
  // S5: SLP_TYP 0 for PM1a and PM1b (7.4.2.5).
  table += Name("\\_S5", Package({Integer(0), Integer(0), Integer(0), Integer(0)}));
  table += Scope("\\_SB", devices);
  Seal(&table);
  return table;
}

std::string BuildMadt(const AcpiSpec& spec) {
  std::string table;
  AppendStruct(&table, MadtHeader{.header = Header("APIC", 5),
                                  .local_apic = static_cast<uint32_t>(kLocalApic.start),
                                  .flags = 1});  // PCAT_COMPAT: two 8259s as well
  for (int i = 0; i < spec.vcpu_count; ++i) {
    AppendStruct(&table, MadtLocalApic{.processor_uid = static_cast<uint8_t>(i),
                                       .apic_id = static_cast<uint8_t>(i)});
  }
  AppendStruct(&table, MadtIoApic{});
  // KVM's PIT drives the IOAPIC's pin 2, as on a PC.
  AppendStruct(&table, MadtInterruptOverride{.irq = 0, .gsi = 2});
  constexpr uint16_t kActiveHighLevel = 0x0d;
  AppendStruct(&table,
               MadtInterruptOverride{.irq = kSciGsi, .gsi = kSciGsi, .flags = kActiveHighLevel});
  AppendStruct(&table, MadtLocalNmi{});
  Seal(&table);
  return table;
}

std::string BuildFacs() {
  Facs facs{};
  std::memcpy(facs.signature, "FACS", sizeof(facs.signature));
  facs.length_bytes = sizeof(Facs);
  facs.version = 2;
  std::string table;
  AppendStruct(&table, facs);
  return table;
}

GenericAddress Port(uint64_t port, uint8_t bytes) {
  return {.space = kSystemIo,
          .width_bits = static_cast<uint8_t>(bytes * 8),
          .offset_bits = 0,
          .access_size = static_cast<uint8_t>(bytes == 1 ? 1 : 2),
          .address = port};
}

std::string BuildFadt(uint64_t facs, uint64_t dsdt) {
  Fadt fadt{};
  fadt.header = Header("FACP", 6);
  fadt.minor_revision = 4;
  fadt.facs = static_cast<uint32_t>(facs);
  fadt.dsdt = static_cast<uint32_t>(dsdt);
  fadt.x_dsdt = dsdt;
  fadt.preferred_profile = 4;  // enterprise server
  fadt.sci_interrupt = kSciGsi;
  // smi_command 0: the machine is always in ACPI mode (4.8.3.2).
  fadt.pm1a_event = kPm1aEventPort;
  fadt.pm1a_control = kPm1aControlPort;
  fadt.pm1_event_bytes = kPm1EventBytes;
  fadt.pm1_control_bytes = kPm1ControlBytes;
  fadt.x_pm1a_event = Port(kPm1aEventPort, kPm1EventBytes);
  fadt.x_pm1a_control = Port(kPm1aControlPort, kPm1ControlBytes);
  fadt.c2_latency_us = 0xffff;  // no C2, no C3
  fadt.c3_latency_us = 0xffff;
  fadt.century = kCenturyRegister;
  fadt.ia_boot_flags = kIaBootLegacyDevices | kIaBootNoVga | kIaBootNoMsi;
  fadt.flags = kFadtWbinvd | kFadtC1 | kFadtNoSleepButton | kFadtNoFixedRtcWake |
               kFadtResetRegister | kFadtHeadless;
  fadt.reset_register = Port(kResetPort.start, 1);
  fadt.reset_value = kResetValue;
  std::memcpy(&fadt.hypervisor_vendor, "ROMULUS", sizeof("ROMULUS"));
  std::string table;
  AppendStruct(&table, fadt);
  Seal(&table);
  return table;
}

std::string BuildXsdt(std::initializer_list<uint64_t> tables) {
  std::string table;
  AppendStruct(&table, Header("XSDT", 1));
  for (const uint64_t address : tables) AppendStruct(&table, address);
  Seal(&table);
  return table;
}

std::string BuildRsdp(uint64_t xsdt) {
  Rsdp rsdp{};
  std::memcpy(rsdp.signature, "RSD PTR ", sizeof(rsdp.signature));
  std::memcpy(rsdp.oem_id, kOemId, sizeof(rsdp.oem_id));
  rsdp.revision = 2;
  rsdp.length_bytes = sizeof(Rsdp);
  rsdp.xsdt = xsdt;
  std::string bytes;
  AppendStruct(&bytes, rsdp);
  constexpr size_t kFirstPartBytes = 20;
  bytes[offsetof(Rsdp, checksum)] =
      static_cast<char>(ChecksumOf(absl::string_view(bytes).substr(0, kFirstPartBytes)));
  bytes[offsetof(Rsdp, extended_checksum)] = static_cast<char>(ChecksumOf(bytes));
  return bytes;
}

absl::Status CheckSpec(const AcpiSpec& spec) {
  if (spec.vcpu_count < 1 || spec.vcpu_count > kMaxVcpus) {
    return absl::InvalidArgumentError(
        absl::StrCat("ACPI: ", spec.vcpu_count, " vCPUs; 1 to ", kMaxVcpus, " are possible"));
  }
  if (spec.virtio.size() > kMaxVirtioDevices) {
    return absl::InvalidArgumentError(absl::StrCat("ACPI: ", spec.virtio.size(),
                                                   " virtio devices; at most ", kMaxVirtioDevices,
                                                   " are possible"));
  }
  for (const VirtioMmioNode& node : spec.virtio) {
    if (node.window > std::numeric_limits<uint32_t>::max() || node.gsi >= kIoApicPins) {
      return absl::InvalidArgumentError(absl::StrCat("ACPI: virtio window ", node.window,
                                                     " or interrupt ", node.gsi, " out of range"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> BuildAcpiTables(const AcpiSpec& spec) {
  ROMULUS_RETURN_IF_ERROR(CheckSpec(spec));
  std::string area(sizeof(Rsdp), '\0');  // the RSDP comes first but points at the last
  const auto place = [&area](const std::string& table) {
    area.resize((area.size() + kTableAlignment - 1) / kTableAlignment * kTableAlignment);
    const uint64_t address = kAcpiTables.start + area.size();
    area += table;
    return address;
  };
  const uint64_t dsdt = place(BuildDsdt(spec));
  const uint64_t facs = place(BuildFacs());
  const uint64_t fadt = place(BuildFadt(facs, dsdt));
  const uint64_t madt = place(BuildMadt(spec));
  const uint64_t xsdt = place(BuildXsdt({fadt, madt}));
  area.replace(0, sizeof(Rsdp), BuildRsdp(xsdt));
  if (area.size() > kAcpiTables.size_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("ACPI tables of ", area.size(), " bytes; at most ", kAcpiTables.size_bytes));
  }
  return area;
}

absl::Status WriteAcpiTables(memory::GuestMemory& memory, const AcpiSpec& spec) {
  ROMULUS_ASSIGN_OR_RETURN(const std::string tables, BuildAcpiTables(spec));
  return memory.Write(Gpa(kAcpiTables.start), std::as_bytes(std::span<const char>(tables)));
}

}  // namespace romulus::arch

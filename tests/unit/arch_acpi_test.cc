#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include "arch/acpi.h"
#include "arch/aml.h"
#include "arch/memory_map.h"

namespace romulus::arch {
namespace {

using ::testing::HasSubstr;

AcpiSpec FullSpec() {
  AcpiSpec spec{.vcpu_count = kMaxVcpus, .virtio = {}};
  for (int i = 0; i < kMaxVirtioDevices; ++i) {
    spec.virtio.push_back({.window = VirtioWindow(i),
                           .window_bytes = static_cast<uint32_t>(kVirtioWindowBytes),
                           .gsi = VirtioGsi(i)});
  }
  return spec;
}

template <typename T>
T At(const std::string& bytes, size_t offset) {
  T value{};
  EXPECT_LE(offset + sizeof(T), bytes.size());
  if (offset + sizeof(T) <= bytes.size()) std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

uint8_t Sum(absl::string_view bytes) {
  uint8_t sum = 0;
  for (const char c : bytes) sum = static_cast<uint8_t>(sum + static_cast<uint8_t>(c));
  return sum;
}

// All tables by signature, found by following the pointers as an operating system does; each one's
// checksum is checked on the way.
std::map<std::string, std::string> Walk(const std::string& area) {
  std::map<std::string, std::string> tables;
  EXPECT_EQ(area.substr(0, 8), "RSD PTR ");
  EXPECT_EQ(Sum(area.substr(0, 20)), 0);
  EXPECT_EQ(Sum(area.substr(0, 36)), 0);
  const auto table_at = [&](uint64_t address) {
    const size_t offset = address - kAcpiTables.start;
    const std::string table = area.substr(offset, At<uint32_t>(area, offset + 4));
    tables[table.substr(0, 4)] = table;
    return table;
  };
  const std::string xsdt = table_at(At<uint64_t>(area, 24));
  for (size_t i = 36; i + 8 <= xsdt.size(); i += 8) table_at(At<uint64_t>(xsdt, i));
  const std::string fadt = tables["FACP"];
  EXPECT_EQ(At<uint32_t>(fadt, 40), At<uint64_t>(fadt, 140));
  table_at(At<uint64_t>(fadt, 140));
  EXPECT_EQ(At<uint32_t>(fadt, 36) % 64, 0u) << "FACS alignment";
  for (const auto& [signature, table] : tables) EXPECT_EQ(Sum(table), 0) << signature;
  table_at(At<uint32_t>(fadt, 36));  // FACS has no checksum
  return tables;
}

TEST(AcpiTables, AllAreReachableAndSumToZero) {
  const absl::StatusOr<std::string> area = BuildAcpiTables(FullSpec());
  ASSERT_TRUE(area.ok()) << area.status();
  const auto tables = Walk(*area);
  for (const char* signature : {"XSDT", "FACP", "APIC", "DSDT", "FACS"}) {
    EXPECT_TRUE(tables.contains(signature)) << signature;
  }
  EXPECT_LE(area->size(), kAcpiTables.size_bytes);
}

TEST(AcpiTables, WrittenToGuestMemoryAtTheRsdp) {
  auto memory = memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4)).value();
  ASSERT_TRUE(WriteAcpiTables(*memory, FullSpec()).ok());
  std::string signature(8, '\0');
  ASSERT_TRUE(
      memory->Read(Gpa(kAcpiRsdp), std::as_writable_bytes(std::span<char>(signature))).ok());
  EXPECT_EQ(signature, "RSD PTR ");
}

TEST(AcpiTables, FadtPointsAtThePowerManagementPorts) {
  const std::string fadt = Walk(BuildAcpiTables({}).value())["FACP"];
  ASSERT_EQ(fadt.size(), 276u);
  EXPECT_EQ(At<uint16_t>(fadt, 46), kSciGsi);
  EXPECT_EQ(At<uint32_t>(fadt, 48), 0u);  // SMI_CMD: always in ACPI mode
  EXPECT_EQ(At<uint32_t>(fadt, 56), kPm1aEventPort);
  EXPECT_EQ(At<uint32_t>(fadt, 64), kPm1aControlPort);
  EXPECT_EQ(At<uint64_t>(fadt, 148 + 4), kPm1aEventPort);
  EXPECT_EQ(At<uint64_t>(fadt, 172 + 4), kPm1aControlPort);
  EXPECT_EQ(At<uint64_t>(fadt, 116 + 4), kResetPort.start);
  EXPECT_EQ(At<uint32_t>(fadt, 112) & (1u << 20), 0u) << "hardware-reduced";
  EXPECT_EQ(At<uint16_t>(fadt, 109) & 2, 0) << "8042 present";
}

TEST(AcpiTables, MadtListsEveryVcpuTheIoApicAndTheOverrides) {
  for (const int count : {1, 3, 8}) {
    const std::string madt =
        Walk(BuildAcpiTables({.vcpu_count = count, .virtio = {}}).value())["APIC"];
    EXPECT_EQ(At<uint32_t>(madt, 36), kLocalApic.start);
    int local_apics = 0;
    int io_apics = 0;
    std::map<int, uint32_t> overrides;
    for (size_t at = 44; at < madt.size();) {
      const auto type = At<uint8_t>(madt, at);
      const auto length = At<uint8_t>(madt, at + 1);
      ASSERT_GE(length, 2);
      if (type == 0) {
        EXPECT_EQ(At<uint8_t>(madt, at + 3), local_apics);
        EXPECT_EQ(At<uint32_t>(madt, at + 4), 1u);
        ++local_apics;
      } else if (type == 1) {
        ++io_apics;
        EXPECT_EQ(At<uint32_t>(madt, at + 4), kIoApic.start);
      } else if (type == 2) {
        overrides[At<uint8_t>(madt, at + 3)] = At<uint32_t>(madt, at + 4);
      }
      at += length;
    }
    EXPECT_EQ(local_apics, count);
    EXPECT_EQ(io_apics, 1);
    EXPECT_EQ(overrides, (std::map<int, uint32_t>{{0, 2}, {9, 9}}));
  }
}

TEST(AcpiTables, SpecOutOfRangeIsRefused) {
  EXPECT_FALSE(BuildAcpiTables({.vcpu_count = 0, .virtio = {}}).ok());
  EXPECT_FALSE(BuildAcpiTables({.vcpu_count = kMaxVcpus + 1, .virtio = {}}).ok());
  AcpiSpec spec = FullSpec();
  spec.virtio.push_back(spec.virtio.front());
  EXPECT_FALSE(BuildAcpiTables(spec).ok());
  spec = FullSpec();
  spec.virtio[0].window = uint64_t{1} << 32;
  EXPECT_FALSE(BuildAcpiTables(spec).ok());
  spec = FullSpec();
  spec.virtio[0].gsi = kIoApicPins;
  EXPECT_FALSE(BuildAcpiTables(spec).ok());
}

TEST(Aml, PackageLengthCountsItself) {
  EXPECT_EQ(aml::PackageLength(0), std::string("\x01"));
  EXPECT_EQ(aml::PackageLength(62), std::string("\x3f"));
  EXPECT_EQ(aml::PackageLength(63), std::string("\x41\x04"));           // 65
  EXPECT_EQ(aml::PackageLength(4093), std::string("\x4f\xff"));         // 4095
  EXPECT_EQ(aml::PackageLength(4094), std::string("\x81\x00\x01", 3));  // 4097
}

// Examples that the ACPI specification or every DSDT has.
TEST(Aml, EncodesAsTheSpecificationSays) {
  EXPECT_EQ(aml::EisaId("PNP0501"), std::string("\x0c\x41\xd0\x05\x01"));
  EXPECT_EQ(aml::Integer(0), std::string("\0", 1));
  EXPECT_EQ(aml::Integer(1), std::string("\x01"));
  EXPECT_EQ(aml::Integer(2), std::string("\x0a\x02"));
  EXPECT_EQ(aml::Integer(0x1234), std::string("\x0b\x34\x12"));
  EXPECT_EQ(aml::Name("\\_S5", aml::Package({aml::Integer(0), aml::Integer(5)})),
            std::string("\x08\\_S5_\x12\x05\x02\x00\x0a\x05", 12));
  EXPECT_EQ(aml::ResourceTemplate({aml::IsaIrq(4)}),
            std::string("\x11\x08\x0a\x05\x22\x10\x00\x79\x00", 9));
}

// The interpreter's own view, where acpica-tools is installed.
TEST(AcpiDisassembly, IaslReadsTheDsdt) {
  if (std::system("iasl -v >/dev/null 2>&1") != 0) GTEST_SKIP() << "no iasl (acpica-tools)";
  auto tables = Walk(BuildAcpiTables(FullSpec()).value());
  const std::string folder = ::testing::TempDir() + "romulus_acpi_" + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  for (const char* signature : {"DSDT", "FACP", "APIC", "FACS"}) {
    const std::string path = folder + "/" + signature;
    std::ofstream(path + ".aml", std::ios::binary) << tables[signature];
    const std::string command = "iasl -d " + path + ".aml >" + path + ".log 2>&1";
    EXPECT_EQ(std::system(command.c_str()), 0) << signature;
    std::stringstream listing;
    listing << std::ifstream(path + ".log").rdbuf() << std::ifstream(path + ".dsl").rdbuf();
    EXPECT_THAT(listing.str(), ::testing::Not(HasSubstr("Error"))) << signature;
    EXPECT_THAT(listing.str(), ::testing::Not(HasSubstr("Warning"))) << signature;
    EXPECT_THAT(listing.str(), ::testing::Not(HasSubstr("Invalid"))) << signature;
    if (std::string(signature) == "DSDT") {
      EXPECT_THAT(listing.str(), HasSubstr("Name (_HID, EisaId (\"PNP0501\")"));
      EXPECT_THAT(listing.str(), HasSubstr("Device (VR07)"));
      EXPECT_THAT(listing.str(), HasSubstr("0xD0007000"));
      EXPECT_THAT(listing.str(), HasSubstr("Name (\\_S5"));
      const std::string compile =
          "iasl -p " + path + "_again " + path + ".dsl >" + path + ".again 2>&1";
      EXPECT_EQ(std::system(compile.c_str()), 0) << "does not compile again";
    }
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace romulus::arch

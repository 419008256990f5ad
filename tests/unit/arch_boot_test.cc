#include <asm/bootparam.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <memory>
#include <string>

#include "arch/boot.h"
#include "arch/boot_cpu.h"
#include "arch/memory_map.h"
#include "unit/arch_images.h"

namespace romulus::arch {
namespace {

using testing::AppendRaw;
using testing::AsBytes;
using testing::BzImage;
using testing::ElfImage;
using testing::EncodeBzImage;
using testing::EncodeElf;
using testing::EncodeNote;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kExhausted = absl::StatusCode::kResourceExhausted;

std::unique_ptr<memory::GuestMemory> Memory(uint64_t memory_mib) {
  return memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(memory_mib)).value();
}

absl::StatusOr<BootPlan> Load(memory::GuestMemory& memory, const std::string& kernel,
                              absl::string_view command_line = "console=ttyS0",
                              const std::string* initrd = nullptr) {
  std::unique_ptr<Image> kernel_image = ImageOfBytes("kernel.img", AsBytes(kernel));
  std::unique_ptr<Image> initrd_image;
  if (initrd != nullptr) initrd_image = ImageOfBytes("initrd.img", AsBytes(*initrd));
  return LoadKernelImages(memory, *kernel_image, initrd_image.get(), command_line);
}

std::string ReadText(const memory::GuestMemory& memory, uint64_t gpa, size_t size) {
  std::string out(size, '\0');
  EXPECT_TRUE(memory.Read(Gpa(gpa), std::as_writable_bytes(std::span<char>(out))).ok());
  return out;
}

template <typename T>
T ReadValue(const memory::GuestMemory& memory, uint64_t gpa) {
  return memory.ReadObject<T>(Gpa(gpa)).value();
}

// The load fails with this code, and the message names the file and holds `reason`.
void ExpectRefused(const std::string& kernel, absl::StatusCode code, const std::string& reason,
                   uint64_t memory_mib = 64) {
  auto memory = Memory(memory_mib);
  const absl::StatusOr<BootPlan> plan = Load(*memory, kernel);
  ASSERT_FALSE(plan.ok()) << reason;
  EXPECT_EQ(plan.status().code(), code) << plan.status();
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("kernel.img"));
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr(reason));
}

class PvhBoot : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(Class, PvhBoot, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Elf64" : "Elf32"; });

TEST_P(PvhBoot, LoadsSegmentsAndEntersFlatProtectedMode) {
  ElfImage image{.is_64_bit = GetParam(), .entry = 0x200010};
  image.machine = GetParam() ? EM_X86_64 : EM_386;
  image.entry_bytes = GetParam() ? 8 : 4;
  image.segments = {{.address = 0x100000, .bytes = "data"},
                    {.address = 0x200000, .bytes = std::string(32, 'c'), .memory_bytes = 0x5000}};
  auto memory = Memory(64);
  const absl::StatusOr<BootPlan> plan = Load(*memory, EncodeElf(image));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->kind, KernelKind::kPvhElf);
  EXPECT_EQ(plan->kernel_start, 0x100000u);
  EXPECT_EQ(plan->kernel_end, 0x205000u);
  EXPECT_EQ(ReadText(*memory, 0x100000, 4), "data");
  EXPECT_EQ(ReadText(*memory, 0x200000, 33), std::string(32, 'c') + std::string(1, '\0'));

  const BootRegisters& registers = plan->registers;
  EXPECT_EQ(registers.rip, 0x200010u);
  EXPECT_EQ(registers.rbx, kPvhStartInfo.start);
  EXPECT_EQ(registers.cr0 & ~0x10u, 1u);  // PE, and ET which is hard-wired
  EXPECT_EQ(registers.cr4, 0u);
  EXPECT_EQ(registers.efer, 0u);
  EXPECT_EQ(registers.rflags & (1 << 17 | 1 << 9 | 1 << 8), 0u);
  EXPECT_TRUE(registers.cs.db);
  EXPECT_FALSE(registers.cs.l);
  EXPECT_EQ(registers.cs.limit, 0xffffffffu);
  EXPECT_EQ(registers.tr.limit, 0x67u);
}

TEST(PvhBootInfo, StartInfoDescribesMemoryModuleAndCommandLine) {
  auto memory = Memory(4096);  // has RAM beyond the hole
  const std::string initrd(5000, 'i');
  const absl::StatusOr<BootPlan> plan =
      Load(*memory, EncodeElf(ElfImage{}), "ledger pages=3", &initrd);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const uint64_t info = kPvhStartInfo.start;
  EXPECT_EQ(ReadValue<uint32_t>(*memory, info), 0x336ec578u);
  EXPECT_EQ(ReadValue<uint32_t>(*memory, info + 4), 1u);   // version
  EXPECT_EQ(ReadValue<uint32_t>(*memory, info + 12), 1u);  // modules
  const auto modules = ReadValue<uint64_t>(*memory, info + 16);
  EXPECT_EQ(ReadValue<uint64_t>(*memory, modules), plan->initrd_start);
  EXPECT_EQ(ReadValue<uint64_t>(*memory, modules + 8), 5000u);
  EXPECT_EQ(ReadText(*memory, plan->initrd_start, 5000), initrd);
  EXPECT_EQ(plan->initrd_start % kPageSize, 0u);
  EXPECT_LE(plan->initrd_start + 5000, memory::kHoleStart);
  EXPECT_EQ(ReadText(*memory, ReadValue<uint64_t>(*memory, info + 24), 15),
            std::string("ledger pages=3\0", 15));
  EXPECT_EQ(ReadValue<uint64_t>(*memory, info + 32), kAcpiRsdp);

  const auto map = ReadValue<uint64_t>(*memory, info + 40);
  const auto entries = ReadValue<uint32_t>(*memory, info + 48);
  uint64_t ram_bytes = 0;
  uint64_t last_end = 0;
  for (uint32_t i = 0; i < entries; ++i) {
    const auto start = ReadValue<uint64_t>(*memory, map + i * 24);
    const auto size = ReadValue<uint64_t>(*memory, map + i * 24 + 8);
    const auto type = ReadValue<uint32_t>(*memory, map + i * 24 + 16);
    EXPECT_GE(start, last_end) << "entry " << i;
    last_end = start + size;
    if (type == 1) {
      ram_bytes += size;
      EXPECT_NE(memory->layout().Find(Gpa(start), size), nullptr) << "entry " << i;
    }
  }
  // All RAM but the reserved end of the first megabyte.
  EXPECT_EQ(ram_bytes, (uint64_t{4096} << 20) - (kHighMemoryStart - kLegacyReserved.start));
}

TEST(PvhBootInfo, EverythingWrittenIsMarked) {
  auto memory = Memory(64);
  ASSERT_TRUE(Load(*memory, EncodeElf(ElfImage{})).ok());
  memory::PageSet written(memory->layout().gfn_end());
  memory->write_log().Drain(written);
  for (const uint64_t gpa :
       {kGdt.start, kPvhStartInfo.start, kCommandLine.start, kHighMemoryStart}) {
    EXPECT_TRUE(written.Contains(GfnOf(Gpa(gpa)))) << gpa;
  }
}

TEST(PvhElf, FindsTheEntryNoteBehindOthers) {
  for (const uint64_t align : {4, 8}) {
    ElfImage image{.note_align = align};
    image.note_before = EncodeNote(std::string("Linux\0", 6), 18, "xyz", align) +
                        EncodeNote(std::string("Xen\0", 4), 6, std::string("linux\0", 6), align);
    auto memory = Memory(64);
    const absl::StatusOr<BootPlan> plan = Load(*memory, EncodeElf(image));
    ASSERT_TRUE(plan.ok()) << plan.status() << " align " << align;
    EXPECT_EQ(plan->registers.rip, 0x100000u);
  }
}

TEST(PvhElf, RefusesOtherFiles) {
  ExpectRefused("#!/bin/sh\n", kInvalid, "neither an ELF");
  ElfImage image;
  image.has_note = false;
  ExpectRefused(EncodeElf(image), kInvalid, "without a PVH entry point");
  image = {.machine = EM_AARCH64};
  ExpectRefused(EncodeElf(image), kInvalid, "machine 183 is not x86");
  image = {.type = ET_REL};
  ExpectRefused(EncodeElf(image), kInvalid, "not an executable");
  image = {.entry_bytes = 2};
  ExpectRefused(EncodeElf(image), kInvalid, "entry note of 2 bytes");
  std::string raw = EncodeElf(ElfImage{});
  raw[EI_DATA] = ELFDATA2MSB;
  ExpectRefused(raw, kInvalid, "little-endian");
  raw = EncodeElf(ElfImage{});
  raw[EI_CLASS] = 9;
  ExpectRefused(raw, kInvalid, "neither 32 nor 64 bit");
}

TEST(PvhElf, RefusesEveryTruncation) {
  const std::string whole = EncodeElf(ElfImage{});
  for (size_t size = 0; size < whole.size(); ++size) {
    auto memory = Memory(8);
    const absl::StatusOr<BootPlan> plan = Load(*memory, whole.substr(0, size));
    EXPECT_EQ(plan.status().code(), kInvalid) << size << ": " << plan.status();
  }
}

TEST(PvhElf, RefusesSegmentsThatDoNotFit) {
  ElfImage image;
  image.segments[0].address = uint64_t{64} << 20;
  ExpectRefused(EncodeElf(image), kExhausted, "which the guest's 64 MiB do not hold");
  image.segments[0].address = UINT64_MAX - 8;
  ExpectRefused(EncodeElf(image), kInvalid, "overflows");
  image = {};
  image.segments[0].memory_bytes = UINT64_MAX;
  ExpectRefused(EncodeElf(image), kInvalid, "overflows");
  image = {};
  image.segments[0].memory_bytes = uint64_t{1} << 40;
  ExpectRefused(EncodeElf(image), kExhausted, "do not hold");
  image = {};
  image.segments[0].address = 0xd0000000;  // the hole
  ExpectRefused(EncodeElf(image), kExhausted, "do not hold", 8192);
  image = {};
  image.segments[0].address = kCommandLine.start + 100;
  ExpectRefused(EncodeElf(image), kInvalid, "which boot data use");
  image = {};
  image.segments[0].address = 0;
  ExpectRefused(EncodeElf(image), kInvalid, "page 0");
}

TEST(PvhElf, RefusesInconsistentSegments) {
  ElfImage image;
  image.segments.push_back({.address = 0x100020, .bytes = std::string(64, 'x')});
  ExpectRefused(EncodeElf(image), kInvalid, "overlaps another at 0x100020");
  image = {};
  image.segments[0].memory_bytes = 3;
  ExpectRefused(EncodeElf(image), kInvalid, "64 bytes in the file but 3 in memory");
  image = {};
  image.segments[0].offset = UINT64_MAX - 3;
  ExpectRefused(EncodeElf(image), kInvalid, "beyond the end of the file");
  image = {};
  image.segments[0].memory_bytes = 0x10000;
  image.segments[0].file_bytes = 0x10000;
  ExpectRefused(EncodeElf(image), kInvalid, "beyond the end of the file");
  // An entry in what is only zeros cannot be meant.
  image = {.entry = 0x100050};
  image.segments[0].memory_bytes = 0x1000;
  ExpectRefused(EncodeElf(image), kInvalid, "entry point 0x100050 lies outside");
}

TEST(PvhElf, RefusesNotesThatRunOut) {
  ElfImage image;
  AppendRaw(&image.note_before, Elf64_Nhdr{0xffffffff, 0xffffffff, 18});
  ExpectRefused(EncodeElf(image), kInvalid, "beyond its segment");
  image.note_before.clear();
  AppendRaw(&image.note_before, Elf64_Nhdr{4, 0x7fffffff, 18});
  ExpectRefused(EncodeElf(image), kInvalid, "beyond its segment");
}

TEST(LinuxBoot, EntersLongModeAtThe64BitEntry) {
  auto memory = Memory(128);
  const std::string initrd(3 * kPageSize + 7, 'i');
  BzImage image;
  const absl::StatusOr<BootPlan> plan =
      Load(*memory, EncodeBzImage(image), "console=ttyS0 root=/dev/vda", &initrd);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->kind, KernelKind::kLinuxBzImage);
  EXPECT_EQ(plan->kernel_start, 0x1000000u);
  EXPECT_EQ(plan->kernel_end, 0x1100000u);  // init_size, not the file's size
  EXPECT_EQ(ReadText(*memory, 0x1000000, 4096), image.payload);
  EXPECT_EQ(ReadText(*memory, plan->initrd_start, initrd.size()), initrd);

  const BootRegisters& registers = plan->registers;
  EXPECT_EQ(registers.rip, 0x1000200u);
  EXPECT_EQ(registers.rsi, kLinuxBootParams.start);
  EXPECT_EQ(registers.rflags, 2u);
  EXPECT_EQ(registers.cr0 & (1u << 31 | 1), 1u << 31 | 1);
  EXPECT_EQ(registers.cr4 & (1 << 5), 1u << 5);
  EXPECT_EQ(registers.efer, 0x500u);
  EXPECT_EQ(registers.cs.selector, 0x10);
  EXPECT_EQ(registers.data.selector, 0x18);
  EXPECT_TRUE(registers.cs.l);
  EXPECT_FALSE(registers.cs.db);

  // Copied, because no reference may bind to a packed field.
  const auto params = ReadValue<boot_params>(*memory, kLinuxBootParams.start);
  EXPECT_EQ(uint64_t{params.hdr.header}, 0x53726448u);
  EXPECT_EQ(uint64_t{params.hdr.type_of_loader}, 0xffu);
  EXPECT_EQ(uint64_t{params.hdr.ramdisk_image}, plan->initrd_start);
  EXPECT_EQ(uint64_t{params.hdr.ramdisk_size}, initrd.size());
  EXPECT_EQ(uint64_t{params.acpi_rsdp_addr}, kAcpiRsdp);
  EXPECT_EQ(ReadText(*memory, params.hdr.cmd_line_ptr, 28),
            std::string("console=ttyS0 root=/dev/vda\0", 28));
  EXPECT_GE(uint64_t{params.e820_entries}, 3u);
  EXPECT_EQ(params.sentinel, 0);
}

TEST(LinuxBoot, PageTablesMapFourGibOneToOne) {
  auto memory = Memory(64);
  const absl::StatusOr<BootPlan> plan = Load(*memory, EncodeBzImage(BzImage{}));
  ASSERT_TRUE(plan.ok()) << plan.status();
  const uint64_t page_mask = 0x000ffffffffff000;
  for (const uint64_t address :
       {uint64_t{0}, uint64_t{0x1000200}, uint64_t{0x7fe00000}, uint64_t{0xfee00000}}) {
    uint64_t entry = ReadValue<uint64_t>(*memory, plan->registers.cr3 + (address >> 39) * 8);
    ASSERT_EQ(entry & 3, 3u) << address;
    entry = ReadValue<uint64_t>(*memory, (entry & page_mask) + ((address >> 30) & 511) * 8);
    ASSERT_EQ(entry & 3, 3u) << address;
    entry = ReadValue<uint64_t>(*memory, (entry & page_mask) + ((address >> 21) & 511) * 8);
    EXPECT_EQ(entry & 0x83, 0x83u) << address;
    EXPECT_EQ((entry & page_mask) + (address & 0x1fffff), address);
  }
}

TEST(LinuxBoot, GdtHoldsTheSegments) {
  auto memory = Memory(64);
  const absl::StatusOr<BootPlan> plan = Load(*memory, EncodeBzImage(BzImage{}));
  ASSERT_TRUE(plan.ok()) << plan.status();
  // The well-known encodings of flat 64-bit code and flat data (accessed).
  EXPECT_EQ(ReadValue<uint64_t>(*memory, plan->registers.gdt_base + 0x10), 0x00af9b000000ffffu);
  EXPECT_EQ(ReadValue<uint64_t>(*memory, plan->registers.gdt_base + 0x18), 0x00cf93000000ffffu);
  EXPECT_EQ(plan->registers.gdt_limit, 6 * 8 - 1);
}

TEST(LinuxBoot, MovesARelocatableKernelInASmallGuest) {
  BzImage image;
  image.header.pref_address = 0x10000000;
  auto memory = Memory(64);
  const absl::StatusOr<BootPlan> plan = Load(*memory, EncodeBzImage(image));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->kernel_start, 0x200000u);  // 1 MiB, aligned up
  image.header.relocatable_kernel = 0;
  ExpectRefused(EncodeBzImage(image), kExhausted, "do not hold");
  image.header.relocatable_kernel = 1;
  image.header.kernel_alignment = 0x30000;
  ExpectRefused(EncodeBzImage(image), kInvalid, "no power of two");
  image.header.kernel_alignment = 0;
  ExpectRefused(EncodeBzImage(image), kInvalid, "no power of two");
}

TEST(LinuxBoot, RefusesHostileHeaders) {
  BzImage image;
  image.header.version = 0x020b;
  ExpectRefused(EncodeBzImage(image), kInvalid, "boot protocol 2.11");
  image = {};
  image.header.xloadflags = 0;
  ExpectRefused(EncodeBzImage(image), kInvalid, "64-bit entry");
  image = {};
  image.header.loadflags = 0;
  ExpectRefused(EncodeBzImage(image), kInvalid, "zImage");
  image = {};
  image.header_end = 0x10;
  ExpectRefused(EncodeBzImage(image), kInvalid, "before init_size");
  image = {};
  image.header.syssize = 0xffffffff;
  ExpectRefused(EncodeBzImage(image), kInvalid, "truncated");
  image = {};
  image.header.syssize = 0x10;
  ExpectRefused(EncodeBzImage(image), kInvalid, "entry point 0x200 lies outside");
  image = {};
  image.header.init_size = 0xffffffff;
  ExpectRefused(EncodeBzImage(image), kExhausted, "do not hold");
  image = {};
  image.header.pref_address = UINT64_MAX - 10;
  image.header.relocatable_kernel = 0;
  ExpectRefused(EncodeBzImage(image), kInvalid, "overflows");
}

TEST(LinuxBoot, RefusesEveryTruncation) {
  const std::string whole = EncodeBzImage(BzImage{});
  // Up to where a paragraph is missing. The header counts in paragraphs, so less is rounding.
  const size_t last = whole.size() - 16;
  for (size_t size = 0; size <= last; size = size == last ? size + 1 : std::min(size + 13, last)) {
    auto memory = Memory(32);
    const absl::StatusOr<BootPlan> plan = Load(*memory, whole.substr(0, size));
    EXPECT_EQ(plan.status().code(), kInvalid) << size << ": " << plan.status();
  }
}

TEST(LinuxBoot, LoadsAnImageThatIsNotPaddedToItsLastParagraph) {
  const BzImage image;
  const std::string whole = EncodeBzImage(image);
  for (size_t short_by = 0; short_by < 16; ++short_by) {
    auto memory = Memory(32);
    const absl::StatusOr<BootPlan> plan = Load(*memory, whole.substr(0, whole.size() - short_by));
    ASSERT_TRUE(plan.ok()) << short_by << ": " << plan.status();
    std::string want = image.payload.substr(0, image.payload.size() - short_by);
    want.resize(image.payload.size());  // what the file does not have reads as zeros
    EXPECT_EQ(ReadText(*memory, plan->kernel_start, want.size()), want) << short_by;
  }
}

TEST(CommandLine, TooLongOrWithZeroIsRefused) {
  auto memory = Memory(64);
  EXPECT_TRUE(Load(*memory, EncodeBzImage(BzImage{}), std::string(2047, 'a')).ok());
  absl::StatusOr<BootPlan> plan = Load(*memory, EncodeBzImage(BzImage{}), std::string(2048, 'a'));
  EXPECT_EQ(plan.status().code(), kInvalid);
  EXPECT_THAT(std::string(plan.status().message()),
              HasSubstr("command line of 2048 bytes; kernel.img takes at most 2047"));
  plan = Load(*memory, EncodeElf(ElfImage{}), std::string(kCommandLine.size_bytes, 'a'));
  EXPECT_EQ(plan.status().code(), kInvalid);
  plan = Load(*memory, EncodeElf(ElfImage{}), absl::string_view("a\0b", 3));
  EXPECT_EQ(plan.status().code(), kInvalid);
}

TEST(Initrd, TooLargeIsRefused) {
  auto memory = Memory(32);
  std::string initrd(16 << 20, 'i');
  const absl::StatusOr<BootPlan> plan = Load(*memory, EncodeBzImage(BzImage{}), "", &initrd);
  EXPECT_EQ(plan.status().code(), kExhausted);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("initrd.img"));
  // 15 MiB is exactly what lies between the kernel's end at 17 MiB and the end of memory.
  initrd.resize(15 << 20);
  EXPECT_TRUE(Load(*memory, EncodeBzImage(BzImage{}), "", &initrd).ok());
}

TEST(Initrd, StaysBelowTheKernelsLimit) {
  auto memory = Memory(128);
  BzImage image;
  image.header.initrd_addr_max = 0x2ffffff;
  const std::string initrd(kPageSize, 'i');
  const absl::StatusOr<BootPlan> plan = Load(*memory, EncodeBzImage(image), "", &initrd);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->initrd_start + kPageSize, 0x3000000u);
}

class KernelFiles : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return ::testing::TempDir() + name; }
  std::unique_ptr<memory::GuestMemory> memory_ = Memory(64);
};

TEST_F(KernelFiles, MissingFileNamesThePath) {
  absl::StatusOr<BootPlan> plan = LoadKernel(
      *memory_, {.kernel_path = "/nonexistent/vmlinuz", .initrd_path = "", .command_line = ""});
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("/nonexistent/vmlinuz"));
}

TEST_F(KernelFiles, DirectoryFifoAndEmptyFileAreRefused) {
  absl::StatusOr<BootPlan> plan =
      LoadKernel(*memory_, {.kernel_path = "/tmp", .initrd_path = "", .command_line = ""});
  EXPECT_EQ(plan.status().code(), kInvalid);
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr("not a regular file"));
  const std::string fifo = Path("arch_boot_fifo");
  ::unlink(fifo.c_str());
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(OpenImage(fifo).status().code(), kInvalid);
  ::unlink(fifo.c_str());
  const std::string empty = Path("arch_boot_empty");
  std::ofstream(empty).close();
  EXPECT_THAT(std::string(OpenImage(empty).status().message()), HasSubstr("empty"));
  ::unlink(empty.c_str());
}

TEST_F(KernelFiles, FileThatShrinksIsRefused) {
  const std::string path = Path("arch_boot_shrinks");
  std::ofstream(path) << std::string(8192, 'x');
  absl::StatusOr<std::unique_ptr<Image>> image = OpenImage(path);
  ASSERT_TRUE(image.ok());
  ASSERT_EQ(::truncate(path.c_str(), 100), 0);
  std::array<std::byte, 200> into;
  EXPECT_THAT(std::string((*image)->ReadAt(0, into).message()), HasSubstr("shrank"));
  ::unlink(path.c_str());
}

}  // namespace
}  // namespace romulus::arch

#include "arch/boot.h"

#include <asm/bootparam.h>

#include <array>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "arch/boot_cpu.h"
#include "arch/kernel_loader.h"
#include "arch/memory_map.h"
#include "base/status.h"

namespace romulus::arch {
namespace {

// Address range types, the same numbers in e820 and PVH's memory map: ACPI 6.4, 15.
enum class MemoryType : uint32_t { kRam = 1, kReserved = 2 };

struct MapEntry {
  AddressRange range;
  MemoryType type;
};

// https://xenbits.xen.org/docs/unstable/hypercall/x86_64/include,public,arch-x86,hvm,start_info.h.html
struct StartInfo {
  uint32_t magic = 0x336ec578;
  uint32_t version = 1;
  uint32_t flags = 0;
  uint32_t module_count = 0;
  uint64_t modules = 0;
  uint64_t command_line = 0;
  uint64_t rsdp = 0;
  uint64_t memory_map = 0;
  uint32_t memory_map_entries = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(StartInfo) == 56);

struct StartInfoModule {
  uint64_t address = 0;
  uint64_t size_bytes = 0;
  uint64_t command_line = 0;
  uint64_t reserved = 0;
};
static_assert(sizeof(StartInfoModule) == 32);

struct StartInfoMapEntry {
  uint64_t address = 0;
  uint64_t size_bytes = 0;
  uint32_t type = 0;
  uint32_t reserved = 0;
};
static_assert(sizeof(StartInfoMapEntry) == 24);

// What the guest may use, ascending.
std::vector<MapEntry> MemoryMap(const memory::MemoryLayout& layout) {
  std::vector<MapEntry> map;
  map.push_back({{0, kLegacyReserved.start}, MemoryType::kRam});
  map.push_back(
      {{kLegacyReserved.start, kHighMemoryStart - kLegacyReserved.start}, MemoryType::kReserved});
  const std::vector<memory::Region>& regions = layout.regions();
  const uint64_t low_end = regions.front().gpa.value() + regions.front().size_bytes;
  map.push_back({{kHighMemoryStart, low_end - kHighMemoryStart}, MemoryType::kRam});
  map.push_back(
      {{kKvmIdentityMap.start, kKvmTss.end() - kKvmIdentityMap.start}, MemoryType::kReserved});
  for (size_t i = 1; i < regions.size(); ++i) {
    map.push_back({{regions[i].gpa.value(), regions[i].size_bytes}, MemoryType::kRam});
  }
  return map;
}

absl::Status WriteCommandLine(memory::GuestMemory& memory, const Image& kernel,
                              const LoadedKernel& loaded, absl::string_view command_line) {
  if (command_line.size() > loaded.command_line_max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("command line of ", command_line.size(),
                                                   " bytes; ", kernel.name(), " takes at most ",
                                                   loaded.command_line_max_bytes));
  }
  if (command_line.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError("command line has a zero byte");
  }
  std::string bytes(command_line);
  bytes.push_back('\0');
  return memory.Write(Gpa(kCommandLine.start), std::as_bytes(std::span<const char>(bytes)));
}

// As high as the kernel's limit and the memory below the hole allow, so that it is out of the way.
absl::StatusOr<AddressRange> LoadInitrd(memory::GuestMemory& memory, const Image& initrd,
                                        const LoadedKernel& loaded) {
  const memory::Region& low = memory.layout().regions().front();
  const uint64_t top = std::min(loaded.initrd_end_limit, low.gpa.value() + low.size_bytes);
  const uint64_t bottom = std::max(loaded.range.end(), kHighMemoryStart);
  if (top < bottom || initrd.size_bytes() > top - bottom ||
      ((top - initrd.size_bytes()) & ~(kPageSize - 1)) < bottom) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s: initrd of %d bytes does not fit between the kernel's end at 0x%x and 0x%x; give the "
        "guest more memory",
        initrd.name(), initrd.size_bytes(), loaded.range.end(), top));
  }
  const AddressRange range{(top - initrd.size_bytes()) & ~(kPageSize - 1), initrd.size_bytes()};
  ROMULUS_RETURN_IF_ERROR(LoadBytes(memory, initrd, 0, range));
  return range;
}

absl::Status WriteStartInfo(memory::GuestMemory& memory, AddressRange initrd) {
  constexpr uint64_t kModules = kPvhStartInfo.start + sizeof(StartInfo);
  constexpr uint64_t kMap = kModules + sizeof(StartInfoModule);
  std::vector<StartInfoMapEntry> entries;
  for (const MapEntry& entry : MemoryMap(memory.layout())) {
    entries.push_back({.address = entry.range.start,
                       .size_bytes = entry.range.size_bytes,
                       .type = static_cast<uint32_t>(entry.type)});
  }
  StartInfo info;
  info.command_line = kCommandLine.start;
  info.rsdp = kAcpiRsdp;
  info.memory_map = kMap;
  info.memory_map_entries = static_cast<uint32_t>(entries.size());
  if (initrd.size_bytes != 0) {
    info.module_count = 1;
    info.modules = kModules;
    ROMULUS_RETURN_IF_ERROR(memory.WriteObject(
        Gpa(kModules), StartInfoModule{.address = initrd.start, .size_bytes = initrd.size_bytes}));
  }
  ROMULUS_RETURN_IF_ERROR(memory.WriteObject(Gpa(kPvhStartInfo.start), info));
  return memory.Write(Gpa(kMap), std::as_bytes(std::span<const StartInfoMapEntry>(entries)));
}

absl::Status WriteBootParams(memory::GuestMemory& memory, const LoadedKernel& loaded,
                             AddressRange initrd) {
  auto params = std::make_unique<boot_params>();  // a page: not for the stack
  std::memset(params.get(), 0, sizeof(boot_params));
  std::memcpy(&params->hdr, loaded.linux_setup_header.data(), loaded.linux_setup_header.size());
  params->hdr.type_of_loader = 0xff;  // no assigned number
  params->hdr.vid_mode = 0xffff;      // "normal"
  params->hdr.code32_start = static_cast<uint32_t>(loaded.range.start);
  params->hdr.cmd_line_ptr = static_cast<uint32_t>(kCommandLine.start);
  params->hdr.ramdisk_image = static_cast<uint32_t>(initrd.start);
  params->hdr.ramdisk_size = static_cast<uint32_t>(initrd.size_bytes);
  params->hdr.setup_data = 0;
  params->acpi_rsdp_addr = kAcpiRsdp;
  uint8_t count = 0;
  for (const MapEntry& entry : MemoryMap(memory.layout())) {
    params->e820_table[count++] = {.addr = entry.range.start,
                                   .size = entry.range.size_bytes,
                                   .type = static_cast<uint32_t>(entry.type)};
  }
  params->e820_entries = count;
  static_assert(sizeof(boot_params) == kLinuxBootParams.size_bytes);
  return memory.Write(Gpa(kLinuxBootParams.start),
                      std::as_bytes(std::span<const boot_params, 1>(params.get(), 1)));
}

}  // namespace

std::span<const MsrValue> BootMsrs() {
  static constexpr std::array kMsrs{
      // IA32_MTRR_DEF_TYPE: MTRRs on, write-back. With MTRRs off Linux turns PAT off too, and PVH
      // promises write-back RAM.
      MsrValue{.index = 0x2ff, .value = 0x806},
      // IA32_MISC_ENABLE: fast strings. Without it Linux on Intel avoids `rep movsb`.
      MsrValue{.index = 0x1a0, .value = 0x1},
  };
  return kMsrs;
}

absl::StatusOr<BootPlan> LoadKernelImages(memory::GuestMemory& memory, const Image& kernel,
                                          const Image* initrd, absl::string_view command_line) {
  BootPlan plan;
  LoadedKernel loaded;
  if (IsElf(kernel)) {
    plan.kind = KernelKind::kPvhElf;
    ROMULUS_ASSIGN_OR_RETURN(loaded, LoadPvhElf(memory, kernel));
  } else if (IsBzImage(kernel)) {
    plan.kind = KernelKind::kLinuxBzImage;
    ROMULUS_ASSIGN_OR_RETURN(loaded, LoadBzImage(memory, kernel));
  } else {
    return kernel.Bad("neither an ELF with a PVH entry nor a Linux bzImage");
  }
  plan.kernel_start = loaded.range.start;
  plan.kernel_end = loaded.range.end();
  ROMULUS_RETURN_IF_ERROR(WriteCommandLine(memory, kernel, loaded, command_line));
  AddressRange initrd_range;
  if (initrd != nullptr) {
    ROMULUS_ASSIGN_OR_RETURN(initrd_range, LoadInitrd(memory, *initrd, loaded));
    plan.initrd_start = initrd_range.start;
    plan.initrd_size_bytes = initrd_range.size_bytes;
  }
  if (plan.kind == KernelKind::kPvhElf) {
    ROMULUS_RETURN_IF_ERROR(WriteStartInfo(memory, initrd_range));
    ROMULUS_ASSIGN_OR_RETURN(plan.registers,
                             PreparePvhCpu(memory, loaded.entry, kPvhStartInfo.start));
  } else {
    ROMULUS_RETURN_IF_ERROR(WriteBootParams(memory, loaded, initrd_range));
    ROMULUS_ASSIGN_OR_RETURN(plan.registers,
                             PrepareLinuxCpu(memory, loaded.entry, kLinuxBootParams.start));
  }
  return plan;
}

absl::StatusOr<BootPlan> LoadKernel(memory::GuestMemory& memory, const BootSpec& spec) {
  absl::StatusOr<std::unique_ptr<Image>> kernel = OpenImage(spec.kernel_path);
  if (!kernel.ok()) return base::Annotate(kernel.status(), "kernel");
  std::unique_ptr<Image> initrd;
  if (!spec.initrd_path.empty()) {
    absl::StatusOr<std::unique_ptr<Image>> opened = OpenImage(spec.initrd_path);
    if (!opened.ok()) return base::Annotate(opened.status(), "initrd");
    initrd = *std::move(opened);
  }
  return LoadKernelImages(memory, **kernel, initrd.get(), spec.command_line);
}

}  // namespace romulus::arch

// Linux bzImage by the 64-bit boot protocol: https://docs.kernel.org/arch/x86/boot.html
#include <asm/bootparam.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "arch/kernel_loader.h"
#include "base/status.h"

namespace romulus::arch {
namespace {

constexpr uint64_t kSetupHeaderOffset = 0x1f1;
constexpr uint64_t kHeaderLengthOffset = 0x201;  // second byte of the jump at 0x200
constexpr uint32_t kHeaderMagic = 0x53726448;    // "HdrS"
constexpr uint16_t kMinProtocol = 0x020c;        // 2.12: xloadflags
constexpr uint64_t kEntry64Offset = 0x200;
constexpr uint64_t kSectorBytes = 512;
constexpr uint64_t kParagraphBytes = 16;  // what syssize counts

uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

// Where the kernel goes: where it prefers to be, or, if that is not RAM and it can be moved, lower.
absl::StatusOr<uint64_t> ChooseAddress(const memory::GuestMemory& memory, const Image& kernel,
                                       const setup_header& header, uint64_t size_bytes) {
  // Copies: nothing may refer to a field of a packed struct, as StrFormat would.
  const uint64_t wanted = header.pref_address;
  const uint64_t alignment = header.kernel_alignment;
  absl::Status preferred = CheckTarget(memory, kernel, {wanted, size_bytes});
  if (preferred.ok()) {
    if (wanted >= kHighMemoryStart && wanted < memory::kHoleStart) return wanted;
    preferred = kernel.Bad(absl::StrFormat("preferred address 0x%x is out of reach", wanted));
  }
  if (header.relocatable_kernel == 0) return preferred;
  if (!std::has_single_bit(alignment)) {
    return kernel.Bad(absl::StrFormat("kernel_alignment 0x%x is no power of two", alignment));
  }
  const uint64_t address = AlignUp(kHighMemoryStart, alignment);
  ROMULUS_RETURN_IF_ERROR(CheckTarget(memory, kernel, {address, size_bytes}));
  return address;
}

}  // namespace

bool IsBzImage(const Image& kernel) {
  absl::StatusOr<uint32_t> magic =
      kernel.ReadObjectAt<uint32_t>(kSetupHeaderOffset + offsetof(setup_header, header));
  return magic.ok() && *magic == kHeaderMagic;
}

absl::StatusOr<LoadedKernel> LoadBzImage(memory::GuestMemory& memory, const Image& kernel) {
  ROMULUS_ASSIGN_OR_RETURN(setup_header header,
                           kernel.ReadObjectAt<setup_header>(kSetupHeaderOffset));
  if (header.version < kMinProtocol) {
    return kernel.Bad(absl::StrFormat("Linux boot protocol %d.%02d; 2.12 or later is needed",
                                      header.version >> 8, header.version & 0xff));
  }
  if ((header.xloadflags & XLF_KERNEL_64) == 0) {
    return kernel.Bad("Linux kernel without a 64-bit entry point (XLF_KERNEL_64): 32-bit kernel?");
  }
  if ((header.loadflags & LOADED_HIGH) == 0) return kernel.Bad("zImage, not bzImage");

  ROMULUS_ASSIGN_OR_RETURN(const uint8_t header_length,
                           kernel.ReadObjectAt<uint8_t>(kHeaderLengthOffset));
  const uint64_t header_end = kHeaderLengthOffset + 1 + header_length;
  const uint64_t needed_end =
      kSetupHeaderOffset + offsetof(setup_header, init_size) + sizeof(header.init_size);
  if (header_end < needed_end) {
    return kernel.Bad(absl::StrFormat("setup header ends at 0x%x, before init_size", header_end));
  }

  const uint64_t setup_sectors = header.setup_sects == 0 ? 4 : header.setup_sects;
  const uint64_t payload_offset = (setup_sectors + 1) * kSectorBytes;
  uint64_t payload_bytes = uint64_t{header.syssize} * kParagraphBytes;
  const uint64_t file_bytes =
      kernel.size_bytes() - std::min<uint64_t>(kernel.size_bytes(), payload_offset);
  // Not every image is padded to what its header rounds up to: memtest86+ is not.
  if (payload_bytes >= file_bytes + kParagraphBytes) {
    return kernel.Bad(absl::StrCat("truncated: the header promises ", payload_bytes,
                                   " bytes of kernel at offset ", payload_offset, ", the file has ",
                                   kernel.size_bytes()));
  }
  payload_bytes = std::min(payload_bytes, file_bytes);
  if (payload_bytes <= kEntry64Offset) {
    return kernel.Bad(
        absl::StrCat("entry point 0x200 lies outside the kernel's ", payload_bytes, " bytes"));
  }

  LoadedKernel loaded;
  loaded.range.size_bytes = std::max<uint64_t>(header.init_size, payload_bytes);
  ROMULUS_ASSIGN_OR_RETURN(loaded.range.start,
                           ChooseAddress(memory, kernel, header, loaded.range.size_bytes));
  ROMULUS_RETURN_IF_ERROR(
      LoadBytes(memory, kernel, payload_offset, {loaded.range.start, payload_bytes}));
  loaded.entry = loaded.range.start + kEntry64Offset;
  loaded.initrd_end_limit =
      std::min<uint64_t>(memory::kHoleStart, uint64_t{header.initrd_addr_max} + 1);
  loaded.command_line_max_bytes =
      std::min<uint64_t>(kCommandLine.size_bytes - 1, header.cmdline_size);
  const uint64_t header_bytes =
      std::min<uint64_t>(header_end - kSetupHeaderOffset, sizeof(setup_header));
  loaded.linux_setup_header.resize(header_bytes);
  ROMULUS_RETURN_IF_ERROR(kernel.ReadAt(
      kSetupHeaderOffset, std::as_writable_bytes(std::span<char>(loaded.linux_setup_header))));
  return loaded;
}

}  // namespace romulus::arch

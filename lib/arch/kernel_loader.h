// The two loaders behind boot.h, which see only the kernel image: each puts its segments into
// memory and says where they lie and where the kernel starts. One thread per memory.
#ifndef ROMULUS_ARCH_KERNEL_LOADER_H_
#define ROMULUS_ARCH_KERNEL_LOADER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "arch/image.h"
#include "arch/memory_map.h"
#include "memory/guest_memory.h"

namespace romulus::arch {

struct LoadedKernel {
  AddressRange
      range;  // from the first byte to the end of the last, bss and Linux's init_size included
  uint64_t entry = 0;  // guest physical
  // Bytes of the setup header, from 0x1f1 of the image on. Linux only.
  std::string linux_setup_header;
  uint64_t initrd_end_limit = 0;        // an initrd must end at or below this address
  uint64_t command_line_max_bytes = 0;  // without the final zero
};

bool IsElf(const Image& kernel);
bool IsBzImage(const Image& kernel);

absl::StatusOr<LoadedKernel> LoadPvhElf(memory::GuestMemory& memory, const Image& kernel);
absl::StatusOr<LoadedKernel> LoadBzImage(memory::GuestMemory& memory, const Image& kernel);

// Reads [offset, offset + size) of the image to `gpa`. Errors: as Image::ReadAt; ResourceExhausted
// if the range is not RAM.
absl::Status LoadBytes(memory::GuestMemory& memory, const Image& image, uint64_t offset,
                       AddressRange target);

// InvalidArgument if `range` touches what the loader itself puts into low memory; ResourceExhausted
// if it is not within one piece of RAM.
absl::Status CheckTarget(const memory::GuestMemory& memory, const Image& image, AddressRange range);

}  // namespace romulus::arch

#endif  // ROMULUS_ARCH_KERNEL_LOADER_H_

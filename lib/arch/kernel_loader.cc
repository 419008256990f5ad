#include "arch/kernel_loader.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"

namespace romulus::arch {

absl::Status CheckTarget(const memory::GuestMemory& memory, const Image& image,
                         AddressRange range) {
  if (range.start > std::numeric_limits<uint64_t>::max() - range.size_bytes) {
    return image.Bad(
        absl::StrFormat("address 0x%x plus size 0x%x overflows", range.start, range.size_bytes));
  }
  if (memory.layout().Find(Gpa(range.start), range.size_bytes) == nullptr) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "%s: needs memory [0x%x, 0x%x), which the guest's %d MiB do not hold", image.name(),
        range.start, range.end(), memory.layout().size_bytes() >> 20));
  }
  if (range.start < internal::kLowRam.front().start) {
    return image.Bad(absl::StrFormat("wants page 0 (address 0x%x)", range.start));
  }
  for (const AddressRange& taken : internal::kLowRam) {
    if (range.Overlaps(taken)) {
      return image.Bad(absl::StrFormat("[0x%x, 0x%x) overlaps [0x%x, 0x%x), which boot data use",
                                       range.start, range.end(), taken.start, taken.end()));
    }
  }
  return absl::OkStatus();
}

absl::Status LoadBytes(memory::GuestMemory& memory, const Image& image, uint64_t offset,
                       AddressRange target) {
  if (target.size_bytes == 0) return absl::OkStatus();
  ROMULUS_RETURN_IF_ERROR(CheckTarget(memory, image, target));
  ROMULUS_ASSIGN_OR_RETURN(std::span<std::byte> into,
                           memory.WritableSpan(Gpa(target.start), target.size_bytes));
  // Marked before the read: a read that fails halfway has written too.
  ROMULUS_RETURN_IF_ERROR(memory.MarkWritten(Gpa(target.start), target.size_bytes));
  return image.ReadAt(offset, into);
}

}  // namespace romulus::arch

// Kernel images from nowhere: LoadKernelImages must answer with a plan that keeps its promises, or
// with a Status. Input: one byte of choices, then the kernel's bytes.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "arch/boot.h"
#include "arch/memory_map.h"
#include "base/check.h"

namespace romulus::arch {
namespace {

constexpr uint64_t kMemoryMib = 64;

void CheckPlan(const memory::GuestMemory& memory, const BootPlan& plan) {
  const AddressRange kernel{plan.kernel_start, plan.kernel_end - plan.kernel_start};
  ROMULUS_CHECK(kernel.size_bytes > 0);
  ROMULUS_CHECK(memory.layout().Find(Gpa(kernel.start), kernel.size_bytes) != nullptr);
  ROMULUS_CHECK(plan.registers.rip >= kernel.start && plan.registers.rip < kernel.end());
  if (plan.kind == KernelKind::kLinuxBzImage) {
    for (const AddressRange& taken : internal::kLowRam) ROMULUS_CHECK(!kernel.Overlaps(taken));
  }
  if (plan.initrd_start != 0) {
    const AddressRange initrd{plan.initrd_start, plan.initrd_size_bytes};
    ROMULUS_CHECK(memory.layout().Find(Gpa(initrd.start), initrd.size_bytes) != nullptr);
    ROMULUS_CHECK(!initrd.Overlaps(kernel));
  }
}

void FuzzOne(std::span<const std::byte> input) {
  // One memory for all runs: a loader that trusted what it finds there would be wrong anyway.
  static const std::unique_ptr<memory::GuestMemory> memory =
      memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(kMemoryMib)).value();
  if (input.empty()) return;
  const uint8_t choices = static_cast<uint8_t>(input.front());
  const std::unique_ptr<Image> kernel = ImageOfBytes("kernel", input.subspan(1));
  const std::vector<std::byte> initrd_bytes(size_t{choices} * 1000 + 1, std::byte{'i'});
  const std::unique_ptr<Image> initrd =
      (choices & 1) != 0 ? ImageOfBytes("initrd", initrd_bytes) : nullptr;
  const absl::StatusOr<BootPlan> plan =
      LoadKernelImages(*memory, *kernel, initrd.get(), (choices & 2) != 0 ? "console=ttyS0" : "");
  if (plan.ok()) CheckPlan(*memory, *plan);
}

}  // namespace
}  // namespace romulus::arch

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  romulus::arch::FuzzOne(std::as_bytes(std::span<const uint8_t>(data, size)));
  return 0;
}

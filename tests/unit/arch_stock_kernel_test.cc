// Kernels as Debian ships them, which scripts/lab-setup has fetched: hence under the lab's label.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "arch/boot.h"
#include "memory/guest_memory.h"

namespace romulus::arch {
namespace {

TEST(StockKernel, Loads) {
  const char* cache = std::getenv("ROMULUS_CACHE");
  const char* home = std::getenv("HOME");
  const std::string base =
      cache != nullptr ? cache : std::string(home != nullptr ? home : "") + "/.cache/romulus";
  int found = 0;
  for (const char* name : {"/kernels/guest/vmlinuz", "/kernels/host/vmlinuz"}) {
    const std::string path = base + name;
    if (!std::filesystem::exists(path)) continue;
    ++found;
    const auto memory = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(256));
    const absl::StatusOr<BootPlan> plan = LoadKernel(
        *memory, {.kernel_path = path, .initrd_path = "", .command_line = "console=ttyS0"});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->kind, KernelKind::kLinuxBzImage);
    EXPECT_EQ(plan->registers.rip, plan->kernel_start + 0x200);
    EXPECT_GT(plan->kernel_end - plan->kernel_start, std::filesystem::file_size(path));
  }
  if (found == 0) GTEST_SKIP() << "no stock kernel in " << base;
}

}  // namespace
}  // namespace romulus::arch

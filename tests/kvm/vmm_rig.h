// A Machine with the ledger guest, and what a test needs around it: a console to wait on, a
// listener, copies of memory. Used by one test thread; the machine's own threads call the sinks.
#ifndef ROMULUS_TESTS_KVM_VMM_RIG_H_
#define ROMULUS_TESTS_KVM_VMM_RIG_H_

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"
#include "vmm/machine.h"

namespace romulus::testing {

#define ROMULUS_TEST_CONCAT_INNER(a, b) a##b
#define ROMULUS_TEST_CONCAT(a, b) ROMULUS_TEST_CONCAT_INNER(a, b)
#define ASSERT_OK(expression)                                     \
  do {                                                            \
    const absl::Status romulus_test_status = (expression);        \
    ASSERT_TRUE(romulus_test_status.ok()) << romulus_test_status; \
  } while (false)
#define ASSERT_OK_AND_ASSIGN(lhs, expression) \
  ASSERT_OK_AND_ASSIGN_IMPL(ROMULUS_TEST_CONCAT(romulus_test_or_, __LINE__), lhs, expression)
#define ASSERT_OK_AND_ASSIGN_IMPL(tmp, lhs, expression) \
  auto tmp = (expression);                              \
  ASSERT_TRUE(tmp.ok()) << tmp.status();                \
  lhs = *std::move(tmp)

// So long nothing here takes unless it hangs; no test passes because of it.
inline constexpr std::chrono::seconds kPatience(60);

// Console and listener of one machine.
class Witness final : public devices::ConsoleSink, public vmm::GuestListener {
 public:
  void WriteConsole(std::span<const std::byte> bytes) override {
    std::lock_guard lock(mutex_);
    for (const std::byte b : bytes) {
      text_.push_back(static_cast<char>(b));
      if (b == std::byte{'\n'}) ++lines_;
    }
    changed_.notify_all();
  }
  void OnDirtyRingFull() override {
    std::lock_guard lock(mutex_);
    ++ring_full_;
    changed_.notify_all();
  }
  void OnGuestStopped(vmm::GuestStop reason, const absl::Status& detail) override {
    std::lock_guard lock(mutex_);
    ++stops_;
    stop_ = reason;
    detail_ = detail;
    changed_.notify_all();
  }

  std::string text() const {
    std::lock_guard lock(mutex_);
    return text_;
  }
  int ring_full() const {
    std::lock_guard lock(mutex_);
    return ring_full_;
  }
  int stops() const {
    std::lock_guard lock(mutex_);
    return stops_;
  }
  std::optional<vmm::GuestStop> stop() const {
    std::lock_guard lock(mutex_);
    return stop_;
  }
  absl::Status detail() const {
    std::lock_guard lock(mutex_);
    return detail_;
  }
  // False if it did not happen, or the guest stopped before.
  bool AwaitLines(size_t lines) const {
    return Await([&] { return lines_ >= lines || stops_ > 0; }) && Lines() >= lines;
  }
  bool AwaitStop() const {
    return Await([&] { return stops_ > 0; });
  }
  bool AwaitRingFull(int count) const {
    return Await([&] { return ring_full_ >= count || stops_ > 0; }) && ring_full() >= count;
  }

 private:
  template <typename Condition>
  bool Await(Condition condition) const {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, condition);
  }
  size_t Lines() const {
    std::lock_guard lock(mutex_);
    return lines_;
  }

  // Not absl's: ThreadSanitizer does not see into Debian's build of it.
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::string text_;
  size_t lines_ = 0;
  int ring_full_ = 0;
  int stops_ = 0;
  std::optional<vmm::GuestStop> stop_;
  absl::Status detail_;
};

inline std::shared_ptr<memory::GuestMemory> NewMemory(uint64_t memory_mib = 16) {
  auto memory = memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(memory_mib));
  EXPECT_TRUE(memory.ok()) << memory.status();
  return *std::move(memory);
}

inline std::shared_ptr<memory::GuestMemory> CopyOf(const memory::GuestMemory& source) {
  auto copy = memory::GuestMemory::Create(source.layout());
  EXPECT_TRUE(copy.ok()) << copy.status();
  for (const memory::Region& region : source.layout().regions()) {
    const auto from = source.ReadableSpan(region.gpa, region.size_bytes);
    const auto to = (*copy)->WritableSpan(region.gpa, region.size_bytes);
    EXPECT_TRUE(from.ok() && to.ok());
    std::memcpy(to->data(), from->data(), from->size());
  }
  return *std::move(copy);
}

// Page writes of the first `vcpus` vCPUs, from the ledger's progress pages.
inline uint64_t LedgerWrites(const memory::GuestMemory& memory, int vcpus) {
  uint64_t writes = 0;
  for (int i = 0; i < vcpus; ++i) {
    writes +=
        *memory.ReadObject<uint64_t>(Gpa(0x200000 + static_cast<uint64_t>(i) * kPageSize + 0x18));
  }
  return writes;
}

// Checks a ledger console: the steps rise by one from 1, nothing is corrupt; the last one is
// `done`.
inline ::testing::AssertionResult LedgerIsIntact(const std::string& console, uint64_t steps) {
  uint64_t last = 0;
  bool done = false;
  for (absl::string_view line : absl::StrSplit(console, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ');
    if (words.size() > 2 && words[0] == "step") {
      uint64_t step = 0;
      if (!absl::SimpleAtoi(words[1], &step) || step != last + 1 || words.back() != "ok") {
        return ::testing::AssertionFailure() << "after step " << last << ": " << line;
      }
      last = step;
    } else if (words.size() > 2 && words[0] == "ledger:" && words[1] == "done") {
      done = words.back() == "ok";
    } else if (words[0] != "ledger:") {
      return ::testing::AssertionFailure() << "after step " << last << ": " << line;
    }
  }
  if (!done || last != steps) {
    return ::testing::AssertionFailure() << "last step " << last << ", done " << done << "\n"
                                         << console;
  }
  return ::testing::AssertionSuccess();
}

// The smallest PVH ELF around some 32-bit code.
inline std::string WritePvhElf(const std::string& path, const std::string& code) {
  std::string elf(0x1000, '\0');
  auto put16 = [&](size_t at, uint16_t v) { std::memcpy(elf.data() + at, &v, 2); };
  auto put32 = [&](size_t at, uint32_t v) { std::memcpy(elf.data() + at, &v, 4); };
  constexpr uint32_t kEntry = 0x100000;
  std::memcpy(elf.data(),
              "\x7f"
              "ELF\x01\x01\x01",
              7);
  put16(16, 2);  // executable
  put16(18, 3);  // 386
  put32(20, 1);
  put32(24, kEntry);
  put32(28, 52);  // program headers
  put16(40, 52);
  put16(42, 32);
  put16(44, 2);
  const uint32_t load[] = {1,
                           0x1000,
                           kEntry,
                           kEntry,
                           static_cast<uint32_t>(code.size()),
                           static_cast<uint32_t>(code.size()),
                           7,
                           0x1000};
  std::memcpy(elf.data() + 52, load, sizeof(load));
  const uint32_t note[] = {4, 0x200, 0, 0, 20, 20, 4, 4};
  std::memcpy(elf.data() + 84, note, sizeof(note));
  put32(0x200, 4);   // name size
  put32(0x204, 4);   // descriptor size
  put32(0x208, 18);  // XEN_ELFNOTE_PHYS32_ENTRY
  std::memcpy(elf.data() + 0x20c, "Xen", 4);
  put32(0x210, kEntry);
  elf += code;
  std::ofstream(path, std::ios::binary) << elf;
  return path;
}

class VmmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto system = kvm::System::Open();
    ASSERT_TRUE(system.ok()) << system.status();
    system_ = *std::move(system);
  }

  vmm::MachineSpec Spec(Witness& witness, int vcpus, absl::string_view options) {
    vmm::MachineSpec spec;
    spec.vcpu_count = vcpus;
    spec.memory = NewMemory();
    spec.boot.kernel_path = LEDGER_ELF;
    spec.boot.command_line = absl::StrCat("vcpus=", vcpus, " ", options);
    spec.console = &witness;
    spec.listener = &witness;
    return spec;
  }

  std::unique_ptr<kvm::System> system_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_KVM_VMM_RIG_H_

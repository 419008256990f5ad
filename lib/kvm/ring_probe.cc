#include "kvm/ring_probe.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mapped_region.h"
#include "base/status.h"
#include "base/types.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"

namespace romulus::kvm {
namespace {

// The guest's memory, and in it page tables for the first 2 MiB, code, and two pages to write to.
constexpr uint64_t kMemoryBytes = 64 << 10;
constexpr uint64_t kPml4 = 0x1000;
constexpr uint64_t kPdpt = 0x2000;
constexpr uint64_t kDirectory = 0x3000;
constexpr uint64_t kCode = 0x4000;
constexpr uint64_t kFirst = 8;  // GFNs
constexpr uint64_t kSecond = 9;

// Present, writable, user, and accessed and dirty already: the processor has nothing to write.
constexpr uint64_t kTableEntry = 0x67;
constexpr uint64_t kLargePageEntry = 0xe7;

// In user mode, since where guest kernels are emulated every write is logged.
constexpr uint8_t kProgram[] = {
    0xc6, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, 0x01,  // movb $1, 0x8000
    0xc6, 0x04, 0x25, 0x00, 0x90, 0x00, 0x00, 0x01,  // movb $1, 0x9000
    0xe6, 0x10,                                      // outb %al, $0x10
    0xeb, 0xec,                                      // jmp to the beginning
};

kvm_segment UserSegment(uint16_t selector, uint8_t type, bool is_code) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector | 3;
  segment.type = type;
  segment.present = 1;
  segment.dpl = 3;
  segment.db = !is_code;
  segment.s = 1;
  segment.l = is_code;
  segment.g = 1;
  return segment;
}

absl::Status SetUserMode(Vcpu& vcpu) {
  ROMULUS_ASSIGN_OR_RETURN(kvm_sregs sregs, vcpu.GetSregs());
  sregs.cr0 = 0x80010033;  // PG WP NE ET MP PE
  sregs.cr3 = kPml4;
  sregs.cr4 = 0x20;    // PAE
  sregs.efer = 0x501;  // LMA LME SCE
  sregs.cs = UserSegment(0x30, 0xb, true);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = UserSegment(0x28, 0x3, false);
  ROMULUS_RETURN_IF_ERROR(vcpu.SetSregs(sregs));
  kvm_regs regs{};
  regs.rip = kCode;
  regs.rflags = 0x3002;  // I/O for everybody
  return vcpu.SetRegs(regs);
}

// The pages written until the guest does its I/O, as its ring has them.
absl::StatusOr<std::vector<uint64_t>> PagesWritten(Vcpu& vcpu) {
  ROMULUS_ASSIGN_OR_RETURN(const Exit exit, vcpu.Run());
  if (!std::holds_alternative<ExitIo>(exit)) {
    return absl::InternalError(absl::StrCat("a probe's guest ended by exit ", exit.index()));
  }
  std::vector<uint64_t> pages;
  vcpu.dirty_ring()->Harvest([&pages](uint32_t, uint64_t page) { pages.push_back(page); });
  return pages;
}

}  // namespace

absl::StatusOr<bool> RingResetsWhatEntriesSay(const System& system) {
  ROMULUS_ASSIGN_OR_RETURN(const base::MappedRegion memory,
                           base::MappedRegion::MapAnonymous(kMemoryBytes));
  const auto put = [&memory](uint64_t at, const void* from, size_t size) {
    std::memcpy(memory.bytes().data() + at, from, size);
  };
  const uint64_t entries[] = {kPdpt | kTableEntry, kDirectory | kTableEntry, kLargePageEntry};
  put(kPml4, &entries[0], sizeof(uint64_t));
  put(kPdpt, &entries[1], sizeof(uint64_t));
  put(kDirectory, &entries[2], sizeof(uint64_t));
  put(kCode, kProgram, sizeof(kProgram));

  ROMULUS_ASSIGN_OR_RETURN(const std::unique_ptr<Vm> vm, system.CreateVm());
  ROMULUS_RETURN_IF_ERROR(vm->EnableDirtyRing(system.capabilities().min_ring_entries()));
  // SAFETY: a number for the kernel; the mapping outlives the VM, which is made after it.
  const auto address = reinterpret_cast<uint64_t>(memory.bytes().data());
  ROMULUS_RETURN_IF_ERROR(vm->SetMemorySlot(0, Gpa(0), kMemoryBytes, address, {.log_dirty = true}));
  ROMULUS_ASSIGN_OR_RETURN(const std::unique_ptr<Vcpu> vcpu, vm->CreateVcpu(0));
  ROMULUS_ASSIGN_OR_RETURN(const auto cpuid, system.SupportedCpuid());
  ROMULUS_RETURN_IF_ERROR(vcpu->SetCpuid(cpuid));
  ROMULUS_RETURN_IF_ERROR(SetUserMode(*vcpu));

  ROMULUS_ASSIGN_OR_RETURN(const std::vector<uint64_t> first, PagesWritten(*vcpu));
  for (const uint64_t page : {kFirst, kSecond}) {
    if (std::find(first.begin(), first.end(), page) == first.end()) {
      return absl::InternalError("a probe's guest wrote a page that was not logged");
    }
  }
  // All entries are given back; one of them says "the second page", and no other says anything.
  vcpu->dirty_ring()->GiveBack(0, kSecond);
  while (vcpu->dirty_ring()->outstanding() > 0) vcpu->dirty_ring()->GiveBackUnused();
  ROMULUS_ASSIGN_OR_RETURN(const uint32_t reset, vm->ResetDirtyRings());
  if (reset != first.size()) return absl::InternalError("a probe's ring was not reset");
  ROMULUS_ASSIGN_OR_RETURN(const std::vector<uint64_t> second, PagesWritten(*vcpu));
  return second == std::vector<uint64_t>{kSecond};
}

}  // namespace romulus::kvm

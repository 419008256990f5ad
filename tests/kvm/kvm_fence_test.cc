// lib/kvm against the real device, with guests of a few hand-assembled real-mode instructions.
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kvm/probe.h"
#include "kvm/system.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/guest_memory.h"

namespace romulus::kvm {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kCode = 0x1000;

class FenceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto system = System::Open();
    ASSERT_TRUE(system.ok()) << system.status();
    system_ = *std::move(system);
    auto vm = system_->CreateVm();
    ASSERT_TRUE(vm.ok()) << vm.status();
    vm_ = *std::move(vm);
    memory_ = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(4));
  }

  void MapMemory(bool log_dirty) {
    const memory::Region& region = memory_->layout().regions()[0];
    const absl::Status status = vm_->SetMemorySlot(
        0, region.gpa, region.size_bytes, memory_->HostAddress(region), {.log_dirty = log_dirty});
    ASSERT_TRUE(status.ok()) << status;
  }
  // A vCPU in real mode at `code`, all segments at 0.
  void CreateVcpu(std::initializer_list<uint8_t> code) {
    const std::vector<uint8_t> bytes(code);
    ASSERT_TRUE(memory_->Write(Gpa(kCode), std::as_bytes(std::span(bytes))).ok());
    ASSERT_TRUE(vm_->SetTssAddress(Gpa(0xfffbd000)).ok());
    auto vcpu = vm_->CreateVcpu(0);
    ASSERT_TRUE(vcpu.ok()) << vcpu.status();
    vcpu_ = *std::move(vcpu);
    kvm_sregs sregs = *vcpu_->GetSregs();
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    ASSERT_TRUE(vcpu_->SetSregs(sregs).ok());
    kvm_regs regs{};
    regs.rip = kCode;
    regs.rflags = 2;
    ASSERT_TRUE(vcpu_->SetRegs(regs).ok());
  }
  template <typename Kind>
  Kind RunTo() {
    absl::StatusOr<Exit> exit = vcpu_->Run();
    EXPECT_TRUE(exit.ok()) << exit.status();
    if (!exit.ok()) return {};
    EXPECT_TRUE(std::holds_alternative<Kind>(*exit)) << kExitNames[exit->index()];
    return std::holds_alternative<Kind>(*exit) ? std::get<Kind>(*exit) : Kind{};
  }

  std::unique_ptr<System> system_;
  std::unique_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<Vcpu> vcpu_;
};

TEST_F(FenceTest, ProbesWhatIsThere) {
  const ProbeReport report = Probe(*system_);
  EXPECT_EQ(report.capabilities.api_version, 12);
  EXPECT_TRUE(report.missing.empty());
  EXPECT_TRUE(system_->RequireForMachine().ok());
  EXPECT_GE(report.capabilities.xsave_bytes, 4096u);
  if (report.max_ring_entries > 0) {
    EXPECT_GE(report.max_ring_entries, report.min_ring_entries);
    EXPECT_GT(report.min_ring_entries, report.reserved_ring_entries);
  }
  EXPECT_TRUE(report.tsc_khz.has_value());
  // Both need ioctl numbers that plain C++ gets wrong.
  EXPECT_GT(system_->SupportedCpuid()->size(), 4u);
  EXPECT_GT(system_->MsrIndexList()->size(), 4u);
}

TEST_F(FenceTest, PortAndMemoryAccessesComeAsSpans) {
  MapMemory(false);
  CreateVcpu({
      0xba, 0xf8, 0x03,              // mov dx, 0x3f8
      0xb0, 0x41,                    // mov al, 'A'
      0xee,                          // out dx, al
      0xec,                          // in al, dx
      0xbb, 0xff, 0xff, 0x8e, 0xdb,  // mov bx, 0xffff; mov ds, bx
      0xa2, 0x10, 0x00,              // mov [0x10], al   (address 0x100000)
      0xf4,                          // hlt
  });
  // 0x100000 is taken away from the guest first, so that the store exits.
  const uint64_t host = memory_->HostAddress(memory_->layout().regions()[0]);
  ASSERT_TRUE(vm_->SetMemorySlot(0, Gpa(0), 0, host, {}).ok());
  ASSERT_TRUE(vm_->SetMemorySlot(0, Gpa(0), 0x100000, host, {}).ok());

  const ExitIo out = RunTo<ExitIo>();
  EXPECT_EQ(out.port, 0x3f8);
  EXPECT_TRUE(out.is_write);
  ASSERT_EQ(out.data.size(), 1u);
  EXPECT_EQ(out.data[0], std::byte{'A'});
  const ExitIo in = RunTo<ExitIo>();
  EXPECT_FALSE(in.is_write);
  ASSERT_EQ(in.data.size(), 1u);
  in.data[0] = std::byte{0x5a};
  const ExitMmio store = RunTo<ExitMmio>();
  EXPECT_EQ(store.gpa, 0x100000u);
  EXPECT_TRUE(store.is_write);
  ASSERT_EQ(store.data.size(), 1u);
  EXPECT_EQ(store.data[0], std::byte{0x5a});
  RunTo<ExitHlt>();
}

TEST_F(FenceTest, ImmediateExitCompletesTheAccessAndGoesNoFurther) {
  MapMemory(false);
  CreateVcpu({0xe4, 0x60,  // in al, 0x60
              0xe6, 0x61,  // out 0x61, al
              0xf4});
  ExitIo in = RunTo<ExitIo>();
  in.data[0] = std::byte{0x77};
  EXPECT_NE(vcpu_->GetRegs()->rax & 0xff, 0x77u) << "the access is still half done";
  vcpu_->SetImmediateExit(true);
  RunTo<ExitInterrupted>();
  EXPECT_EQ(vcpu_->GetRegs()->rax & 0xff, 0x77u);
  EXPECT_EQ(vcpu_->GetRegs()->rip, kCode + 2);
  if (vcpu_->sync_regs() != nullptr) {
    EXPECT_EQ(vcpu_->sync_regs()->regs.rip, kCode + 2) << "kvm_run has the state after completion";
    EXPECT_EQ(vcpu_->sync_regs()->regs.rax & 0xff, 0x77u);
  }
  RunTo<ExitInterrupted>();
  vcpu_->SetImmediateExit(false);
  EXPECT_EQ(RunTo<ExitIo>().port, 0x61);
}

// A store to each of the pages 0x10, 0x20 ... 0x70, then hlt.
constexpr std::initializer_list<uint8_t> kSevenStores = {0xbb, 0x00, 0x10,  // mov bx, 0x1000
                                                         0xb9, 0x07, 0x00,  // mov cx, 7
                                                         0x8e, 0xdb,        // loop: mov ds, bx
                                                         0xc6, 0x06, 0x00, 0x00,
                                                         0x99,  // mov byte [0], 0x99
                                                         0x81, 0xc3, 0x00, 0x10,  // add bx, 0x1000
                                                         0xe2, 0xf3,              // loop
                                                         0xf4};
constexpr uint64_t kFirstStore = 0x10;  // page; every 0x10 pages from there

TEST_F(FenceTest, TheRingNamesEveryPageOnceAndAgainAfterAReset) {
  if (system_->capabilities().dirty_ring_max_bytes == 0) GTEST_SKIP() << "no dirty ring here";
  ASSERT_TRUE(vm_->EnableDirtyRing(system_->capabilities().min_ring_entries()).ok());
  MapMemory(true);
  CreateVcpu(kSevenStores);
  DirtyRing& ring = *vcpu_->dirty_ring();
  for (int round = 0; round < 2; ++round) {
    kvm_regs regs{};
    regs.rip = kCode;
    regs.rflags = 2;
    ASSERT_TRUE(vcpu_->SetRegs(regs).ok());
    RunTo<ExitHlt>();
    EXPECT_TRUE(ring.EntryDirty(6));
    std::vector<uint64_t> pages;
    const uint32_t harvested = ring.Harvest([&](uint32_t slot, uint64_t offset) {
      EXPECT_EQ(slot, 0u);
      // KVM may name a page that was only executed (kvm-amd does, with nested paging).
      if (offset != kCode / kPageSize) pages.push_back(offset);
    });
    EXPECT_THAT(pages, ::testing::ElementsAre(0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70));
    EXPECT_FALSE(ring.EntryDirty(0));
    EXPECT_EQ(ring.outstanding(), harvested);
    // For each page one, in whatever order; none for the page that was only executed.
    while (ring.outstanding() > pages.size()) ring.GiveBackUnused();
    for (auto page = pages.rbegin(); page != pages.rend(); ++page) ring.GiveBack(0, *page);
    absl::StatusOr<uint32_t> reset = vm_->ResetDirtyRings();
    ASSERT_TRUE(reset.ok()) << reset.status();
    EXPECT_EQ(*reset, harvested);
  }
}

TEST_F(FenceTest, RingSizesAreCheckedWithReasons) {
  if (system_->capabilities().dirty_ring_max_bytes == 0) GTEST_SKIP() << "no dirty ring here";
  auto refusal = [&](uint32_t entries) {
    return std::string(vm_->EnableDirtyRing(entries).message());
  };
  EXPECT_THAT(refusal(0), HasSubstr("power of two"));
  EXPECT_THAT(refusal(1000), HasSubstr("power of two"));
  EXPECT_THAT(refusal(128), HasSubstr("at least"));
  EXPECT_THAT(refusal(system_->capabilities().max_ring_entries() * 2), HasSubstr("maximum"));
  // The smallest and the largest that pass our checks pass KVM's.
  EXPECT_EQ(refusal(system_->capabilities().max_ring_entries()), "");
  auto other = system_->CreateVm();
  EXPECT_TRUE((*other)->EnableDirtyRing(system_->capabilities().min_ring_entries()).ok());
  auto late = system_->CreateVm();
  auto vcpu = (*late)->CreateVcpu(0);
  ASSERT_TRUE(vcpu.ok());
  EXPECT_EQ((*late)->EnableDirtyRing(1024).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ((*vcpu)->dirty_ring(), nullptr);
}

// Only what is stable everywhere: on kvm-pvm the bitmap loses pages now and then.
TEST_F(FenceTest, TheBitmapLogNamesNoPageThatWasNotWritten) {
  const bool manual = vm_->EnableManualDirtyLogProtect().ok();
  MapMemory(true);
  CreateVcpu(kSevenStores);
  RunTo<ExitHlt>();
  std::vector<uint64_t> bitmap(memory_->layout().page_count() / 64);
  ASSERT_TRUE(vm_->GetDirtyLog(0, bitmap).ok());
  for (uint64_t page = 0; page < memory_->layout().page_count(); ++page) {
    if ((bitmap[page / 64] >> (page % 64) & 1) == 0 || page == kCode / kPageSize) continue;
    EXPECT_TRUE(page % kFirstStore == 0 && page / kFirstStore >= 1 && page / kFirstStore <= 7)
        << page;
  }
  if (!manual) return;
  ASSERT_TRUE(vm_->ClearDirtyLog(0, 0, 64, std::span(bitmap).first(1)).ok());
  std::vector<uint64_t> after(bitmap.size());
  ASSERT_TRUE(vm_->GetDirtyLog(0, after).ok());
  EXPECT_EQ(after[0], 0u);
  EXPECT_EQ(std::vector(after.begin() + 1, after.end()),
            std::vector(bitmap.begin() + 1, bitmap.end()))
      << "only what was cleared is gone";
}

TEST_F(FenceTest, RegistersComeBackAsTheyWereSet) {
  ASSERT_TRUE(vm_->CreateIrqChip().ok());
  MapMemory(false);
  CreateVcpu({0xf4});
  ASSERT_TRUE(vcpu_->SetCpuid(*system_->SupportedCpuid()).ok());
  std::vector<uint64_t> xsave(vcpu_->xsave_bytes() / 8);
  auto area = std::as_writable_bytes(std::span(xsave));
  ASSERT_TRUE(vcpu_->GetXsave(area).ok());
  xsave[20] = 0x1122334455667788;  // legacy area, XMM0
  xsave[64] |= 3;                  // XSTATE_BV: x87 and SSE are there
  ASSERT_TRUE(vcpu_->SetXsave(area).ok());
  std::vector<uint64_t> again(xsave.size());
  ASSERT_TRUE(vcpu_->GetXsave(std::as_writable_bytes(std::span(again))).ok());
  EXPECT_EQ(again[20], 0x1122334455667788u);
  EXPECT_FALSE(vcpu_->GetXsave(area.first(100)).ok());

  ASSERT_TRUE(vcpu_->SetMsr(0x174, 0x10).ok());
  EXPECT_EQ(*vcpu_->GetMsr(0x174), 0x10u);
  EXPECT_TRUE(absl::IsNotFound(vcpu_->GetMsr(0xdeadbeef).status()));
  // A refused MSR in the middle: the count says which.
  MsrsStruct msrs(3);
  msrs.header().nmsrs = 3;
  msrs.entries()[0].index = 0x174;
  msrs.entries()[1].index = 0xdeadbeef;
  msrs.entries()[2].index = 0x175;
  EXPECT_EQ(*vcpu_->GetMsrs(msrs), 1u);

  kvm_debugregs debug = *vcpu_->GetDebugRegs();
  debug.db[0] = 0x1234;
  ASSERT_TRUE(vcpu_->SetDebugRegs(debug).ok());
  EXPECT_EQ(vcpu_->GetDebugRegs()->db[0], 0x1234u);
  EXPECT_TRUE(vcpu_->SetMpState(*vcpu_->GetMpState()).ok());
  EXPECT_TRUE(vcpu_->SetLapic(*vcpu_->GetLapic()).ok());
  EXPECT_TRUE(vcpu_->SetXcrs(*vcpu_->GetXcrs()).ok());
  EXPECT_TRUE(vcpu_->SetEvents(*vcpu_->GetEvents()).ok());
}

}  // namespace
}  // namespace romulus::kvm

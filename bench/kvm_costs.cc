// What protection cannot do without on this host, measured by itself: a first write to a clean
// page, stopping a running vCPU, reading each item of its state, copying a page. From these follow
// the bounds that other benches are held against. Prints one JSON object.
//
//   kvm_costs --kernel build/release/guests/ledger.elf [--rounds 5]

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "support/machine_rig.h"
#include "tsc.h"

namespace romulus::bench {
namespace {

constexpr uint64_t kWorkingSet = 8192;  // pages; fits into a ring
constexpr int kKicks = 300;
constexpr int kReads = 300;
constexpr uint64_t kCopied = 4096;  // pages

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Microseconds of one call, the median of many.
double MedianUs(const base::Clock& clock, int times, const std::function<absl::Status()>& call,
                absl::Status* failure) {
  std::vector<double> us;
  for (int i = 0; i < times; ++i) {
    const uint64_t began_ns = clock.NowNs();
    failure->Update(call());
    us.push_back(static_cast<double>(clock.NowNs() - began_ns) / 1e3);
  }
  return Median(std::move(us));
}

absl::StatusOr<std::unique_ptr<testing::MachineRig>> StartGuest(const std::string& kernel,
                                                                vmm::DirtyLogMode mode) {
  ROMULUS_ASSIGN_OR_RETURN(const std::string tsc_word, TscWord());
  ROMULUS_ASSIGN_OR_RETURN(
      auto rig,
      testing::MachineRig::Create({.kernel = kernel,
                                   .command_line = absl::StrCat(
                                       "workload=sequential bytes=8 verify=0 report_ms=60000 lsr=0 "
                                       "pages=",
                                       kWorkingSet, tsc_word),
                                   .memory_mib = 64,
                                   .dirty_log = mode,
                                   .ring_entries = 65536}));
  ROMULUS_RETURN_IF_ERROR(rig->machine->Start());
  rig->AwaitProgress(2 * kWorkingSet);
  return rig;
}

// All pages are clean afterwards.
absl::Status Clean(testing::MachineRig& rig) {
  ROMULUS_ASSIGN_OR_RETURN(const auto paused, rig.machine->Pause({.capture_state = false}));
  ROMULUS_RETURN_IF_ERROR(rig.tracker->Harvest());
  ROMULUS_RETURN_IF_ERROR(rig.tracker->Reset());
  rig.tracker->Union();
  rig.tracker->Forget();
  return absl::OkStatus();
}

// Sweeps over the working set: in the first each page is clean, in the second none is.
absl::StatusOr<double> FirstWriteUs(const std::string& kernel, vmm::DirtyLogMode mode, int rounds) {
  ROMULUS_ASSIGN_OR_RETURN(const auto rig, StartGuest(kernel, mode));
  ROMULUS_RETURN_IF_ERROR(rig->machine->SetDirtyLogging(true));
  std::vector<double> us;
  for (int round = 0; round < rounds; ++round) {
    ROMULUS_RETURN_IF_ERROR(Clean(*rig));
    uint64_t at_ns[3];
    for (uint64_t& at : at_ns) {
      at = rig->clock.NowNs();
      rig->AwaitProgress(kWorkingSet);
    }
    const auto first = static_cast<double>(at_ns[1] - at_ns[0]);
    const auto second = static_cast<double>(at_ns[2] - at_ns[1]);
    us.push_back((first - second) / 1e3 / kWorkingSet);
    if (rig->stopped) return absl::AbortedError("guest stopped: " + rig->stop_detail());
  }
  return Median(std::move(us));
}

// From the request until every vCPU is out, of a guest that computes.
absl::StatusOr<double> KickUs(const std::string& kernel) {
  ROMULUS_ASSIGN_OR_RETURN(const auto rig, StartGuest(kernel, vmm::DirtyLogMode::kNone));
  std::vector<double> us;
  for (int i = 0; i < kKicks; ++i) {
    rig->AwaitProgress(10);
    const uint64_t began_ns = rig->clock.NowNs();
    ROMULUS_ASSIGN_OR_RETURN(const auto paused, rig->machine->Pause({.capture_state = false}));
    us.push_back(static_cast<double>(rig->clock.NowNs() - began_ns) / 1e3);
  }
  return Median(std::move(us));
}

using Costs = std::vector<std::pair<std::string, double>>;

// Each item of a vCPU's state that does not come with the exit, and of a VM's. One MSR stands for
// all: they can be read with one ioctl.
absl::Status ReadCosts(Costs* vcpu_us, Costs* vm_us) {
  const base::MonotonicClock clock;
  ROMULUS_ASSIGN_OR_RETURN(const auto system, kvm::System::Open());
  ROMULUS_ASSIGN_OR_RETURN(const auto vm, system->CreateVm());
  ROMULUS_RETURN_IF_ERROR(vm->CreateIrqChip());
  ROMULUS_RETURN_IF_ERROR(vm->CreatePit());
  ROMULUS_ASSIGN_OR_RETURN(const auto vcpu, vm->CreateVcpu(0));
  std::vector<uint64_t> xsave(vcpu->xsave_bytes() / 8);
  constexpr uint32_t kTsc = 0x10;
  absl::Status failure;
  const auto measure = [&](Costs* into, const char* name,
                           const std::function<absl::Status()>& call) {
    into->emplace_back(name, MedianUs(clock, kReads, call, &failure));
  };
  measure(vcpu_us, "xsave",
          [&] { return vcpu->GetXsave(std::as_writable_bytes(std::span<uint64_t>(xsave))); });
  measure(vcpu_us, "xcrs", [&] { return vcpu->GetXcrs().status(); });
  measure(vcpu_us, "debug_registers", [&] { return vcpu->GetDebugRegs().status(); });
  measure(vcpu_us, "mp_state", [&] { return vcpu->GetMpState().status(); });
  measure(vcpu_us, "lapic", [&] { return vcpu->GetLapic().status(); });
  measure(vcpu_us, "msr", [&] { return vcpu->GetMsr(kTsc).status(); });
  measure(vm_us, "ioapic", [&] { return vm->GetIrqChip(kvm::IrqChip::kIoapic).status(); });
  measure(vm_us, "pic", [&] { return vm->GetIrqChip(kvm::IrqChip::kPicMaster).status(); });
  measure(vm_us, "pit", [&] { return vm->GetPit().status(); });
  measure(vm_us, "clock", [&] { return vm->GetClock().status(); });
  return failure;
}

// Pages that nobody has just looked at, into a buffer that is used again and again.
double CopyPageUs() {
  const base::MonotonicClock clock;
  constexpr uint64_t kSourcePages = 16384;
  std::vector<char> source(kSourcePages * kPageSize, 'x');
  std::vector<char> staging(kCopied * kPageSize, 'y');
  std::mt19937_64 random(1);
  std::vector<double> us;
  for (int round = 0; round < 5; ++round) {
    const uint64_t began_ns = clock.NowNs();
    for (uint64_t i = 0; i < kCopied; ++i) {
      std::memcpy(staging.data() + i * kPageSize,
                  source.data() + random() % kSourcePages * kPageSize, kPageSize);
    }
    us.push_back(static_cast<double>(clock.NowNs() - began_ns) / 1e3 / kCopied);
  }
  return Median(std::move(us));
}

std::string Json(const Costs& costs) {
  return absl::StrCat("{",
                      absl::StrJoin(costs, ", ",
                                    [](std::string* out, const auto& cost) {
                                      absl::StrAppendFormat(out, "\"%s\": %.4f", cost.first,
                                                            cost.second);
                                    }),
                      "}");
}

absl::Status Run(const std::string& kernel, int rounds) {
  ROMULUS_ASSIGN_OR_RETURN(const double ring_us,
                           FirstWriteUs(kernel, vmm::DirtyLogMode::kRing, rounds));
  ROMULUS_ASSIGN_OR_RETURN(const double bitmap_us,
                           FirstWriteUs(kernel, vmm::DirtyLogMode::kBitmap, rounds));
  ROMULUS_ASSIGN_OR_RETURN(const double kick_us, KickUs(kernel));
  Costs vcpu_us, vm_us;
  ROMULUS_RETURN_IF_ERROR(ReadCosts(&vcpu_us, &vm_us));
  std::printf(
      "{\"first_write_us\": {\"ring\": %.3f, \"bitmap\": %.3f}, \"kick_us\": %.3f, "
      "\"copy_page_us\": %.4f, \"vcpu_items_us\": %s, \"vm_items_us\": %s}\n",
      ring_us, bitmap_us, kick_us, CopyPageUs(), Json(vcpu_us).c_str(), Json(vm_us).c_str());
  return absl::OkStatus();
}

}  // namespace
}  // namespace romulus::bench

int main(int argc, char** argv) {
  std::string kernel;
  int rounds = 5;
  CLI::App app{"What protection cannot do without on this host"};
  app.add_option("--kernel", kernel, "ledger.elf")->required();
  app.add_option("--rounds", rounds, "of the first write");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = romulus::bench::Run(kernel, rounds);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

// Boots a foreign kernel and meanwhile does to it, again and again, one of the things that
// protection does, to find out which of them it does not survive. No network, one process.
//
//   boot_stress --kernel vmlinux --initrd guest.cpio --append "console=ttyS0"
//               --until "tick 000003"  what a line of the console begins with
//               --mode checkpoint --every-us 0 [--compare-every 20] [--bitmap] [--vcpus 2]
//
// Prints one line `outcome=... mode=... pauses=...`; if the guest stopped, also its vCPUs'
// registers (KVM-AMD resets a vCPU that shut down: then they are those of a reset) and the end of
// its console. Exit status: 0 `until` appeared, 1 the guest stopped, 2 it was late, 3 its replica
// differs or a checkpoint failed, 4 it could not be started.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "kvm/abi.h"
#include "support/machine_rig.h"

namespace romulus::testing {
namespace {

using Ms = std::chrono::milliseconds;

enum class Mode {
  kNone,        // no dirty log, no pause
  kLog,         // dirty log; it pauses only when a ring is full
  kPause,       // pauses, no dirty log
  kCapture,     // pauses in which all state is read, no dirty log
  kToggle,      // the dirty log goes on and off
  kDrain,       // pauses in which the dirty log is harvested and reset
  kCheckpoint,  // all of it
  kRestore,     // pauses after which a new machine goes on, as after a promotion
};

const std::map<std::string, Mode> kModes = {{"none", Mode::kNone},
                                            {"log", Mode::kLog},
                                            {"pause", Mode::kPause},
                                            {"capture", Mode::kCapture},
                                            {"toggle", Mode::kToggle},
                                            {"drain", Mode::kDrain},
                                            {"checkpoint", Mode::kCheckpoint},
                                            {"restore", Mode::kRestore}};

struct Settings {
  std::string mode = "checkpoint";
  std::string kernel, initrd, append = "console=ttyS0 panic=-1", until = "tick ";
  int vcpus = 1;
  uint64_t memory_mib = 128;
  uint32_t ring_entries = 4096;
  bool bitmap = false;
  uint64_t every_us = 0;       // mean time from one pause to the next; 0: at once
  uint64_t compare_every = 0;  // checkpoints; 0: no replica
  uint64_t seed = 1;
  uint64_t timeout_s = 120;
  uint64_t walk_cr3 = 0, walk_address = 0;  // for modes that capture nothing
};

void PrintRegisters(vmm::Machine& machine) {
  auto paused = machine.Pause({.capture_state = true});
  auto state = paused.ok() ? (*paused)->TakeState() : paused.status();
  if (!state.ok()) {
    std::cout << "registers: " << state.status() << "\n";
    return;
  }
  for (uint32_t i = 0; i < static_cast<uint32_t>(machine.vcpu_count()); ++i) {
    const auto regs = state->TakeStruct<kvm_regs>("vcpu.regs", i, 1);
    const auto sregs = state->TakeStruct<kvm_sregs>("vcpu.sregs", i, 1);
    const auto events = state->TakeStruct<kvm_vcpu_events>("vcpu.events", i, 1);
    if (!regs.ok() || !sregs.ok() || !events.ok()) continue;
    std::cout << absl::StrFormat(
        "vcpu%d rip=%x rsp=%x rflags=%x cs=%x/%x cr0=%x cr2=%x cr3=%x cr4=%x efer=%x idt=%x+%x "
        "gdt=%x+%x tr=%x exception=%d:%d:%x\n",
        i, regs->rip, regs->rsp, regs->rflags, sregs->cs.selector, sregs->cs.base, sregs->cr0,
        sregs->cr2, sregs->cr3, sregs->cr4, sregs->efer, sregs->idt.base, sregs->idt.limit,
        sregs->gdt.base, sregs->gdt.limit, sregs->tr.base, events->exception.injected,
        events->exception.nr, events->exception.error_code);
  }
}

// What the guest's page tables in memory say about an address: with an exit_int_info of #PF they
// tell whether memory was damaged or the CPU read it wrongly. 4 levels (Intel SDM vol. 3, 4.5).
void PrintWalk(const memory::GuestMemory& memory, uint64_t cr3, uint64_t address) {
  constexpr uint64_t kFrame = 0x000ffffffffff000;
  std::cout << absl::StrFormat("walk of %x by cr3 %x:", address, cr3);
  uint64_t table = cr3 & kFrame;
  for (int shift = 39; shift >= 12; shift -= 9) {
    const auto entry = memory.ReadObject<uint64_t>(Gpa(table + ((address >> shift) & 511) * 8));
    if (!entry.ok()) {
      std::cout << " outside memory";
      break;
    }
    std::cout << absl::StrFormat(" %x", *entry);
    if ((*entry & 1) == 0 || (*entry & 0x80) != 0) break;
    table = *entry & kFrame;
  }
  std::cout << "\n";
}

class Stress {
 public:
  Stress(const Settings& settings, MachineRig& rig)
      : settings_(settings),
        rig_(rig),
        mode_(kModes.at(settings.mode)),
        checkpoint_(rig.Parts()),
        random_(settings.seed) {}

  absl::Status Prepare() {
    if (mode_ == Mode::kLog || mode_ == Mode::kDrain || mode_ == Mode::kCheckpoint) {
      ROMULUS_RETURN_IF_ERROR(rig_.machine->SetDirtyLogging(true));
    }
    if (mode_ != Mode::kCheckpoint || settings_.compare_every == 0) return absl::OkStatus();
    replica_ = std::make_unique<InProcessReplica>(rig_.memory->layout());
    ROMULUS_RETURN_IF_ERROR(replica_->FullSync(*rig_.memory, Term(1)));
    checkpoint_.SetObserver([this](const epoch::StagedEpoch& staged) {
      compared_ = replica_->Commit(staged);
      if (compared_.ok() && pauses_ % settings_.compare_every == 0) {
        compared_ = replica_->CompareWith(*rig_.memory);
        ++compares_;
      }
    });
    return absl::OkStatus();
  }

  // Once; a full ring may ask for it before it is due.
  absl::Status Act() {
    ++pauses_;
    const bool full = rig_.ring_full.exchange(false);
    switch (mode_) {
      case Mode::kNone:
        return absl::OkStatus();
      case Mode::kPause:
      case Mode::kCapture: {
        auto paused = rig_.machine->Pause({.capture_state = mode_ == Mode::kCapture});
        if (!paused.ok() || mode_ == Mode::kPause) return paused.status();
        auto state = (*paused)->TakeState();
        if (state.ok()) last_state_ = *std::move(state);
        return state.status();
      }
      case Mode::kRestore:
        return rig_.MoveToNewMachine();
      case Mode::kToggle:
        return rig_.machine->SetDirtyLogging(!rig_.machine->dirty_logging() && !full);
      case Mode::kLog:
      case Mode::kDrain: {
        auto drained = checkpoint_.Drain();
        if (drained.ok()) pages_ += drained->size();
        return drained.status();
      }
      case Mode::kCheckpoint: {
        auto staged = checkpoint_.Run(Term(1), EpochId(pauses_), epoch::CutReason::kRequest, &sink_,
                                      [] { return absl::OkStatus(); });
        if (!staged.ok()) return staged.status();
        pages_ += staged->page_count;
        last_state_ = staged->machine;
        rig_.gate->Release(EpochId(pauses_));
        return compared_;
      }
    }
    return absl::OkStatus();
  }

  // How long until the next pause; only a full ring is a reason for the modes that have none.
  std::chrono::microseconds NextWait() {
    if (mode_ == Mode::kNone || mode_ == Mode::kLog) return std::chrono::hours(1);
    if (settings_.every_us == 0) return std::chrono::microseconds(0);
    return std::chrono::microseconds(random_() % (2 * settings_.every_us));
  }

  // The last that was captured before the guest stopped.
  void PrintLastState() {
    const auto regs = last_state_.TakeStruct<kvm_regs>("vcpu.regs", 0, 1);
    const auto sregs = last_state_.TakeStruct<kvm_sregs>("vcpu.sregs", 0, 1);
    const uint64_t cr3 = sregs.ok() ? sregs->cr3 : settings_.walk_cr3;
    const uint64_t rip = regs.ok() ? regs->rip : settings_.walk_address;
    if (regs.ok() && sregs.ok()) {
      std::cout << absl::StrFormat(
          "last captured: rip=%x rsp=%x cr0=%x cr2=%x cr3=%x cr4=%x efer=%x idt=%x gdt=%x\n",
          regs->rip, regs->rsp, sregs->cr0, sregs->cr2, sregs->cr3, sregs->cr4, sregs->efer,
          sregs->idt.base, sregs->gdt.base);
      PrintWalk(*rig_.memory, cr3, sregs->idt.base);
    }
    if (cr3 != 0) PrintWalk(*rig_.memory, cr3, rip);
  }

  int Run() {
    const auto began = std::chrono::steady_clock::now();
    const auto late = began + std::chrono::seconds(settings_.timeout_s);
    const std::string until = absl::StrCat("\n", settings_.until);
    absl::Status status = rig_.machine->Start();
    std::string outcome;
    int exit_status = 0;
    auto due = std::chrono::steady_clock::now();
    size_t searched = 0;
    while (outcome.empty()) {
      const auto now = std::chrono::steady_clock::now();
      if (rig_.stopped) {
        outcome = absl::StrCat("stopped (", rig_.stop_detail(), ")");
        exit_status = 1;
      } else if (!status.ok()) {
        outcome = absl::StrCat("failed (", status.ToString(), ")");
        exit_status = 3;
      } else if (now > late) {
        outcome = "late";
        exit_status = 2;
      } else if (const std::string text = rig_.released.text(); text.size() != searched) {
        searched = text.size();
        if (absl::StrContains(absl::StrCat("\n", text), until)) outcome = "reached";
      }
      if (!outcome.empty()) break;
      if (now >= due || rig_.ring_full) {
        status = Act();
        due = std::chrono::steady_clock::now() + NextWait();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(500));
      }
    }
    const auto took = std::chrono::duration_cast<Ms>(std::chrono::steady_clock::now() - began);
    std::cout << absl::StrFormat(
        "outcome=%s mode=%s log=%s vcpus=%d every_us=%d seed=%d pauses=%d pages=%d compares=%d "
        "ms=%d\n",
        outcome, settings_.mode, settings_.bitmap ? "bitmap" : "ring", settings_.vcpus,
        settings_.every_us, settings_.seed, pauses_, pages_, compares_, took.count());
    if (exit_status != 0) {
      PrintRegisters(*rig_.machine);
      PrintLastState();
      rig_.gate->Open();
      const std::string text = rig_.released.text();
      std::cout << "console ends: "
                << text.substr(text.size() - std::min<size_t>(text.size(), 3000)) << "\n";
    }
    return exit_status;
  }

 private:
  const Settings& settings_;
  MachineRig& rig_;
  const Mode mode_;
  epoch::Checkpoint checkpoint_;
  RecordingSink sink_;
  std::unique_ptr<InProcessReplica> replica_;
  std::mt19937_64 random_;
  absl::Status compared_;
  state::MachineState last_state_;
  uint64_t pauses_ = 0;
  uint64_t compares_ = 0;
  uint64_t pages_ = 0;
};

int Main(const Settings& settings) {
  const Mode mode = kModes.at(settings.mode);
  const bool logs = mode != Mode::kNone && mode != Mode::kPause && mode != Mode::kCapture &&
                    mode != Mode::kRestore;
  auto rig = MachineRig::Create({.kernel = settings.kernel,
                                 .initrd = settings.initrd,
                                 .command_line = settings.append,
                                 .vcpus = settings.vcpus,
                                 .memory_mib = settings.memory_mib,
                                 .dirty_log = !logs             ? vmm::DirtyLogMode::kNone
                                              : settings.bitmap ? vmm::DirtyLogMode::kBitmap
                                                                : vmm::DirtyLogMode::kRing,
                                 .ring_entries = settings.ring_entries,
                                 // A whole epoch fits in: the replica gets it in one piece.
                                 .staging_bytes = settings.memory_mib << 20});
  absl::Status status = rig.status();
  if (!status.ok()) {
    std::cerr << status << "\n";
    return 4;
  }
  Stress stress(settings, **rig);
  if (status = stress.Prepare(); !status.ok()) {
    std::cerr << status << "\n";
    return 4;
  }
  return stress.Run();
}

}  // namespace
}  // namespace romulus::testing

int main(int argc, char** argv) {
  romulus::testing::Settings settings;
  CLI::App app{"Boots a kernel under the strain of protection"};
  std::vector<std::string> modes;
  for (const auto& [name, mode] : romulus::testing::kModes) modes.push_back(name);
  app.add_option("--mode", settings.mode)->check(CLI::IsMember(modes));
  app.add_option("--kernel", settings.kernel, "bzImage or PVH ELF")->required();
  app.add_option("--initrd", settings.initrd);
  app.add_option("--append", settings.append, "kernel command line");
  app.add_option("--until", settings.until, "what a line of the console begins with");
  app.add_option("--vcpus", settings.vcpus);
  app.add_option("--memory-mib", settings.memory_mib);
  app.add_option("--ring-entries", settings.ring_entries);
  app.add_flag("--bitmap", settings.bitmap, "dirty bitmap, not rings");
  app.add_option("--every-us", settings.every_us, "mean time between pauses; 0: no time");
  app.add_option("--compare-every", settings.compare_every, "checkpoints; 0: no replica");
  app.add_option("--seed", settings.seed);
  app.add_option("--timeout-s", settings.timeout_s);
  app.add_option("--walk-cr3", settings.walk_cr3, "if it stops: page tables to look at");
  app.add_option("--walk-address", settings.walk_address, "and the address to look up");
  CLI11_PARSE(app, argc, argv);
  return romulus::testing::Main(settings);
}

// Records a corpus for page_codec: runs a guest, makes checkpoints, and writes each dirty page as
// it was at the last checkpoint that had it and as it is now.
//
//   record_pairs --kernel build/release/guests/ledger.elf --append "workload=hotcold pages=256"
//                --out ledger.pairs [--after-ms 1000] [--every-us 10000] [--max-pairs 20000]
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "base/status.h"
#include "page_pairs.h"
#include "support/machine_rig.h"

namespace romulus::bench {
namespace {

struct Settings {
  std::string kernel, initrd, append = "console=ttyS0 panic=-1", out;
  int vcpus = 1;
  uint64_t memory_mib = 128;
  uint64_t after_ms = 1000;
  uint64_t every_us = 10'000;
  uint64_t max_pairs = 20'000;
  double seconds = 20;
};

class Recorder {
 public:
  Recorder(const memory::MemoryLayout& layout, const Settings& settings)
      : last_(layout.gfn_end().value()), left_(settings.max_pairs), out_(settings.out) {}

  void OnEpoch(const epoch::StagedEpoch& staged) {
    for (const epoch::PageBatch& batch : staged.batches) {
      for (size_t i = 0; i < batch.gfns.size(); ++i) {
        auto& last = last_[batch.gfns[i].value()];
        const auto* const now =
            static_cast<const char*>(static_cast<const void*>(batch.chunk.data() + i * kPageSize));
        if (!last.empty() && left_ > 0) {
          out_.write(last.data(), kPageSize);
          out_.write(now, kPageSize);
          --left_;
          ++written_;
        }
        last.assign(now, kPageSize);
      }
    }
  }
  bool full() const { return left_ == 0; }
  uint64_t written() const { return written_; }
  bool Close() {
    out_.close();
    return !out_.fail();
  }

 private:
  std::vector<std::string> last_;  // by GFN; empty: not seen yet
  uint64_t left_;
  uint64_t written_ = 0;
  std::ofstream out_;
};

absl::Status Run(const Settings& settings) {
  ROMULUS_ASSIGN_OR_RETURN(
      auto rig, testing::MachineRig::Create({.kernel = settings.kernel,
                                             .initrd = settings.initrd,
                                             .command_line = settings.append,
                                             .vcpus = settings.vcpus,
                                             .memory_mib = settings.memory_mib,
                                             .ring_entries = 65536,
                                             .staging_bytes = settings.memory_mib << 20}));
  epoch::Checkpoint checkpoint(rig->Parts());
  Recorder recorder(rig->memory->layout(), settings);
  testing::RecordingSink sink;
  checkpoint.SetObserver([&](const epoch::StagedEpoch& staged) { recorder.OnEpoch(staged); });
  ROMULUS_RETURN_IF_ERROR(rig->machine->Start());
  // A guest that boots slowly would not get on for all the pauses.
  std::this_thread::sleep_for(std::chrono::milliseconds(settings.after_ms));
  ROMULUS_RETURN_IF_ERROR(rig->machine->SetDirtyLogging(true));
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(settings.seconds);
  uint64_t epochs = 0;
  auto due = Clock::now();
  while (!recorder.full() && !rig->stopped && due < end) {
    due += std::chrono::microseconds(settings.every_us);
    while (Clock::now() < due && !rig->ring_full) {
      std::this_thread::sleep_for(std::chrono::microseconds(200));  // how often it looks
    }
    rig->ring_full = false;
    ++epochs;
    ROMULUS_RETURN_IF_ERROR(checkpoint
                                .Run(Term(1), EpochId(epochs), epoch::CutReason::kRequest, &sink,
                                     [] { return absl::OkStatus(); })
                                .status());
    rig->gate->Release(EpochId(epochs));
  }
  if (!recorder.Close()) return absl::DataLossError("cannot write " + settings.out);
  std::cout << settings.out << ": " << recorder.written() << " pairs of " << epochs << " epochs";
  if (rig->stopped) std::cout << "; the guest ended: " << rig->stop_detail();
  if (recorder.written() == 0) std::cout << "; it said: " << rig->released.text();
  std::cout << "\n";
  return absl::OkStatus();
}

}  // namespace
}  // namespace romulus::bench

int main(int argc, char** argv) {
  romulus::bench::Settings settings;
  CLI::App app{"Records pairs of pages of a running guest"};
  app.add_option("--kernel", settings.kernel, "bzImage or PVH ELF")->required();
  app.add_option("--initrd", settings.initrd);
  app.add_option("--append", settings.append, "kernel command line");
  app.add_option("--out", settings.out, "file to write")->required();
  app.add_option("--vcpus", settings.vcpus);
  app.add_option("--memory-mib", settings.memory_mib);
  app.add_option("--after-ms", settings.after_ms, "from the start to the first checkpoint");
  app.add_option("--every-us", settings.every_us, "from one checkpoint to the next");
  app.add_option("--max-pairs", settings.max_pairs);
  app.add_option("--seconds", settings.seconds);
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = romulus::bench::Run(settings);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

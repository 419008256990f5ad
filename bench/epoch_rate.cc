// How many epochs a second are acked, how long the guest stands still, and how much of its speed is
// left, by the number of dirty pages per epoch. The ledger guest on KVM, the checkpoint loop, the
// real codec and gRPC over loopback to a secondary in another process. Nothing is asserted: it
// measures.
//
//   epoch_rate --kernel build/release/guests/ledger.elf [--pages 1,3,10] [--seconds 5] [--json
//   FILE]
//
// vCPUs have CPUs of their own if there are enough. --pages is how many first writes an epoch
// takes.
//
// --intervals-us 25000,1000: rows for each of these times from epoch to epoch instead, with no
// budget, so that `--pages` is the guest's working set.
//
// --only-writes: the guest reads back nothing of what it wrote, as it does otherwise with each
// write, a page at a time: what is left of an epoch is the hardware's and ours.
//
// --audit-pass-ms N: with the audit, at N ms for a pass of the rig's memory. What counts is the
// pages a second: 64 MiB in 4,700 ms cost what 4 GiB in 300 s do.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/cpu_affinity.h"
#include "base/heap.h"
#include "base/mutex_checks.h"
#include "describe_host.h"
#include "epoch/auditor.h"
#include "epoch/checkpoint_loop.h"
#include "epoch_rate.pb.h"
#include "loopback_secondary.h"
#include "report_json.h"
#include "rig.h"
#include "support/machine_rig.h"
#include "tsc.h"
#include "wire/grpc_polling.h"
#include "wire/primary_session.h"

namespace romulus::bench {
namespace {

struct Settings {
  std::string kernel;
  std::vector<uint64_t> pages = {1, 3, 10, 100, 1000, 4096};
  std::vector<std::string> tracking = {"ring", "bitmap"};
  bool steer = true;
  std::vector<uint64_t> hot_pages = {0};
  bool divide_cpus = true;
  bool only_writes = false;
  double seconds = 5;
  uint64_t max_interval_us = 100;
  std::vector<uint64_t> intervals_us;  // empty: by budget
  uint64_t memory_mib = 64;
  int vcpus = 1;
  uint64_t audit_pass_ms = 0;  // 0: no audit
  std::string json;
  std::string table;  // tab separated, for gnuplot
};

Quantiles QuantilesOf(std::vector<uint64_t> ns) {
  Quantiles q;
  if (ns.empty()) return q;
  std::sort(ns.begin(), ns.end());
  q.set_p50_us(static_cast<double>(ns[ns.size() / 2]) / 1e3);
  q.set_p99_us(static_cast<double>(ns[ns.size() * 99 / 100]) / 1e3);
  q.set_max_us(static_cast<double>(ns.back()) / 1e3);
  return q;
}

// Epochs of the whole run, and when the last one was cut.
struct Cuts {
  uint64_t count = 0;
  uint64_t last_ns = 0;
};

// Counts what passes between the checkpoint loop and the sender.
class Samples final : public epoch::EpochSink, public wire::AckListener {
 public:
  void StagePages(Term term, EpochId epoch, epoch::PageBatch batch) override {
    next->StagePages(term, epoch, std::move(batch));
  }
  void Submit(epoch::StagedEpoch staged) override {
    {
      absl::MutexLock lock(&mutex_);
      cuts_ = {cuts_.count + 1, clock->NowNs()};
      if (measuring_) {
        pause_ns_.push_back(staged.phases.pause_ns);
        for (size_t i = 0; i < epoch::kPhaseCount; ++i) phase_ns_[i].push_back(staged.phases.ns[i]);
        pages_ += staged.page_count;
        ++cut_;
      }
    }
    next->Submit(std::move(staged));
  }
  void Abort(Term term, EpochId epoch) override { next->Abort(term, epoch); }

  void OnEpochAcked(const wire::EpochAck& ack) override {
    loop->OnAcked(ack.epoch);
    absl::MutexLock lock(&mutex_);
    if (measuring_) ack_ns_.push_back(ack.submit_to_ack_ns);
  }
  void OnEpochSent(const wire::EpochSent& sent) override {
    absl::MutexLock lock(&mutex_);
    if (measuring_) bytes_ += sent.encoded.message_bytes;
  }
  absl::Status OnAudited(const wire::AuditReport& report) override {
    audited_pages = report.audited_pages;
    if (!report.mismatches.empty()) {
      std::cerr << "the audit found " << report.mismatched_pages << " pages that are not equal\n";
    }
    return absl::OkStatus();
  }
  void OnSenderClosed(const absl::Status&) override {}

  void Measure(bool on) {
    absl::MutexLock lock(&mutex_);
    measuring_ = on;
  }
  Cuts cuts() const {
    absl::MutexLock lock(&mutex_);
    return cuts_;
  }
  void Fill(Row& row, double seconds) {
    absl::MutexLock lock(&mutex_);
    row.set_epochs(ack_ns_.size());
    row.set_epochs_per_s(static_cast<double>(ack_ns_.size()) / seconds);
    const double cut = std::max<double>(1, static_cast<double>(cut_));
    row.set_dirty_pages_mean(static_cast<double>(pages_) / cut);
    row.set_bytes_per_epoch(static_cast<double>(bytes_) / cut);
    *row.mutable_pause() = QuantilesOf(pause_ns_);
    *row.mutable_ack() = QuantilesOf(ack_ns_);
    for (size_t i = 0; i < epoch::kPhaseCount; ++i) {
      (*row.mutable_phases())[std::string(epoch::kPhaseNames[i])] = QuantilesOf(phase_ns_[i]);
    }
  }

  const base::Clock* clock = nullptr;
  epoch::EpochSink* next = nullptr;
  epoch::CheckpointLoop* loop = nullptr;
  std::atomic<uint64_t> audited_pages{0};  // in the whole run

 private:
  mutable absl::Mutex mutex_;
  Cuts cuts_ ABSL_GUARDED_BY(mutex_);
  bool measuring_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<uint64_t> pause_ns_ ABSL_GUARDED_BY(mutex_);
  std::array<std::vector<uint64_t>, epoch::kPhaseCount> phase_ns_ ABSL_GUARDED_BY(mutex_);
  std::vector<uint64_t> ack_ns_ ABSL_GUARDED_BY(mutex_);
  uint64_t pages_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t cut_ ABSL_GUARDED_BY(mutex_) = 0;
};

double WritesPerSecond(const testing::MachineRig& rig, double seconds) {
  const uint64_t before = rig.Progress();
  const uint64_t began_ns = rig.clock.NowNs();
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));  // the span measured
  return static_cast<double>(rig.Progress() - before) * 1e9 /
         static_cast<double>(rig.clock.NowNs() - began_ns);
}

// An interval begins when the guest goes on: a pause, and how late its end is noticed, come on top.
// So that epochs come at the rate that was asked for, it is made shorter by as much.
void SteerInterval(uint64_t period_us, const Samples& samples, epoch::CheckpointLoop& loop) {
  constexpr int kSteps = 8;
  constexpr int64_t kLeastNs = 20'000;
  const auto period_ns = static_cast<int64_t>(period_us * 1000);
  int64_t interval_ns = period_ns;
  for (int step = 0; step < kSteps; ++step) {
    const Cuts before = samples.cuts();
    std::this_thread::sleep_for(std::chrono::nanoseconds(std::max(100'000'000L, 8 * period_ns)));
    const Cuts after = samples.cuts();
    if (before.count == 0 || after.count == before.count) continue;
    const auto measured_ns =
        static_cast<int64_t>((after.last_ns - before.last_ns) / (after.count - before.count));
    // By half, so that one slow moment does not decide it.
    interval_ns = std::clamp(interval_ns + (period_ns - measured_ns) / 2, kLeastNs, period_ns);
    epoch::GovernorOptions governor = loop.governor_options();
    governor.max_interval_ns = static_cast<uint64_t>(interval_ns);
    loop.SetGovernorOptions(governor);
  }
}

// Writes a second of the guest alone.
absl::StatusOr<double> Unprotected(testing::MachineRigOptions options, double seconds) {
  options.dirty_log = vmm::DirtyLogMode::kNone;
  ROMULUS_ASSIGN_OR_RETURN(auto rig, BenchRig::Create(options));
  ROMULUS_RETURN_IF_ERROR(rig->machine->Start());
  rig->AwaitProgress(1000);
  return WritesPerSecond(*rig, seconds);
}

// `interval_us` is 0 for a row by budget.
absl::StatusOr<Row> Measure(const Settings& settings, const std::vector<int>& vcpu_cpus,
                            const std::string& tracking, uint64_t pages, uint64_t interval_us,
                            uint64_t hot_pages) {
  // The vCPU stops at the first write to the last page of a budget, before it is done: so many
  // first writes, and pages written, take a budget of one more.
  const bool stops_itself =
      settings.steer && tracking == "ring" && settings.vcpus == 1 && interval_us == 0;
  const uint64_t budget_pages = stops_itself ? pages + 1 : pages;
  // The guest's own page of counters is one of the dirty pages of each vCPU.
  const uint64_t counters = static_cast<uint64_t>(settings.vcpus);
  const uint64_t data_pages =
      std::max<uint64_t>(counters, budget_pages > counters ? budget_pages - counters : 1);
  ROMULUS_ASSIGN_OR_RETURN(const std::string tsc_word, TscWord());
  const testing::MachineRigOptions options{
      .kernel = settings.kernel,
      .command_line = absl::StrCat("vcpus=", settings.vcpus, " workload=sequential pages=",
                                   data_pages, " bytes=8 verify=0 report_ms=1000 lsr=0",
                                   budget_pages <= counters ? " workload=counter" : "",
                                   settings.only_writes ? " check=0" : "", tsc_word),
      .vcpus = settings.vcpus,
      .memory_mib = settings.memory_mib,
      .dirty_log = tracking == "ring" ? vmm::DirtyLogMode::kRing : vmm::DirtyLogMode::kBitmap,
      .ring_entries = 65536,
      .steer = settings.steer,
      .max_hot_pages = hot_pages,
      .vcpu_cpus = vcpu_cpus,
      .staging_bytes = 64u << 20};
  Row row;
  row.set_tracking(tracking);
  row.set_vcpus(static_cast<uint32_t>(settings.vcpus));
  row.set_pages_per_epoch(pages);
  row.set_interval_us(interval_us);
  row.set_hot_pages(hot_pages);
  // Half of it before the row, and half behind it: a host's speed changes meanwhile.
  const double alone_s = std::min(1.0, settings.seconds / 2);
  ROMULUS_ASSIGN_OR_RETURN(const double alone_before, Unprotected(options, alone_s));
  ROMULUS_ASSIGN_OR_RETURN(
      SecondaryProcess secondary,
      SecondaryProcess::Start({"--secondary", "--memory-mib", absl::StrCat(settings.memory_mib)}));
  ROMULUS_ASSIGN_OR_RETURN(auto rig, BenchRig::Create(options));
  Failures failures;
  // Time enough to dirty so many pages, at less than 60 us for a first write to a clean page. The
  // bitmap has no budget, so its epochs end by this: about when so many are dirty, at 30 us. A vCPU
  // that stops by itself needs no such end, and is not to be disturbed by it.
  const uint64_t page_us = tracking != "ring" ? 30 : stops_itself ? 600 : 60;
  const uint64_t max_interval_us =
      interval_us != 0 ? interval_us : std::max(settings.max_interval_us, pages * page_us);
  const bool budget = interval_us == 0;
  epoch::CheckpointParts parts = rig->Parts();
  std::optional<epoch::Auditor> auditor;
  if (settings.audit_pass_ms != 0) {
    auditor.emplace(rig->memory.get(), &rig->clock,
                    epoch::AuditOptions{.pass_ns = settings.audit_pass_ms * 1'000'000});
    parts.auditor = &*auditor;
  }
  epoch::CheckpointLoop loop(
      parts,
      {.governor = {.max_dirty_pages = budget ? budget_pages : 1u << 20,
                    .max_interval_ns = max_interval_us * 1000,
                    .min_interval_ns = 0},
       .max_unacked_epochs = 64,
       .spin_ns = epoch::SpinNs(settings.vcpus, vcpu_cpus),
       .cut_on_vcpu = settings.steer,
       .look_on_vcpu = settings.steer && epoch::LookOnVcpu(settings.vcpus, vcpu_cpus),
       .copying = {.helpers = epoch::CopyHelpers(vcpu_cpus)}},
      &failures);
  rig->loop = &loop;
  Samples samples;
  samples.clock = &rig->clock;
  samples.loop = &loop;
  NoNews no_news;
  ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<wire::PrimarySession> session,
                           OpenSession(secondary.address(), rig->memory->layout(), row.vcpus(),
                                       &rig->clock, &no_news, &samples));
  ROMULUS_RETURN_IF_ERROR(rig->machine->SetDirtyLogging(true));
  loop.Start();
  ROMULUS_RETURN_IF_ERROR(loop.BeginSync());
  ROMULUS_RETURN_IF_ERROR(rig->machine->Start());
  rig->AwaitProgress(100);
  LoopSyncSource source(&loop);
  ROMULUS_RETURN_IF_ERROR(session->RunFullSync(rig->memory.get(), &source).status());
  samples.next = &session->epochs();
  ROMULUS_RETURN_IF_ERROR(
      loop.BeginCutting(Term(1), memory::PageSet(rig->memory->layout().gfn_end()), &samples));
  rig->AwaitProgress(1000);
  if (!budget) SteerInterval(interval_us, samples, loop);
  samples.Measure(true);
  row.set_guest_writes_per_s(WritesPerSecond(*rig, settings.seconds));
  samples.Measure(false);
  samples.Fill(row, settings.seconds);
  row.set_aborted_checkpoints(failures.count);
  row.set_audited_pages(samples.audited_pages);
  loop.Halt();
  loop.Stop();
  rig->loop = nullptr;
  session->Close(absl::OkStatus());
  session.reset();
  rig->machine->Stop();
  if (rig->stopped) return absl::AbortedError("guest stopped: " + rig->stop_detail());
  ROMULUS_ASSIGN_OR_RETURN(const double alone_after, Unprotected(options, alone_s));
  row.set_unprotected_writes_per_s((alone_before + alone_after) / 2);
  row.set_progress_share(row.guest_writes_per_s() / std::max(1.0, row.unprotected_writes_per_s()));
  return row;
}

void PrintRow(const Row& row) {
  std::printf("%-7s %5llu %8.1f %9.0f %8.1f %8.1f %8.1f %8.1f %7.1f %9.0f\n",
              row.tracking().c_str(), static_cast<unsigned long long>(row.pages_per_epoch()),
              row.dirty_pages_mean(), row.epochs_per_s(), row.pause().p50_us(),
              row.pause().p99_us(), row.ack().p50_us(), row.ack().p99_us(),
              100 * row.progress_share(), row.bytes_per_epoch());
  if (row.audited_pages() != 0) {
    std::printf("        audited pages: %llu\n",
                static_cast<unsigned long long>(row.audited_pages()));
  }
  std::printf("        phases p50 us:");
  for (absl::string_view name : epoch::kPhaseNames) {
    const auto found = row.phases().find(std::string(name));
    if (found == row.phases().end()) continue;
    std::printf(" %s %.1f", found->first.c_str(), found->second.p50_us());
  }
  std::printf("\n");
  std::fflush(stdout);
}

absl::Status WriteFiles(const Settings& settings, const Report& report) {
  if (!settings.json.empty()) ROMULUS_RETURN_IF_ERROR(WriteJson(report, settings.json));
  if (!settings.table.empty()) {
    std::ofstream out(settings.table);
    for (const std::string& tracking : settings.tracking) {
      out << "\"" << tracking << "\"\n";
      for (const Row& row : report.rows()) {
        if (row.tracking() != tracking) continue;
        out << row.dirty_pages_mean() << '\t' << row.epochs_per_s() << '\t' << row.pause().p50_us()
            << '\t' << row.pause().p99_us() << '\t' << 100 * row.progress_share() << '\n';
      }
      out << "\n\n";
    }
  }
  return absl::OkStatus();
}

// vCPUs get the last of the host's CPUs, and all else the others, as a configuration's `cpus` does.
// Where there are not enough nothing is divided.
absl::StatusOr<std::vector<int>> DivideCpus(const Settings& settings) {
  std::vector<int> vcpu_cpus;
  const int cpus = static_cast<int>(std::thread::hardware_concurrency());
  if (!settings.divide_cpus || cpus <= settings.vcpus) return vcpu_cpus;
  std::vector<int> others;
  for (int cpu = 0; cpu < cpus; ++cpu) {
    (cpu < cpus - settings.vcpus ? others : vcpu_cpus).push_back(cpu);
  }
  ROMULUS_RETURN_IF_ERROR(base::KeepThreadOn(0, others));
  return vcpu_cpus;
}

absl::Status Run(const Settings& settings) {
  ROMULUS_ASSIGN_OR_RETURN(const std::vector<int> vcpu_cpus, DivideCpus(settings));
  Report report;
  report.set_cpus_divided(!vcpu_cpus.empty());
  report.set_only_writes(settings.only_writes);
  report.set_host(DescribeHost());
  report.set_seconds_per_row(settings.seconds);
  report.set_max_interval_us(settings.max_interval_us);
  report.set_memory_mib(settings.memory_mib);
  report.set_audit_pass_ms(settings.audit_pass_ms);
  std::printf("%s; %g s a row, max_interval %llu us, %d vCPU, %llu MiB\n", report.host().c_str(),
              settings.seconds, static_cast<unsigned long long>(settings.max_interval_us),
              settings.vcpus, static_cast<unsigned long long>(settings.memory_mib));
  std::printf("%-7s %5s %8s %9s %8s %8s %8s %8s %7s %9s\n", "log", "pages", "dirty", "epochs/s",
              "pause50", "pause99", "ack50", "ack99", "guest%", "bytes");
  std::vector<uint64_t> intervals_us = settings.intervals_us;
  if (intervals_us.empty()) intervals_us.push_back(0);
  for (const std::string& tracking : settings.tracking) {
    for (uint64_t pages : settings.pages) {
      for (uint64_t interval_us : intervals_us) {
        for (uint64_t hot_pages : settings.hot_pages) {
          ROMULUS_ASSIGN_OR_RETURN(
              const Row row, Measure(settings, vcpu_cpus, tracking, pages, interval_us, hot_pages));
          PrintRow(row);
          *report.add_rows() = row;
        }
      }
    }
  }
  return WriteFiles(settings, report);
}

}  // namespace
}  // namespace romulus::bench

int main(int argc, char** argv) {
  romulus::base::KeepFreedMemory();  // as the daemon does
  romulus::base::SkipMutexChecksInRelease();
  romulus::wire::PollOwnSockets();
  romulus::bench::Settings settings;
  bool secondary = false;
  CLI::App app{"Epochs per second, pause and guest progress by dirty pages per epoch"};
  app.add_flag("--secondary", secondary, "internal: be the secondary");
  app.add_option("--kernel", settings.kernel, "ledger.elf");
  app.add_option("--pages", settings.pages, "dirty pages per epoch")->delimiter(',');
  app.add_option("--tracking", settings.tracking, "ring, bitmap")->delimiter(',');
  app.add_flag("!--no-steer", settings.steer, "rings stop no vCPU at the budget");
  app.add_option("--hot-pages", settings.hot_pages,
                 "rows for each of these: so many may stay writable")
      ->delimiter(',');
  app.add_flag("!--no-divide-cpus", settings.divide_cpus, "no CPUs for vCPUs alone");
  app.add_flag("--only-writes", settings.only_writes, "the guest does nothing else");
  app.add_option("--seconds", settings.seconds, "per row");
  app.add_option("--max-interval-us", settings.max_interval_us, "longest epoch");
  app.add_option("--intervals-us", settings.intervals_us,
                 "times from epoch to epoch, instead of a budget; --pages is the working set")
      ->delimiter(',');
  app.add_option("--memory-mib", settings.memory_mib);
  app.add_option("--vcpus", settings.vcpus);
  app.add_option("--audit-pass-ms", settings.audit_pass_ms,
                 "compare all memory in this time; 0: no audit");
  app.add_option("--json", settings.json, "write the report here");
  app.add_option("--table", settings.table, "write a tab separated table here");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = secondary ? romulus::bench::ServeSecondary(settings.memory_mib)
                                        : romulus::bench::Run(settings);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

// How fast epochs and a full sync leave, beside what a bare gRPC stream with messages of the same
// size carries in the same run, over loopback to another process. Nothing is asserted: it measures.
//
//   transport --kernel build/release/guests/ledger.elf [--seconds 3] [--memory-mib 1024] [--json F]

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "bare_stream.h"
#include "base/heap.h"
#include "base/mapped_region.h"
#include "base/mutex_checks.h"
#include "codec/page_encoding.h"
#include "describe_host.h"
#include "loopback_secondary.h"
#include "report_json.h"
#include "rig.h"
#include "transport.pb.h"
#include "tsc.h"
#include "wire/grpc_polling.h"

namespace romulus::bench {
namespace {

constexpr uint64_t kPagesPerEpoch = 2048;  // 8 MiB
// What the guest uses itself; the rest is filled.
constexpr uint64_t kGuestBytes = 64u << 20;
// More than a session takes for itself.
constexpr size_t kSessionBytes = 256u << 20;

struct Settings {
  std::string kernel;
  double seconds = 3;
  uint64_t memory_mib = 1024;
  std::string json;
};

double OwnCpuSeconds() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

// The time from its construction until Fill(), and the processor time of both processes.
class Stopwatch {
 public:
  Stopwatch(const base::Clock* clock, const SecondaryProcess* secondary)
      : clock_(clock), secondary_(secondary), began_ns_(clock->NowNs()), cpu_(Cpu()) {}
  double seconds() const { return static_cast<double>(clock_->NowNs() - began_ns_) / 1e9; }
  TransportRow Row(const std::string& name, bool guest_runs, uint64_t bytes) const {
    const double took = seconds();
    TransportRow row;
    row.set_name(name);
    row.set_guest_runs(guest_runs);
    row.set_bytes(bytes);
    row.set_seconds(took);
    row.set_mib_per_s(static_cast<double>(bytes) / took / (1 << 20));
    // The guest's vCPU is a thread of ours.
    if (!guest_runs) row.set_cpu_s_per_gb((Cpu() - cpu_) / (static_cast<double>(bytes) / 1e9));
    return row;
  }

 private:
  double Cpu() const {
    return OwnCpuSeconds() + (secondary_ == nullptr ? 0 : secondary_->cpu_seconds());
  }

  const base::Clock* const clock_;
  const SecondaryProcess* const secondary_;
  const uint64_t began_ns_;
  const double cpu_;
};

class Sent final : public wire::AckListener {
 public:
  void OnEpochAcked(const wire::EpochAck&) override {}
  void OnEpochSent(const wire::EpochSent& sent) override { bytes += sent.encoded.message_bytes; }
  void OnSenderClosed(const absl::Status&) override {}  // what failed is seen by whoever waits
  std::atomic<uint64_t> bytes{0};
};

class NothingDirty final : public wire::SyncSource {
 public:
  explicit NothingDirty(Gfn gfn_end) : gfn_end_(gfn_end) {}
  absl::StatusOr<memory::PageSet> TakeDirty() override { return memory::PageSet(gfn_end_); }

 private:
  const Gfn gfn_end_;
};

void FillRandom(std::span<std::byte> bytes) {
  std::mt19937_64 random(1);
  for (size_t at = 0; at + sizeof(uint64_t) <= bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t word = random();
    std::memcpy(bytes.data() + at, &word, sizeof(word));
  }
}

// A virtual machine gets its memory from its host at the first touch, which can take longer than
// all that a row measures: what a session will take was touched just before.
absl::Status TouchFreeMemory() {
  ROMULUS_ASSIGN_OR_RETURN(const base::MappedRegion memory,
                           base::MappedRegion::MapAnonymous(kSessionBytes));
  memory.Populate(0, memory.size_bytes());
  return absl::OkStatus();
}

// All of the regions from `from` on.
template <typename Do>
absl::Status ForMemory(memory::GuestMemory& memory, uint64_t from, Do work) {
  for (const memory::Region& region : memory.layout().regions()) {
    const uint64_t begin = std::max(from, region.gpa.value());
    const uint64_t end = region.gpa.value() + region.size_bytes;
    if (begin >= end) continue;
    ROMULUS_ASSIGN_OR_RETURN(const std::span<std::byte> bytes,
                             memory.WritableSpan(Gpa(begin), end - begin));
    work(bytes);
  }
  return absl::OkStatus();
}

class Bench {
 public:
  Bench(const Settings& settings, memory::MemoryLayout layout)
      : settings_(settings), layout_(std::move(layout)), source_(256u << 20) {
    FillRandom(source_);
  }

  absl::StatusOr<TransportRow> Bare(size_t message_bytes, bool guest_runs) {
    ROMULUS_ASSIGN_OR_RETURN(const SecondaryProcess peer, SecondaryProcess::Start({"--bare-peer"}));
    uint64_t bytes = 0;
    std::optional<Stopwatch> watch;
    ROMULUS_RETURN_IF_ERROR(SendBareStream(
        peer.address(), source_, message_bytes, [&] { watch.emplace(&clock_, &peer); },
        [&](uint64_t sent) {
          bytes = sent;
          return watch->seconds() >= settings_.seconds;
        }));
    return watch->Row(absl::StrCat("bare stream, messages of ", message_bytes >> 10, " KiB"),
                      guest_runs, bytes);
  }

  // Epochs of pages that compress to nothing, staged already: from Submit() to the last ack.
  absl::StatusOr<TransportRow> Epochs(uint64_t previous_cache_bytes) {
    ROMULUS_ASSIGN_OR_RETURN(const SecondaryProcess peer, StartPeer());
    ROMULUS_ASSIGN_OR_RETURN(const auto memory, memory::GuestMemory::Create(layout_));
    ROMULUS_ASSIGN_OR_RETURN(const auto staging, epoch::StagingPool::Create(64u << 20));
    {
      std::vector<epoch::StagingChunk> chunks;
      while (auto chunk = staging->TryAcquire()) {
        FillRandom({chunk->data(), epoch::StagingChunk::kBytes});
        chunks.push_back(*std::move(chunk));
      }
    }
    ROMULUS_RETURN_IF_ERROR(TouchFreeMemory());
    Sent sent;
    NothingDirty nothing(layout_.gfn_end());
    ROMULUS_ASSIGN_OR_RETURN(
        const auto session,
        OpenSession(peer.address(), layout_, 1, &clock_, &no_news_, &sent, previous_cache_bytes));
    ROMULUS_RETURN_IF_ERROR(session->RunFullSync(memory.get(), &nothing).status());
    const uint64_t before = sent.bytes;
    const Stopwatch watch(&clock_, &peer);
    for (uint64_t n = 1; watch.seconds() < settings_.seconds; ++n) {
      ROMULUS_RETURN_IF_ERROR(session->epochs().AwaitRoom(absl::Seconds(10)));
      ROMULUS_ASSIGN_OR_RETURN(epoch::StagedEpoch staged, Stage(EpochId(n), *staging));
      session->epochs().Submit(std::move(staged));
    }
    ROMULUS_RETURN_IF_ERROR(session->epochs().AwaitAllAcked(absl::Seconds(30)));
    return watch.Row(previous_cache_bytes == 0 ? "epochs, no cache of previous pages" : "epochs",
                     /*guest_runs=*/false, sent.bytes - before);
  }

  absl::StatusOr<TransportRow> FullSyncAlone(bool zero) {
    ROMULUS_ASSIGN_OR_RETURN(const SecondaryProcess peer, StartPeer());
    ROMULUS_ASSIGN_OR_RETURN(const auto memory, memory::GuestMemory::Create(layout_));
    ROMULUS_RETURN_IF_ERROR(ForMemory(*memory, 0, [zero](std::span<std::byte> bytes) {
      if (!zero) return FillRandom(bytes);
      for (size_t at = 0; at < bytes.size(); at += kPageSize) bytes[at] = std::byte{0};
    }));
    ROMULUS_RETURN_IF_ERROR(TouchFreeMemory());
    Sent sent;
    NothingDirty nothing(layout_.gfn_end());
    ROMULUS_ASSIGN_OR_RETURN(const auto session,
                             OpenSession(peer.address(), layout_, 1, &clock_, &no_news_, &sent));
    const Stopwatch watch(&clock_, &peer);
    ROMULUS_ASSIGN_OR_RETURN(const wire::SyncProgress progress,
                             session->RunFullSync(memory.get(), &nothing));
    ROMULUS_RETURN_IF_ERROR(AwaitReplica(*session));
    return watch.Row(zero ? "full sync of zeros" : "full sync", /*guest_runs=*/false,
                     zero ? layout_.size_bytes() : progress.bytes_sent);
  }

  // What a full sync of zeros cannot do without.
  absl::StatusOr<TransportRow> Scan() {
    ROMULUS_ASSIGN_OR_RETURN(const auto memory, memory::GuestMemory::Create(layout_));
    ROMULUS_RETURN_IF_ERROR(ForMemory(*memory, 0, [](std::span<std::byte> bytes) {
      for (size_t at = 0; at < bytes.size(); at += kPageSize) bytes[at] = std::byte{0};
    }));
    const Stopwatch watch(&clock_, nullptr);
    uint64_t zeros = 0;
    for (uint64_t i = 0; i < layout_.page_count(); ++i) {
      zeros += codec::IsZeroPage(memory->Page(layout_.GfnAt(i)));
    }
    if (zeros != layout_.page_count()) return absl::InternalError("memory is not zero");
    return watch.Row("reading zeros", /*guest_runs=*/false, layout_.size_bytes());
  }

  // Beside a guest that writes the same 64 pages again and again.
  absl::Status BesideGuest(size_t message_bytes, TransportReport& report) {
    ROMULUS_ASSIGN_OR_RETURN(const std::string tsc_word, TscWord());
    ROMULUS_ASSIGN_OR_RETURN(
        const auto rig,
        BenchRig::Create({.kernel = settings_.kernel,
                          .command_line = absl::StrCat("workload=sequential pages=64 bytes=8 "
                                                       "verify=0 report_ms=1000 lsr=0",
                                                       tsc_word),
                          .memory_mib = settings_.memory_mib,
                          .ring_entries = 65536}));
    ROMULUS_RETURN_IF_ERROR(ForMemory(*rig->memory, kGuestBytes, FillRandom));
    Failures failures;
    epoch::CheckpointLoop loop(rig->Parts(), {}, &failures);
    rig->loop = &loop;
    loop.Start();
    ROMULUS_RETURN_IF_ERROR(rig->machine->Start());
    rig->AwaitProgress(1000);
    const absl::Status done = [&]() -> absl::Status {
      // With its writes tracked in both rows.
      ROMULUS_RETURN_IF_ERROR(rig->machine->SetDirtyLogging(true));
      ROMULUS_RETURN_IF_ERROR(loop.BeginSync());
      ROMULUS_ASSIGN_OR_RETURN(*report.add_rows(), Bare(message_bytes, /*guest_runs=*/true));
      ROMULUS_ASSIGN_OR_RETURN(const SecondaryProcess peer, StartPeer());
      ROMULUS_RETURN_IF_ERROR(TouchFreeMemory());
      Sent sent;
      ROMULUS_ASSIGN_OR_RETURN(const auto session,
                               OpenSession(peer.address(), layout_, 1, &clock_, &no_news_, &sent));
      LoopSyncSource source(&loop);
      const Stopwatch watch(&clock_, &peer);
      ROMULUS_ASSIGN_OR_RETURN(const wire::SyncProgress progress,
                               session->RunFullSync(rig->memory.get(), &source));
      ROMULUS_RETURN_IF_ERROR(AwaitReplica(*session));
      *report.add_rows() = watch.Row("full sync", /*guest_runs=*/true, progress.bytes_sent);
      return absl::OkStatus();
    }();
    loop.Stop();
    rig->loop = nullptr;
    rig->machine->Stop();
    return done;
  }

 private:
  absl::StatusOr<SecondaryProcess> StartPeer() const {
    return SecondaryProcess::Start(
        {"--secondary", "--populate", "--memory-mib", absl::StrCat(settings_.memory_mib)});
  }

  // Until all that was sent is in the replica: an epoch behind it, of nothing, is acked.
  static absl::Status AwaitReplica(wire::PrimarySession& session) {
    epoch::StagedEpoch staged;
    staged.term = Term(1);
    staged.epoch = EpochId(1);
    session.epochs().Submit(std::move(staged));
    return session.epochs().AwaitAllAcked(absl::Seconds(30));
  }

  absl::StatusOr<epoch::StagedEpoch> Stage(EpochId id, epoch::StagingPool& staging) const {
    epoch::StagedEpoch staged;
    staged.term = Term(1);
    staged.epoch = id;
    staged.page_count = kPagesPerEpoch;
    uint64_t page = id.value() * kPagesPerEpoch;
    for (uint64_t n = 0; n < kPagesPerEpoch; n += epoch::StagingChunk::kPages) {
      ROMULUS_ASSIGN_OR_RETURN(epoch::StagingChunk chunk, staging.Acquire(absl::Seconds(10)));
      epoch::PageBatch& batch = staged.batches.emplace_back();
      batch.chunk = std::move(chunk);
      for (uint64_t i = 0; i < epoch::StagingChunk::kPages; ++i) {
        batch.gfns.push_back(layout_.GfnAt(page++ % layout_.page_count()));
      }
    }
    return staged;
  }

  const Settings settings_;
  const memory::MemoryLayout layout_;
  const base::MonotonicClock clock_;
  NoNews no_news_;
  std::vector<std::byte> source_;
};

void Print(const TransportReport& report) {
  for (const TransportRow& row : report.rows()) {
    std::printf("%-40s %-6s %8.0f MiB/s %6.2f CPU-s/GB\n", row.name().c_str(),
                row.guest_runs() ? "guest" : "", row.mib_per_s(), row.cpu_s_per_gb());
  }
}

absl::Status Run(const Settings& settings) {
  TransportReport report;
  report.set_host(DescribeHost());
  report.set_memory_mib(settings.memory_mib);
  ROMULUS_ASSIGN_OR_RETURN(const memory::MemoryLayout layout,
                           memory::MemoryLayout::ForMib(settings.memory_mib));
  Bench bench(settings, layout);
  const codec::EncoderOptions encoder;
  ROMULUS_ASSIGN_OR_RETURN(*report.add_rows(), bench.Bare(encoder.message_bytes, false));
  ROMULUS_ASSIGN_OR_RETURN(*report.add_rows(), bench.Epochs(encoder.previous_cache_bytes));
  ROMULUS_ASSIGN_OR_RETURN(*report.add_rows(), bench.Epochs(0));
  ROMULUS_ASSIGN_OR_RETURN(*report.add_rows(), bench.Bare(encoder.sync_body_bytes, false));
  ROMULUS_ASSIGN_OR_RETURN(*report.add_rows(), bench.FullSyncAlone(/*zero=*/false));
  ROMULUS_ASSIGN_OR_RETURN(*report.add_rows(), bench.FullSyncAlone(/*zero=*/true));
  ROMULUS_ASSIGN_OR_RETURN(*report.add_rows(), bench.Scan());
  ROMULUS_RETURN_IF_ERROR(bench.BesideGuest(encoder.sync_body_bytes, report));
  Print(report);
  return settings.json.empty() ? absl::OkStatus() : WriteJson(report, settings.json);
}

}  // namespace
}  // namespace romulus::bench

int main(int argc, char** argv) {
  romulus::base::KeepFreedMemory();  // as the daemon does
  romulus::base::SkipMutexChecksInRelease();
  romulus::wire::PollOwnSockets();
  romulus::bench::Settings settings;
  bool secondary = false, populate = false, bare_peer = false;
  CLI::App app{"How fast epochs and a full sync leave, beside a bare gRPC stream"};
  app.add_flag("--secondary", secondary, "internal: be the secondary");
  app.add_flag("--populate", populate, "internal: whose memory is there already");
  app.add_flag("--bare-peer", bare_peer, "internal: read a bare stream");
  app.add_option("--kernel", settings.kernel, "ledger.elf");
  app.add_option("--seconds", settings.seconds, "per row");
  app.add_option("--memory-mib", settings.memory_mib);
  app.add_option("--json", settings.json, "write the report here");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = secondary
                                  ? romulus::bench::ServeSecondary(settings.memory_mib, populate)
                              : bare_peer ? romulus::bench::ServeBareStream()
                                          : romulus::bench::Run(settings);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}

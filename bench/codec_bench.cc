// What an epoch costs before and behind the link: encoding, and decoding with verification and
// commit. Argument: dirty pages per epoch. In each page a few words change.
#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/heap.h"
#include "codec/epoch_encoder.h"
#include "replica/replica_store.h"

namespace romulus {
namespace {

constexpr Term kTerm(1);
constexpr uint64_t kPages = 4096;

struct Pipeline {
  explicit Pipeline(uint64_t words)
      : words_per_page(words),
        memory(*memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(64))),
        store(memory, {}, nullptr),
        pool(*epoch::StagingPool::Create(64 << 20)),
        encoder(*codec::EpochEncoder::Create(memory->layout().gfn_end(), &writer, {})) {
    encoder->StartStream(codec::kDefaultMaxBodyBytes);
    writer.SetDialect(codec::Dialect(codec::kNewestProtocol));
    reader.SetDialect(codec::Dialect(codec::kNewestProtocol));
    stream = *store.OpenStream(kTerm);
    std::vector<std::string> messages;
    const auto send = [&messages](std::string message) {
      messages.push_back(std::move(message));
      return absl::OkStatus();
    };
    encoder->BeginSync(kTerm, memory->layout().page_count(), send).IgnoreError();
    alignas(8) std::byte page[kPageSize];
    for (uint64_t gfn = 0; gfn < memory->layout().page_count(); ++gfn) {
      std::memset(page, static_cast<int>(gfn % 255 + 1), kPageSize);
      encoder->AddSyncPage(Gfn(gfn), page, send).IgnoreError();
    }
    encoder->EndSync(1, send).IgnoreError();
    for (const std::string& message : messages) Deliver(message);
  }

  epoch::StagedEpoch Stage(uint64_t pages) {
    epoch::StagedEpoch staged;
    staged.term = kTerm;
    staged.epoch = next = next.Next();
    staged.page_count = pages;
    staged.machine.Put("vcpu", 0, 1, std::string(8000, 'v'));
    for (uint64_t at = 0; at < pages; at += epoch::StagingChunk::kPages) {
      epoch::PageBatch batch;
      batch.chunk = *pool->TryAcquire();
      for (uint64_t gfn = at; gfn < std::min(pages, at + epoch::StagingChunk::kPages); ++gfn) {
        std::byte* page = batch.chunk.data() + batch.gfns.size() * kPageSize;
        std::memset(page, static_cast<int>(gfn % 255 + 1), kPageSize);
        for (uint64_t word = 0; word < words_per_page; ++word) {
          const uint64_t value = next.value() * 1000003 + word;
          std::memcpy(page + (word * 97 + gfn) % 512 * 8, &value, 8);
        }
        batch.gfns.push_back(Gfn(gfn));
      }
      staged.batches.push_back(std::move(batch));
    }
    return staged;
  }
  std::vector<std::string> Encode(const epoch::StagedEpoch& staged) {
    std::vector<std::string> messages;
    const auto send = [&messages](std::string message) {
      messages.push_back(std::move(message));
      return absl::OkStatus();
    };
    encoder->Finish(staged, 0, 0, send).IgnoreError();
    return messages;
  }
  bool Deliver(absl::string_view rest) {
    while (!rest.empty()) {
      absl::StatusOr<codec::Frame> frame = reader.Next(&rest);
      if (!frame.ok()) return false;
      absl::Status status;
      switch (frame->kind) {
        case codec::FrameKind::kSyncBegin:
          status = store.BeginSync(stream, kTerm, memory->layout().page_count());
          break;
        case codec::FrameKind::kSyncPages:
          status = store.SyncPages(stream, *frame);
          break;
        case codec::FrameKind::kSyncEnd:
          status = store.EndSync(stream, kTerm);
          break;
        case codec::FrameKind::kEpochPages:
          status = store.StagePages(stream, *frame);
          break;
        default:
          status = store.Commit(stream, *frame).status();
      }
      if (!status.ok()) return false;
    }
    return true;
  }

  uint64_t words_per_page;
  std::shared_ptr<memory::GuestMemory> memory;
  replica::ReplicaStore store;
  replica::ReplicaStore::StreamId stream = 0;
  std::unique_ptr<epoch::StagingPool> pool;
  codec::FrameWriter writer;
  codec::FrameReader reader;
  std::unique_ptr<codec::EpochEncoder> encoder;
  EpochId next;
};

// Staging is not counted.
void BM_EncodeEpoch(benchmark::State& state) {
  Pipeline pipeline(static_cast<uint64_t>(state.range(1)));
  const uint64_t pages = static_cast<uint64_t>(state.range(0));
  uint64_t bytes = 0;
  for (auto _ : state) {
    state.PauseTiming();
    const epoch::StagedEpoch staged = pipeline.Stage(pages);
    state.ResumeTiming();
    const std::vector<std::string> messages = pipeline.Encode(staged);
    state.PauseTiming();
    for (const std::string& message : messages) {
      bytes += message.size();
      if (!pipeline.Deliver(message)) state.SkipWithError("the replica refused an epoch");
    }
    if (!pipeline.store.ApplyCommitted(pipeline.stream).ok()) {
      state.SkipWithError("a committed epoch was not applied");
    }
    state.ResumeTiming();
  }
  state.counters["bytes_per_epoch"] =
      static_cast<double>(bytes) / static_cast<double>(state.iterations());
}
BENCHMARK(BM_EncodeEpoch)->ArgsProduct({{1, 10, 100, 1000, kPages}, {4, 512}});

void BM_CommitEpoch(benchmark::State& state) {
  Pipeline pipeline(static_cast<uint64_t>(state.range(1)));
  const uint64_t pages = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    state.PauseTiming();
    const std::vector<std::string> messages = pipeline.Encode(pipeline.Stage(pages));
    state.ResumeTiming();
    for (const std::string& message : messages) {
      if (!pipeline.Deliver(message)) state.SkipWithError("the replica refused an epoch");
    }
    if (!pipeline.store.ApplyCommitted(pipeline.stream).ok()) {
      state.SkipWithError("a committed epoch was not applied");
    }
  }
}
BENCHMARK(BM_CommitEpoch)->ArgsProduct({{1, 10, 100, 1000, kPages}, {4, 512}});

}  // namespace
}  // namespace romulus

int main(int argc, char** argv) {
  romulus::base::KeepFreedMemory();  // as the daemon does
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}

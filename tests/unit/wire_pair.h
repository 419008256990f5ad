// A primary session and a real secondary (replica::Session over a ReplicaStore), joined by any
// link.
#ifndef ROMULUS_TESTS_UNIT_WIRE_PAIR_H_
#define ROMULUS_TESTS_UNIT_WIRE_PAIR_H_

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "replica/session.h"
#include "unit/wire_support.h"
#include "wire/loopback_link.h"
#include "wire/primary_session.h"

namespace romulus::wire {

inline MachineIdentity TestMachine(uint64_t memory_mib) {
  return {.vm_name = "vm",
          .vm_uuid = "uuid",
          .vcpu_count = 1,
          .memory = memory::MemoryLayout::ForMib(memory_mib)->regions(),
          .machine_digest = 7};
}

// The secondary's node: policy, store, what it was told. A new Session per stream.
class TestSecondary final : public replica::HelloPolicy, public replica::SessionListener {
 public:
  explicit TestSecondary(uint64_t memory_mib, const replica::StoreOptions& options = {})
      : memory(*memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(memory_mib))),
        store(memory, options, nullptr) {
    judge.machine = TestMachine(memory_mib);
    judge.node_name = "beta";
    judge.max_frame_bytes = codec::kDefaultMaxBodyBytes;
  }
  ~TestSecondary() override { Disconnect(); }

  replica::Session* Connect(std::shared_ptr<Link> with) {
    Disconnect();
    session = std::make_unique<replica::Session>(&store, this, this, &counters, &clock,
                                                 replica::SessionOptions{});
    link = std::move(with);
    session->Attach(link);
    return session.get();
  }
  // The session holds the link as well: both go, the link before who hears it.
  void Disconnect() {
    if (link != nullptr) link->Close(absl::CancelledError("test ends"));
    if (session != nullptr) session->Attach(nullptr);
    link.reset();
    session.reset();
  }

  v1::HelloReply OnHello(const v1::Hello& hello) override { return EvaluateHello(hello, judge); }
  void OnHello(const v1::Hello&, const v1::HelloReply&) override {}
  void OnTraffic() override {}
  void OnSyncProgress(uint64_t, uint64_t, bool) override {}
  void OnEpochCommitted(const replica::EpochKey& key) override {
    absl::MutexLock lock(&mutex);
    newest = key;
  }
  void OnHandOver(const replica::EpochKey& last, const v1::HandOver&) override {
    absl::MutexLock lock(&mutex);
    handed_over = last;
  }
  void AwaitHandOver(EpochId last) {
    absl::MutexLock lock(&mutex);
    auto there = [this, last] { return handed_over.epoch == last; };
    ROMULUS_CHECK(mutex.AwaitWithTimeout(absl::Condition(&there), kPatience));
  }
  void OnGoodbye(const v1::Goodbye& said) override {
    absl::MutexLock lock(&mutex);
    goodbye = said;
  }
  void OnClosed(const absl::Status&) override {
    absl::MutexLock lock(&mutex);
    ++closed;
  }
  // In memory; the ack may come earlier.
  void AwaitApplied(EpochId epoch) {
    absl::MutexLock lock(&mutex);
    auto enough = [this, epoch] { return newest.epoch >= epoch; };
    ROMULUS_CHECK(mutex.AwaitWithTimeout(absl::Condition(&enough), kPatience));
  }
  void AwaitClosed(int count = 1) {
    absl::MutexLock lock(&mutex);
    auto enough = [this, count] { return closed >= count; };
    ROMULUS_CHECK(mutex.AwaitWithTimeout(absl::Condition(&enough), kPatience));
  }

  base::MonotonicClock clock;
  std::shared_ptr<memory::GuestMemory> memory;
  replica::ReplicaStore store;
  replica::ReplicaCounters counters;
  HelloJudge judge;
  absl::Mutex mutex;
  replica::EpochKey newest;
  replica::EpochKey handed_over;
  v1::Goodbye goodbye;
  int closed = 0;
  std::shared_ptr<Link> link;
  std::unique_ptr<replica::Session> session;
};

class TestPrimaryListener final : public PrimarySessionListener {
 public:
  void OnSignOfLife(uint64_t heartbeat_rtt_ns) override {
    absl::MutexLock lock(&mutex);
    ++signs;
    if (heartbeat_rtt_ns != 0) ++round_trips;
  }
  void OnPeerGoodbye(const v1::Goodbye& said) override {
    absl::MutexLock lock(&mutex);
    goodbye = said;
  }
  void OnHandOverRefused(const std::string& detail) override {
    absl::MutexLock lock(&mutex);
    hand_over_refused = detail;
  }
  void AwaitHandOverRefused() {
    absl::MutexLock lock(&mutex);
    ROMULUS_CHECK(mutex.AwaitWithTimeout(
        absl::Condition(
            +[](std::string* detail) { return !detail->empty(); }, &hand_over_refused),
        kPatience));
  }
  void OnRefused(codec::FrameFault fault) override {
    absl::MutexLock lock(&mutex);
    refused.push_back(fault);
  }
  void OnBroken(const absl::Status& status) override {
    absl::MutexLock lock(&mutex);
    broken = status;
  }
  absl::Status AwaitBroken() {
    absl::MutexLock lock(&mutex);
    ROMULUS_CHECK(
        mutex.AwaitWithTimeout(absl::Condition(
                                   +[](absl::Status* status) { return !status->ok(); }, &broken),
                               kPatience));
    return broken;
  }
  void OnSessionClosed(const absl::Status& status) override {
    absl::MutexLock lock(&mutex);
    ++closed;
    why = status;
  }
  absl::Status AwaitClosed() {
    absl::MutexLock lock(&mutex);
    ROMULUS_CHECK(mutex.AwaitWithTimeout(absl::Condition(
                                             +[](int* count) { return *count > 0; }, &closed),
                                         kPatience));
    return why;
  }
  void AwaitRoundTrips(int count) {
    absl::MutexLock lock(&mutex);
    auto enough = [this, count] { return round_trips >= count; };
    ROMULUS_CHECK(mutex.AwaitWithTimeout(absl::Condition(&enough), kPatience));
  }
  absl::Mutex mutex;
  std::string hand_over_refused;
  int signs = 0;
  int round_trips = 0;
  v1::Goodbye goodbye;
  std::vector<codec::FrameFault> refused;
  absl::Status broken;
  int closed = 0;
  absl::Status why;
};

// The primary's node: memory that a random hand writes, and epochs made of what it wrote.
class TestPrimary final : public SyncSource {
 public:
  explicit TestPrimary(uint64_t memory_mib, uint64_t seed = 1)
      : memory(*memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(memory_mib))),
        random_(seed) {
    options.hello.machine = TestMachine(memory_mib);
    options.hello.node_name = "alpha";
    options.hello.current_term = Term(16);
    options.hello.stream_term = Term(32);
    options.hello.max_frame_bytes = codec::kDefaultMaxBodyBytes;
  }
  absl::Status Open(const PrimarySession::LinkFactory& make_link) {
    auto opened = PrimarySession::Open(options, make_link, &clock, &listener, &acks);
    if (!opened.ok()) return opened.status();
    session = *std::move(opened);
    return absl::OkStatus();
  }
  absl::Status HandshakeAndSync(DiskSyncSource* disks = nullptr) {
    const absl::StatusOr<v1::HelloReply> reply = session->Handshake(kPatience);
    if (!reply.ok()) return reply.status();
    if (absl::Status accepted = StatusOf(*reply); !accepted.ok()) return accepted;
    const absl::StatusOr<SyncProgress> done = session->RunFullSync(memory.get(), this, disks);
    if (done.ok()) synced = *done;
    return done.status();
  }
  void Scribble(size_t pages) {
    for (size_t i = 0; i < pages; ++i) {
      const Gfn gfn(random_() % memory->layout().page_count());
      if (random_() % 5 == 0) {
        ROMULUS_CHECK(memory->Fill(GpaOf(gfn), std::byte{0}, kPageSize).ok());
      } else {
        for (int n = 0; n < 10; ++n) {
          ROMULUS_CHECK(
              memory->WriteObject(Gpa(GpaOf(gfn).value() + random_() % 512 * 8), random_()).ok());
        }
      }
      dirty_.insert(gfn);
    }
  }
  absl::StatusOr<memory::PageSet> TakeDirty() override {
    memory::PageSet taken(memory->layout().gfn_end());
    for (Gfn gfn : dirty_) taken.Insert(gfn);
    dirty_.clear();
    if (rounds > 0) {
      --rounds;
      Scribble(300);
    }
    return taken;
  }
  void WriteWord(Gfn gfn, uint64_t value) {
    ROMULUS_CHECK(memory->WriteObject(GpaOf(gfn), value).ok());
    dirty_.insert(gfn);
  }
  // Everything written since the last epoch or sync round.
  void CutEpoch(std::vector<epoch::DiskWrite> disk_writes = {}) {
    epoch::StagedEpoch epoch = Epoch(options.hello.stream_term, ++last_epoch, dirty_.size());
    epoch.disk_writes = std::move(disk_writes);
    std::vector<Gfn> gfns(dirty_.begin(), dirty_.end());
    dirty_.clear();
    for (size_t at = 0; at < gfns.size(); at += epoch::StagingChunk::kPages) {
      epoch::PageBatch batch;
      batch.chunk = *pool->Acquire(kPatience);
      for (size_t i = at; i < std::min(gfns.size(), at + epoch::StagingChunk::kPages); ++i) {
        std::memcpy(batch.chunk.data() + batch.gfns.size() * kPageSize,
                    memory->Page(gfns[i]).data(), kPageSize);
        batch.gfns.push_back(gfns[i]);
      }
      epoch.batches.push_back(std::move(batch));
    }
    session->epochs().Submit(std::move(epoch));
  }
  std::string Difference(const memory::GuestMemory& replica) const {
    for (uint64_t n = 0; n < memory->layout().page_count(); ++n) {
      if (std::memcmp(memory->Page(Gfn(n)).data(), replica.Page(Gfn(n)).data(), kPageSize) != 0) {
        return "page " + std::to_string(n) + " differs";
      }
    }
    return "";
  }

  base::MonotonicClock clock;
  std::shared_ptr<memory::GuestMemory> memory;
  std::unique_ptr<epoch::StagingPool> pool = *epoch::StagingPool::Create(4 << 20);
  PrimarySessionOptions options;
  TestPrimaryListener listener;
  RecordingAcks acks;
  int rounds = 0;
  uint64_t last_epoch = 0;
  SyncProgress synced;
  std::unique_ptr<PrimarySession> session;

 private:
  std::mt19937_64 random_;
  std::set<Gfn> dirty_;
};

inline constexpr LoopbackEnd kPrimary = LoopbackEnd::kPrimary;
inline constexpr LoopbackEnd kSecondary = LoopbackEnd::kSecondary;

// The two, joined in memory.
class PairTest : public ::testing::Test {
 protected:
  explicit PairTest(const replica::StoreOptions& options = {}) : secondary_(8, options) {}
  ~PairTest() override { StopPump(); }

  absl::Status Connect() {
    network_ = std::make_unique<LoopbackNetwork>();
    network_->SetListener(kSecondary, secondary_.Connect(network_->TakeLink(kSecondary)));
    return OpenOn(*network_);
  }
  absl::Status OpenOn(LoopbackNetwork& network) {
    return primary_.Open([&network](LinkListener* listener) {
      network.SetListener(kPrimary, listener);
      return network.TakeLink(kPrimary);
    });
  }
  // The network's own thread: delivers whatever there is, after `fault` had a look at it.
  void StartPump() {
    pumping_ = true;
    pump_ = std::thread([this] {
      while (pumping_) {
        if (fault_) fault_();
        if (network_->Pump(1) == 0) std::this_thread::yield();
      }
    });
  }
  void StopPump() {
    pumping_ = false;
    if (pump_.joinable()) pump_.join();
  }

  TestSecondary secondary_;
  TestPrimary primary_{8};
  std::unique_ptr<LoopbackNetwork> network_;
  std::function<void()> fault_;
  std::atomic<bool> pumping_{false};
  std::thread pump_;
};

}  // namespace romulus::wire

#endif  // ROMULUS_TESTS_UNIT_WIRE_PAIR_H_

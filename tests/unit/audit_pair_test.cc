// The audit from the guest's memory to the replica's and back: the real checkpoint loop on a fake
// guest, the real codec, sessions and store, joined in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "epoch/auditor.h"
#include "epoch/checkpoint_loop.h"
#include "support/epoch_rig.h"
#include "unit/wire_pair.h"
#include "wire/audit_report.h"

namespace romulus::wire {
namespace {

using ::romulus::testing::EpochRig;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr uint64_t kMemoryMib = 8;  // of the rig
constexpr uint64_t kPages = kMemoryMib << 8;
// Beyond it nobody writes: what is wrong there stays so until it is found.
constexpr uint64_t kBusyPages = 600;

// A primary whose epochs are cut by the loop, and its secondary.
class AuditedPair final : public AckListener, public epoch::CheckpointListener, public SyncSource {
 public:
  explicit AuditedPair(uint64_t staging_bytes, uint64_t pass_ns)
      : rig_(staging_bytes),
        auditor_(rig_.memory.get(), &rig_.clock, {.pass_ns = pass_ns}),
        secondary_(kMemoryMib) {
    epoch::CheckpointParts parts = rig_.Parts();
    parts.auditor = &auditor_;
    loop_ = std::make_unique<epoch::CheckpointLoop>(
        parts,
        epoch::CheckpointLoopOptions{.governor = {.max_dirty_pages = 300,
                                                  .max_interval_ns = 1'000'000,
                                                  .min_interval_ns = 0},
                                     .max_unacked_epochs = 2,
                                     .max_failures = 1 << 30},
        this);
    loop_->Start();
  }
  ~AuditedPair() override {
    working_ = false;
    for (std::thread& one : workers_) one.join();
    loop_->Halt();
    loop_->Stop();
    pumping_ = false;
    if (pump_.joinable()) pump_.join();
    session_.reset();
    secondary_.Disconnect();
  }

  absl::Status Protect() {
    network_.SetListener(kSecondary, secondary_.Connect(network_.TakeLink(kSecondary)));
    PrimarySessionOptions options;
    options.hello.machine = TestMachine(kMemoryMib);
    options.hello.node_name = "alpha";
    options.hello.current_term = Term(16);
    options.hello.stream_term = Term(32);
    options.hello.max_frame_bytes = codec::kDefaultMaxBodyBytes;
    auto opened = PrimarySession::Open(
        options,
        [this](LinkListener* to) {
          network_.SetListener(kPrimary, to);
          return network_.TakeLink(kPrimary);
        },
        &rig_.clock, &listener, this);
    if (!opened.ok()) return opened.status();
    session_ = *std::move(opened);
    pump_ = std::thread([this] {
      while (pumping_) {
        if (network_.Pump(1) == 0) std::this_thread::yield();
      }
    });
    if (absl::Status shaken = session_->Handshake(kPatience).status(); !shaken.ok()) return shaken;
    if (absl::Status begun = loop_->BeginSync(); !begun.ok()) return begun;
    if (absl::Status synced = session_->RunFullSync(rig_.memory.get(), this).status();
        !synced.ok()) {
      return synced;
    }
    return loop_->BeginCutting(Term(32), memory::PageSet(rig_.memory->layout().gfn_end()),
                               &session_->epochs());
  }
  // vCPUs and a device that write, to pages below kBusyPages, until the end.
  void StartWork(int vcpus) {
    for (int worker = 0; worker <= vcpus; ++worker) {
      workers_.emplace_back([this, worker] {
        std::mt19937_64 random(static_cast<uint64_t>(worker));
        while (working_) {
          const Gfn gfn(random() % kBusyPages);
          const auto value = static_cast<std::byte>(random());
          worker == 0 ? rig_.guest->DeviceWrite(gfn, value) : rig_.guest->Touch(gfn, value);
        }
      });
    }
  }
  void SayGoodbye(const absl::Status& why) {
    session_->SendGoodbye(v1::Goodbye::REASON_PROTOCOL, why.message(), kPatience);
  }
  void FlipBitInReplica(Gfn gfn) {
    (*secondary_.memory->WritableSpan(GpaOf(gfn), kPageSize))[77] ^= std::byte{4};
  }

  // Until so many pages more were compared; the report then.
  AuditReport AwaitAudited(uint64_t pages) {
    absl::MutexLock lock(&mutex_);
    const uint64_t goal = report_.audited_pages + pages;
    auto enough = [this, goal] { return report_.audited_pages >= goal || closed_; };
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience));
    return report_;
  }
  std::map<uint64_t, int> mismatches() {
    absl::MutexLock lock(&mutex_);
    return mismatches_;
  }

  void OnEpochAcked(const EpochAck& ack) override { loop_->OnAcked(ack.epoch); }
  absl::Status OnAudited(const AuditReport& report) override {
    if (repair) Repair(report, *rig_.memory, session_->epochs());
    absl::MutexLock lock(&mutex_);
    report_ = report;
    for (const AuditReport::Mismatch& page : report.mismatches) ++mismatches_[page.gfn.value()];
    return verdict;
  }
  void OnSenderClosed(const absl::Status&) override {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  void OnCheckpointFailed(EpochId, epoch::CutReason, const absl::Status&) override { ++failed; }
  void OnGaveUp(const absl::Status&) override {}
  absl::StatusOr<memory::PageSet> TakeDirty() override { return loop_->TakeDirty(); }

  // Before Protect().
  bool repair = true;
  absl::Status verdict;  // what OnAudited() says

  std::atomic<int> failed{0};
  TestPrimaryListener listener;
  EpochRig rig_;
  epoch::Auditor auditor_;
  TestSecondary secondary_;
  LoopbackNetwork network_;
  std::unique_ptr<epoch::CheckpointLoop> loop_;
  std::unique_ptr<PrimarySession> session_;

 private:
  std::atomic<bool> pumping_{true};
  std::atomic<bool> working_{true};
  std::thread pump_;
  std::vector<std::thread> workers_;
  absl::Mutex mutex_;
  AuditReport report_;
  std::map<uint64_t, int> mismatches_;  // by page: how often
  bool closed_ = false;
};

constexpr uint64_t kPassNs = 20'000'000;
// Pages that are compared until what is wrong now was found: those of hashes that were taken before
// (two epochs that are not acked, one that is cut, one whose window is read), and a whole pass.
constexpr uint64_t kFound = 4 * epoch::kMaxAuditPages + kPages;
constexpr uint64_t kAmpleStaging = 8u << 20;

TEST(AuditPairTest, NoFalseAlarmUnderAnyLoad) {
  // Staging so small that epochs leave in parts; checkpoints that fail now and then at every step.
  AuditedPair pair(/*staging_bytes=*/2 * epoch::StagingChunk::kBytes, kPassNs);
  ASSERT_TRUE(pair.Protect().ok());
  pair.StartWork(/*vcpus=*/2);
  const std::string steps[] = {"tracker.harvest", "tracker.reset", "checkpoint.copy",
                               "checkpoint.capture", "checkpoint.cut"};
  AuditReport report;
  for (int round = 0; round < 60; ++round) {
    report = pair.AwaitAudited(kPages / 10);
    pair.rig_.failpoints.Arm(steps[round % 5], 1, static_cast<uint64_t>(round % 3));
  }
  EXPECT_GE(report.audited_pages, 5 * kPages);
  EXPECT_EQ(report.mismatched_pages, 0u);
  EXPECT_GT(pair.failed, 10);
  EXPECT_GT(pair.auditor_.progress().passes, 2u);
  EXPECT_EQ(pair.secondary_.counters.audit_mismatches, 0u);
}

TEST(AuditPairTest, AFlippedBitOfTheReplicaIsFoundInOnePassAndRepaired) {
  AuditedPair pair(kAmpleStaging, kPassNs);
  // One of a page with contents, one of a page that is zero.
  pair.rig_.guest->Touch(Gfn(1700), std::byte{1});
  ASSERT_TRUE(pair.Protect().ok());
  pair.StartWork(1);
  pair.AwaitAudited(kPages);
  pair.FlipBitInReplica(Gfn(1700));
  pair.FlipBitInReplica(Gfn(1900));
  pair.AwaitAudited(kFound);
  EXPECT_THAT(pair.mismatches(), ElementsAre(Pair(1700, Ge(1)), Pair(1900, Ge(1))));
  pair.AwaitAudited(2 * kPages);  // more than can be under way
  const std::map<uint64_t, int> found = pair.mismatches();
  pair.AwaitAudited(2 * kPages);
  EXPECT_EQ(pair.mismatches(), found) << "repaired, so not found again";
  EXPECT_EQ(pair.secondary_.memory->Page(Gfn(1700))[77], std::byte{0});
  EXPECT_EQ(pair.secondary_.memory->Page(Gfn(1900))[77], std::byte{0});
  EXPECT_GE(pair.secondary_.counters.audit_mismatches, 2u);
}

TEST(AuditPairTest, P4_AKernelThatLosesAPageIsFoundInOnePass) {
  AuditedPair pair(kAmpleStaging, kPassNs);
  ASSERT_TRUE(pair.Protect().ok());
  pair.StartWork(1);
  pair.AwaitAudited(kPages);
  pair.rig_.guest->TouchUnseen(Gfn(1500), std::byte{9});
  pair.AwaitAudited(kFound);
  EXPECT_THAT(pair.mismatches(), ElementsAre(Pair(1500, Ge(1))));
  pair.AwaitAudited(kFound);  // what was under way knows nothing of the repair
  EXPECT_EQ(pair.secondary_.memory->Page(Gfn(1500))[0], std::byte{9});
}

TEST(AuditPairTest, WithoutRepairItIsFoundInEveryPass) {
  AuditedPair pair(kAmpleStaging, kPassNs);
  pair.repair = false;
  ASSERT_TRUE(pair.Protect().ok());
  pair.FlipBitInReplica(Gfn(1500));
  pair.AwaitAudited(5 * kPages);
  EXPECT_GE(pair.mismatches()[1500], 3);
}

TEST(AuditPairTest, AFullSyncIsAskedForByEndingTheStream) {
  AuditedPair pair(kAmpleStaging, kPassNs);
  pair.repair = false;
  pair.verdict = absl::DataLossError("audit: full sync");
  ASSERT_TRUE(pair.Protect().ok());
  const absl::Status why = pair.listener.AwaitBroken();
  EXPECT_EQ(why.message(), "audit: full sync") << "the peer did nothing wrong";
  EXPECT_TRUE(pair.listener.refused.empty());
  pair.SayGoodbye(why);
  pair.secondary_.AwaitClosed();
  absl::MutexLock lock(&pair.secondary_.mutex);
  EXPECT_EQ(pair.secondary_.goodbye.reason(), v1::Goodbye::REASON_PROTOCOL);
  EXPECT_THAT(pair.secondary_.goodbye.detail(), HasSubstr("audit: full sync"));
}

// --- a secondary that lies

v1::Ack AckOf(uint64_t audited, uint64_t mismatched, const std::vector<uint64_t>& gfns) {
  v1::Ack ack;
  ack.set_audited_pages(audited);
  ack.set_mismatched_pages(mismatched);
  for (const uint64_t gfn : gfns) ack.add_mismatches()->set_gfn(gfn);
  return ack;
}

TEST(AuditReportTest, WhatCannotBeIsRefused) {
  const auto regions = memory::MemoryLayout::ForMib(4096)->regions();  // with a hole
  AuditReport before;
  before.audited_pages = 100;
  before.mismatched_pages = 2;
  const AuditScope scope = {.pages_sent = 5000, .blocks_sent = 50, .memory = regions, .disks = {}};
  const auto read = [&](const v1::Ack& ack) { return ReadAuditReport(ack, before, scope); };
  const uint64_t high = GfnOf(regions[1].gpa).value();
  auto good = read(AckOf(150, 4, {7, high}));
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->mismatches.size(), 2u);
  EXPECT_TRUE(read(AckOf(100, 2, {})).ok());
  EXPECT_TRUE(read(AckOf(5000, 4902, {})).ok());
  const std::vector<uint64_t> many(epoch::kMaxAuditPages + 1, 7);
  const std::pair<std::string, v1::Ack> bad[] = {
      {"falls", AckOf(99, 2, {})},
      {"mismatches fall", AckOf(100, 1, {})},
      {"more than was sent", AckOf(5001, 2, {})},
      {"more mismatches than pages", AckOf(101, 4, {})},
      {"named without being counted", AckOf(150, 2, {7})},
      {"too many named", AckOf(5000, 4000, many)},
      {"in the hole", AckOf(150, 3, {high - 1})},
      {"beyond memory", AckOf(150, 3, {high + (uint64_t{1} << 20)})},
      {"absurd", AckOf(150, 3, {UINT64_MAX})},
      {"absurd counts", AckOf(UINT64_MAX, UINT64_MAX, {})}};
  for (const auto& [what, ack] : bad) {
    EXPECT_TRUE(absl::IsInvalidArgument(read(ack).status())) << what;
  }
}

v1::Ack BlocksAck(uint64_t audited, uint64_t mismatched,
                  const std::vector<epoch::DiskBlock>& blocks) {
  v1::Ack ack;
  ack.set_audited_blocks(audited);
  ack.set_mismatched_blocks(mismatched);
  for (const epoch::DiskBlock& block : blocks) {
    v1::DiskAuditMismatch& told = *ack.add_disk_mismatches();
    told.set_disk(block.disk);
    told.set_block(block.block);
    told.set_epoch(9);
  }
  return ack;
}

TEST(AuditReportTest, SoItIsOfBlocks) {
  AuditReport before;
  before.audited_blocks = 10;
  before.mismatched_blocks = 1;
  AuditScope scope;
  scope.blocks_sent = 500;
  scope.disks.resize(1);
  scope.disks[0].disk = 2;
  scope.disks[0].size_bytes = 3 * epoch::kDiskBlockBytes + 512;
  const auto read = [&](const v1::Ack& ack) { return ReadAuditReport(ack, before, scope); };
  const auto good = read(BlocksAck(20, 3, {{2, 0}, {2, 3}}));
  ASSERT_TRUE(good.ok()) << good.status();
  ASSERT_EQ(good->block_mismatches.size(), 2u);
  EXPECT_EQ(good->block_mismatches[1].block, (epoch::DiskBlock{2, 3}));
  EXPECT_EQ(good->block_mismatches[1].epoch, EpochId(9));
  const std::vector<epoch::DiskBlock> many(epoch::kMaxAuditBlocks + 1, {2, 0});
  const std::pair<std::string, v1::Ack> bad[] = {
      {"falls", BlocksAck(9, 1, {})},
      {"mismatches fall", BlocksAck(10, 0, {})},
      {"more than was sent", BlocksAck(501, 1, {})},
      {"more mismatches than blocks", BlocksAck(11, 3, {})},
      {"named without being counted", BlocksAck(20, 1, {{2, 0}})},
      {"too many named", BlocksAck(500, 400, many)},
      {"another disk", BlocksAck(20, 2, {{0, 0}})},
      {"beyond the disk", BlocksAck(20, 2, {{2, 4}})},
      {"absurd", BlocksAck(20, 2, {{2, UINT64_MAX}})}};
  for (const auto& [what, ack] : bad) {
    EXPECT_TRUE(absl::IsInvalidArgument(read(ack).status())) << what;
  }
}

}  // namespace
}  // namespace romulus::wire

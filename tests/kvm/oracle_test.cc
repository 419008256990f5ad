// P4, exact tracking: after every epoch the replica's memory equals the primary's, byte for byte.
// Real KVM, real dirty rings, the real codec and replica; the guest writes, and so does the VMM.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <tuple>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "epoch/checkpoint_loop.h"
#include "kvm/ring_probe.h"
#include "support/machine_rig.h"

namespace romulus {
namespace {

using ::romulus::testing::InProcessReplica;
using ::romulus::testing::MachineRig;
using ::romulus::testing::MachineRigOptions;
using ::romulus::testing::RecordingSink;

constexpr int kEpochs = 300;
constexpr uint64_t kDataPages = 900;

struct OracleResult {
  int epochs = 0;
  uint64_t guest_pages = 0;
  uint64_t vmm_pages = 0;
  absl::Status status;
};

// Runs `epochs` checkpoints and compares after each, with the guest still paused.
OracleResult RunOracle(MachineRig& rig, int epochs, bool idle = false, uint64_t budget = 0) {
  OracleResult result;
  InProcessReplica replica(rig.memory->layout());
  RecordingSink sink;
  epoch::Checkpoint checkpoint(rig.Parts());
  if (budget != 0) rig.tracker->SetBudget(budget);
  result.status = rig.machine->SetDirtyLogging(true);
  result.status.Update(replica.FullSync(*rig.memory, Term(1)));
  if (!result.status.ok()) return result;
  absl::Status compared;
  checkpoint.SetObserver([&](const epoch::StagedEpoch& staged) {
    compared = replica.Commit(staged);
    if (compared.ok()) compared = replica.CompareWith(*rig.memory);
  });
  std::mt19937_64 random(1);
  // Device-like writes of the VMM go where the guest never does: the last MiB.
  const uint64_t vmm_first = rig.memory->layout().size_bytes() - (1 << 20);
  result.status = rig.machine->Start();
  // Until the guest works: before that it reads its pages, and a page that was only read can be
  // lost without a difference.
  rig.AwaitProgress(1);
  for (int i = 1; result.status.ok() && i <= epochs; ++i) {
    // An idle guest steps once a millisecond: awaited now and then, so that it does step.
    rig.AwaitProgress(idle ? (i % 10 == 0 ? 1 : 0) : random() % 200);
    const uint64_t vmm_writes = random() % 4;
    for (uint64_t w = 0; w < vmm_writes; ++w) {
      result.status.Update(
          rig.memory->WriteObject<uint64_t>(Gpa(vmm_first + random() % ((1 << 20) - 8)), random()));
    }
    result.vmm_pages += vmm_writes;
    rig.ring_full = false;
    auto staged =
        checkpoint.Run(Term(1), EpochId(static_cast<uint64_t>(i)), epoch::CutReason::kRequest,
                       &sink, [] { return absl::OkStatus(); });
    result.status = staged.ok() ? compared : staged.status();
    if (!result.status.ok()) break;
    if (rig.stopped) result.status = absl::AbortedError("guest stopped: " + rig.stop_detail());
    result.guest_pages += staged->page_count;
    ++result.epochs;
  }
  return result;
}

std::string CommandLine(const std::string& workload, int vcpus) {
  // report_every keeps the console talking now and then; idle reports by time.
  return absl::StrCat("vcpus=", vcpus, " workload=", workload, " pages=", kDataPages,
                      workload == "idle" ? " report_ms=1" : " report_every=5000", " lsr=0");
}

class OracleTest : public ::testing::TestWithParam<std::tuple<std::string, int, uint32_t>> {};

TEST_P(OracleTest, P4_TheReplicaEqualsThePrimaryAfterEveryEpoch) {
  const auto& [workload, vcpus, ring_entries] = GetParam();
  auto rig = MachineRig::Create({.kernel = LEDGER_ELF,
                                 .command_line = CommandLine(workload, vcpus),
                                 .vcpus = vcpus,
                                 .ring_entries = ring_entries});
  ASSERT_TRUE(rig.ok()) << rig.status();
  const OracleResult result = RunOracle(**rig, kEpochs, workload == "idle");
  EXPECT_TRUE(result.status.ok()) << "after epoch " << result.epochs << ": " << result.status;
  EXPECT_EQ(result.epochs, kEpochs);
  if (workload != "idle") {
    EXPECT_GT(result.guest_pages, result.vmm_pages) << "the guest wrote nothing";
  }
  RecordProperty("pages", static_cast<int>(result.guest_pages));
}

INSTANTIATE_TEST_SUITE_P(
    Ring, OracleTest,
    ::testing::Combine(::testing::Values("uniform", "hotcold", "sequential", "idle"),
                       ::testing::Values(1, 2, 4), ::testing::Values(256u, 1024u, 65536u)),
    [](const auto& test) {
      return absl::StrCat(std::get<0>(test.param), "_", std::get<1>(test.param), "vcpu_",
                          std::get<2>(test.param));
    });

// Rings that stop their vCPU at the budget, and pages that stay writable.
class SteeredOracleTest
    : public ::testing::TestWithParam<std::tuple<std::string, int, uint32_t, uint64_t, uint64_t>> {
};

TEST_P(SteeredOracleTest, P4_TheReplicaEqualsThePrimaryAfterEveryEpoch) {
  const auto& [workload, vcpus, ring_entries, budget, hot_pages] = GetParam();
  const uint64_t pages = hot_pages == 0 ? kDataPages : 2 * hot_pages;
  auto rig = MachineRig::Create(
      {.kernel = LEDGER_ELF,
       .command_line = absl::StrCat("vcpus=", vcpus, " workload=", workload, " pages=", pages,
                                    " lsr=0"
                                    " report_every=5000"),
       .vcpus = vcpus,
       .ring_entries = ring_entries,
       .steer = true,
       .max_hot_pages = hot_pages});
  ASSERT_TRUE(rig.ok()) << rig.status();
  // Two pages an epoch, of which one is written: the guest is still at its beginning for long.
  const int epochs = budget == 2 ? 4 * kEpochs : kEpochs;
  const OracleResult result = RunOracle(**rig, epochs, /*idle=*/false, budget);
  EXPECT_TRUE(result.status.ok()) << "after epoch " << result.epochs << ": " << result.status;
  EXPECT_EQ(result.epochs, epochs);
  EXPECT_GT(result.guest_pages, result.vmm_pages) << "the guest wrote nothing";
  EXPECT_EQ((*rig)->tracker->StopsItselfAt(budget), vcpus == 1);
  EXPECT_GT((*rig)->Progress(), 0u) << "the guest has not got on";
}

INSTANTIATE_TEST_SUITE_P(Ring, SteeredOracleTest,
                         ::testing::Combine(::testing::Values("uniform", "hotcold", "sequential"),
                                            ::testing::Values(1, 2), ::testing::Values(256u, 4096u),
                                            ::testing::Values(uint64_t{2}, uint64_t{7},
                                                              uint64_t{100}),
                                            ::testing::Values(uint64_t{0}, uint64_t{20})),
                         [](const auto& test) {
                           return absl::StrCat(
                               std::get<0>(test.param), "_", std::get<1>(test.param), "vcpu_",
                               std::get<2>(test.param), "_budget_", std::get<3>(test.param),
                               "_hot_", std::get<4>(test.param));
                         });

// The same as the daemon has it: epochs are cut by the vCPU itself, at the budget and by its alarm,
// and by the loop's thread.
class LoopRig final : public MachineRig {
 public:
  static absl::StatusOr<std::unique_ptr<LoopRig>> Create(const MachineRigOptions& options) {
    auto rig = std::unique_ptr<LoopRig>(new LoopRig);
    ROMULUS_RETURN_IF_ERROR(rig->Init(options));
    return rig;
  }
  void OnDirtyRingFull() override { loop->OnDirtyRingFull(); }
  uint64_t NextAlarmNs() override { return loop->NextAlarmNs(); }
  void OnAlarm() override { loop->OnAlarm(); }

  epoch::CheckpointLoop* loop = nullptr;
};

class CountingListener final : public epoch::CheckpointListener {
 public:
  void OnCheckpointFailed(EpochId, epoch::CutReason, const absl::Status&) override { ++failed; }
  void OnGaveUp(const absl::Status&) override { gave_up = true; }
  std::atomic<int> failed{0};
  std::atomic<bool> gave_up{false};
};

class SteeredLoopTest : public ::testing::TestWithParam<std::tuple<int, uint64_t, uint64_t>> {};

TEST_P(SteeredLoopTest, P4_TheReplicaEqualsThePrimaryAfterEveryEpoch) {
  const auto& [vcpus, budget, interval_us] = GetParam();
  auto rig =
      LoopRig::Create({.kernel = LEDGER_ELF,
                       .command_line = absl::StrCat("vcpus=", vcpus, " workload=hotcold pages=300",
                                                    " lsr=0 report_every=5000"),
                       .vcpus = vcpus,
                       .steer = true,
                       .max_hot_pages = 40});
  ASSERT_TRUE(rig.ok()) << rig.status();
  InProcessReplica replica((*rig)->memory->layout());
  CountingListener listener;
  RecordingSink sink;
  epoch::CheckpointLoop loop((*rig)->Parts(),
                             {.governor = {.max_dirty_pages = budget,
                                           .max_interval_ns = interval_us * 1000,
                                           .min_interval_ns = 0},
                              .max_unacked_epochs = 1u << 20,
                              .cut_on_vcpu = true,
                              .look_on_vcpu = epoch::LookOnVcpu(vcpus, {}),
                              .copying = {.helpers = 2, .least_shared_pages = 1}},
                             &listener);
  (*rig)->loop = &loop;
  // Whatever fails below: no vCPU calls a loop that is gone.
  const absl::Cleanup stop = [&] {
    loop.Halt();
    loop.Stop();
    (*rig)->machine->Stop();
  };
  absl::Mutex mutex;
  absl::Status compared;
  std::array<int, epoch::kCutReasonNames.size()> reasons{};
  int epochs = 0;
  loop.SetObserver([&](const epoch::StagedEpoch& staged) {
    absl::MutexLock lock(&mutex);
    if (!compared.ok()) return;
    compared = replica.Commit(staged);
    if (compared.ok()) compared = replica.CompareWith(*(*rig)->memory);
    ++reasons[static_cast<size_t>(staged.reason)];
    ++epochs;
    sink.TakeSubmitted();
  });
  ASSERT_TRUE((*rig)->machine->SetDirtyLogging(true).ok());
  ASSERT_TRUE(replica.FullSync(*(*rig)->memory, Term(1)).ok());
  loop.Start();
  ASSERT_TRUE(loop.BeginSync().ok());
  ASSERT_TRUE(
      loop.BeginCutting(Term(1), memory::PageSet((*rig)->memory->layout().gfn_end()), &sink).ok());
  ASSERT_TRUE((*rig)->machine->Start().ok());
  const uint64_t progress = (*rig)->Progress();
  // A checkpoint fails now and then, in each of its steps: its pages are in the next.
  const char* const steps[] = {"tracker.harvest", "tracker.reset", "checkpoint.copy",
                               "checkpoint.capture", "checkpoint.cut"};
  // So short an interval may be little of the guest's own time on a slow machine: then it boots for
  // longer.
  constexpr int kEnough = 1500, kAtMost = 4 * kEnough;
  bool done = false;
  for (size_t i = 0; !done; ++i) {
    {
      absl::MutexLock lock(&mutex);
      const auto more = [&, wanted = epochs + 50] { return epochs >= wanted || !compared.ok(); };
      ASSERT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&more), absl::Seconds(60)));
      const bool has_got_on = (*rig)->Progress() > progress;
      done = !compared.ok() || epochs >= (has_got_on ? kEnough : kAtMost);
    }
    (*rig)->failpoints.Arm(steps[i % std::size(steps)], 1, /*skip=*/0);
  }
  loop.Halt();
  loop.Stop();
  (*rig)->machine->Stop();
  EXPECT_TRUE(compared.ok()) << "after epoch " << epochs << ": " << compared;
  EXPECT_FALSE((*rig)->stopped) << (*rig)->stop_detail();
  EXPECT_FALSE(listener.gave_up);
  EXPECT_GT(listener.failed, 10);
  EXPECT_GT((*rig)->Progress(), progress) << "the guest has not got on";
  EXPECT_GT(reasons[static_cast<size_t>(budget < 100 ? epoch::CutReason::kBudget
                                                     : epoch::CutReason::kInterval)],
            100);
}

INSTANTIATE_TEST_SUITE_P(Ring, SteeredLoopTest,
                         ::testing::Values(std::tuple(1, 2, 100'000), std::tuple(1, 7, 300),
                                           std::tuple(1, 40, 1000), std::tuple(1, 1000, 200),
                                           std::tuple(2, 20, 1000), std::tuple(4, 30, 2000)),
                         [](const auto& test) {
                           return absl::StrCat(std::get<0>(test.param), "vcpu_budget_",
                                               std::get<1>(test.param), "_us_",
                                               std::get<2>(test.param));
                         });

// What makes the budget worth having: nobody looks, nobody kicks, and no page too many is written.
TEST(SteeredRingTest, AVcpuStopsItselfAtTheBudget) {
  auto rig = MachineRig::Create(
      {.kernel = LEDGER_ELF, .command_line = CommandLine("sequential", 1), .steer = true});
  ASSERT_TRUE(rig.ok()) << rig.status();
  RecordingSink sink;
  epoch::Checkpoint checkpoint((*rig)->Parts());
  ASSERT_TRUE((*rig)->machine->SetDirtyLogging(true).ok());
  ASSERT_TRUE((*rig)->machine->Start().ok());
  uint64_t epoch = 0;
  for (const uint64_t budget : {30, 7, 2, 500, 3, 40}) {  // less again: ballast is put in again
    (*rig)->tracker->SetBudget(budget);
    for (int i = 0; i < 20; ++i) {
      auto staged =
          checkpoint.Run(Term(1), EpochId(++epoch), epoch::CutReason::kRequest, &sink, [&] {
            (*rig)->ring_full = false;
            return absl::OkStatus();
          });
      ASSERT_TRUE(staged.ok()) << staged.status();
      if (i > 1) {
        ASSERT_EQ(staged->page_count, budget) << "epoch " << i;
      }
      (*rig)->ring_full.wait(false);  // the guest never stops else: it writes 900 pages in turn
    }
  }
}

// Pages that stay writable cost no entry: an epoch has them all, and the ring nearly none.
TEST(SteeredRingTest, HotPagesAreWrittenWithoutBeingLogged) {
  auto rig = MachineRig::Create({.kernel = LEDGER_ELF,
                                 .command_line = "vcpus=1 workload=sequential pages=20 lsr=0",
                                 .steer = true,
                                 .max_hot_pages = 64});
  ASSERT_TRUE(rig.ok()) << rig.status();
  RecordingSink sink;
  epoch::Checkpoint checkpoint((*rig)->Parts());
  (*rig)->tracker->SetBudget(1000);
  ASSERT_TRUE((*rig)->machine->SetDirtyLogging(true).ok());
  ASSERT_TRUE((*rig)->machine->Start().ok());
  uint64_t written_hot = 0;
  for (uint64_t epoch = 1; epoch <= 200; ++epoch) {
    (*rig)->AwaitProgress(100);  // every page several times
    const uint64_t logged = (*rig)->machine->dirty_ring(0)->LikelyCount();
    auto staged = checkpoint.Run(Term(1), EpochId(epoch), epoch::CutReason::kRequest, &sink,
                                 [] { return absl::OkStatus(); });
    ASSERT_TRUE(staged.ok()) << staged.status();
    EXPECT_GE(staged->page_count, 20u);
    if (logged == 0) ++written_hot;
  }
  EXPECT_GT((*rig)->Progress(), 200u * 100u);
  EXPECT_GT(written_hot, 100u);
}

TEST(SteeredRingTest, ThisKvmResetsWhatEntriesSay) {
  auto system = kvm::System::Open();
  ASSERT_TRUE(system.ok());
  const absl::StatusOr<bool> steers = kvm::RingResetsWhatEntriesSay(**system);
  ASSERT_TRUE(steers.ok()) << steers.status();
  EXPECT_TRUE(*steers);
}

TEST(OracleBrokenTest, P4_ADroppedPageIsNoticed) {
  auto rig =
      MachineRig::Create({.kernel = LEDGER_ELF, .command_line = CommandLine("sequential", 1)});
  ASSERT_TRUE(rig.ok()) << rig.status();
  // One page of every epoch from here on: an entry may also stand for a read, so one single loss
  // can be harmless, but not a few in a row.
  (*rig)->failpoints.Arm("tracker.drop_one_page", kEpochs, /*skip=*/20);
  const OracleResult result = RunOracle(**rig, kEpochs);
  EXPECT_LT((*rig)->failpoints.Fired("tracker.drop_one_page"), 4u) << "noticed too late";
  EXPECT_EQ(result.status.code(), absl::StatusCode::kDataLoss) << result.status;
}

TEST(OracleBrokenTest, P4_AnUnmarkedWriteOfTheVmmIsNoticed) {
  auto rig = MachineRig::Create({.kernel = LEDGER_ELF, .command_line = CommandLine("uniform", 1)});
  ASSERT_TRUE(rig.ok()) << rig.status();
  (*rig)->memory->SkipMarkingForTest(true);
  const OracleResult result = RunOracle(**rig, kEpochs);
  EXPECT_EQ(result.status.code(), absl::StatusCode::kDataLoss) << result.status;
}

}  // namespace
}  // namespace romulus

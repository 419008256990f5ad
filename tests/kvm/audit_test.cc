// The audit of a real guest on real KVM: quiet where the tracking is exact, loud within one pass
// where it is not.

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "epoch/auditor.h"
#include "support/machine_rig.h"

namespace romulus {
namespace {

using ::romulus::testing::InProcessReplica;
using ::romulus::testing::MachineRig;
using ::romulus::testing::RecordingSink;

constexpr int kEpochs = 300;
// 4,096 pages in windows of at most this many: a pass is 16 epochs if time has passed.
constexpr size_t kWindowPages = 256;
constexpr int kEpochsOfAPass = 16;

std::string CommandLine(const std::string& workload, int vcpus) {
  return absl::StrCat("vcpus=", vcpus, " workload=", workload,
                      " pages=900 report_every=5000 lsr=0");
}

struct AuditRun {
  absl::Status status;
  uint64_t passes = 0;
  uint64_t dirty_pages = 0;
  int epochs = 0;
  replica::AuditFindings findings;
};

// Runs checkpoints, and hashes behind the running guest after each; also after ones that fail, if
// `failures`. Ends at the first mismatch.
AuditRun RunAudited(MachineRig& rig, int epochs, bool failures) {
  AuditRun result;
  InProcessReplica replica(rig.memory->layout());
  RecordingSink sink;
  // As fast as it can.
  epoch::Auditor auditor(rig.memory.get(), &rig.clock,
                         {.pass_ns = 1, .max_pages_per_epoch = kWindowPages});
  epoch::CheckpointParts parts = rig.Parts();
  parts.auditor = &auditor;
  epoch::Checkpoint checkpoint(parts);
  result.status = rig.machine->SetDirtyLogging(true);
  result.status.Update(replica.FullSync(*rig.memory, Term(1)));
  if (!result.status.ok()) return result;
  auditor.BeginStream();
  const std::string steps[] = {"tracker.harvest", "tracker.reset", "checkpoint.copy",
                               "checkpoint.capture", "checkpoint.cut"};
  std::mt19937_64 random(1);
  const uint64_t vmm_first = rig.memory->layout().size_bytes() - (1 << 20);
  result.status = rig.machine->Start();
  rig.AwaitProgress(1);
  while (result.status.ok() && result.epochs < epochs) {
    rig.AwaitProgress(random() % 200);
    // Some of the window before the guest goes on writing, some after.
    for (uint64_t slices = random() % 16; slices > 0 && auditor.HashSome(); --slices) {
    }
    rig.AwaitProgress(random() % 50);
    result.status.Update(
        rig.memory->WriteObject<uint64_t>(Gpa(vmm_first + random() % ((1 << 20) - 8)), random()));
    while (auditor.HashSome()) {
    }
    if (failures && random() % 8 == 0) rig.failpoints.Arm(steps[random() % 5]);
    rig.ring_full = false;
    const EpochId epoch(static_cast<uint64_t>(result.epochs) + 1);
    auto staged = checkpoint.Run(Term(1), epoch, epoch::CutReason::kRequest, &sink,
                                 [] { return absl::OkStatus(); });
    if (rig.stopped) result.status = absl::AbortedError("guest stopped: " + rig.stop_detail());
    if (!staged.ok()) continue;
    ++result.epochs;
    result.dirty_pages += staged->page_count;
    result.status.Update(replica.Commit(*staged));
    if (replica.findings().mismatched != 0) break;
  }
  result.passes = auditor.progress().passes;
  result.findings = replica.findings();
  return result;
}

class AuditTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(AuditTest, NoFalseAlarm) {
  const auto& [workload, vcpus] = GetParam();
  auto rig = MachineRig::Create(
      {.kernel = LEDGER_ELF, .command_line = CommandLine(workload, vcpus), .vcpus = vcpus});
  ASSERT_TRUE(rig.ok()) << rig.status();
  const AuditRun run = RunAudited(**rig, kEpochs, /*failures=*/true);
  EXPECT_TRUE(run.status.ok()) << run.status;
  EXPECT_EQ(run.epochs, kEpochs);
  EXPECT_EQ(run.findings.mismatched, 0u);
  EXPECT_GE(run.passes, static_cast<uint64_t>(kEpochs / kEpochsOfAPass / 2));
  EXPECT_GT(run.findings.compared, 4096u * run.passes / 2);
  EXPECT_GT(run.dirty_pages, static_cast<uint64_t>(kEpochs));
}

INSTANTIATE_TEST_SUITE_P(Ring, AuditTest,
                         ::testing::Combine(::testing::Values("uniform", "hotcold", "sequential"),
                                            ::testing::Values(1, 4)),
                         [](const auto& test) {
                           return absl::StrCat(std::get<0>(test.param), "_",
                                               std::get<1>(test.param), "vcpu");
                         });

// A lost page that the guest writes again is whole again. Here it cannot be for about a pass,
// however long this process waits for a processor: the guest goes through its pages in turn, and a
// ring of 256 entries stops it before it has written more than a fourteenth of them in an epoch.
TEST(AuditLossTest, P4_ALossyTrackerIsFoundWithinAPass) {
  constexpr int kSoundEpochs = 20;
  auto rig =
      MachineRig::Create({.kernel = LEDGER_ELF,
                          .command_line = "workload=sequential pages=2700 report_every=5000 lsr=0",
                          .ring_entries = 256});
  ASSERT_TRUE(rig.ok()) << rig.status();
  (*rig)->failpoints.Arm("tracker.drop_one_page", kEpochs, kSoundEpochs);
  const AuditRun run = RunAudited(**rig, kEpochs, /*failures=*/false);
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_GT(run.findings.mismatched, 0u);
  EXPECT_LE(run.epochs, kSoundEpochs + kEpochsOfAPass + 4) << "noticed too late";
}

TEST(AuditLossTest, P4_AnUnmarkedWriteOfTheVmmIsFoundWithinAPass) {
  auto rig = MachineRig::Create({.kernel = LEDGER_ELF, .command_line = CommandLine("uniform", 1)});
  ASSERT_TRUE(rig.ok()) << rig.status();
  (*rig)->memory->SkipMarkingForTest(true);
  const AuditRun run = RunAudited(**rig, kEpochs, /*failures=*/false);
  ASSERT_TRUE(run.status.ok()) << run.status;
  EXPECT_GT(run.findings.mismatched, 0u);
  EXPECT_LE(run.epochs, 2 * kEpochsOfAPass + 4) << "noticed too late";
}

}  // namespace
}  // namespace romulus

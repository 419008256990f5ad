#include "epoch/checkpoint.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "support/epoch_rig.h"

namespace romulus::epoch {
namespace {

using ::romulus::testing::EpochRig;
using ::romulus::testing::Pages;
using ::romulus::testing::RecordingSink;

absl::Status Always() { return absl::OkStatus(); }

TEST(CheckpointTest, StagesWhatGuestAndVmmWrote) {
  EpochRig rig;
  RecordingSink sink;
  Checkpoint checkpoint(rig.Parts());
  rig.guest->Touch(Gfn(9), std::byte{1});
  rig.guest->Touch(Gfn(4), std::byte{2});
  ASSERT_TRUE(rig.memory->WriteObject<uint8_t>(Gpa(7 * kPageSize), 3).ok());
  auto staged = checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always);
  ASSERT_TRUE(staged.ok());
  EXPECT_EQ(Pages(*staged), (std::vector<uint64_t>{4, 7, 9}));
  EXPECT_EQ(staged->page_count, 3u);
  EXPECT_EQ(staged->batches[0].Page(0)[0], std::byte{2});
  EXPECT_EQ(staged->batches[0].Page(1)[0], std::byte{3});
  EXPECT_TRUE(staged->machine.Has("fake.cpu", 0));
  EXPECT_FALSE(rig.guest->paused());
  // The copy is of the epoch's end: what the guest writes later is not in it.
  rig.guest->Touch(Gfn(4), std::byte{99});
  EXPECT_EQ(staged->batches[0].Page(0)[0], std::byte{2});
}

// A clock that marks pages between all steps, as another thread may (the audit's repairs).
class MarkingClock final : public base::Clock {
 public:
  explicit MarkingClock(memory::GuestMemory* memory) : memory_(memory) {}
  uint64_t NowNs() const override {
    EXPECT_TRUE(memory_->MarkWritten(Gpa(next_++ * kPageSize), kPageSize).ok());
    return next_;
  }
  uint64_t marked() const { return next_; }

 private:
  memory::GuestMemory* memory_;
  mutable uint64_t next_ = 0;
};

TEST(CheckpointTest, P5_APageThatIsMarkedMeanwhileIsInThisEpochOrTheNext) {
  EpochRig rig;
  RecordingSink sink;
  MarkingClock clock(rig.memory.get());
  CheckpointParts parts = rig.Parts();
  parts.clock = &clock;
  Checkpoint checkpoint(parts);
  std::vector<uint64_t> seen;
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    auto staged = checkpoint.Run(Term(1), EpochId(epoch), CutReason::kRequest, &sink, Always);
    ASSERT_TRUE(staged.ok());
    const std::vector<uint64_t> pages = Pages(*staged);
    EXPECT_EQ(staged->page_count, pages.size());
    seen.insert(seen.end(), pages.begin(), pages.end());
  }
  ASSERT_GT(seen.size(), 5u);
  for (uint64_t k = 0; k < seen.size(); ++k) EXPECT_EQ(seen[k], k);
}

class CheckpointAbortTest : public ::testing::TestWithParam<std::string> {};

TEST_P(CheckpointAbortTest, P5_AnAbortedCheckpointLosesNoPageAndNoOutput) {
  EpochRig rig;
  RecordingSink sink;
  Checkpoint checkpoint(rig.Parts());
  ASSERT_TRUE(checkpoint.Run(Term(1), EpochId(1), CutReason::kSync, &sink, Always).ok());
  rig.guest->Touch(Gfn(3), std::byte{1});
  ASSERT_TRUE(rig.memory->WriteObject<uint8_t>(Gpa(5 * kPageSize), 1).ok());
  rig.Say("said");
  rig.failpoints.Arm(GetParam());
  EXPECT_FALSE(checkpoint.Run(Term(1), EpochId(2), CutReason::kRequest, &sink, Always).ok());
  EXPECT_EQ(rig.failpoints.Fired(GetParam()), 1u);
  EXPECT_FALSE(rig.guest->paused());
  EXPECT_EQ(rig.guest->resumes, rig.guest->pauses);
  rig.guest->Touch(Gfn(8), std::byte{1});
  auto staged = checkpoint.Run(Term(1), EpochId(2), CutReason::kRequest, &sink, Always);
  ASSERT_TRUE(staged.ok());
  EXPECT_EQ(Pages(*staged), (std::vector<uint64_t>{3, 5, 8}));
  EXPECT_EQ(staged->console.bytes, "said");
  EXPECT_EQ(rig.released.text(), "");
}

INSTANTIATE_TEST_SUITE_P(AtEveryStep, CheckpointAbortTest,
                         ::testing::Values("tracker.harvest", "tracker.reset", "checkpoint.copy",
                                           "checkpoint.capture", "checkpoint.cut"));

devices::BlockRequest WriteOf(uint64_t offset, char fill) {
  return {.kind = devices::BlockRequest::Kind::kWrite,
          .offset_bytes = offset,
          .size_bytes = 512,
          .data = std::vector<std::byte>(512, static_cast<std::byte>(fill))};
}

TEST(CheckpointTest, P5_AnAbortedCheckpointLosesNoDiskWriteAndKeepsTheirOrder) {
  for (const std::string at : {"checkpoint.copy", "checkpoint.cut"}) {
    EpochRig rig;
    DiskLog log({.cap_bytes = 1u << 20, .disk_sizes = {1u << 20}});
    CheckpointParts parts = rig.Parts();
    parts.disk_log = &log;
    RecordingSink sink;
    Checkpoint checkpoint(parts);
    log.BeginTracking();
    ASSERT_TRUE(log.SwitchToLogging().ok());
    log.Done(log.Begin(0, WriteOf(0, 'a')));
    const uint64_t held = log.held_bytes();
    rig.guest->Touch(Gfn(3), std::byte{1});
    rig.failpoints.Arm(at);
    EXPECT_FALSE(checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always).ok());
    EXPECT_EQ(log.held_bytes(), held);
    log.Done(log.Begin(0, WriteOf(512, 'b')));
    auto staged = checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always);
    ASSERT_TRUE(staged.ok());
    ASSERT_EQ(staged->disk_writes.size(), 2u) << at;
    EXPECT_EQ(staged->disk_writes[0].data[0], std::byte{'a'});
    EXPECT_EQ(staged->disk_writes[1].data[0], std::byte{'b'});
    EXPECT_EQ(log.held_bytes(), 2 * held);
    log.Release(EpochId(1));
    EXPECT_EQ(log.held_bytes(), 0u);
  }
}

TEST(CheckpointTest, P2_NoEpochIsCutWhileTheCopiesOfADiskDiffer) {
  EpochRig rig;
  DiskLog log({.cap_bytes = 1u << 20, .disk_sizes = {1u << 20}});
  CheckpointParts parts = rig.Parts();
  parts.disk_log = &log;
  RecordingSink sink;
  Checkpoint checkpoint(parts);
  log.BeginTracking();
  ASSERT_TRUE(log.SwitchToLogging().ok());
  log.Unequal(log.Begin(0, WriteOf(0, 'a')), absl::DataLossError("bad sector"));
  const auto staged = checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always);
  EXPECT_EQ(staged.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_FALSE(rig.guest->paused());
}

TEST(CheckpointTest, P5_TheTestAboveWouldSeeAForgottenPutBack) {
  EpochRig rig;
  RecordingSink sink;
  Checkpoint checkpoint(rig.Parts());
  rig.guest->Touch(Gfn(3), std::byte{1});
  rig.failpoints.Arm("checkpoint.copy");
  rig.failpoints.Arm("tracker.forget_put_back");
  ASSERT_FALSE(checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always).ok());
  auto staged = checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always);
  ASSERT_TRUE(staged.ok());
  EXPECT_EQ(staged->page_count, 0u);
}

TEST(CheckpointTest, P6_AnEpochLargerThanStagingLeavesInParts) {
  EpochRig rig(/*staging_bytes=*/2 * StagingChunk::kBytes);
  RecordingSink sink;
  Checkpoint checkpoint(rig.Parts());
  for (uint64_t gfn = 0; gfn < 1000; ++gfn) rig.guest->Touch(Gfn(gfn), std::byte{1});
  auto staged = checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always);
  ASSERT_TRUE(staged.ok()) << staged.status();
  EXPECT_EQ(staged->page_count, 1000u);
  EXPECT_EQ(sink.staged_pages() + Pages(*staged).size(), 1000u);
  EXPECT_LE(rig.staging->used_bytes(), rig.staging->cap_bytes());
}

// Sees for itself that a part is whole when it is handed over.
class LookingSink final : public EpochSink {
 public:
  void StagePages(Term, EpochId, PageBatch batch) override {
    for (size_t i = 0; i < batch.gfns.size(); ++i) Look(batch, i);
  }
  void Submit(StagedEpoch) override {}
  void Abort(Term, EpochId) override {}
  void Look(const PageBatch& batch, size_t i) {
    ++pages;
    wrong += batch.Page(i)[0] == FillOf(batch.gfns[i].value()) ? 0 : 1;
  }
  static std::byte FillOf(uint64_t gfn) { return static_cast<std::byte>(gfn % 251 + 1); }
  uint64_t pages = 0;
  uint64_t wrong = 0;
};

TEST(CheckpointTest, P2_PartsAreWholeWhoeverCopiesThem) {
  constexpr uint64_t kPages = 2000;
  for (const int helpers : {0, 2}) {
    EpochRig rig(/*staging_bytes=*/12 * StagingChunk::kBytes);
    LookingSink sink;
    Checkpoint checkpoint(rig.Parts(), {.helpers = helpers, .least_shared_pages = 1});
    for (uint64_t gfn = 0; gfn < kPages; ++gfn) {
      rig.guest->Touch(Gfn(gfn), LookingSink::FillOf(gfn));
    }
    auto staged = checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always);
    ASSERT_TRUE(staged.ok()) << staged.status();
    EXPECT_GT(sink.pages, 0u);
    for (const PageBatch& batch : staged->batches) {
      for (size_t i = 0; i < batch.gfns.size(); ++i) sink.Look(batch, i);
    }
    EXPECT_EQ(sink.pages, kPages);
    EXPECT_EQ(sink.wrong, 0u);
  }
}

TEST(CheckpointTest, P5_AFailureAfterPartsLeftAbortsThem) {
  EpochRig rig(/*staging_bytes=*/2 * StagingChunk::kBytes);
  RecordingSink sink;
  Checkpoint checkpoint(rig.Parts());
  for (uint64_t gfn = 0; gfn < 1000; ++gfn) rig.guest->Touch(Gfn(gfn), std::byte{1});
  rig.failpoints.Arm("checkpoint.capture");
  ASSERT_FALSE(checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always).ok());
  EXPECT_EQ(sink.aborted(), std::vector<EpochId>{EpochId(1)});
  auto staged = checkpoint.Run(Term(1), EpochId(1), CutReason::kRequest, &sink, Always);
  ASSERT_TRUE(staged.ok());
  EXPECT_EQ(staged->page_count, 1000u);
}

TEST(CheckpointTest, ARefusedSubmitAbortsWithNothingHarvested) {
  EpochRig rig;
  RecordingSink sink;
  Checkpoint checkpoint(rig.Parts());
  rig.guest->Touch(Gfn(3), std::byte{1});
  EXPECT_FALSE(checkpoint
                   .Run(Term(1), EpochId(1), CutReason::kRequest, &sink,
                        [] { return absl::CancelledError("no more"); })
                   .ok());
  EXPECT_EQ(rig.source->harvests(), 0);
  EXPECT_FALSE(rig.guest->paused());
}

}  // namespace
}  // namespace romulus::epoch

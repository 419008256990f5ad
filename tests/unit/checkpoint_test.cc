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
                                           "checkpoint.capture", "checkpoint.resume"));

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

// The window that walks over memory, and which of its hashes are an epoch's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>
#include <string>

#include "epoch/auditor.h"
#include "epoch/checkpoint.h"
#include "support/epoch_rig.h"
#include "support/hand_clock.h"

namespace romulus::epoch {
namespace {

using ::romulus::testing::EpochRig;
using ::romulus::testing::HandClock;
using ::romulus::testing::RecordingSink;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kPages = 2048;  // of the rig's 8 MiB

absl::Status Always() { return absl::OkStatus(); }

std::vector<uint64_t> Named(const std::vector<AuditRun>& runs) {
  std::vector<uint64_t> gfns;
  for (const AuditRun& run : runs) {
    for (size_t i = 0; i < run.hashes.size(); ++i) gfns.push_back(run.first.value() + i);
  }
  return gfns;
}

class AuditorTest : public ::testing::Test {
 protected:
  void Build(const AuditOptions& options) {
    auditor_ = std::make_unique<Auditor>(rig_.memory.get(), &clock_, options);
    CheckpointParts parts = rig_.Parts();
    parts.auditor = auditor_.get();
    checkpoint_ = std::make_unique<Checkpoint>(parts);
    auditor_->BeginStream();
  }
  void HashAllDue() {
    while (auditor_->HashSome()) {
    }
  }
  absl::StatusOr<StagedEpoch> Cut() {
    auto staged = checkpoint_->Run(Term(1), next_, CutReason::kRequest, &sink_, Always);
    if (staged.ok()) next_ = next_.Next();
    return staged;
  }

  EpochRig rig_;
  HandClock clock_;
  RecordingSink sink_;
  EpochId next_{1};
  std::unique_ptr<Auditor> auditor_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(AuditorTest, APassNamesEveryPageOnceInItsTime) {
  Build({.pass_ns = 2048 * 1000});
  std::map<uint64_t, int> seen;
  const uint64_t began_ns = clock_.now_ns;
  while (auditor_->progress().passes == 0) {
    ASSERT_LE(clock_.now_ns - began_ns, 2048u * 1000) << "the pass takes longer than it may";
    clock_.now_ns += 20'000;
    HashAllDue();
    auto staged = Cut();
    ASSERT_TRUE(staged.ok());
    EXPECT_LE(Named(staged->audit).size(), 40u) << "more than a steady pace asks for";
    for (const uint64_t gfn : Named(staged->audit)) ++seen[gfn];
  }
  EXPECT_EQ(seen.size(), kPages);
  for (const auto& [gfn, times] : seen) EXPECT_EQ(times, 1) << gfn;
  EXPECT_EQ(auditor_->progress().last_pass_end_ns, clock_.now_ns);
  EXPECT_EQ(auditor_->progress().last_pass_ns, clock_.now_ns - began_ns);
}

TEST_F(AuditorTest, APassThatIsLateSaysSo) {
  Build({.pass_ns = 2048 * 1000});
  EXPECT_FALSE(auditor_->IsBehind());
  clock_.now_ns += 50'000;  // of the 112,000 that a sixteenth takes
  EXPECT_FALSE(auditor_->IsBehind());
  clock_.now_ns += 150'000;
  EXPECT_TRUE(auditor_->IsBehind());
  HashAllDue();
  EXPECT_TRUE(auditor_->IsBehind()) << "hashed is not sent";
  ASSERT_TRUE(Cut().ok());
  EXPECT_FALSE(auditor_->IsBehind());
  clock_.now_ns += 1'500'000;  // more than one epoch's window
  for (int epoch = 0; epoch < 2; ++epoch) {
    EXPECT_TRUE(auditor_->IsBehind()) << epoch;
    HashAllDue();
    ASSERT_TRUE(Cut().ok());
  }
  EXPECT_FALSE(auditor_->IsBehind());
  clock_.now_ns += 95'000;  // less than a sixteenth, but the pass could end
  EXPECT_LT(kPages - auditor_->progress().pages_done, kPages / kAuditSlack);
  EXPECT_TRUE(auditor_->IsBehind());
}

TEST_F(AuditorTest, AnEpochHasAtMostSoManyPages) {
  Build({.pass_ns = 1000, .max_pages_per_epoch = 100});
  clock_.now_ns += 1'000'000;
  HashAllDue();
  auto staged = Cut();
  ASSERT_TRUE(staged.ok());
  EXPECT_EQ(Named(staged->audit).size(), 100u);
  EXPECT_EQ(auditor_->progress().pages_done, 100u);
}

TEST_F(AuditorTest, PagesThatCannotBeReadArePassedOver) {
  Build({.pass_ns = 1000, .max_pages_per_epoch = kPages});
  clock_.now_ns += 1000;
  // As poisoned ones: reading them fails. Not a whole number of what is read in one go.
  constexpr uint64_t kReadable = kPages - 21;
  ASSERT_EQ(::ftruncate(rig_.memory->fd(), kReadable * kPageSize), 0);
  HashAllDue();
  ASSERT_EQ(::ftruncate(rig_.memory->fd(), kPages * kPageSize), 0);
  auto staged = Cut();
  ASSERT_TRUE(staged.ok());
  EXPECT_EQ(Named(staged->audit).size(), kReadable);
  EXPECT_EQ(auditor_->progress().passes, 1u);
}

TEST_F(AuditorTest, PagesThatNobodyTouchedAreNotMadeToExist) {
  Build({.pass_ns = 1000, .max_pages_per_epoch = kPages});
  struct stat before {
  }, after{};
  ASSERT_EQ(::fstat(rig_.memory->fd(), &before), 0);
  clock_.now_ns += 1000;
  HashAllDue();
  ASSERT_EQ(::fstat(rig_.memory->fd(), &after), 0);
  EXPECT_EQ(after.st_blocks, before.st_blocks);
}

TEST_F(AuditorTest, WhatIsWrittenInTheEpochIsNotNamed) {
  Build({.pass_ns = 1000, .max_pages_per_epoch = 6});
  ASSERT_TRUE(Cut().ok());
  rig_.guest->Touch(Gfn(0), std::byte{1});  // before it is hashed
  clock_.now_ns += 1000;
  HashAllDue();
  rig_.guest->Touch(Gfn(2), std::byte{1});  // after
  rig_.guest->DeviceWrite(Gfn(4), std::byte{1});
  auto staged = Cut();
  ASSERT_TRUE(staged.ok());
  EXPECT_THAT(Named(staged->audit), ElementsAre(1, 3, 5));
  EXPECT_EQ(staged->audit.size(), 3u);
}

// They travel with the epoch itself, and the pass must end though they are written all the time.
TEST_F(AuditorTest, PagesThatAreAlwaysDirtyAreDoneToo) {
  Build({.pass_ns = 1000, .max_pages_per_epoch = kPages});
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (uint64_t gfn = 0; gfn < kPages; ++gfn) rig_.guest->Touch(Gfn(gfn), std::byte{1});
    clock_.now_ns += 1000;
    HashAllDue();
    auto staged = Cut();
    ASSERT_TRUE(staged.ok());
    EXPECT_THAT(staged->audit, IsEmpty());
  }
  EXPECT_EQ(auditor_->progress().passes, 2u);
}

class AuditorAbortTest : public AuditorTest, public ::testing::WithParamInterface<std::string> {};

// The pages of a failed checkpoint are dirty in the next one: a hash from before their write is
// void.
TEST_P(AuditorAbortTest, P5_AFailedCheckpointMakesNoHashWrong) {
  Build({.pass_ns = 1000, .max_pages_per_epoch = 4});
  ASSERT_TRUE(Cut().ok());
  clock_.now_ns += 1000;
  HashAllDue();
  rig_.guest->Touch(Gfn(1), std::byte{7});
  rig_.guest->DeviceWrite(Gfn(2), std::byte{7});
  rig_.failpoints.Arm(GetParam());
  ASSERT_FALSE(Cut().ok());
  HashAllDue();
  auto staged = Cut();
  ASSERT_TRUE(staged.ok());
  EXPECT_THAT(Named(staged->audit), ElementsAre(0, 3));
}

INSTANTIATE_TEST_SUITE_P(AtEveryStep, AuditorAbortTest,
                         ::testing::Values("tracker.harvest", "tracker.reset", "checkpoint.copy",
                                           "checkpoint.capture", "checkpoint.cut"));

TEST_F(AuditorTest, ANewStreamForgetsWhatWasHashedBefore) {
  Build({.pass_ns = 1000, .max_pages_per_epoch = 4});
  ASSERT_TRUE(Cut().ok());
  clock_.now_ns += 1000;
  HashAllDue();
  rig_.guest->Touch(Gfn(1), std::byte{7});
  ASSERT_TRUE(checkpoint_->Drain().ok());  // of a full sync: the tracker forgets
  auditor_->BeginStream();
  auto staged = Cut();
  ASSERT_TRUE(staged.ok());
  EXPECT_THAT(staged->audit, IsEmpty());
  EXPECT_EQ(auditor_->progress().pages_done, 0u);
}

TEST(PageHashTest, PagesAreReadAcrossTheHoleOnlyOnceEach) {
  // The region above 4 GiB lies right behind the one below the hole in the file.
  const auto layout = *memory::MemoryLayout::ForMib(4096);
  const auto memory = *memory::GuestMemory::Create(layout);
  const memory::Region& high = layout.regions()[1];
  ASSERT_TRUE(memory->WriteObject<uint32_t>(high.gpa, 0xabcd).ok());
  std::vector<std::byte> page(kPageSize);
  ASSERT_TRUE(memory::ReadPages(*memory, GfnOf(high.gpa), page).ok());
  EXPECT_EQ(page[0], std::byte{0xcd});
  std::vector<std::byte> two(2 * kPageSize);
  const Gfn last_low(GfnOf(Gpa(layout.regions()[0].size_bytes)).value() - 1);
  EXPECT_FALSE(memory::ReadPages(*memory, last_low, two).ok());
  EXPECT_FALSE(memory::ReadPages(*memory, Gfn(UINT64_MAX), page).ok());
  EXPECT_FALSE(memory::ReadPages(*memory, Gfn(0), std::span(page).first(100)).ok());
}

}  // namespace
}  // namespace romulus::epoch

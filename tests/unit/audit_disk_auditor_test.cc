// The window that walks over disks: which of its hashes are an epoch's, whatever the guest writes
// meanwhile, and how a block is sent again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "codec/disk_records.h"
#include "epoch/disk_auditor.h"
#include "epoch/logged_disk.h"
#include "support/hand_clock.h"
#include "support/virtio_disk.h"
#include "support/virtio_driver.h"

namespace romulus::epoch {
namespace {

using devices::BlockRequest;
using devices::testing::ManualExecutor;
using devices::testing::MemoryDisk;
using Kind = BlockRequest::Kind;
using ::romulus::testing::HandClock;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kBlocks = 6;
constexpr uint64_t kDiskBytes = (kBlocks - 1) * kDiskBlockBytes + 4096;  // the last block is short

std::span<const std::byte> BlockOf(const std::string& disk, uint64_t block) {
  const uint64_t begin = block * kDiskBlockBytes;
  return std::as_bytes(std::span(disk))
      .subspan(begin, std::min(kDiskBlockBytes, disk.size() - begin));
}

// Reads as a slow disk does: half of the block, then `between`, then the other half.
class TornSource final : public DiskBlockSource {
 public:
  explicit TornSource(const std::string* disk) : disk_(disk) {}
  absl::StatusOr<DiskHash> Hash(const DiskBlock& block) override {
    const auto bytes = Read(block);
    if (!bytes.ok()) return bytes.status();
    return codec::HashDiskBlock(*bytes);
  }
  absl::StatusOr<std::vector<std::byte>> Read(const DiskBlock& block) override {
    if (!failure.ok()) return failure;
    std::vector<std::byte> bytes(BlockOf(*disk_, block.block).begin(),
                                 BlockOf(*disk_, block.block).end());
    if (between) between();
    const auto now = BlockOf(*disk_, block.block);
    std::copy(now.begin() + static_cast<ptrdiff_t>(now.size() / 2), now.end(),
              bytes.begin() + static_cast<ptrdiff_t>(now.size() / 2));
    return bytes;
  }

  std::function<void()> between;
  absl::Status failure;

 private:
  const std::string* const disk_;
};

// A guest's disk with its log and auditor, and what a secondary makes of the epochs.
class DiskAuditorTest : public ::testing::Test {
 protected:
  explicit DiskAuditorTest(uint64_t pass_ns = 1) {
    auditor_ = std::make_unique<DiskAuditor>(
        DiskAuditOptions{.pass_ns = pass_ns, .disk_sizes = {kDiskBytes}}, &source_, &log_, &clock_);
    log_.SetObserver(auditor_.get());
    log_.BeginTracking();
    EXPECT_TRUE(log_.SwitchToLogging().ok());
    auditor_->BeginStream();
    clock_.now_ns += 1000;
  }
  void Submit(Kind kind, uint64_t offset, uint64_t size, char fill = 0) {
    BlockRequest request{.kind = kind, .offset_bytes = offset, .size_bytes = size, .data = {}};
    if (kind == Kind::kWrite) request.data.assign(size, static_cast<std::byte>(fill));
    logged_.Submit(std::move(request), [](devices::BlockResult) {});
  }
  void WriteNow(uint64_t block, char fill) {
    Submit(Kind::kWrite, block * kDiskBlockBytes, 512, fill);
    disk_.DoAll();
  }
  // The pause. The blocks that the epoch names; those whose hash is not the replica's are in
  // `unequal_`.
  std::vector<uint64_t> Cut(bool aborted = false) {
    epoch_ = epoch_.Next();
    std::vector<DiskWrite> writes = log_.Cut(epoch_);
    auditor_->OnCut();
    if (aborted) {
      log_.UndoCut(epoch_, std::move(writes));
      return {};
    }
    log_.Release(epoch_);
    for (const DiskWrite& write : writes) {
      char* const at = replica_.data() + write.offset_bytes;
      if (write.kind == DiskWrite::Kind::kFlush) continue;
      for (uint64_t i = 0; i < write.size_bytes; ++i) {
        at[i] = write.kind == DiskWrite::Kind::kWrite ? static_cast<char>(write.data[i]) : '\0';
      }
    }
    if (after_cut_) after_cut_();
    std::vector<uint64_t> named;
    for (const DiskAuditRun& run : auditor_->TakeRuns()) {
      for (uint64_t i = 0; i < run.hashes.size(); ++i) {
        const uint64_t block = run.first_block + i;
        named.push_back(block);
        if (codec::HashDiskBlock(BlockOf(replica_, block)) != run.hashes[i]) {
          unequal_.push_back({run.disk, block});
        }
      }
    }
    return named;
  }

  HandClock clock_;
  ManualExecutor loop_;
  MemoryDisk disk_{kDiskBytes};
  DiskLog log_{{.cap_bytes = 64u << 20, .disk_sizes = {kDiskBytes}}};
  LoggedDisk logged_{0, disk_, log_, loop_};
  TornSource source_{&disk_.bytes};
  std::unique_ptr<DiskAuditor> auditor_;
  std::string replica_ = std::string(kDiskBytes, '\0');
  std::vector<DiskBlock> unequal_;
  std::function<void()> after_cut_;  // the guest runs again, the epoch is not submitted
  EpochId epoch_;
};

TEST_F(DiskAuditorTest, APassNamesEveryBlockOnce) {
  auditor_->ReadSome();
  EXPECT_THAT(Cut(), ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(unequal_, IsEmpty());
  EXPECT_EQ(auditor_->progress().passes, 1u);
  EXPECT_EQ(auditor_->progress().blocks_total, kBlocks);
  EXPECT_EQ(auditor_->progress().last_pass_end_ns, clock_.now_ns);
  EXPECT_THAT(Cut(), IsEmpty());
}

class SlowDiskAuditorTest : public DiskAuditorTest {
 protected:
  SlowDiskAuditorTest() : DiskAuditorTest(/*pass_ns=*/kBlocks * 1'000'000) {}
};

TEST_F(SlowDiskAuditorTest, BlocksComeInTheTimeOfAPass) {
  for (int turn = 0; auditor_->progress().passes == 0; ++turn) {
    ASSERT_LE(turn, 60) << "the pass takes longer than it may";
    clock_.now_ns += 100'000;
    auditor_->ReadSome();
    EXPECT_LE(Cut().size(), 1u) << "more than a steady pace asks for";
  }
}

TEST_F(SlowDiskAuditorTest, APassThatIsLateSaysSo) {
  EXPECT_FALSE(auditor_->IsBehind());
  clock_.now_ns += 1'000'000;  // one block is due
  EXPECT_TRUE(auditor_->IsBehind());
  auditor_->ReadSome();
  EXPECT_TRUE(auditor_->IsBehind()) << "read is not sent";
  EXPECT_THAT(Cut(), ElementsAre(0));
  EXPECT_FALSE(auditor_->IsBehind());
  auditor_->EndStream();
  clock_.now_ns += 100'000'000;
  EXPECT_FALSE(auditor_->IsBehind()) << "without a stream there is no pass";
}

TEST_F(DiskAuditorTest, WhatIsWrittenBeforeTheCutIsReadAgain) {
  Submit(Kind::kWrite, 0, 512, 'a');  // under way
  auditor_->ReadSome();
  WriteNow(2, 'b');  // begun after it was read; ends both
  Submit(Kind::kDiscard, 4 * kDiskBlockBytes, kDiskBlockBytes + 512);
  EXPECT_THAT(Cut(), ElementsAre(1, 3));
  disk_.DoAll();
  auditor_->ReadSome();
  EXPECT_THAT(Cut(), ElementsAre(0, 2, 4, 5));
  EXPECT_THAT(unequal_, IsEmpty());
}

TEST_F(DiskAuditorTest, ACutThatFailsChangesNothing) {
  auditor_->ReadSome();
  Cut(/*aborted=*/true);
  WriteNow(3, 'x');
  auditor_->ReadSome();  // leaves alone what the failed cut has found
  EXPECT_THAT(Cut(), ElementsAre(0, 1, 2, 4, 5));
  auditor_->ReadSome();
  EXPECT_THAT(Cut(), ElementsAre(3));
  EXPECT_THAT(unequal_, IsEmpty());
}

TEST_F(DiskAuditorTest, WhatIsAlwaysWrittenOrCannotBeReadIsLeftOut) {
  for (int turn = 0; turn < 20 && auditor_->progress().passes == 0; ++turn) {
    auditor_->ReadSome();
    WriteNow(1, static_cast<char>(turn));
    for (const uint64_t block : Cut()) EXPECT_NE(block, 1u);
  }
  EXPECT_EQ(auditor_->progress().passes, 1u);
  EXPECT_EQ(auditor_->progress().blocks_left_out, 1u);
  source_.failure = absl::DataLossError("a bad disk");
  clock_.now_ns += 1000;
  for (int turn = 0; turn < 20 && auditor_->progress().passes == 1; ++turn) {
    auditor_->ReadSome();
    EXPECT_THAT(Cut(), IsEmpty());
  }
  EXPECT_EQ(auditor_->progress().blocks_left_out, 1 + kBlocks);
}

TEST_F(DiskAuditorTest, ANewStreamKnowsNothingOfTheOld) {
  source_.between = [&] {
    auditor_->EndStream();
    auditor_->BeginStream();
  };
  auditor_->ReadSome();
  source_.between = nullptr;
  EXPECT_THAT(Cut(), IsEmpty());
  clock_.now_ns += 1000;
  auditor_->ReadSome();
  auditor_->EndStream();
  EXPECT_THAT(Cut(), IsEmpty());
  auditor_->ReadSome();
  EXPECT_THAT(Cut(), IsEmpty());
}

TEST_F(DiskAuditorTest, ARepairIsNotLoggedOverAWrite) {
  replica_[kDiskBlockBytes + 7] ^= 1;
  const DiskBlock wrong{0, 1};
  auditor_->Repair(std::span(&wrong, 1));
  source_.between = [&] { WriteNow(1, 'n'); };
  auditor_->ReadSome();
  source_.between = nullptr;
  EXPECT_EQ(log_.Cut(EpochId(100)).size(), kBlocks + 1) << "one in each read, and no more";
  Submit(Kind::kWrite, kDiskBlockBytes, 512, 'm');
  auditor_->ReadSome();
  EXPECT_EQ(log_.Cut(EpochId(101)).size(), 1u) << "not beside a write under way";
  disk_.DoAll();
  auditor_->ReadSome();
  const std::vector<DiskWrite> writes = log_.Cut(EpochId(102));
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_EQ(writes[0].offset_bytes, kDiskBlockBytes);
  EXPECT_EQ(writes[0].data.size(), kDiskBlockBytes);
  EXPECT_EQ(writes[0].data[0], std::byte{'m'});
}

// Whatever the guest does, at whatever moment, also within a read and between a cut and what is
// taken of it, no hash is sent that is not the replica's; a byte that flips there is found and
// mended.
class RandomDiskAuditorTest : public DiskAuditorTest, public ::testing::WithParamInterface<bool> {
 protected:
  void SomethingHappens() {
    switch (random_() % 6) {
      case 0:
      case 1: {
        const uint64_t sectors = kDiskBytes / 512;
        const uint64_t first = random_() % sectors;
        const uint64_t count = std::min(sectors - first, 1 + random_() % 200);
        const Kind kinds[] = {Kind::kWrite, Kind::kWrite, Kind::kDiscard, Kind::kWriteZeroes};
        Submit(kinds[random_() % 4], first * 512, count * 512, static_cast<char>(random_()));
        break;
      }
      case 2:
      case 3:
        if (!disk_.pending.empty()) DoOne();
        break;
      case 4:
        disk_.DoAll();
        break;
      case 5:
        break;
    }
  }
  void DoOne() {
    const size_t index = random_() % disk_.pending.size();
    const bool is_read = disk_.pending[index].request.kind == Kind::kRead;
    // What a failed one left is read back, and in the log before it is told.
    const bool fails = !is_read && random_() % 8 == 0;
    if (fails) disk_.bytes[disk_.pending[index].request.offset_bytes] ^= 0x55;
    disk_.Do(index, fails ? absl::DataLossError("bad") : absl::OkStatus());
  }
  void CutNow() {
    for (const uint64_t block : Cut(random_() % 5 == 0)) ++named_[block];
    clock_.now_ns += 1000;
  }

  std::mt19937_64 random_{7};
  std::map<uint64_t, int> named_;
};

TEST_P(RandomDiskAuditorTest, NoFalseAlarm) {
  const bool flips = GetParam();
  source_.between = [&] {
    for (uint64_t n = random_() % 3; n > 0; --n) SomethingHappens();
    if (random_() % 4 == 0) CutNow();  // a slow read
  };
  after_cut_ = [&] {
    if (random_() % 2 == 0) SomethingHappens();
  };
  uint64_t found = 0;
  for (int step = 0; step < 8'000; ++step) {
    if (flips && step % 500 == 0) replica_[random_() % kDiskBytes] ^= 0x10;
    if (random_() % 3 == 0) auditor_->ReadSome();
    if (random_() % 2 == 0) SomethingHappens();
    if (random_() % 4 == 0) disk_.DoAll();
    CutNow();
    if (!flips) {
      ASSERT_THAT(unequal_, IsEmpty()) << "step " << step;
    }
    found += unequal_.size();
    auditor_->Repair(std::exchange(unequal_, {}));
  }
  EXPECT_EQ(named_.size(), kBlocks);
  for (const auto& [block, times] : named_) EXPECT_GT(times, 20) << "block " << block;
  EXPECT_EQ(found > 0, flips);
  // Quiet now: two passes find the rest, and mend it.
  source_.between = after_cut_ = nullptr;
  disk_.DoAll();
  for (int turn = 0; turn < 40; ++turn) {
    auditor_->ReadSome();
    CutNow();
    auditor_->Repair(std::exchange(unequal_, {}));
  }
  EXPECT_TRUE(replica_ == disk_.bytes);
}

INSTANTIATE_TEST_SUITE_P(All, RandomDiskAuditorTest, ::testing::Values(false, true));

}  // namespace
}  // namespace romulus::epoch

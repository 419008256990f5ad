// The log of the guest's disk writes, and the disk that feeds it, over a disk whose requests are
// done when the test says so.
#include "epoch/disk_log.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>

#include "epoch/logged_disk.h"
#include "support/virtio_disk.h"
#include "support/virtio_driver.h"

namespace romulus::epoch {
namespace {

using devices::BlockRequest;
using devices::BlockResult;
using devices::testing::ManualExecutor;
using devices::testing::MemoryDisk;
using Kind = BlockRequest::Kind;

constexpr uint64_t kBlock = kDiskBlockBytes;
constexpr uint64_t kDiskBytes = 8 * kBlock + 4096;  // the last block is short

BlockRequest Write(uint64_t offset, char fill, uint64_t size = 512) {
  return {.kind = Kind::kWrite,
          .offset_bytes = offset,
          .size_bytes = size,
          .data = std::vector<std::byte>(size, static_cast<std::byte>(fill))};
}
BlockRequest Range(Kind kind, uint64_t offset, uint64_t size) {
  return {.kind = kind, .offset_bytes = offset, .size_bytes = size, .data = {}};
}

struct LogRig {
  explicit LogRig(uint64_t cap = 1u << 20)
      : disk(kDiskBytes), log({.cap_bytes = cap, .disk_sizes = {kDiskBytes}}) {}
  // Returns the request's number in `results`.
  size_t Submit(BlockRequest request) {
    const size_t number = results.size();
    results.emplace_back();
    logged.Submit(std::move(request),
                  [this, number](BlockResult result) { results[number] = std::move(result); });
    return number;
  }
  void BeginLogging() {
    log.BeginTracking();
    ASSERT_TRUE(log.SwitchToLogging().ok());
  }
  bool done(size_t number) const { return results[number].has_value(); }

  ManualExecutor loop;
  MemoryDisk disk;
  DiskLog log;
  LoggedDisk logged{0, disk, log, loop};
  std::vector<std::optional<BlockResult>> results;
};

// What a secondary does with an epoch.
void Apply(const std::vector<DiskWrite>& writes, std::string& copy) {
  for (const DiskWrite& write : writes) {
    ASSERT_LE(write.offset_bytes + write.size_bytes, copy.size());
    const auto at = copy.begin() + static_cast<ptrdiff_t>(write.offset_bytes);
    if (write.kind == DiskWrite::Kind::kWrite) {
      ASSERT_EQ(write.data.size(), write.size_bytes);
      std::transform(write.data.begin(), write.data.end(), at,
                     [](std::byte b) { return static_cast<char>(b); });
    } else {
      std::fill(at, at + static_cast<ptrdiff_t>(write.size_bytes), '\0');
    }
  }
}

TEST(DiskLogTest, OffRecordsNothing) {
  LogRig rig;
  rig.Submit(Write(0, 'a'));
  rig.disk.DoAll();
  EXPECT_EQ(rig.log.mode(), DiskLog::Mode::kOff);
  EXPECT_TRUE(rig.log.TakeDirtyBlocks(0).empty());
  EXPECT_TRUE(rig.log.Cut(EpochId(1)).empty());
  EXPECT_EQ(rig.log.held_bytes(), 0u);
}

TEST(DiskLogTest, TrackingMarksBlocksWhenAWriteBeginsAndWhenItIsDone) {
  LogRig rig;
  rig.Submit(Write(7 * kBlock, 'x'));  // before: its end still counts
  rig.log.BeginTracking();
  EXPECT_TRUE(rig.log.TakeDirtyBlocks(0).empty());
  rig.Submit(Write(kBlock - 512, 'a', 1024));                 // blocks 0 and 1
  rig.Submit(Range(Kind::kDiscard, 3 * kBlock, 2 * kBlock));  // 3 and 4
  rig.Submit(Write(8 * kBlock, 'b', 4096));                   // the short one
  rig.Submit(Range(Kind::kRead, 5 * kBlock, kBlock));
  EXPECT_EQ(rig.log.dirty_blocks(0), 5u);
  EXPECT_EQ(rig.log.TakeDirtyBlocks(0), (std::vector<DiskBlockRange>{{0, 2}, {3, 2}, {8, 1}}));
  EXPECT_TRUE(rig.log.TakeDirtyBlocks(0).empty());
  rig.disk.DoAll();
  EXPECT_EQ(rig.log.TakeDirtyBlocks(0), (std::vector<DiskBlockRange>{{0, 2}, {3, 2}, {7, 2}}));
}

TEST(DiskLogTest, P4_AWriteUnderWayAtTheSwitchIsDirtyOnceItIsDone) {
  LogRig rig;
  rig.log.BeginTracking();
  rig.Submit(Write(0, 'a'));
  rig.log.TakeDirtyBlocks(0);
  ASSERT_TRUE(rig.log.SwitchToLogging().ok());
  rig.Submit(Write(2 * kBlock, 'b'));
  EXPECT_EQ(rig.log.AwaitUnlogged(absl::ZeroDuration()).code(),
            absl::StatusCode::kDeadlineExceeded);
  std::thread waits([&] { EXPECT_TRUE(rig.log.AwaitUnlogged(absl::InfiniteDuration()).ok()); });
  rig.disk.Do(0);
  waits.join();
  // The second is under way still, but it is in the log: nobody waits for it.
  EXPECT_EQ(rig.log.TakeDirtyBlocks(0), (std::vector<DiskBlockRange>{{0, 1}}));
  const std::vector<DiskWrite> writes = rig.log.Cut(EpochId(1));
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_EQ(writes[0].offset_bytes, 2 * kBlock);
  rig.disk.DoAll();
  EXPECT_TRUE(rig.log.TakeDirtyBlocks(0).empty());
}

TEST(DiskLogTest, WhatWasLoggedForAnotherSyncIsDirtyInTheNext) {
  LogRig rig;
  rig.BeginLogging();
  rig.Submit(Write(0, 'a'));
  rig.log.BeginTracking();  // the stream broke: a new full sync
  ASSERT_TRUE(rig.log.SwitchToLogging().ok());
  EXPECT_EQ(rig.log.AwaitUnlogged(absl::ZeroDuration()).code(),
            absl::StatusCode::kDeadlineExceeded);
  rig.disk.DoAll();
  EXPECT_TRUE(rig.log.AwaitUnlogged(absl::ZeroDuration()).ok());
  EXPECT_EQ(rig.log.TakeDirtyBlocks(0), (std::vector<DiskBlockRange>{{0, 1}}));
  EXPECT_TRUE(rig.log.Cut(EpochId(1)).empty());
}

TEST(DiskLogTest, AWaitForTheSwitchEndsWithTheLog) {
  LogRig rig;
  rig.log.BeginTracking();
  rig.Submit(Write(0, 'a'));
  ASSERT_TRUE(rig.log.SwitchToLogging().ok());
  absl::Status waited;
  std::thread waits([&] { waited = rig.log.AwaitUnlogged(absl::InfiniteDuration()); });
  // Whether it waits by now or not: the answer is the same, or the wait has nothing to wait for.
  while (rig.log.mode() != DiskLog::Mode::kOff) rig.log.Stop();
  rig.disk.DoAll();
  waits.join();
  EXPECT_TRUE(waited.ok() || absl::IsCancelled(waited)) << waited;
  EXPECT_EQ(rig.log.SwitchToLogging().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(DiskLogTest, LogsInOrderWithFlushes) {
  LogRig rig;
  rig.BeginLogging();
  rig.Submit(Write(0, 'a'));
  rig.Submit(Range(Kind::kFlush, 0, 0));
  rig.Submit(Range(Kind::kWriteZeroes, 512, 1024));
  BlockRequest durable = Write(4096, 'd');
  durable.durable = true;
  rig.Submit(std::move(durable));
  rig.Submit(Range(Kind::kRead, 0, 512));
  const std::vector<DiskWrite> writes = rig.log.Cut(EpochId(1));
  std::vector<DiskWrite::Kind> kinds;
  for (const DiskWrite& write : writes) kinds.push_back(write.kind);
  using K = DiskWrite::Kind;
  EXPECT_EQ(kinds, (std::vector<K>{K::kWrite, K::kFlush, K::kWriteZeroes, K::kWrite, K::kFlush}));
  EXPECT_EQ(writes[2].size_bytes, 1024u);
  EXPECT_TRUE(rig.log.Cut(EpochId(2)).empty());
}

TEST(DiskLogTest, P6_FullUntilAnAckAndToldOnce) {
  LogRig rig(/*cap=*/4096);
  int told_full = 0;
  int told_room = 0;
  rig.log.SetOnFull([&] { ++told_full; });
  rig.BeginLogging();
  int submitted = 0;
  while (!rig.logged.Full()) {
    ASSERT_LT(submitted, 100);
    rig.Submit(Write(512 * static_cast<uint64_t>(submitted++), 'a'));
  }
  EXPECT_GE(rig.log.held_bytes(), rig.log.cap_bytes());
  EXPECT_LT(rig.log.held_bytes(), rig.log.cap_bytes() + 1024);
  EXPECT_EQ(told_full, 1);
  rig.logged.WhenRoom([&] { ++told_room; });
  rig.disk.DoAll();
  EXPECT_TRUE(rig.logged.Full());  // done is not acked
  EXPECT_EQ(rig.log.Cut(EpochId(7)).size(), static_cast<size_t>(submitted));
  rig.log.Release(EpochId(6));
  EXPECT_TRUE(rig.logged.Full());
  rig.log.Release(EpochId(7));
  EXPECT_FALSE(rig.logged.Full());
  EXPECT_EQ(told_room, 0);  // on the device loop
  rig.loop.Run();
  EXPECT_EQ(told_room, 1);
  EXPECT_EQ(rig.log.held_bytes(), 0u);
  rig.logged.WhenRoom([&] { ++told_room; });  // there is
  rig.loop.Run();
  EXPECT_EQ(told_room, 2);
}

TEST(DiskLogTest, ClosedItIsFullInEveryModeUntilOpened) {
  LogRig rig;
  int told = 0;
  int room = 0;
  rig.log.SetOnFull([&] { ++told; });
  rig.BeginLogging();
  rig.log.Close();
  EXPECT_TRUE(rig.log.Full());
  rig.log.WhenRoom([&] { ++room; });
  rig.Submit(Write(0, 'a'));  // it had been taken before
  rig.loop.Run();
  EXPECT_EQ(rig.log.Cut(EpochId(1)).size(), 1u);
  rig.log.Release(EpochId(1));
  rig.log.Stop();
  EXPECT_TRUE(rig.log.Full());
  EXPECT_EQ(room, 0);
  rig.log.Open();
  EXPECT_FALSE(rig.log.Full());
  EXPECT_EQ(room, 1);
  EXPECT_EQ(told, 0);
}

TEST(DiskLogTest, P6_StopMakesRoom) {
  LogRig rig(/*cap=*/512);
  rig.BeginLogging();
  rig.Submit(Write(0, 'a'));
  ASSERT_TRUE(rig.logged.Full());
  int told = 0;
  rig.logged.WhenRoom([&] { ++told; });
  rig.log.Stop();
  rig.loop.Run();
  EXPECT_EQ(told, 1);
  EXPECT_FALSE(rig.logged.Full());
  rig.disk.DoAll();
  EXPECT_TRUE(rig.done(0));
}

TEST(LoggedDiskTest, AWriteWaitsForThoseThatItOverlaps) {
  LogRig rig;
  rig.BeginLogging();
  rig.Submit(Write(0, 'a', 1024));
  rig.Submit(Write(512, 'b', 1024));   // waits for the first
  rig.Submit(Write(1024, 'c', 1024));  // waits for the second, although it is not under way
  rig.Submit(Write(4096, 'd'));
  EXPECT_EQ(rig.disk.pending.size(), 2u);
  rig.disk.Do(1);
  EXPECT_TRUE(rig.done(3));
  rig.disk.Do(0);
  ASSERT_EQ(rig.disk.pending.size(), 1u);
  rig.disk.Do(0);
  rig.disk.DoAll();
  EXPECT_TRUE(rig.done(2));
  std::string copy(kDiskBytes, '\0');
  Apply(rig.log.Cut(EpochId(1)), copy);
  EXPECT_TRUE(copy == rig.disk.bytes);
}

TEST(LoggedDiskTest, AWriteThatWaitedBelongsToTheEpochInWhichItReachesTheDisk) {
  LogRig rig;
  rig.BeginLogging();
  rig.Submit(Write(0, 'a'));
  rig.Submit(Write(0, 'b'));
  EXPECT_EQ(rig.log.Cut(EpochId(1)).size(), 1u);
  rig.disk.Do(0);
  const std::vector<DiskWrite> writes = rig.log.Cut(EpochId(2));
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_EQ(writes[0].data[0], std::byte{'b'});
}

TEST(LoggedDiskTest, P2_WhatAFailedWriteLeftIsLoggedBeforeTheGuestIsTold) {
  LogRig rig;
  rig.BeginLogging();
  const size_t failing = rig.Submit(Write(0, 'n', 1024));
  const size_t next = rig.Submit(Write(512, 'z'));
  std::string copy(kDiskBytes, '\0');
  Apply(rig.log.Cut(EpochId(1)), copy);
  rig.disk.bytes[0] = 'n';  // a part of it
  rig.disk.Do(0, absl::DataLossError("bad sector"));
  EXPECT_FALSE(rig.done(failing));
  ASSERT_EQ(rig.disk.pending.size(), 1u);  // the look at what is there: the next still waits
  EXPECT_EQ(rig.disk.pending[0].request.kind, Kind::kRead);
  rig.disk.Do(0);
  ASSERT_TRUE(rig.done(failing));
  EXPECT_TRUE(absl::IsDataLoss(rig.results[failing]->status));
  rig.disk.DoAll();
  EXPECT_TRUE(rig.results[next]->status.ok());
  Apply(rig.log.Cut(EpochId(2)), copy);
  EXPECT_TRUE(copy == rig.disk.bytes);
  EXPECT_TRUE(rig.log.status().ok());
  EXPECT_EQ(rig.log.failed_writes(), 1u);
}

TEST(LoggedDiskTest, AFailedWriteThatCannotBeReadBackKeepsTheLog) {
  LogRig rig;
  rig.BeginLogging();
  const size_t failing = rig.Submit(Write(0, 'n'));
  rig.disk.Do(0, absl::DataLossError("bad sector"));
  rig.disk.Do(0, absl::DataLossError("bad sector"));
  EXPECT_TRUE(rig.done(failing));
  EXPECT_EQ(rig.log.Cut(EpochId(1)).size(), 1u);
  EXPECT_TRUE(rig.log.status().ok());
}

TEST(LoggedDiskTest, ARangeTooLargeToLookAtMakesTheCopiesUnequal) {
  MemoryDisk disk(2 * LoggedDisk::kMaxMendBytes);
  DiskLog log({.cap_bytes = 1u << 20, .disk_sizes = {disk.size_bytes()}});
  ManualExecutor loop;
  LoggedDisk logged(0, disk, log, loop);
  log.BeginTracking();
  ASSERT_TRUE(log.SwitchToLogging().ok());
  bool done = false;
  logged.Submit(Range(Kind::kWriteZeroes, 0, disk.size_bytes()),
                [&](const BlockResult&) { done = true; });
  disk.Do(0, absl::ResourceExhaustedError("disk.img: full"));
  EXPECT_TRUE(done);
  EXPECT_TRUE(absl::IsDataLoss(log.status()));
  log.BeginTracking();  // everything is copied anew
  EXPECT_TRUE(log.status().ok());
}

TEST(LoggedDiskTest, AFailureWhileTrackingOnlyMarks) {
  LogRig rig;
  rig.log.BeginTracking();
  rig.Submit(Write(0, 'a'));
  rig.log.TakeDirtyBlocks(0);
  rig.disk.Do(0, absl::DataLossError("bad sector"));
  EXPECT_TRUE(rig.done(0));
  EXPECT_EQ(rig.log.TakeDirtyBlocks(0).size(), 1u);
}

// A sync like the real one, and a guest that overlaps its writes without waiting for them. After
// every epoch the copy is what the disk would be if nothing were under way.
TEST(LoggedDiskTest, P2_CopyAndDiskEndEqualForAGuestThatOverlapsItsWrites) {
  const uint64_t seed = std::random_device()();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  for (int round = 0; round < 15; ++round) {
    LogRig rig(/*cap=*/64u << 20);
    std::string copy(kDiskBytes, '\0');
    const auto any = [&](uint64_t below) { return random() % below; };
    const auto guest_works = [&](int steps) {
      for (int i = 0; i < steps; ++i) {
        if (any(3) != 0) {
          const uint64_t offset = 512 * any(kDiskBytes / 512 - 16);
          const uint64_t size = 512 * (1 + any(16));
          const uint64_t kind = any(8);
          if (kind == 0) {
            rig.Submit(Range(Kind::kDiscard, offset, size));
          } else {
            rig.Submit(Write(offset, static_cast<char>('a' + any(26)), size));
          }
        } else if (!rig.disk.pending.empty()) {
          const uint64_t which = any(rig.disk.pending.size());
          const bool fails = any(16) == 0 && rig.disk.pending[which].request.kind != Kind::kRead;
          rig.disk.Do(which, fails ? absl::DataLossError("bad") : absl::OkStatus());
        }
      }
    };
    const auto copy_block = [&](uint64_t block) {
      const size_t at = block * kBlock;
      copy.replace(at, kBlock, rig.disk.bytes, at, kBlock);
    };
    guest_works(20);
    rig.log.BeginTracking();
    for (uint64_t block = 0; block * kBlock < kDiskBytes; ++block) {
      guest_works(5);
      copy_block(block);
    }
    const auto copy_dirty = [&] {
      for (const DiskBlockRange& range : rig.log.TakeDirtyBlocks(0)) {
        for (uint64_t i = 0; i < range.count; ++i) {
          guest_works(3);
          copy_block(range.first + i);
        }
      }
    };
    copy_dirty();
    ASSERT_TRUE(rig.log.SwitchToLogging().ok());
    while (!rig.log.AwaitUnlogged(absl::ZeroDuration()).ok()) {
      guest_works(1);
      if (!rig.disk.pending.empty()) rig.disk.Do(any(rig.disk.pending.size()));
    }
    copy_dirty();
    for (uint64_t epoch = 1; epoch <= 5; ++epoch) {
      guest_works(30);
      if (epoch == 5) rig.disk.DoAll();
      std::vector<DiskWrite> writes = rig.log.Cut(EpochId(epoch));
      if (any(2) == 0) {
        rig.log.UndoCut(EpochId(epoch), std::move(writes));
        guest_works(epoch == 5 ? 0 : 10);
        writes = rig.log.Cut(EpochId(epoch));
      }
      Apply(writes, copy);
    }
    ASSERT_TRUE(copy == rig.disk.bytes) << "round " << round;
  }
}

}  // namespace
}  // namespace romulus::epoch

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <numeric>

#include "base/clock.h"
#include "codec/page_encoding.h"
#include "romulus/v1/replication.pb.h"
#include "support/hand_clock.h"
#include "unit/wire_support.h"
#include "wire/frame_sender.h"
#include "wire/full_sync.h"

namespace romulus::wire {
namespace {

using codec::FrameKind;
using ::romulus::testing::HandClock;

constexpr Term kTerm(32);

// Plays the guest: each TakeDirty() first does one round of writes, then says what was written.
class ScriptedSource final : public SyncSource {
 public:
  explicit ScriptedSource(memory::GuestMemory* memory) : memory_(memory) {}

  void Round(std::map<uint64_t, int> writes) { rounds_.push_back(std::move(writes)); }
  absl::StatusOr<memory::PageSet> TakeDirty() override {
    ++calls;
    if (on_take) on_take();
    memory::PageSet dirty(memory_->layout().gfn_end());
    if (rounds_.empty()) return dirty;
    for (const auto& [gfn, fill] : rounds_.front()) {
      std::vector<std::byte> page(kPageSize, static_cast<std::byte>(fill));
      if (absl::Status w = memory_->Write(GpaOf(Gfn(gfn)), page); !w.ok()) return w;
      dirty.Insert(Gfn(gfn));
    }
    if (!repeat) rounds_.pop_front();
    return dirty;
  }

  int calls = 0;
  bool repeat = false;
  std::function<void()> on_take;

 private:
  memory::GuestMemory* memory_;
  std::deque<std::map<uint64_t, int>> rounds_;
};

class FullSyncTest : public ::testing::Test {
 protected:
  FullSyncTest() {
    frames_ = *FrameSender::Create(memory_->layout().gfn_end(), {}, &clock_);
    frames_->Start(&link_);
    frames_->StartPages(codec::kDefaultMaxBodyBytes, codec::Dialect(codec::kNewestProtocol));
  }
  void Fill(uint64_t gfn, int value) {
    std::vector<std::byte> page(kPageSize, static_cast<std::byte>(value));
    ASSERT_TRUE(memory_->Write(GpaOf(Gfn(gfn)), page).ok());
  }
  absl::StatusOr<SyncProgress> Run(FullSyncOptions options = {}) {
    options.term = kTerm;
    FullSync sync(options, memory_.get(), &source_, frames_.get());
    sync_ = &sync;
    return sync.Run();
  }
  // What a secondary would hold; also counts the pages named.
  std::string Replay() {
    std::vector<std::byte> replica(memory_->layout().size_bytes());
    named_.clear();
    for (const SeenFrame& frame : link_.Frames()) {
      if (frame.kind != FrameKind::kSyncPages) continue;
      codec::PageRecordReader reader(frame.body, memory_->layout(),
                                     codec::Dialect(codec::kNewestProtocol));
      while (!reader.done()) {
        const absl::StatusOr<codec::PageRecord> record = reader.Next();
        if (!record.ok()) return std::string(record.status().message());
        for (uint64_t i = 0; i < record->count; ++i) {
          const uint64_t gfn = record->gfn.value() + i;
          ++named_[gfn];
          std::span<std::byte, kPageSize> page(replica.data() + gfn * kPageSize, kPageSize);
          codec::DecodePage(*record, page, page);
        }
      }
    }
    if (named_.size() != memory_->layout().page_count()) return "not every page was named";
    for (uint64_t gfn = 0; gfn < memory_->layout().page_count(); ++gfn) {
      if (std::memcmp(memory_->Page(Gfn(gfn)).data(), replica.data() + gfn * kPageSize,
                      kPageSize) != 0) {
        return "page " + std::to_string(gfn) + " differs";
      }
    }
    return "";
  }

  base::MonotonicClock clock_;
  FakeLink link_;
  std::unique_ptr<memory::GuestMemory> memory_ =
      *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(8));
  std::unique_ptr<FrameSender> frames_;
  ScriptedSource source_{memory_.get()};
  FullSync* sync_ = nullptr;
  std::map<uint64_t, int> named_;
};

TEST_F(FullSyncTest, UntouchedMemoryIsNamedNotSent) {
  const absl::StatusOr<SyncProgress> done = Run();
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->pages_sent, 2048u);
  EXPECT_EQ(done->pages_zero, 2048u);
  EXPECT_LT(done->bytes_sent, 1000u);
  EXPECT_EQ(Replay(), "");
  const std::vector<SeenFrame> frames = link_.Frames();
  v1::SyncBegin begin;
  ASSERT_TRUE(begin.ParseFromString(frames.front().body));
  EXPECT_EQ(begin.total_pages(), 2048u);
  v1::SyncEnd end;
  EXPECT_EQ(frames.back().kind, FrameKind::kSyncEnd);
  ASSERT_TRUE(end.ParseFromString(frames.back().body));
  EXPECT_EQ(end.pages_sent(), 2048u);
}

TEST_F(FullSyncTest, RoundsFollowTheGuestUntilLittleIsLeft) {
  for (uint64_t gfn = 3; gfn < 1500; gfn += 2) Fill(gfn, static_cast<int>(gfn % 255 + 1));
  std::map<uint64_t, int> many;
  for (uint64_t gfn = 100; gfn < 500; ++gfn) many[gfn] = 77;
  source_.Round(many);
  source_.Round({{2000, 9}, {3, 1}});
  source_.Round({{4, 4}});  // after the last round: epoch 1's
  const absl::StatusOr<SyncProgress> done = Run({.target_dirty_pages = 10});
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->round, 2u);
  EXPECT_EQ(source_.calls, 2);
  EXPECT_EQ(done->pages_sent, 2048u + 400u + 2u);
  EXPECT_EQ(Replay(), "");
}

// Sent with content, zero since: it must be named zero, else the replica keeps the old content.
TEST_F(FullSyncTest, APageThatTurnsZeroIsNamedAgain) {
  Fill(10, 5);
  source_.Round({{10, 0}});
  const absl::StatusOr<SyncProgress> done = Run();
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(Replay(), "");
  EXPECT_EQ(named_[10], 2);
}

TEST_F(FullSyncTest, AGuestThatOutwritesTheLinkEndsAfterTheRoundThatDoesNotShrink) {
  std::map<uint64_t, int> all;
  for (uint64_t gfn = 0; gfn < 1000; ++gfn) all[gfn] = 1;
  source_.Round(all);
  source_.repeat = true;
  const absl::StatusOr<SyncProgress> done = Run({.max_rounds = 50, .target_dirty_pages = 10});
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->round, 2u);
  EXPECT_EQ(Replay(), "");
}

TEST_F(FullSyncTest, MaxRounds) {
  std::map<uint64_t, int> all;
  for (uint64_t gfn = 0; gfn < 1000; ++gfn) all[gfn] = 1;
  source_.Round(all);
  source_.repeat = true;
  const absl::StatusOr<SyncProgress> done =
      Run({.max_rounds = 3, .target_dirty_pages = 10, .give_up_ratio = 2.0});
  ASSERT_TRUE(done.ok());
  EXPECT_EQ(done->round, 3u);
}

TEST_F(FullSyncTest, ProgressIsToldAndOnlyGrowsWithinARound) {
  for (uint64_t gfn = 0; gfn < 2048; ++gfn) Fill(gfn, 1);
  uint64_t last = 0;
  int told = 0;
  FullSyncOptions options;
  options.progress_every_pages = 500;
  options.on_progress = [&](const SyncProgress& progress) {
    ++told;
    if (progress.round > 0) return;
    EXPECT_GT(progress.pages_done, last);
    EXPECT_LE(progress.pages_done, progress.pages_total);
    EXPECT_EQ(progress.pages_total, 2048u);
    last = progress.pages_done;
  };
  ASSERT_TRUE(Run(options).ok());
  EXPECT_GE(told, 4);
}

TEST_F(FullSyncTest, CancelEndsIt) {
  source_.on_take = [this] { sync_->Cancel(); };
  source_.Round({{1, 1}});
  EXPECT_TRUE(absl::IsCancelled(Run().status()));
  for (const SeenFrame& frame : link_.Frames()) EXPECT_NE(frame.kind, FrameKind::kSyncEnd);
}

TEST_F(FullSyncTest, ADeadLinkEndsIt) {
  link_.Close(absl::OkStatus());
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kUnavailable);
}

// Heartbeats during a sync keep the numbering: the reader inside Frames() would refuse a gap.
TEST_F(FullSyncTest, OtherFramesFitBetweenRounds) {
  source_.on_take = [this] {
    ASSERT_TRUE(
        frames_->SendControl(kPatience, FrameKind::kHeartbeat, kTerm, EpochId(), v1::Heartbeat())
            .ok());
  };
  Fill(1, 1);
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Replay(), "");
}

TEST_F(FullSyncTest, MemoryAboveTheHoleIsNamedByItsOwnFrames) {
  memory_ = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(3073));
  frames_ = *FrameSender::Create(memory_->layout().gfn_end(), {}, &clock_);
  frames_->Start(&link_);
  frames_->StartPages(codec::kDefaultMaxBodyBytes, codec::Dialect(codec::kNewestProtocol));
  const Gfn above = GfnOf(Gpa(memory::kHoleEnd));
  ASSERT_TRUE(memory_->Fill(GpaOf(above), std::byte{7}, kPageSize).ok());
  ScriptedSource source(memory_.get());
  FullSync sync({.term = kTerm}, memory_.get(), &source, frames_.get());
  const absl::StatusOr<SyncProgress> done = sync.Run();
  ASSERT_TRUE(done.ok()) << done.status();
  EXPECT_EQ(done->pages_sent, memory_->layout().page_count());
  uint64_t named = 0;
  bool seen = false;
  for (const SeenFrame& frame : link_.Frames()) {
    if (frame.kind != FrameKind::kSyncPages) continue;
    codec::PageRecordReader reader(frame.body, memory_->layout(),
                                   codec::Dialect(codec::kNewestProtocol));
    while (!reader.done()) {
      const absl::StatusOr<codec::PageRecord> record = reader.Next();
      ASSERT_TRUE(record.ok()) << record.status();
      named += record->count;
      seen |= record->gfn == above && record->encoding == codec::PageEncoding::kRaw;
    }
  }
  EXPECT_EQ(named, memory_->layout().page_count());
  EXPECT_TRUE(seen);
}

// A link that takes its time, by hand; the first bytes vanish in a buffer at once.
class SlowLink final : public Link {
 public:
  SlowLink(HandClock* clock, uint64_t bytes_per_ms) : clock_(clock), bytes_per_ms_(bytes_per_ms) {}
  absl::Status Send(std::string message) override {
    constexpr uint64_t kBuffered = 16u << 20;
    sizes.push_back(message.size());
    sent_ += message.size();
    if (sent_ > kBuffered) clock_->now_ns += message.size() * 1'000'000 / bytes_per_ms_;
    return absl::OkStatus();
  }
  absl::Status SendWithin(absl::Duration, std::string message) override {
    return Send(std::move(message));
  }
  void Close(const absl::Status&) override {}

  std::vector<size_t> sizes;

 private:
  HandClock* const clock_;
  const uint64_t bytes_per_ms_;
  uint64_t sent_ = 0;
};

// Until a message is there the other node hears nothing: a second of it would be this node's death.
TEST(FullSyncPaceTest, MessagesAreLargeOnlyOnALinkThatTakesThemInNoTime) {
  const auto memory = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(80));
  ASSERT_TRUE(memory->Fill(Gpa(0), std::byte{7}, 80u << 20).ok());
  for (const uint64_t bytes_per_ms : {1'000, 45'000, 200'000}) {
    HandClock clock;
    SlowLink link(&clock, bytes_per_ms);
    const auto frames = *FrameSender::Create(memory->layout().gfn_end(), {}, &clock);
    frames->Start(&link);
    frames->StartPages(codec::kDefaultMaxBodyBytes, codec::Dialect(codec::kNewestProtocol));
    ScriptedSource source(memory.get());
    FullSync sync({.term = kTerm}, memory.get(), &source, frames.get());
    ASSERT_TRUE(sync.Run().ok());
    const size_t small = codec::kPageBodyBytes + 2 * kPageSize;
    const size_t largest = *std::max_element(link.sizes.begin(), link.sizes.end());
    if (bytes_per_ms < 100'000) {
      EXPECT_LE(largest, small) << bytes_per_ms;
    } else {
      EXPECT_GT(largest, 3 * small);
      const auto first = std::find_if(link.sizes.begin(), link.sizes.end(),
                                      [small](size_t size) { return size > small; });
      EXPECT_GE(std::accumulate(link.sizes.begin(), first, size_t{0}), 32u << 20);
    }
  }
}

}  // namespace
}  // namespace romulus::wire

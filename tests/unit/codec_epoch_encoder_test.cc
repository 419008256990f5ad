// What the encoder writes, seen from the frames. That replicas made from it are exact is shown in
// replica_store_test.cc.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "codec/epoch_encoder.h"
#include "unit/replica_rig.h"

namespace romulus::codec {
namespace {

using replica::Join;
using replica::Messages;
using replica::ModelPrimary;

struct Seen {
  FrameKind kind;
  Term term;
  EpochId epoch;
  std::string body;
};

std::vector<Seen> ReadFrames(const Messages& messages, FrameReader* reader) {
  std::vector<Seen> seen;
  for (const std::string& message : messages) {
    absl::string_view rest = message;
    while (!rest.empty()) {
      absl::StatusOr<Frame> frame = reader->Next(&rest);
      EXPECT_TRUE(frame.ok()) << frame.status();
      if (!frame.ok()) return seen;
      seen.push_back({frame->kind, frame->term, frame->epoch, std::string(frame->body)});
    }
  }
  return seen;
}

std::vector<PageRecord> ReadRecords(const std::string& body, const memory::MemoryLayout& layout) {
  std::vector<PageRecord> records;
  PageRecordReader reader(body, layout, Dialect(kNewestProtocol));
  while (!reader.done()) {
    absl::StatusOr<PageRecord> record = reader.Next();
    EXPECT_TRUE(record.ok()) << record.status();
    if (!record.ok()) break;
    records.push_back(*record);
  }
  return records;
}

class EpochEncoderTest : public testing::Test {
 protected:
  void Begin(ModelPrimary* primary, Dialect dialect = Dialect(kNewestProtocol)) {
    ReadFrames(primary->StartStream(Term(1), dialect), &reader_);
    ReadFrames(primary->FullSync(Term(1)), &reader_);
  }
  FrameReader reader_;
};

TEST_F(EpochEncoderTest, ASmallEpochIsOneMessage) {
  ModelPrimary primary;
  Begin(&primary);
  const Messages messages = primary.RandomEpoch(Term(1), EpochId(1), 10);
  ASSERT_EQ(messages.size(), 1u);
  const std::vector<Seen> frames = ReadFrames(messages, &reader_);
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].kind, FrameKind::kEpochPages);
  EXPECT_EQ(ReadRecords(frames[0].body, primary.layout()).size(), 10u);
  EXPECT_EQ(frames[1].kind, FrameKind::kEpochCommit);
  EXPECT_EQ(frames[1].epoch, EpochId(1));
  v1::EpochCommit commit;
  ASSERT_TRUE(commit.ParseFromString(frames[1].body));
  EXPECT_EQ(commit.page_count(), 10u);
  EXPECT_EQ(commit.machine(), primary.Machine(EpochId(1)).Serialize());
  EXPECT_EQ(commit.machine_digest(), HashBytes(commit.machine()));
  EXPECT_EQ(commit.sent_monotonic_ns(), 1001u);
}

TEST_F(EpochEncoderTest, AnEpochWithoutPagesIsItsCommit) {
  ModelPrimary primary;
  Begin(&primary);
  const std::vector<Seen> frames =
      ReadFrames(primary.Epoch(Term(1), EpochId(1), {}, "hello", 0), &reader_);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].kind, FrameKind::kEpochCommit);
}

TEST_F(EpochEncoderTest, LargeEpochsAreCutIntoBoundedBodies) {
  EncoderOptions options;
  options.page_body_bytes = 64 << 10;
  options.message_bytes = 128 << 10;
  ModelPrimary primary(8, options);
  Begin(&primary);
  std::vector<Gfn> gfns;
  for (uint64_t gfn = 0; gfn < 1000; ++gfn) gfns.push_back(Gfn(gfn));
  for (Gfn gfn : gfns) {
    for (size_t i = 0; i < kPageSize; ++i) {
      primary.page(gfn)[i] = static_cast<std::byte>(primary.random()());
    }
  }
  const Messages messages = primary.Epoch(Term(1), EpochId(1), gfns);
  EXPECT_GT(messages.size(), 20u);
  size_t pages = 0;
  for (const std::string& message : messages) EXPECT_LE(message.size(), 300u << 10);
  for (const Seen& frame : ReadFrames(messages, &reader_)) {
    if (frame.kind != FrameKind::kEpochPages) continue;
    EXPECT_LE(frame.body.size(), (64u << 10) + kMaxRecordBytes);
    pages += ReadRecords(frame.body, primary.layout()).size();
  }
  EXPECT_EQ(pages, 1000u);
}

TEST_F(EpochEncoderTest, RewrittenPagesTravelAsChanges) {
  const struct {
    uint32_t protocol;
    PageEncoding encoding;
    size_t bytes;
  } cases[] = {{6, PageEncoding::kDelta, 25}, {7, PageEncoding::kSparse, 13}};
  for (const auto& one : cases) {
    ModelPrimary primary;
    reader_ = FrameReader();
    Begin(&primary, Dialect(one.protocol));
    const std::vector<Gfn> gfns = {Gfn(3), Gfn(4), Gfn(5)};
    for (Gfn gfn : gfns) primary.page(gfn)[17] = std::byte{1};
    primary.Epoch(Term(1), EpochId(1), gfns);
    primary.encoder().TakeStats();
    for (Gfn gfn : gfns) primary.page(gfn)[17] = std::byte{2};
    primary.Epoch(Term(1), EpochId(2), gfns);
    const EncodeStats stats = primary.encoder().TakeStats();
    EXPECT_EQ(stats.pages[static_cast<size_t>(one.encoding)], 3u);
    EXPECT_EQ(stats.bytes[static_cast<size_t>(one.encoding)], 3u * one.bytes);
    EXPECT_EQ(stats.frames, 2u);
  }
}

// A round of a full sync refers to the one before it, as an epoch does.
TEST_F(EpochEncoderTest, AnOlderStreamHasNoSparseRecords) {
  for (const uint32_t protocol : {6u, 7u}) {
    ModelPrimary primary;
    primary.StartStream(Term(1), Dialect(protocol));
    primary.FullSync(Term(1));
    for (uint64_t epoch = 1; epoch < 10; ++epoch) {
      primary.RandomEpoch(Term(1), EpochId(epoch), 100);
    }
    const EncodeStats stats = primary.encoder().TakeStats();
    EXPECT_GT(stats.pages[static_cast<size_t>(PageEncoding::kDelta)], 10u);
    EXPECT_EQ(stats.pages[static_cast<size_t>(PageEncoding::kSparse)] > 10, protocol == 7);
    EXPECT_EQ(stats.pages[static_cast<size_t>(PageEncoding::kSparse)] == 0, protocol == 6);
  }
}

TEST_F(EpochEncoderTest, AbortForgetsThePagesThatWereSent) {
  ModelPrimary primary;
  Begin(&primary);
  const std::vector<Gfn> gfns = {Gfn(3), Gfn(4)};
  for (Gfn gfn : gfns) primary.page(gfn)[17] = std::byte{1};
  ReadFrames(primary.Epoch(Term(1), EpochId(1), {Gfn(3), Gfn(4), Gfn(5)}), &reader_);
  const std::vector<Seen> frames =
      ReadFrames(primary.AbortedEpoch(Term(1), EpochId(2), gfns), &reader_);
  EXPECT_EQ(frames.back().kind, FrameKind::kEpochAbort);
  EXPECT_EQ(frames.back().epoch, EpochId(2));
  primary.encoder().TakeStats();
  // The put-back pages come again; no version of theirs may be referred to.
  for (uint64_t gfn = 3; gfn <= 5; ++gfn) primary.page(Gfn(gfn))[17] = std::byte{9};
  ReadFrames(primary.Epoch(Term(1), EpochId(2), {Gfn(3), Gfn(4), Gfn(5)}), &reader_);
  const EncodeStats stats = primary.encoder().TakeStats();
  EXPECT_EQ(stats.pages[static_cast<size_t>(PageEncoding::kRaw)], 2u);
  EXPECT_EQ(stats.pages[static_cast<size_t>(PageEncoding::kSparse)], 1u)
      << "page 5 was not aborted";
}

TEST_F(EpochEncoderTest, ANewStreamForgetsAllPages) {
  ModelPrimary primary;
  Begin(&primary);
  EXPECT_GT(primary.encoder().cache().pages(), 0u);
  primary.StartStream(Term(1));
  EXPECT_EQ(primary.encoder().cache().pages(), 0u);
}

TEST_F(EpochEncoderTest, AFailedSendEndsTheStream) {
  ModelPrimary primary;
  Begin(&primary);
  const auto fail = [](std::string) { return absl::UnavailableError("gone"); };
  const std::vector<Gfn> gfns = {Gfn(1)};
  const epoch::PageBatch batch = primary.Stage(gfns);
  EXPECT_EQ(primary.encoder().AddPages(Term(1), EpochId(1), batch, fail).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(primary.encoder().cache().pages(), 0u);
  const auto take = [](std::string) { return absl::OkStatus(); };
  EXPECT_EQ(primary.encoder().AddPages(Term(1), EpochId(1), batch, take).code(),
            absl::StatusCode::kFailedPrecondition);
  primary.StartStream(Term(1));
  EXPECT_TRUE(primary.encoder().AddPages(Term(1), EpochId(1), batch, take).ok());
}

TEST_F(EpochEncoderTest, ACommitTooLargeForThePeerIsNotSent) {
  ModelPrimary primary;
  primary.encoder().StartStream(2000);  // the model's machine state has 3000 bytes
  epoch::StagedEpoch staged;
  staged.term = Term(1);
  staged.epoch = EpochId(1);
  staged.machine = primary.Machine(EpochId(1));
  size_t sent = 0;
  const auto send = [&sent](std::string) {
    ++sent;
    return absl::OkStatus();
  };
  EXPECT_EQ(primary.encoder().Finish(staged, 0, 0, send).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(sent, 0u);
}

TEST_F(EpochEncoderTest, ZeroPagesOfASyncTravelAsRuns) {
  ModelPrimary primary(16);
  for (uint64_t gfn = 100; gfn < 4000; ++gfn) {
    std::memset(primary.page(Gfn(gfn)), 0, kPageSize);
  }
  ReadFrames(primary.StartStream(Term(1)), &reader_);
  primary.encoder().TakeStats();
  const std::vector<Seen> frames = ReadFrames(primary.FullSync(Term(1)), &reader_);
  const EncodeStats stats = primary.encoder().TakeStats();
  const auto run = static_cast<size_t>(PageEncoding::kZeroRun);
  EXPECT_GE(stats.pages[run], 3800u);
  EXPECT_LT(stats.bytes[run], 2000u);
  EXPECT_EQ(frames.front().kind, FrameKind::kSyncBegin);
  EXPECT_EQ(frames.back().kind, FrameKind::kSyncEnd);
  v1::SyncEnd end;
  ASSERT_TRUE(end.ParseFromString(frames.back().body));
  EXPECT_EQ(end.pages_sent(), 4096u + 20);
}

TEST_F(EpochEncoderTest, TheFirstPassFillsTheCacheAndWhatChangesAgainTakesItsPlace) {
  const auto send = [](const std::string&) { return absl::OkStatus(); };
  ModelPrimary primary(4, {.previous_cache_bytes = 2 * kPageSize});
  primary.StartStream(Term(1));
  EpochEncoder& encoder = primary.encoder();
  const auto add = [&](uint64_t gfn) {
    std::memset(primary.page(Gfn(gfn)), 1, kPageSize);
    return encoder.AddSyncPage(Gfn(gfn), PageBytes(primary.page(Gfn(gfn)), kPageSize), send);
  };
  const auto sent = [&](PageEncoding encoding) {
    return encoder.TakeStats().pages[static_cast<size_t>(encoding)];
  };
  ASSERT_TRUE(encoder.BeginSync(Term(1), 1024, send).ok());
  for (const uint64_t gfn : {7, 8, 9}) ASSERT_TRUE(add(gfn).ok());
  EXPECT_EQ(encoder.cache().pages(), 2);
  EXPECT_EQ(encoder.cache().evictions(), 0);
  EXPECT_EQ(sent(PageEncoding::kRaw), 3);
  encoder.BeginSyncRound();
  for (const uint64_t gfn : {7, 8}) ASSERT_TRUE(add(gfn).ok());
  EXPECT_EQ(sent(PageEncoding::kSame), 2);
  ASSERT_TRUE(add(9).ok());
  EXPECT_EQ(sent(PageEncoding::kRaw), 1);
  EXPECT_EQ(encoder.cache().evictions(), 1);
  ASSERT_TRUE(add(9).ok());
  EXPECT_EQ(sent(PageEncoding::kSame), 1);
}

TEST_F(EpochEncoderTest, NoSyncFrameIsLargerThanThePeerAccepts) {
  // Runs of two zero pages and pages that travel whole, so that one of each begins at every place.
  ModelPrimary primary(4, {.sync_body_bytes = 1 << 20});
  for (uint64_t gfn = 0; gfn < 30; ++gfn) {
    std::memset(primary.page(Gfn(gfn)), gfn % 3 == 2 ? 1 : 0, kPageSize);
  }
  for (size_t most = 2 * kPageSize; most < 3 * kPageSize + 64; most += 4) {
    Messages messages;
    const auto send = [&messages](std::string message) {
      messages.push_back(std::move(message));
      return absl::OkStatus();
    };
    FrameReader reader;
    ReadFrames(primary.StartStream(Term(1)), &reader);
    EpochEncoder& encoder = primary.encoder();
    encoder.StartStream(most);
    ASSERT_TRUE(encoder.BeginSync(Term(1), 30, send).ok());
    encoder.UseLargeSyncFrames(true);
    for (uint64_t gfn = 0; gfn < 30; ++gfn) {
      const PageBytes page(primary.page(Gfn(gfn)), kPageSize);
      ASSERT_TRUE(encoder.AddSyncPage(Gfn(gfn), page, send).ok());
    }
    ASSERT_TRUE(encoder.EndSync(0, send).ok());
    for (const Seen& frame : ReadFrames(messages, &reader)) ASSERT_LE(frame.body.size(), most);
  }
}

TEST_F(EpochEncoderTest, OtherFramesFitBetweenCalls) {
  // What the sender does with heartbeats while a full sync goes on.
  ModelPrimary primary(4, {.sync_body_bytes = kPageBodyBytes});
  ReadFrames(primary.StartStream(Term(1)), &reader_);
  Messages messages;
  const auto send = [&messages](std::string message) {
    messages.push_back(std::move(message));
    return absl::OkStatus();
  };
  ASSERT_TRUE(primary.encoder().BeginSync(Term(1), 1024, send).ok());
  for (uint64_t gfn = 0; gfn < 1024; ++gfn) {
    ASSERT_TRUE(primary.encoder()
                    .AddSyncPage(Gfn(gfn), PageBytes(primary.page(Gfn(gfn)), kPageSize), send)
                    .ok());
    messages.push_back(primary.Control(FrameKind::kHeartbeat, Term(1), EpochId(), v1::Heartbeat()));
  }
  ASSERT_TRUE(primary.encoder().EndSync(1, send).ok());
  EXPECT_GE(ReadFrames(messages, &reader_).size(), 1024u + 4) << "heartbeats, begin, end, pages";
  EXPECT_EQ(reader_.fault(), FrameFault::kNone);
}

}  // namespace
}  // namespace romulus::codec

// Both ends of a stream that may compress: forced, by agreement, and by what the link achieves.
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "unit/wire_pair.h"
#include "wire/frame_sender.h"
#include "wire/loopback_link.h"
#include "wire/primary_session.h"

namespace romulus::wire {
namespace {

using codec::Compression;
using codec::CompressionPolicy;

class CompressionPairTest : public PairTest {
 protected:
  // A sync and some epochs; the bytes that came.
  uint64_t Replicate() {
    primary_.Scribble(900);
    primary_.rounds = 2;
    EXPECT_TRUE(Connect().ok());
    StartPump();
    EXPECT_TRUE(primary_.HandshakeAndSync().ok());
    for (int epoch = 0; epoch < 20; ++epoch) {
      primary_.Scribble(epoch % 7 == 0 ? 200 : 3);
      primary_.CutEpoch();
    }
    EXPECT_TRUE(primary_.session->epochs().AwaitAllAcked(kPatience).ok());
    secondary_.AwaitApplied(EpochId(20));
    StopPump();
    EXPECT_EQ(primary_.Difference(*secondary_.memory), "");
    return secondary_.counters.message_bytes;
  }
  codec::CompressionStats Compressed() {
    codec::CompressionStats all = primary_.synced.compression;
    for (const EpochSent& sent : primary_.acks.AwaitSent(20)) all += sent.encoded.compression;
    return all;
  }
};

TEST_F(CompressionPairTest, Off) {
  Replicate();
  for (const uint64_t bytes : Compressed().raw_bytes) EXPECT_EQ(bytes, 0u);
  EXPECT_EQ(primary_.session->link_use().compression, Compression::kNone);
}

class ForcedTest : public CompressionPairTest,
                   public testing::WithParamInterface<std::pair<CompressionPolicy, Compression>> {};

TEST_P(ForcedTest, TheReplicaIsTheGuestForLess) {
  primary_.options.encoder.compression = GetParam().first;
  const uint64_t came = Replicate();
  const codec::CompressionStats stats = Compressed();
  const auto method = static_cast<size_t>(GetParam().second);
  EXPECT_GT(stats.raw_bytes[method], 2u << 20);
  EXPECT_LT(stats.wire_bytes[method], stats.raw_bytes[method] / 2);
  EXPECT_LT(came, stats.raw_bytes[method]);
  EXPECT_EQ(primary_.session->link_use().compression, GetParam().second);
}

TEST_P(ForcedTest, ASecondaryOfTheReleaseBeforeGetsWhatItKnows) {
  primary_.options.encoder.compression = GetParam().first;
  secondary_.judge.protocols.newest = codec::kCompressionSince - 1;
  const uint64_t came = Replicate();
  for (const uint64_t bytes : Compressed().raw_bytes) EXPECT_EQ(bytes, 0u);
  EXPECT_GT(came, 2u << 20);
  EXPECT_EQ(primary_.session->link_use().compression, Compression::kNone);
}

INSTANTIATE_TEST_SUITE_P(Methods, ForcedTest,
                         testing::Values(std::pair(CompressionPolicy::kLz4, Compression::kLz4),
                                         std::pair(CompressionPolicy::kZstd, Compression::kZstd)),
                         [](const auto& of) {
                           return std::string(codec::CompressionName(of.param.second));
                         });

// A secondary that says of the link what the test wants.
class AutoTest : public PairTest {
 protected:
  AutoTest() { primary_.options.encoder.compression = CompressionPolicy::kAuto; }
  ~AutoTest() override { primary_.session.reset(); }

  // Full sync of some megabytes, as they are: nothing is known of the link.
  void Sync() {
    hears_.reader.SetDialect(codec::Dialect(version_));
    network_ = std::make_unique<LoopbackNetwork>();
    peer_ = network_->TakeLink(kSecondary);
    network_->SetListener(kSecondary, &hears_);
    network_->DeliverAtOnce();
    ASSERT_TRUE(OpenOn(*network_).ok());
    v1::HelloReply accept;
    accept.set_accepted(true);
    accept.set_protocol_version(version_);
    Say(codec::FrameKind::kHelloReply, accept);
    writer_.SetDialect(codec::Dialect(codec::kNewestProtocol));
    primary_.Scribble(900);
    ASSERT_TRUE(primary_.HandshakeAndSync().ok());
    EXPECT_EQ(hears_.compressed, 0);
  }
  void Say(codec::FrameKind kind, const google::protobuf::MessageLite& body, EpochId epoch = {}) {
    std::string message;
    writer_.Append(kind, Term(32), epoch, body, &message);
    ASSERT_TRUE(peer_->Send(message).ok());
  }
  // Five seconds of heartbeats: in each so much came, and took this share of the time.
  void Report(uint64_t bytes_per_second, double busy) {
    for (int i = 0; i < 5; ++i) {
      v1::Heartbeat heartbeat;
      heartbeat.set_sent_monotonic_ns(at_ns_ += 1'000'000'000);
      heartbeat.set_busy_ns(busy_ns_ += static_cast<uint64_t>(busy * 1e9));
      heartbeat.set_received_bytes(received_ += bytes_per_second);
      Say(codec::FrameKind::kHeartbeat, heartbeat);
    }
  }
  // Compressed frames in an epoch of some hundred pages.
  int Cut() {
    const int before = hears_.compressed;
    primary_.Scribble(400);
    primary_.CutEpoch();
    primary_.acks.AwaitSent(primary_.last_epoch);
    Say(codec::FrameKind::kAck, v1::Ack(), EpochId(primary_.last_epoch));
    return hears_.compressed - before;
  }

  struct Hears final : public LinkListener {
    void OnMessage(absl::string_view frames) override {
      while (!frames.empty()) {
        const absl::StatusOr<codec::Frame> frame = reader.Next(&frames);
        ROMULUS_CHECK(frame.ok());
        compressed += frame->compression != Compression::kNone;
        if (frame->kind == codec::FrameKind::kHello) {
          v1::Hello hello;
          ROMULUS_CHECK(codec::ParseBody(*frame, &hello).ok());
          asked = hello.measure_link();
        }
      }
    }
    void OnClosed(const absl::Status&) override {}
    codec::FrameReader reader;
    std::atomic<int> compressed{0};
    std::atomic<bool> asked{false};
  } hears_;
  uint32_t version_ = codec::kNewestProtocol;
  std::unique_ptr<Link> peer_;
  codec::FrameWriter writer_;
  uint64_t at_ns_ = 0;
  uint64_t busy_ns_ = 0;
  uint64_t received_ = 0;
};

TEST_F(AutoTest, AThinLinkIsCompressedFor) {
  Sync();
  EXPECT_TRUE(hears_.asked);
  EXPECT_EQ(Cut(), 0);
  Report(100'000, 0.01);
  EXPECT_EQ(primary_.session->link_use().bytes_per_second, 100'000u);
  Cut();  // measures the methods
  EXPECT_GT(Cut(), 0);
  EXPECT_NE(primary_.session->link_use().compression, Compression::kNone);
}

TEST_F(AutoTest, ASlowSecondaryIsNot) {
  Sync();
  Report(100'000, 0.8);
  EXPECT_EQ(Cut() + Cut(), 0);
  EXPECT_EQ(primary_.session->link_use().bytes_per_second, 0u);
}

TEST_F(AutoTest, NorALinkOnWhichNothingWaits) {
  Sync();
  received_ = 1 << 30;  // all that was sent, and more
  Report(100'000, 0.01);
  EXPECT_EQ(Cut() + Cut(), 0);
}

TEST_F(AutoTest, NorAStreamOfTheReleaseBefore) {
  version_ = codec::kCompressionSince - 1;
  Sync();
  Report(100'000, 0.01);
  EXPECT_EQ(primary_.session->link_use().bytes_per_second, 0u);
  EXPECT_EQ(Cut() + Cut(), 0);
}

TEST_F(AutoTest, WhoDoesNotMeasureDoesNotAsk) {
  primary_.options.encoder.compression = CompressionPolicy::kOff;
  Sync();
  EXPECT_FALSE(hears_.asked);
  Report(100'000, 0.01);
  EXPECT_EQ(primary_.session->link_use().bytes_per_second, 0u);
  EXPECT_EQ(Cut() + Cut(), 0);
}

TEST(FrameSenderTest, ANewStreamKnowsNothingOfTheOldLink) {
  base::MonotonicClock clock;
  codec::EncoderOptions options;
  options.compression = CompressionPolicy::kAuto;
  FakeLink link;
  const std::unique_ptr<FrameSender> frames = *FrameSender::Create(Gfn(1024), options, &clock);
  const auto sync = [&] {
    frames->Start(&link);
    frames->StartPages(codec::kDefaultMaxBodyBytes, codec::Dialect(codec::kNewestProtocol));
    const auto work = [&](codec::EpochEncoder& encoder, FrameSender::Send send) {
      ROMULUS_CHECK(encoder.BeginSync(Term(1), 1024, send).ok());
      const std::vector<std::byte> page(kPageSize, std::byte{7});
      for (uint64_t gfn = 0; gfn < 1024; ++gfn) {
        ROMULUS_CHECK(
            encoder.AddSyncPage(Gfn(gfn), codec::PageBytes(page.data(), kPageSize), send).ok());
      }
      return encoder.EndSync(1, send);
    };
    return frames->WithEncoder(0, work);
  };
  ASSERT_TRUE(sync().ok());
  EXPECT_EQ(frames->compression(), Compression::kNone);
  frames->SetLinkRate(100'000);
  ASSERT_TRUE(
      frames
          ->WithEncoder(0, [](codec::EpochEncoder&, FrameSender::Send) { return absl::OkStatus(); })
          .ok());
  EXPECT_GT(frames->sent_bytes(), 4u << 20);
  ASSERT_TRUE(sync().ok());  // the rate is forgotten: as they are
  EXPECT_LT(frames->sent_bytes(), 5u << 20);
  EXPECT_GT(frames->sent_bytes(), 4u << 20);
}

TEST_F(AutoTest, ANewStreamKnowsNothingOfTheOld) {
  Sync();
  Report(100'000, 0.01);
  Cut();
  EXPECT_GT(Cut(), 0);
  primary_.session.reset();
  writer_.Reset();
  hears_.reader = codec::FrameReader();
  hears_.compressed = 0;
  primary_.last_epoch = 0;
  Sync();
  EXPECT_EQ(primary_.session->link_use().compression, Compression::kNone);
}

}  // namespace
}  // namespace romulus::wire

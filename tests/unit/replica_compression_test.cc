// A secondary whose primary compresses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "unit/replica_rig.h"
#include "unit/replica_session_rig.h"

namespace romulus::replica {
namespace {

using codec::Compression;
using codec::CompressionPolicy;
using codec::FrameKind;
using testing::HasSubstr;

constexpr Term kTerm(3);

codec::EncoderOptions Compressing(CompressionPolicy policy) {
  codec::EncoderOptions options;
  options.compression = policy;
  return options;
}

// From Hello on, as a primary does that was told the version.
void Begin(ModelPrimary* primary, SessionRig* rig) {
  rig->Feed(primary->StartStream(kTerm));
  primary->writer().SetDialect(codec::Dialect(rig->policy.protocol));
}

// The kinds of which frames are compressed.
std::set<FrameKind> CompressedIn(const Messages& messages, codec::FrameReader* reader) {
  std::set<FrameKind> kinds;
  for (const std::string& message : messages) {
    absl::string_view rest = message;
    while (!rest.empty()) {
      const absl::StatusOr<codec::Frame> frame = reader->Next(&rest);
      if (!frame.ok()) return {};
      if (frame->compression != Compression::kNone) kinds.insert(frame->kind);
    }
  }
  return kinds;
}

TEST(ReplicaCompressionTest, TheReplicaIsTheGuest) {
  for (const auto& [policy, method] : {std::pair(CompressionPolicy::kLz4, Compression::kLz4),
                                       std::pair(CompressionPolicy::kZstd, Compression::kZstd)}) {
    FakeDiskReplica disks;
    disks.Add(0, "disk", 3 << 20);
    StoreOptions options;
    options.disks = &disks;
    ModelPrimary primary(4, Compressing(policy));
    primary.AddDisks({3 << 20});
    SessionRig rig(4, options);
    Messages all = primary.StartStream(kTerm);
    rig.Feed(all);
    primary.writer().SetDialect(codec::Dialect(rig.policy.protocol));
    const auto feed = [&](const Messages& messages) {
      all.insert(all.end(), messages.begin(), messages.end());
      rig.Feed(messages);
    };
    feed(primary.FullSync(kTerm));
    for (uint64_t epoch = 1; epoch <= 20; ++epoch) {
      primary.MutateDisks(5);
      feed(primary.RandomEpoch(kTerm, EpochId(epoch), epoch % 5 == 0 ? 300 : 10));
      ASSERT_EQ(rig.LastAck(), EpochId(epoch)) << rig.listener.why;
      ASSERT_EQ(primary.Difference(*rig.memory), "");
    }
    EXPECT_EQ(ModelPrimary::DiskDifference(primary.disks(), disks), "");
    const codec::CompressionStats stats = primary.encoder().TakeStats().compression;
    const auto at = static_cast<size_t>(method);
    EXPECT_GT(stats.raw_bytes[at], 1u << 20);
    EXPECT_LT(stats.wire_bytes[at], stats.raw_bytes[at] / 8 * 7);
    EXPECT_EQ(primary.encoder().compression(), method);
    codec::FrameReader reader;
    reader.SetDialect(codec::Dialect(rig.policy.protocol));
    EXPECT_THAT(CompressedIn(all, &reader),
                testing::UnorderedElementsAre(FrameKind::kSyncPages, FrameKind::kDiskBlocks,
                                              FrameKind::kEpochPages, FrameKind::kEpochDisks));
  }
}

TEST(ReplicaCompressionTest, APrimaryOnAnOlderStreamDoesNotCompress) {
  ModelPrimary primary(4, Compressing(CompressionPolicy::kZstd));
  SessionRig rig;
  rig.policy.protocol = codec::kCompressionSince - 1;
  Begin(&primary, &rig);
  EXPECT_EQ(primary.encoder().compression(), Compression::kNone);
  rig.Feed(primary.FullSync(kTerm));
  rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 300));
  EXPECT_EQ(rig.LastAck(), EpochId(1)) << rig.listener.why;
  EXPECT_EQ(primary.Difference(*rig.memory), "");
  const codec::CompressionStats stats = primary.encoder().TakeStats().compression;
  for (const uint64_t bytes : stats.raw_bytes) EXPECT_EQ(bytes, 0u);
}

TEST(ReplicaCompressionTest, ACompressedFrameOnAnOlderStreamEndsIt) {
  ModelPrimary primary(4, Compressing(CompressionPolicy::kLz4));
  SessionRig rig;
  rig.policy.protocol = codec::kCompressionSince - 1;
  rig.Feed(primary.StartStream(kTerm));
  primary.writer().SetDialect(codec::Dialect(codec::kCompressionSince));
  rig.Feed(primary.FullSync(kTerm));
  EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL);
  EXPECT_EQ(rig.counters.frame_faults[static_cast<size_t>(codec::FrameFault::kFlags)], 1u);
  EXPECT_TRUE(rig.link->closed());
}

TEST(ReplicaCompressionTest, BombsAndDamagedBodiesEndTheStreamAndCommitNothing) {
  for (const auto& [raw_bytes, fault] :
       {std::pair(UINT32_MAX, codec::FrameFault::kOversize),
        std::pair(uint32_t{codec::kDefaultMaxBodyBytes} + 1, codec::FrameFault::kOversize),
        std::pair(uint32_t{codec::kDefaultMaxBodyBytes}, codec::FrameFault::kCompression),
        std::pair(uint32_t{5}, codec::FrameFault::kCompression)}) {
    ModelPrimary primary;
    SessionRig rig;
    Begin(&primary, &rig);
    rig.Feed(primary.FullSync(kTerm));
    rig.Feed(primary.RandomEpoch(kTerm, EpochId(1), 30));
    ASSERT_EQ(rig.LastAck(), EpochId(1)) << rig.listener.why;
    std::string message;
    const size_t begin =
        codec::FrameWriter::Begin(FrameKind::kEpochPages, kTerm, EpochId(2), &message);
    message += "tiny tiny";
    primary.writer().End(begin, &message, {Compression::kLz4, raw_bytes});
    rig.Feed({message});
    EXPECT_EQ(rig.SentGoodbye().reason(), v1::Goodbye::REASON_PROTOCOL) << raw_bytes;
    EXPECT_EQ(rig.FaultCount(Fault::kFraming), 1u);
    EXPECT_EQ(rig.counters.frame_faults[static_cast<size_t>(fault)], 1u) << raw_bytes;
    EXPECT_TRUE(rig.link->closed());
    EXPECT_EQ(rig.store.status().newest.epoch, EpochId(1));
    EXPECT_TRUE(rig.store.TakeForPromotion(Term(9)).ok());
  }
}

v1::Heartbeat LastHeartbeat(const SessionRig& rig) {
  v1::Heartbeat heartbeat;
  for (const Reply& reply : rig.Replies()) {
    if (reply.kind == FrameKind::kHeartbeat) heartbeat.ParseFromString(reply.body);
  }
  return heartbeat;
}

TEST(ReplicaCompressionTest, HeartbeatsTellWhatCameIfTheHelloAsks) {
  for (const bool asks : {true, false}) {
    for (const uint32_t version : {codec::kCompressionSince - 1, codec::kCompressionSince}) {
      ModelPrimary primary;
      SessionRig rig;
      rig.policy.protocol = version;
      v1::Hello hello;
      hello.set_vm_name("model");
      hello.set_term(kTerm.value());
      hello.set_measure_link(asks);
      primary.StartStream(kTerm);
      primary.writer().Reset();
      Messages sent = {primary.Control(FrameKind::kHello, kTerm, EpochId(), hello)};
      rig.Feed(sent);
      primary.writer().SetDialect(codec::Dialect(version));
      const uint64_t before_ns = rig.clock.NowNs();
      for (const std::string& message : primary.FullSync(kTerm)) sent.push_back(message);
      rig.Feed({sent.begin() + 1, sent.end()});
      const uint64_t took_ns = rig.clock.NowNs() - before_ns;
      ASSERT_TRUE(rig.session->SendHeartbeat().ok());
      const v1::Heartbeat heartbeat = LastHeartbeat(rig);
      ASSERT_NE(heartbeat.sent_monotonic_ns(), 0u);
      const bool told = asks && version >= codec::kCompressionSince;
      EXPECT_EQ(heartbeat.received_bytes(), told ? Join(sent).size() : 0);
      EXPECT_EQ(heartbeat.busy_ns() > 0, told);
      EXPECT_LE(heartbeat.busy_ns(), took_ns);
    }
  }
}

}  // namespace
}  // namespace romulus::replica

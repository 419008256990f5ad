// What the previous release said, as it was recorded (tests/skew/record.py), and this build: a
// secondary that hears its primary's stream, and a primary that is answered by its secondary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "skew/recording.h"
#include "state/machine_state.h"
#include "unit/replica_session_rig.h"
#include "unit/wire_pair.h"
#include "wire/handshake.h"

namespace romulus::skew {
namespace {

using codec::FrameKind;

constexpr uint32_t kPrevious = 5;

const std::vector<Recorded>& Recording() {
  static const auto* const recording =
      new std::vector<Recorded>(ReadRecording(ROMULUS_RECORDED_FOLDER "/protocol_5.stream.gz"));
  return *recording;
}

std::string Fact(Entry entry) {
  for (const Recorded& one : Recording()) {
    if (one.entry == entry) return one.bytes;
  }
  return "";
}

struct Said {
  FrameKind kind;
  Term term;
  EpochId epoch;
  std::string body;
};

std::vector<Said> Frames(const std::vector<std::string>& messages) {
  std::vector<Said> frames;
  codec::FrameReader reader;
  for (const std::string& message : messages) {
    absl::string_view rest = message;
    while (!rest.empty()) {
      const absl::StatusOr<codec::Frame> frame = reader.Next(&rest);
      if (!frame.ok()) {
        ADD_FAILURE() << frame.status();
        return frames;
      }
      frames.push_back({frame->kind, frame->term, frame->epoch, std::string(frame->body)});
    }
  }
  return frames;
}

std::vector<std::string> Messages(Entry direction) {
  std::vector<std::string> messages;
  for (const Recorded& one : Recording()) {
    if (one.entry == direction) messages.push_back(one.bytes);
  }
  return messages;
}

v1::Hello RecordedHello() {
  v1::Hello hello;
  EXPECT_TRUE(hello.ParseFromString(Frames(Messages(Entry::kDown)).at(0).body));
  return hello;
}

uint64_t MemoryMib(const v1::Hello& hello) {
  uint64_t bytes = 0;
  for (const auto& region : hello.memory()) bytes += region.size_bytes();
  return bytes >> 20;
}

// Whoever says Hello is what it is configured for, and is judged as a daemon would.
wire::HelloJudge JudgeFor(const v1::Hello& hello) {
  wire::HelloJudge judge;
  judge.node_name = "beta";
  judge.machine.vm_name = hello.vm_name();
  judge.machine.vm_uuid = hello.vm_uuid();
  judge.machine.vcpu_count = hello.vcpu_count();
  judge.machine.memory = memory::MemoryLayout::ForMib(MemoryMib(hello))->regions();
  judge.machine.machine_digest = hello.machine_digest();
  return judge;
}

TEST(SkewReplayTest, TheRecordingIsOfThePreviousRelease) {
  ASSERT_FALSE(Recording().empty());
  EXPECT_EQ(RecordedHello().protocol_version(), kPrevious);
  EXPECT_EQ(RecordedHello().newest_protocol_version(), 0u);
  EXPECT_EQ(kPrevious, codec::kOldestProtocol) << "record.py, once per version";
}

TEST(SkewReplayTest, P2_ASecondaryHoldsWhatThePreviousPrimarySent) {
  const v1::Hello hello = RecordedHello();
  wire::TestSecondary secondary(MemoryMib(hello));
  secondary.judge = JudgeFor(hello);
  replica::Session* const session = secondary.Connect(nullptr);
  const auto link = std::make_shared<replica::RecordingLink>(session);
  session->Attach(link);
  for (const std::string& message : Messages(Entry::kDown)) {
    session->OnMessage(message);
    ASSERT_FALSE(link->closed());
  }
  // Hello is answered in its version, and every epoch is acked as that release's secondary did.
  const std::vector<Said> now = Frames(link->sent());
  v1::HelloReply reply;
  ASSERT_TRUE(reply.ParseFromString(now.at(0).body));
  EXPECT_TRUE(reply.accepted()) << reply.detail();
  EXPECT_EQ(reply.protocol_version(), kPrevious);
  const auto acks = [](const std::vector<Said>& frames) {
    std::vector<EpochId> epochs;
    for (const Said& frame : frames) {
      if (frame.kind == FrameKind::kAck) epochs.push_back(frame.epoch);
    }
    return epochs;
  };
  EXPECT_EQ(acks(now), acks(Frames(Messages(Entry::kUp))));
  EXPECT_GT(acks(now).size(), 10u);
  EXPECT_EQ(secondary.counters.audit_mismatches.load(), 0u);
  EXPECT_GT(secondary.counters.audited_pages.load(), 0u);
  // It was offered the guest, and has what the other secondary had then.
  EXPECT_EQ(secondary.handed_over.epoch, acks(now).back());
  const absl::StatusOr<replica::PromotableEpoch> taken =
      secondary.store.TakeForPromotion(secondary.handed_over.term.Next());
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(MemoryDigest(*taken->memory), Fact(Entry::kMemory));
  EXPECT_EQ(absl::StrCat(taken->console_end), Fact(Entry::kConsole));
  const absl::StatusOr<state::MachineState> machine =
      state::MachineState::Parse(Fact(Entry::kState));
  ASSERT_TRUE(machine.ok());
  EXPECT_EQ(taken->machine, *machine);
  EXPECT_TRUE(machine->Has("vcpu.regs", 0)) << "what was recorded is no machine";
}

// Keeps what a primary sends.
class Ear final : public wire::LinkListener {
 public:
  void OnMessage(absl::string_view frames) override {
    absl::MutexLock lock(&mutex_);
    messages_.emplace_back(frames);
    while (!frames.empty()) {
      const absl::StatusOr<codec::Frame> frame = reader_.Next(&frames);
      if (!frame.ok()) break;
      commits_ += frame->kind == FrameKind::kEpochCommit ? 1 : 0;
    }
  }
  void AwaitCommits(int count) const {
    absl::MutexLock lock(&mutex_);
    auto enough = [this, count] { return commits_ >= count; };
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&enough), wire::kPatience));
  }
  void OnClosed(const absl::Status&) override {}
  std::vector<std::string> messages() const {
    absl::MutexLock lock(&mutex_);
    return messages_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<std::string> messages_;
  codec::FrameReader reader_;
  int commits_ = 0;
};

constexpr int kEpochs = 3;
constexpr Gfn kCounterPage(1000);  // of one word, which each epoch changes

// What this build's primary says to a secondary that answered with `reply`: a full sync and epochs,
// until a bad audit ends it.
std::vector<std::string> SaidUntilTheReplicaIsWrong(const std::string& reply) {
  wire::LoopbackNetwork network;
  network.DeliverAtOnce();
  Ear ear;
  network.SetListener(wire::LoopbackEnd::kSecondary, &ear);
  std::unique_ptr<wire::Link> secondary = network.TakeLink(wire::LoopbackEnd::kSecondary);
  wire::TestPrimary primary(4);
  const absl::Status opened = primary.Open([&network](wire::LinkListener* listener) {
    network.SetListener(wire::LoopbackEnd::kPrimary, listener);
    return network.TakeLink(wire::LoopbackEnd::kPrimary);
  });
  EXPECT_TRUE(opened.ok()) << opened;
  EXPECT_TRUE(secondary->Send(reply).ok());
  const absl::Status synced = primary.HandshakeAndSync();
  EXPECT_TRUE(synced.ok()) << synced;
  if (!synced.ok()) return {};
  for (uint64_t i = 0; i < kEpochs; ++i) {
    primary.Scribble(3);
    primary.WriteWord(kCounterPage, i + 1);
    primary.CutEpoch();
  }
  ear.AwaitCommits(kEpochs);
  primary.session->SendGoodbye(v1::Goodbye::REASON_REPLICA_WRONG, "audit", wire::kPatience);
  primary.session.reset();
  return ear.messages();
}

v1::Goodbye GoodbyeIn(const std::vector<std::string>& messages) {
  v1::Goodbye goodbye;
  for (const Said& frame : Frames(messages)) {
    if (frame.kind != FrameKind::kGoodbye) continue;
    EXPECT_TRUE(goodbye.ParseFromString(frame.body));
  }
  return goodbye;
}

// How many epochs' machine states travelled whole, and how many as a delta.
std::pair<int, int> MachinesIn(const std::vector<std::string>& messages) {
  std::pair<int, int> found;
  for (const Said& frame : Frames(messages)) {
    if (frame.kind != FrameKind::kEpochCommit) continue;
    v1::EpochCommit commit;
    EXPECT_TRUE(commit.ParseFromString(frame.body));
    EXPECT_NE(commit.machine().empty(), commit.machine_delta().empty());
    ++(commit.machine_delta().empty() ? found.first : found.second);
  }
  return found;
}

// How the epochs' versions of that page travelled.
std::vector<codec::PageEncoding> CounterEncodings(const std::vector<std::string>& messages) {
  const memory::MemoryLayout layout = *memory::MemoryLayout::ForMib(4);
  std::vector<codec::PageEncoding> found;
  for (const Said& frame : Frames(messages)) {
    if (frame.kind != FrameKind::kEpochPages) continue;
    codec::PageRecordReader records(frame.body, layout, codec::Dialect(codec::kNewestProtocol));
    while (!records.done()) {
      const absl::StatusOr<codec::PageRecord> record = records.Next();
      EXPECT_TRUE(record.ok()) << record.status();
      if (!record.ok()) break;
      if (record->gfn == kCounterPage) found.push_back(record->encoding);
    }
  }
  return found;
}

TEST(SkewReplayTest, APrimaryThatThePreviousSecondaryAcceptedSaysNothingNewer) {
  const std::string recorded = Messages(Entry::kUp).at(0);
  const std::vector<std::string> said = SaidUntilTheReplicaIsWrong(recorded);
  const v1::Goodbye older = GoodbyeIn(said);
  EXPECT_EQ(older.reason(), v1::Goodbye::REASON_PROTOCOL);
  EXPECT_EQ(older.detail(), "audit");
  EXPECT_EQ(MachinesIn(said), std::pair(kEpochs, 0));
  using codec::PageEncoding;
  EXPECT_THAT(CounterEncodings(said),
              testing::ElementsAre(PageEncoding::kRaw, PageEncoding::kDelta, PageEncoding::kDelta));

  v1::HelloReply reply;
  ASSERT_TRUE(reply.ParseFromString(Frames({recorded}).at(0).body));
  reply.set_protocol_version(codec::kNewestProtocol);
  std::string message;
  codec::FrameWriter().Append(FrameKind::kHelloReply, Term(32), EpochId(), reply, &message);
  const std::vector<std::string> newer = SaidUntilTheReplicaIsWrong(message);
  EXPECT_EQ(GoodbyeIn(newer).reason(), v1::Goodbye::REASON_REPLICA_WRONG);
  EXPECT_EQ(MachinesIn(newer), std::pair(1, kEpochs - 1));
  EXPECT_THAT(
      CounterEncodings(newer),
      testing::ElementsAre(PageEncoding::kRaw, PageEncoding::kSparse, PageEncoding::kSparse));
}

}  // namespace
}  // namespace romulus::skew

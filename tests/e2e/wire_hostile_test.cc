// A live secondary on a real socket meets a primary that speaks the protocol and breaks it: in the
// Hello, in the full sync, and between epochs. Each time the stream is refused, counted and reset,
// what was committed stays promotable exactly as it was, and a good primary that comes next is
// taken in full.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "unit/replica_rig.h"
#include "unit/wire_pair.h"
#include "wire/grpc_link.h"
#include "wire/grpc_server.h"

namespace romulus::wire {
namespace {

using codec::FrameFault;
using codec::FrameKind;
using replica::Fault;
using replica::Messages;
using testing::HasSubstr;

constexpr uint64_t kMemoryMib = 4;
constexpr Term kGoodTerm(32), kHostileTerm(48), kLaterTerm(64);
// Where in the hostile stream: each names the message that is tampered with.
enum class Stage { kHello, kSync, kEpochs };
enum class Attack {
  kTruncated,
  kSwapped,
  kLost,
  kDoubled,
  kBitFlipped,
  kGarbage,
  kOversizedFrame,
  kOversizedMessage,  // beyond what the transport takes
  kLie,               // well-formed frames that say what is not so
};
constexpr std::array<const char*, 3> kStageNames = {"Hello", "Sync", "Epochs"};
constexpr std::array<const char*, 9> kAttackNames = {
    "Truncated",      "Swapped",          "Lost", "Doubled", "BitFlipped", "Garbage",
    "OversizedFrame", "OversizedMessage", "Lie"};

// The hostile primary's ear.
class Heard final : public LinkListener {
 public:
  void OnMessage(absl::string_view frames) override {
    absl::MutexLock lock(&mutex_);
    while (!frames.empty()) {
      const absl::StatusOr<codec::Frame> frame = reader_.Next(&frames);
      if (!frame.ok()) return;
      if (frame->kind == FrameKind::kGoodbye) ROMULUS_CHECK(ParseBody(*frame, &goodbye_).ok());
      if (frame->kind == FrameKind::kHelloReply) ROMULUS_CHECK(ParseBody(*frame, &reply_).ok());
    }
  }
  void OnClosed(const absl::Status&) override {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  void AwaitClosed() {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&closed_), kPatience));
  }
  v1::Goodbye goodbye() {
    absl::MutexLock lock(&mutex_);
    return goodbye_;
  }
  v1::HelloReply reply() {
    absl::MutexLock lock(&mutex_);
    return reply_;
  }

 private:
  absl::Mutex mutex_;
  codec::FrameReader reader_;
  v1::Goodbye goodbye_;
  v1::HelloReply reply_;
  bool closed_ = false;
};

class SessionAcceptor final : public LinkAcceptor {
 public:
  explicit SessionAcceptor(TestSecondary* secondary) : secondary_(secondary) {}
  LinkListener* Accept(std::unique_ptr<Link> link, absl::string_view) override {
    return secondary_->Connect(std::move(link));
  }

 private:
  TestSecondary* secondary_;
};

class HostileTest : public testing::TestWithParam<std::tuple<Stage, Attack>> {
 protected:
  HostileTest() {
    auto server = GrpcLinkServer::Listen("127.0.0.1:0", {}, &acceptor_);
    ROMULUS_CHECK(server.ok());
    server_ = *std::move(server);
    address_ = absl::StrCat("127.0.0.1:", server_->port());
  }
  ~HostileTest() override {
    secondary_.Disconnect();
    server_->Shutdown();
  }

  // A good primary: full sync, 20 epochs, goodbye. The replica then equals its memory.
  void Serve(TestPrimary* primary, Term term, int streams_before) {
    primary->options.hello.current_term = Term(term.value() - 1);
    primary->options.hello.stream_term = term;
    primary->Scribble(500);
    ASSERT_TRUE(
        primary
            ->Open([&](LinkListener* listener) { return ConnectGrpcLink(address_, {}, listener); })
            .ok());
    const absl::Status synced = primary->HandshakeAndSync();
    ASSERT_TRUE(synced.ok()) << synced;
    for (int epoch = 0; epoch < 20; ++epoch) {
      primary->Scribble(5);
      primary->CutEpoch();
    }
    ASSERT_TRUE(primary->session->epochs().AwaitAllAcked(kPatience).ok());
    primary->session->SendGoodbye(v1::Goodbye::REASON_SHUTDOWN, "test", kPatience);
    secondary_.AwaitClosed(streams_before + 1);
    primary->session.reset();
    ASSERT_EQ(primary->Difference(*secondary_.memory), "");
    ASSERT_EQ(secondary_.store.status().newest, (replica::EpochKey{term, EpochId(20)}));
  }

  // What a good primary would send: a Hello, a full sync of several messages, four epochs of one
  // message each. Remembers the memory as of each epoch.
  void Compose() {
    HelloInput input;
    input.machine = TestMachine(kMemoryMib);
    input.node_name = "mallory";
    input.current_term = kGoodTerm;
    input.stream_term = kHostileTerm;
    input.max_frame_bytes = codec::kDefaultMaxBodyBytes;
    model_.StartStream(kHostileTerm);
    model_.writer().Reset();
    hello_ = BuildHello(input);
    stream_ = {model_.Control(FrameKind::kHello, kHostileTerm, EpochId(), hello_)};
    for (std::string& message : model_.FullSync(kHostileTerm)) stream_.push_back(message);
    ASSERT_GE(stream_.size(), 4u);
    sync_end_ = stream_.size();
    for (uint64_t epoch = 1; epoch <= 4; ++epoch) {
      Messages messages = model_.RandomEpoch(kHostileTerm, EpochId(epoch), 5);
      ASSERT_EQ(messages.size(), 1u);
      stream_.push_back(messages[0]);
      memories_.push_back(model_.memory());
    }
  }

  // A well-formed message with a false content, in place of the stream's message at `index`.
  std::string Lie(Stage stage, size_t index) {
    codec::FrameWriter& writer = model_.writer();
    // Frames before it are numbered as they were.
    writer.Reset();
    codec::FrameReader reader;
    for (size_t i = 0; i < index; ++i) {
      absl::string_view rest = stream_[i];
      while (!rest.empty()) ROMULUS_CHECK(reader.Next(&rest).ok());
    }
    std::string ignored;
    while (writer.last_sequence() < reader.last_sequence()) {
      writer.Append(FrameKind::kHeartbeat, kHostileTerm, EpochId(), absl::string_view(), &ignored);
    }
    std::string message;
    if (stage == Stage::kHello) {
      hello_.set_vm_uuid("of another VM");
      return model_.Control(FrameKind::kHello, kHostileTerm, EpochId(), hello_);
    }
    if (stage == Stage::kSync) {
      std::string body;
      codec::AppendZeroRun(Gfn(1), 1u << 30, &body);  // far beyond the memory
      writer.Append(FrameKind::kSyncPages, kHostileTerm, EpochId(), body, &message);
      return message;
    }
    // One page, and a digest that is not its.
    std::string body;
    const std::string page(kPageSize, 'x');
    codec::AppendPage({}, Gfn(1),
                      codec::PageBytes(reinterpret_cast<const std::byte*>(page.data()),
                                       kPageSize),  // SAFETY: bytes
                      nullptr, &body);
    writer.Append(FrameKind::kEpochPages, kHostileTerm, EpochId(2), body, &message);
    v1::EpochCommit commit;
    commit.set_page_count(1);
    commit.set_pages_digest(7);
    commit.set_machine(model_.Machine(EpochId(2)).Serialize());
    commit.set_machine_digest(codec::HashBytes(commit.machine()));
    writer.Append(FrameKind::kEpochCommit, kHostileTerm, EpochId(2), commit, &message);
    return message;
  }

  void Tamper(Attack attack, Stage stage, size_t index) {
    const auto at = stream_.begin() + static_cast<std::ptrdiff_t>(index);
    switch (attack) {
      case Attack::kTruncated:
        at->pop_back();
        return;
      case Attack::kSwapped:
        std::swap(at[0], at[1]);
        return;
      case Attack::kLost:
        stream_.erase(at);
        return;
      case Attack::kDoubled:
        stream_.insert(at, std::string(*at));
        return;
      case Attack::kBitFlipped:
        (*at)[codec::kFrameHeaderBytes + 1] ^= 4;
        return;
      case Attack::kGarbage:
        *at = std::string(1000, '\xa5');
        return;
      case Attack::kOversizedFrame: {
        codec::FrameWriter writer;
        at->clear();
        writer.Append(FrameKind::kEpochPages, kHostileTerm, EpochId(2),
                      std::string(codec::kDefaultMaxBodyBytes + 1, 'x'), &*at);
        return;
      }
      case Attack::kOversizedMessage:
        *at = std::string(GrpcLinkOptions().max_message_bytes + 1000, 'x');
        return;
      case Attack::kLie:
        *at = Lie(stage, index);
        return;
    }
  }

  uint64_t FrameFaults(FrameFault fault) {
    return secondary_.counters.frame_faults[static_cast<size_t>(fault)];
  }
  // Of all kinds; framing faults are counted by their own kind as well.
  uint64_t AllFaults() {
    uint64_t sum = 0;
    for (const auto& count : secondary_.counters.faults) sum += count;
    return sum;
  }

  TestSecondary secondary_{kMemoryMib};
  SessionAcceptor acceptor_{&secondary_};
  std::unique_ptr<GrpcLinkServer> server_;
  std::string address_;
  replica::ModelPrimary model_{
      kMemoryMib, {.page_body_bytes = 16u << 10, .message_bytes = 32u << 10}, /*seed=*/7};
  v1::Hello hello_;
  Messages stream_;
  size_t sync_end_ = 0;  // index of the first epoch
  std::vector<std::vector<std::byte>> memories_;
};

TEST_P(HostileTest, IsRefusedCountedAndForgotten) {
  const auto [stage, attack] = GetParam();
  TestPrimary before(kMemoryMib, /*seed=*/1);
  ASSERT_NO_FATAL_FAILURE(Serve(&before, kGoodTerm, 0));
  ASSERT_NO_FATAL_FAILURE(Compose());
  const size_t index = stage == Stage::kHello ? 0 : stage == Stage::kSync ? 2 : sync_end_ + 1;
  Tamper(attack, stage, index);

  Heard heard;
  GrpcLinkOptions generous;
  generous.max_message_bytes *= 2;  // of the hostile side; the secondary's is what counts
  generous.max_queued_bytes *= 4;
  auto link = ConnectGrpcLink(address_, generous, &heard);
  ASSERT_TRUE(link.ok()) << link.status();
  for (const std::string& message : stream_) {
    if (!(*link)->Send(message).ok()) break;  // the secondary has hung up
  }
  heard.AwaitClosed();
  secondary_.AwaitClosed(2);
  link->reset();

  // Counted, once, as what it is.
  const bool refused_hello = attack == Attack::kLie && stage == Stage::kHello;
  const bool below_frames = attack == Attack::kOversizedMessage;
  EXPECT_EQ(AllFaults(), refused_hello || below_frames ? 0u : 1u);
  EXPECT_EQ(secondary_.counters.streams_refused, refused_hello ? 1u : 0u);
  if (refused_hello) {
    EXPECT_FALSE(heard.reply().accepted());
    EXPECT_EQ(heard.reply().reason(), v1::REFUSAL_REASON_VM);
  } else if (!below_frames) {
    EXPECT_EQ(heard.goodbye().reason(), v1::Goodbye::REASON_PROTOCOL) << "it was not told why";
  }
  const auto fault_of_lie = stage == Stage::kSync ? Fault::kPages : Fault::kDigest;
  switch (attack) {
    case Attack::kTruncated:
      EXPECT_EQ(FrameFaults(FrameFault::kTruncated), 1u);
      break;
    case Attack::kSwapped:
    case Attack::kLost:
      EXPECT_EQ(FrameFaults(FrameFault::kSequenceGap), 1u);
      break;
    case Attack::kDoubled:
      EXPECT_EQ(FrameFaults(FrameFault::kSequenceRepeat), 1u);
      break;
    case Attack::kBitFlipped:
      EXPECT_EQ(FrameFaults(FrameFault::kChecksum), 1u);
      break;
    case Attack::kGarbage:
      EXPECT_EQ(FrameFaults(FrameFault::kMagic), 1u);
      break;
    case Attack::kOversizedFrame:
      EXPECT_EQ(FrameFaults(FrameFault::kOversize), 1u);
      break;
    case Attack::kOversizedMessage:
      break;
    case Attack::kLie:
      EXPECT_EQ(secondary_.counters.faults[static_cast<size_t>(fault_of_lie)],
                refused_hello ? 0u : 1u);
  }

  // What was committed is as it was; a full sync that did not end leaves nothing to promote.
  const replica::ReplicaStatus status = secondary_.store.status();
  switch (stage) {
    case Stage::kHello:
      EXPECT_EQ(status.newest, (replica::EpochKey{kGoodTerm, EpochId(20)}));
      EXPECT_EQ(before.Difference(*secondary_.memory), "");
      break;
    case Stage::kSync:
      EXPECT_EQ(status.state, replica::ReplicaState::kSyncing);
      EXPECT_THAT(std::string(secondary_.store.TakeForPromotion(kLaterTerm).status().message()),
                  HasSubstr("nothing to promote"));
      break;
    case Stage::kEpochs: {
      const uint64_t newest = attack == Attack::kDoubled ? 2 : 1;
      EXPECT_EQ(status.newest, (replica::EpochKey{kHostileTerm, EpochId(newest)}));
      EXPECT_EQ(replica::ModelPrimary::DifferenceFrom(memories_[newest - 1], *secondary_.memory),
                "");
    }
  }

  TestPrimary after(kMemoryMib, /*seed=*/2);
  ASSERT_NO_FATAL_FAILURE(Serve(&after, kLaterTerm, 2));
}

std::string NameOf(const testing::TestParamInfo<std::tuple<Stage, Attack>>& info) {
  return absl::StrCat(kStageNames[static_cast<size_t>(std::get<0>(info.param))],
                      kAttackNames[static_cast<size_t>(std::get<1>(info.param))]);
}

INSTANTIATE_TEST_SUITE_P(
    All, HostileTest,
    testing::Combine(testing::Values(Stage::kHello, Stage::kSync, Stage::kEpochs),
                     testing::Values(Attack::kTruncated, Attack::kSwapped, Attack::kLost,
                                     Attack::kDoubled, Attack::kBitFlipped, Attack::kGarbage,
                                     Attack::kOversizedFrame, Attack::kOversizedMessage,
                                     Attack::kLie)),
    NameOf);

}  // namespace
}  // namespace romulus::wire

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "unit/wire_pair.h"
#include "wire/loopback_link.h"
#include "wire/primary_session.h"

namespace romulus::wire {
namespace {

using testing::HasSubstr;

using PrimarySessionTest = PairTest;

// A secondary's yes to Hello.
void AppendAcceptance(codec::FrameWriter& writer, std::string* message) {
  v1::HelloReply accept;
  accept.set_accepted(true);
  accept.set_protocol_version(codec::kNewestProtocol);
  writer.Append(codec::FrameKind::kHelloReply, Term(32), EpochId(), accept, message);
}

TEST_F(PrimarySessionTest, SyncsAndReplicatesByteForByte) {
  primary_.Scribble(900);
  primary_.rounds = 3;
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.HandshakeAndSync().ok());
  for (int epoch = 0; epoch < 50; ++epoch) {
    primary_.Scribble(epoch % 7 == 0 ? 200 : 3);
    primary_.CutEpoch();
  }
  ASSERT_TRUE(primary_.session->epochs().AwaitAllAcked(kPatience).ok());
  StopPump();
  EXPECT_EQ(primary_.Difference(*secondary_.memory), "");
  EXPECT_EQ(primary_.session->epochs().acked(), EpochId(50));
  EXPECT_EQ(primary_.acks.acks().size(), 50u);
  const absl::StatusOr<replica::PromotableEpoch> taken =
      secondary_.store.TakeForPromotion(Term(99));
  ASSERT_TRUE(taken.ok());
  EXPECT_EQ(taken->key.epoch, EpochId(50));
  EXPECT_EQ(taken->machine, Epoch(Term(32), 50).machine);
}

TEST_F(PrimarySessionTest, ARefusalIsAReplyAndTheStreamEnds) {
  secondary_.judge.machine.vcpu_count = 4;
  ASSERT_TRUE(Connect().ok());
  StartPump();
  const absl::StatusOr<v1::HelloReply> reply = primary_.session->Handshake(kPatience);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_FALSE(reply->accepted());
  EXPECT_THAT(reply->detail(), HasSubstr("vcpus: 1 on the primary, 4 here"));
  primary_.listener.AwaitClosed().IgnoreError();
  EXPECT_FALSE(primary_.session->RunFullSync(primary_.memory.get(), &primary_).ok());
}

TEST_F(PrimarySessionTest, ASilentPeerEndsTheHandshakeInTime) {
  ASSERT_TRUE(Connect().ok());
  EXPECT_TRUE(
      absl::IsDeadlineExceeded(primary_.session->Handshake(absl::Milliseconds(5)).status()));
}

TEST_F(PrimarySessionTest, AFailedConnectionIsAnError) {
  const absl::Status opened =
      primary_.Open([](LinkListener*) { return absl::UnavailableError("nobody there"); });
  EXPECT_EQ(opened.message(), "nobody there");
  EXPECT_EQ(primary_.acks.closed(), 1);
  EXPECT_EQ(primary_.listener.closed, 0);
}

TEST_F(PrimarySessionTest, HeartbeatsGoRound) {
  primary_.options.sender.heartbeat_interval_ns = 1'000'000;
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.session->Handshake(kPatience).ok());
  // The other side beats only in answer here.
  primary_.listener.AwaitRoundTrips(3);
}

TEST_F(PrimarySessionTest, WhatTheOtherSideSendsByItselfIsASignOfLife) {
  primary_.options.sender.heartbeat_interval_ns = 3'600'000'000'000;
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.session->Handshake(kPatience).ok());
  primary_.listener.AwaitRoundTrips(1);  // of the only heartbeat that is answered
  for (int beat = 0; beat < 2; ++beat) {
    // Asked before the heartbeat is sent: it may be there before SendHeartbeat() returns.
    const int signs = [this] {
      absl::MutexLock lock(&primary_.listener.mutex);
      return primary_.listener.signs;
    }();
    ASSERT_TRUE(secondary_.session->SendHeartbeat().ok());
    absl::MutexLock lock(&primary_.listener.mutex);
    auto more = [this, signs] { return primary_.listener.signs > signs; };
    ASSERT_TRUE(primary_.listener.mutex.AwaitWithTimeout(absl::Condition(&more), kPatience));
  }
}

TEST_F(PrimarySessionTest, GoodbyesReachTheOtherSide) {
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.HandshakeAndSync().ok());
  primary_.session->SendGoodbye(v1::Goodbye::REASON_UNPROTECT, "asked", kPatience);
  primary_.listener.AwaitClosed().IgnoreError();
  secondary_.AwaitClosed();
  EXPECT_EQ(secondary_.goodbye.reason(), v1::Goodbye::REASON_UNPROTECT);
  EXPECT_EQ(secondary_.goodbye.detail(), "asked");
  EXPECT_EQ(primary_.acks.closed(), 1);

  primary_.session.reset();
  StopPump();
  TestPrimary again(8, 2);
  again.options.hello.stream_term = Term(48);
  network_ = std::make_unique<LoopbackNetwork>();
  network_->SetListener(kSecondary, secondary_.Connect(network_->TakeLink(kSecondary)));
  ASSERT_TRUE(again
                  .Open([this](LinkListener* listener) {
                    network_->SetListener(kPrimary, listener);
                    return network_->TakeLink(kPrimary);
                  })
                  .ok());
  StartPump();
  ASSERT_TRUE(again.HandshakeAndSync().ok());
  secondary_.session->SayGoodbye(v1::Goodbye::REASON_PROMOTED, Term(99), "by hand");
  EXPECT_FALSE(again.listener.AwaitClosed().ok());
  EXPECT_EQ(again.listener.goodbye.reason(), v1::Goodbye::REASON_PROMOTED);
  EXPECT_EQ(again.listener.goodbye.term(), 99u);
  StopPump();
}

TEST_F(PrimarySessionTest, AHandOverIsOfferedRefusedAndOfferedAgain) {
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.HandshakeAndSync().ok());
  primary_.CutEpoch();
  ASSERT_TRUE(primary_.session->epochs().AwaitAllAcked(kPatience).ok());
  ASSERT_TRUE(primary_.session->OfferHandOver(EpochId(1), v1::HandOver(), kPatience).ok());
  secondary_.AwaitHandOver(EpochId(1));
  secondary_.session->RefuseHandOver("not now");
  primary_.listener.AwaitHandOverRefused();
  primary_.CutEpoch();
  ASSERT_TRUE(primary_.session->epochs().AwaitAllAcked(kPatience).ok());
  ASSERT_TRUE(primary_.session->OfferHandOver(EpochId(2), v1::HandOver(), kPatience).ok());
  secondary_.AwaitHandOver(EpochId(2));
  secondary_.session->SayGoodbye(v1::Goodbye::REASON_PROMOTED, Term(99), "it runs");
  EXPECT_FALSE(primary_.listener.AwaitClosed().ok());
  EXPECT_EQ(primary_.listener.goodbye.reason(), v1::Goodbye::REASON_PROMOTED);
  StopPump();
}

TEST_F(PrimarySessionTest, ALostLinkEndsSyncEpochsAndWaiters) {
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.HandshakeAndSync().ok());
  StopPump();
  primary_.CutEpoch();
  network_->Cut(absl::UnavailableError("cable"));
  network_->Pump();
  EXPECT_EQ(primary_.listener.AwaitClosed().message(), "cable");
  EXPECT_EQ(primary_.acks.closed(), 1);
  // Of the link's end, or of an epoch that met the cut cable first.
  EXPECT_THAT(primary_.session->epochs().AwaitAllAcked(kPatience).message(), HasSubstr("cable"));
  EXPECT_FALSE(primary_.session->RunFullSync(primary_.memory.get(), &primary_).ok());
}

TEST_F(PrimarySessionTest, CancelAndCloseEndAFullSync) {
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.session->Handshake(kPatience).ok());
  class Canceller final : public SyncSource {
   public:
    explicit Canceller(TestPrimary* primary) : primary_(primary) {}
    absl::StatusOr<memory::PageSet> TakeDirty() override {
      primary_->session->CancelFullSync();
      memory::PageSet one(primary_->memory->layout().gfn_end());
      one.Insert(Gfn(1));
      return one;
    }
    TestPrimary* primary_;
  } canceller(&primary_);
  EXPECT_TRUE(
      absl::IsCancelled(primary_.session->RunFullSync(primary_.memory.get(), &canceller).status()));
  primary_.session->Close(absl::AbortedError("enough"));
  EXPECT_EQ(primary_.listener.AwaitClosed().message(), "enough");
}

// A secondary that acks what it never got, or talks nonsense, is left; what was acked stays acked.
TEST_F(PrimarySessionTest, ACancelledFullSyncDoesNotBegin) {
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.session->Handshake(kPatience).ok());
  primary_.session->CancelFullSync();
  EXPECT_TRUE(
      absl::IsCancelled(primary_.session->RunFullSync(primary_.memory.get(), &primary_).status()));
}

TEST_F(PrimarySessionTest, ALyingSecondaryIsLeft) {
  const std::vector<std::function<void(codec::FrameWriter&, std::string*)>> lies = {
      [](codec::FrameWriter& w, std::string* m) {
        w.Append(codec::FrameKind::kAck, Term(32), EpochId(5), v1::Ack(), m);
      },
      [](codec::FrameWriter& w, std::string* m) {
        w.Append(codec::FrameKind::kAck, Term(31), EpochId(0), v1::Ack(), m);
      },
      [](codec::FrameWriter& w, std::string* m) {
        w.Append(codec::FrameKind::kEpochCommit, Term(32), EpochId(1), v1::EpochCommit(), m);
      },
      [](codec::FrameWriter& w, std::string* m) {
        w.Append(codec::FrameKind::kHelloReply, Term(32), EpochId(), v1::HelloReply(), m);
      },
      [](codec::FrameWriter& w, std::string* m) {
        w.Append(codec::FrameKind::kAck, Term(32), EpochId(0), absl::string_view("\xff\xff"), m);
      },
      [](codec::FrameWriter& w, std::string* m) {
        // Of a hand-over that nobody offered.
        w.Append(codec::FrameKind::kHandOverRefusal, Term(32), EpochId(), v1::HandOverRefusal(), m);
      },
      [](codec::FrameWriter&, std::string* m) { *m = "garbage"; },
      [](codec::FrameWriter& w, std::string* m) {
        w.Append(codec::FrameKind::kHeartbeat, Term(32), EpochId(), v1::Heartbeat(), m);
        m->pop_back();
      },
      [](codec::FrameWriter& w, std::string* m) {
        w.Append(codec::FrameKind::kGoodbye, Term(32), EpochId(),
                 absl::string_view(std::string(1 << 20, 'x')), m);
      },
      [](codec::FrameWriter& w, std::string* m) {
        v1::Goodbye goodbye;
        goodbye.set_reason(v1::Goodbye::REASON_PROMOTED);
        goodbye.set_term(UINT64_MAX);
        w.Append(codec::FrameKind::kGoodbye, Term(32), EpochId(), goodbye, m);
      },
      [](codec::FrameWriter& w, std::string* m) {
        w.Append(codec::FrameKind::kHeartbeat, Term(UINT64_MAX), EpochId(), v1::Heartbeat(), m);
      },
      [](codec::FrameWriter& w, std::string* m) {  // pages that nobody asked it to compare
        v1::Ack ack;
        ack.set_audited_pages(5);
        w.Append(codec::FrameKind::kAck, Term(32), EpochId(), ack, m);
      },
  };
  using codec::FrameFault;
  const std::vector<FrameFault> counted_as = {
      FrameFault::kNone,     FrameFault::kNone, FrameFault::kNone,      FrameFault::kNone,
      FrameFault::kNone,     FrameFault::kNone, FrameFault::kTruncated, FrameFault::kTruncated,
      FrameFault::kOversize, FrameFault::kNone, FrameFault::kTermRange, FrameFault::kNone};
  for (size_t i = 0; i < lies.size(); ++i) {
    TestPrimary primary(8);
    LoopbackNetwork network;
    network.DeliverAtOnce();
    std::unique_ptr<Link> peer = network.TakeLink(kSecondary);
    ASSERT_TRUE(primary
                    .Open([&](LinkListener* listener) {
                      network.SetListener(kPrimary, listener);
                      return network.TakeLink(kPrimary);
                    })
                    .ok());
    codec::FrameWriter writer;
    std::string message;
    AppendAcceptance(writer, &message);
    ASSERT_TRUE(peer->Send(message).ok());
    ASSERT_TRUE(primary.session->Handshake(kPatience).ok());
    message.clear();
    lies[i](writer, &message);
    peer->Send(message).IgnoreError();
    peer->Send(message).IgnoreError();  // what comes after it is not looked at
    EXPECT_THAT(std::string(primary.listener.AwaitBroken().message()),
                HasSubstr("broke the protocol"))
        << "lie " << i;
    EXPECT_EQ(primary.listener.closed, 0) << "lie " << i;  // not before the goodbye
    primary.session->SendGoodbye(v1::Goodbye::REASON_PROTOCOL, "a lie", kPatience);
    primary.listener.AwaitClosed().IgnoreError();
    EXPECT_THAT(primary.listener.refused, testing::ElementsAre(counted_as[i])) << "lie " << i;
    EXPECT_TRUE(primary.acks.acks().empty());
    EXPECT_EQ(primary.listener.goodbye.reason(), v1::Goodbye::REASON_UNSPECIFIED);
    primary.session.reset();
  }
}

// Sends nothing until it is opened, as a link whose peer is slow to read.
class GatedLink final : public Link {
 public:
  explicit GatedLink(std::unique_ptr<Link> inner) : inner_(std::move(inner)) {}

  void Gate(bool shut) {
    absl::MutexLock lock(&mutex_);
    shut_ = shut;
  }
  void AwaitWaiting() {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&waiting_), kPatience));
  }
  absl::Status Send(std::string frames) override {
    return SendWithin(kPatience, std::move(frames));
  }
  absl::Status SendWithin(absl::Duration timeout, std::string frames) override {
    {
      absl::MutexLock lock(&mutex_);
      const auto may_pass = [this] { return !shut_ || closed_; };
      waiting_ = shut_;
      if (!mutex_.AwaitWithTimeout(absl::Condition(&may_pass), timeout)) {
        return absl::DeadlineExceededError("shut");
      }
      if (closed_) return absl::UnavailableError("closed");
    }
    return inner_->Send(std::move(frames));
  }
  void Close(const absl::Status& why) override {
    {
      absl::MutexLock lock(&mutex_);
      closed_ = true;
    }
    inner_->Close(why);
  }

 private:
  const std::unique_ptr<Link> inner_;
  absl::Mutex mutex_;
  bool shut_ = false;
  bool waiting_ = false;
  bool closed_ = false;
};

// A secondary that only sees the stream end may promote itself.
TEST_F(PrimarySessionTest, AGoodbyeAfterALieWaitsForWhatIsUnderWay) {
  class Reader final : public LinkListener {
   public:
    void OnMessage(absl::string_view frames) override {
      while (!frames.empty()) {
        absl::StatusOr<codec::Frame> frame = reader_.Next(&frames);
        ROMULUS_CHECK(frame.ok());
        kinds.push_back(frame->kind);
      }
    }
    void OnClosed(const absl::Status&) override {}
    std::vector<codec::FrameKind> kinds;

   private:
    codec::FrameReader reader_{codec::kDefaultMaxBodyBytes};
  } heard;
  LoopbackNetwork network;
  network.DeliverAtOnce();
  network.SetListener(kSecondary, &heard);
  std::unique_ptr<Link> peer = network.TakeLink(kSecondary);
  GatedLink* gate = nullptr;
  ASSERT_TRUE(primary_
                  .Open([&](LinkListener* listener) {
                    network.SetListener(kPrimary, listener);
                    auto link = std::make_unique<GatedLink>(network.TakeLink(kPrimary));
                    gate = link.get();
                    return absl::StatusOr<std::unique_ptr<Link>>(std::move(link));
                  })
                  .ok());
  codec::FrameWriter writer;
  std::string message;
  AppendAcceptance(writer, &message);
  ASSERT_TRUE(peer->Send(message).ok());
  ASSERT_TRUE(primary_.session->Handshake(kPatience).ok());
  gate->Gate(true);
  primary_.Scribble(3);
  primary_.CutEpoch();
  gate->AwaitWaiting();

  ASSERT_TRUE(peer->Send("garbage").ok());
  EXPECT_THAT(std::string(primary_.listener.AwaitBroken().message()),
              HasSubstr("broke the protocol"));
  std::thread says([this] {
    primary_.session->SendGoodbye(v1::Goodbye::REASON_PROTOCOL, "garbage", kPatience);
  });
  gate->Gate(false);
  says.join();
  primary_.listener.AwaitClosed().IgnoreError();
  primary_.session.reset();
  ASSERT_FALSE(heard.kinds.empty());
  EXPECT_EQ(heard.kinds.back(), codec::FrameKind::kGoodbye);
}

TEST_F(PrimarySessionTest, AReplyOfAnImpossibleTermIsNoReply) {
  LoopbackNetwork network;
  network.DeliverAtOnce();
  std::unique_ptr<Link> peer = network.TakeLink(kSecondary);
  ASSERT_TRUE(OpenOn(network).ok());
  v1::HelloReply refuse;
  refuse.set_protocol_version(codec::kNewestProtocol);
  refuse.set_reason(v1::REFUSAL_REASON_TERM);
  refuse.set_detail("fence yourself");
  refuse.set_term(UINT64_MAX);
  codec::FrameWriter writer;
  std::string message;
  writer.Append(codec::FrameKind::kHelloReply, Term(32), EpochId(), refuse, &message);
  ASSERT_TRUE(peer->Send(message).ok());
  EXPECT_THAT(std::string(primary_.session->Handshake(kPatience).status().message()),
              HasSubstr("hello_reply.term"));
  EXPECT_THAT(primary_.listener.refused, testing::ElementsAre(codec::FrameFault::kNone));
  primary_.session.reset();
}

TEST_F(PrimarySessionTest, AnAcceptanceInAnotherProtocolIsRefused) {
  LoopbackNetwork network;
  network.DeliverAtOnce();
  std::unique_ptr<Link> peer = network.TakeLink(kSecondary);
  ASSERT_TRUE(OpenOn(network).ok());
  codec::FrameWriter writer;
  v1::HelloReply accept;
  accept.set_accepted(true);
  accept.set_protocol_version(codec::kNewestProtocol + 1);
  std::string message;
  writer.Append(codec::FrameKind::kHelloReply, Term(32), EpochId(), accept, &message);
  peer->Send(message).IgnoreError();
  EXPECT_THAT(std::string(primary_.session->Handshake(kPatience).status().message()),
              HasSubstr("protocol"));
  primary_.session.reset();
}

// Any fault on the way: the secondary notices, what it committed stays as it was, both sides end.
class FaultTest : public PrimarySessionTest, public testing::WithParamInterface<int> {};

TEST_P(FaultTest, OneFaultIsNoticedAndNothingCommittedIsLost) {
  // One heartbeat, at once: a later one might be the message that the fault hits.
  primary_.options.sender.heartbeat_interval_ns = 3'600'000'000'000;
  primary_.Scribble(100);
  ASSERT_TRUE(Connect().ok());
  StartPump();
  ASSERT_TRUE(primary_.HandshakeAndSync().ok());
  primary_.Scribble(20);
  primary_.CutEpoch();
  ASSERT_TRUE(primary_.session->epochs().AwaitAllAcked(kPatience).ok());
  StopPump();

  // Three more epochs in flight as three messages; then one fault among them.
  for (uint64_t n = 2; n <= 4; ++n) {
    primary_.Scribble(5);
    primary_.CutEpoch();
    primary_.acks.AwaitSent(n);
  }
  const size_t in_flight = network_->InFlight(kSecondary);
  ASSERT_GE(in_flight, 3u);
  size_t bytes = 0;
  network_->Edit(kSecondary, in_flight - 1, [&](std::string& frames) { bytes = frames.size(); });
  uint64_t newest_possible = 4;
  switch (GetParam()) {
    case 0:
      ASSERT_TRUE(network_->Drop(kSecondary, in_flight - 2));
      newest_possible = 2;
      break;
    case 1:
      ASSERT_TRUE(network_->Duplicate(kSecondary, in_flight - 2));
      newest_possible = 3;
      break;
    case 2:
      ASSERT_TRUE(network_->Swap(kSecondary, in_flight - 2, in_flight - 1));
      newest_possible = 2;
      break;
    case 3:
      ASSERT_TRUE(network_->Truncate(kSecondary, in_flight - 1, bytes - 1));
      newest_possible = 3;
      break;
    default:
      ASSERT_TRUE(network_->FlipBit(kSecondary, in_flight - 1,
                                    static_cast<size_t>(GetParam()) * 7919 % (bytes * 8)));
      newest_possible = 3;
  }
  StartPump();
  secondary_.AwaitClosed();
  primary_.listener.AwaitClosed().IgnoreError();
  StopPump();
  const replica::ReplicaStatus status = secondary_.store.status();
  EXPECT_EQ(status.newest.epoch, EpochId(newest_possible));
  EXPECT_LE(primary_.session->epochs().acked(), status.newest.epoch);
}

INSTANTIATE_TEST_SUITE_P(Faults, FaultTest, testing::Range(0, 24));

}  // namespace
}  // namespace romulus::wire

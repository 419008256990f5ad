// The second path over real sockets: two ends that hear each other, and strangers on the port of
// the one that listens, which are refused and counted while the other node stays heard.
#include "daemon/second_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/clock.h"
#include "daemon/asio_executor.h"
#include "wire/grpc_acceptor.h"
#include "wire/grpc_link.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;
using wire::BeatFault;

constexpr char kUuid[] = "8f3c2f4e-7f0b-4d52-9a57-0d5f3a9d4c11";
constexpr absl::Duration kPatience = absl::Seconds(120);

int FreePort() {
  auto acceptor = wire::GrpcAcceptor::Listen("127.0.0.1:0", {});
  ROMULUS_CHECK(acceptor.ok());
  return (*acceptor)->port();
}

// One node's end, with a control loop of its own.
class End final : public SecondPathListener {
 public:
  End(const std::string& node, const std::vector<int>& ports) {
    v1::Config& config = config_.config;
    config.set_uuid(kUuid);
    config.set_node_name(node);
    config.mutable_limits()->set_reconnect_min_ms(10);
    config.mutable_limits()->set_reconnect_max_ms(50);
    for (size_t i = 0; i < 2; ++i) {
      v1::Node& one = *config.add_nodes();
      one.set_name(i == 0 ? "alpha" : "beta");
      one.set_heartbeat_address(absl::StrCat("127.0.0.1:", ports[i]));
    }
    On([this] {
      auto path = SecondPath::Open(&config_, &control_, &clock_, this);
      ROMULUS_CHECK(path.ok());
      path_ = *std::move(path);
    });
    Beat();
  }
  ~End() override {
    On([this] {
      path_->Shutdown();
      ended_ = true;
    });
    control_.Stop();
  }

  void OnBeat(const v1::Beat& beat, uint64_t) override {
    ++beats_;
    incarnation_ = beat.incarnation();
  }
  void OnSecondPathClosed(const absl::Status&) override { ++closed_; }
  void OnBeatRefused(BeatFault, const std::string&, const absl::Status&) override {}

  // Runs on the control loop, and waits for it.
  void On(const std::function<void()>& what) {
    absl::Notification done;
    control_.Post([&] {
      what();
      done.Notify();
    });
    done.WaitForNotification();
  }
  uint64_t Ask(const std::function<uint64_t()>& what) {
    uint64_t answer = 0;
    On([&] { answer = what(); });
    return answer;
  }
  uint64_t beats() {
    return Ask([this] { return beats_; });
  }
  uint64_t closed() {
    return Ask([this] { return closed_; });
  }
  uint64_t incarnation() {
    return Ask([this] { return incarnation_; });
  }
  uint64_t rtt_ns() {
    return Ask([this] { return path_->rtt_ns(); });
  }
  uint64_t refused(BeatFault fault) { return path_->refused()[static_cast<size_t>(fault)]; }
  bool Await(const std::function<bool()>& what) {
    for (const absl::Time until = absl::Now() + kPatience; absl::Now() < until;) {
      if (what()) return true;
      absl::SleepFor(absl::Milliseconds(5));  // between two questions
    }
    return false;
  }
  bool AwaitMoreBeats() {
    const uint64_t before = beats();
    return Await([&] { return beats() > before + 2; });
  }
  void Restart() {
    On([this] { path_->Restart(absl::CancelledError("restart")); });
  }

 private:
  void Beat() {
    control_.Post([this] {
      if (ended_) return;
      v1::Beat beat;
      beat.set_mode(v1::BEAT_MODE_STANDBY);
      path_->Send(beat);
      control_.PostAfter(20'000'000, [this] { Beat(); });
    });
  }

  LoadedConfig config_;
  base::MonotonicClock clock_;
  std::unique_ptr<SecondPath> path_;
  uint64_t beats_ = 0, closed_ = 0, incarnation_ = 0;
  bool ended_ = false;
  AsioExecutor control_{/*own_thread=*/true};
};

// Connects to the listening end and says what it is told to.
class Stranger final : public wire::LinkListener {
 public:
  explicit Stranger(int port) {
    wire::GrpcLinkOptions options;
    options.service = wire::LinkService::kHeartbeats;
    auto link = wire::ConnectGrpcLink(absl::StrCat("127.0.0.1:", port), options, this);
    ROMULUS_CHECK(link.ok());
    link_ = *std::move(link);
  }
  void OnMessage(absl::string_view) override { heard = true; }
  void OnClosed(const absl::Status&) override { closed_.Notify(); }
  void Say(const std::string& bytes) { link_->Send(bytes).IgnoreError(); }
  bool AwaitClosed() { return closed_.WaitForNotificationWithTimeout(kPatience); }

  std::atomic<bool> heard{false};

 private:
  absl::Notification closed_;
  std::unique_ptr<wire::Link> link_;
};

v1::Beat BeatOf(const std::string& node) {
  v1::Beat beat;
  beat.set_vm_uuid(kUuid);
  beat.set_node_name(node);
  beat.set_incarnation(99);
  beat.set_sequence(1);
  beat.set_mode(v1::BEAT_MODE_PROTECTED);
  return beat;
}

class SecondPathTest : public testing::Test {
 protected:
  const std::vector<int> ports_{FreePort(), FreePort()};
  End beta_{"beta", ports_};
};

TEST_F(SecondPathTest, BothHearEachOtherAndAgainAfterARestart) {
  End alpha("alpha", ports_);
  ASSERT_TRUE(alpha.AwaitMoreBeats());
  ASSERT_TRUE(beta_.AwaitMoreBeats());
  EXPECT_NE(alpha.incarnation(), beta_.incarnation());
  EXPECT_TRUE(alpha.Await([&] { return alpha.rtt_ns() > 0 && beta_.rtt_ns() > 0; }));
  for (End* end : {&alpha, &beta_}) {
    const uint64_t closed = alpha.closed();
    end->Restart();
    ASSERT_TRUE(alpha.Await([&] { return alpha.closed() > closed; }));
    ASSERT_TRUE(alpha.AwaitMoreBeats());
    ASSERT_TRUE(beta_.AwaitMoreBeats());
  }
}

TEST_F(SecondPathTest, ANodeThatComesAgainIsHeardInItsNewLife) {
  uint64_t first = 0;
  {
    End alpha("alpha", ports_);
    ASSERT_TRUE(beta_.AwaitMoreBeats());
    first = beta_.incarnation();
  }
  ASSERT_TRUE(beta_.Await([&] { return beta_.closed() == 1; }));
  End alpha("alpha", ports_);
  EXPECT_TRUE(beta_.Await([&] { return beta_.incarnation() != first; }));
}

TEST_F(SecondPathTest, P7_StrangersAreRefusedCountedAndToldNothing) {
  End alpha("alpha", ports_);
  ASSERT_TRUE(beta_.AwaitMoreBeats());
  v1::Beat other_vm = BeatOf("alpha");
  other_vm.set_vm_uuid("00000000-0000-0000-0000-000000000000");
  v1::Beat huge = BeatOf("alpha");
  huge.set_node_name(std::string(10'000, 'x'));
  const std::pair<BeatFault, std::string> lies[] = {
      {BeatFault::kWrongVm, other_vm.SerializeAsString()},
      {BeatFault::kSameName, BeatOf("beta").SerializeAsString()},
      {BeatFault::kUnknownNode, BeatOf("gamma").SerializeAsString()},
      {BeatFault::kMalformed, "\xff\xff\xff\xff"},
      {BeatFault::kOversized, huge.SerializeAsString()}};
  for (const auto& [fault, bytes] : lies) {
    Stranger stranger(ports_[1]);
    stranger.Say(bytes);
    EXPECT_TRUE(stranger.AwaitClosed());
    EXPECT_FALSE(stranger.heard);
    EXPECT_EQ(beta_.refused(fault), 1u) << wire::kBeatFaultNames[static_cast<size_t>(fault)];
  }
  // Beyond what the transport takes.
  Stranger enormous(ports_[1]);
  enormous.Say(std::string(1 << 20, 'x'));
  EXPECT_TRUE(enormous.AwaitClosed());
  // The other node has been heard all the while.
  EXPECT_EQ(beta_.closed(), 0u);
  EXPECT_TRUE(beta_.AwaitMoreBeats());
}

TEST_F(SecondPathTest, P6_ACrowdDoesNotKeepTheOtherNodeOut) {
  std::vector<std::unique_ptr<Stranger>> silent;
  for (int i = 0; i < 8; ++i) silent.push_back(std::make_unique<Stranger>(ports_[1]));
  Stranger late(ports_[1]);
  EXPECT_TRUE(late.AwaitClosed());
  EXPECT_GE(beta_.refused(BeatFault::kCrowded), 1u);
  // They have to prove what they are, or go.
  End alpha("alpha", ports_);
  EXPECT_TRUE(beta_.AwaitMoreBeats());
}

TEST_F(SecondPathTest, P6_AFloodEnds) {
  // Whoever can speak as the node may take its place, but not say more than a node does.
  Stranger flood(ports_[1]);
  v1::Beat beat = BeatOf("alpha");
  for (uint64_t i = 1; i <= 20'000; ++i) {
    beat.set_sequence(i);
    flood.Say(beat.SerializeAsString());
  }
  EXPECT_TRUE(flood.AwaitClosed());
  EXPECT_EQ(beta_.refused(BeatFault::kFlood), 1u);
  End alpha("alpha", ports_);
  EXPECT_TRUE(beta_.AwaitMoreBeats());
}

}  // namespace
}  // namespace romulus::daemon

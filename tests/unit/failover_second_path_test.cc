// The second path: the detector that watches it, and what the role machine makes of a peer that is
// silent on one path and heard on the other.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>
#include <vector>

#include "failover/second_path_detector.h"
#include "unit/failover_role_driver.h"

namespace romulus::failover {
namespace {

using testing::Contains;
using testing::Not;

constexpr uint64_t kMs = 1'000'000;
constexpr FailureDetectorOptions kTimes{
    .interval_ns = 50 * kMs, .threshold_ns = 500 * kMs, .tick_ns = 10 * kMs, .stall_ns = 40 * kMs};

class Detector : public testing::Test {
 protected:
  // Lets `ms` go by in ticks, with a beat in every interval if `beats`.
  SecondPath Pass(uint64_t ms, bool beats) {
    for (uint64_t i = 0; i < ms / 10; ++i) {
      now_ns_ += 10 * kMs;
      if (beats && now_ns_ % (50 * kMs) == 0) detector_.OnBeat(now_ns_, facts_);
      detector_.Tick(now_ns_);
    }
    return detector_.state();
  }
  uint64_t now_ns_ = 1'000 * kMs;
  BeatFacts facts_{.incarnation = 1};
  SecondPathDetector detector_{kTimes, /*stall_ns=*/2'000 * kMs};
};

TEST_F(Detector, WhoWasNeverHeardIsNotSilent) {
  EXPECT_EQ(Pass(10'000, false), SecondPath::kNever);
  detector_.OnClosed();
  EXPECT_EQ(Pass(100, false), SecondPath::kNever);
}

TEST_F(Detector, SilenceBeyondTheThresholdAndBack) {
  EXPECT_EQ(Pass(1'000, true), SecondPath::kHeard);
  EXPECT_EQ(Pass(480, false), SecondPath::kHeard);
  EXPECT_EQ(Pass(100, false), SecondPath::kSilent);
  EXPECT_EQ(Pass(100, true), SecondPath::kHeard);
}

TEST_F(Detector, AConnectionThatEndsIsSilenceAtOnce) {
  Pass(1'000, true);
  detector_.OnClosed();
  EXPECT_EQ(Pass(10, false), SecondPath::kSilent);
}

TEST_F(Detector, AStallOfOurOwnIsNotThePeers) {
  Pass(1'000, true);
  now_ns_ += 60'000 * kMs;
  EXPECT_EQ(detector_.Tick(now_ns_), SecondPath::kHeard);
  facts_.must_progress = true;
  Pass(100, true);
  now_ns_ += 60'000 * kMs;
  detector_.OnBeat(now_ns_, facts_);
  EXPECT_EQ(detector_.Tick(now_ns_), SecondPath::kHeard);
}

TEST_F(Detector, WorkThatStandsStillIsAStall) {
  facts_.must_progress = true;
  EXPECT_EQ(Pass(1'900, true), SecondPath::kHeard);
  ++facts_.progress;
  EXPECT_EQ(Pass(1'900, true), SecondPath::kHeard);
  EXPECT_EQ(Pass(300, true), SecondPath::kStalled);
  // Silence is worse than a stall, and work ends both.
  EXPECT_EQ(Pass(600, false), SecondPath::kSilent);
  ++facts_.progress;
  EXPECT_EQ(Pass(100, true), SecondPath::kHeard);
}

TEST_F(Detector, WhoNeedNotWorkDoesNotStall) {
  EXPECT_EQ(Pass(10'000, true), SecondPath::kHeard);
  facts_.must_progress = true;
  Pass(1'900, true);
  ++facts_.incarnation;  // another process, which begins to count anew
  EXPECT_EQ(Pass(1'900, true), SecondPath::kHeard);
}

// --- one node

TEST(SecondPathRoles, AClosedStreamPromotesNobodyWhoHearsThePrimary) {
  Driver node(Automatic());
  node.Holding();
  node.On(K::kSecondHeard);
  EXPECT_EQ(node.state().mode, Mode::kProtected);
  EXPECT_THAT(node.On(K::kLinkClosed), Not(Contains(A::kPromote)));
  EXPECT_EQ(node.state().mode, Mode::kDegraded);
  EXPECT_THAT(node.state().reason, HasSubstr("heard on the second path"));
  // Nor does its silence on the stream that is gone.
  EXPECT_THAT(node.On(K::kPeerSilent), Not(Contains(A::kPromote)));
  node.Failover(/*force=*/false);
  EXPECT_THAT(node.action(A::kRefuse).status.message(), HasSubstr("heard on the second path"));
  EXPECT_THAT(node.On(K::kSecondSilent), Contains(A::kPromote));
  EXPECT_EQ(node.state().mode, Mode::kPromoting);
}

TEST(SecondPathRoles, ASilentStreamIsProtectionAgainWhenItIsHeard) {
  Driver node(Automatic());
  node.Holding();
  node.On(K::kSecondHeard);
  node.On(K::kPeerSilent);
  EXPECT_EQ(node.state().mode, Mode::kDegraded);
  node.On(K::kPeerHeard);
  EXPECT_EQ(node.state().mode, Mode::kProtected);
  // What held it back is over.
  EXPECT_THAT(node.On(K::kSecondSilent), IsEmpty());
  EXPECT_EQ(node.state().mode, Mode::kProtected);
}

TEST(SecondPathRoles, AnOperatorMayForceIt) {
  Driver node(Automatic());
  node.Holding();
  node.On(K::kSecondHeard);
  node.On(K::kLinkClosed);
  EXPECT_THAT(node.Failover(/*force=*/true), Contains(A::kPromote));
}

TEST(SecondPathRoles, ThePrimarysStallIsALossThoughItIsHeard) {
  Driver node(Automatic());
  node.Holding();
  node.On(K::kSecondHeard);
  node.On(K::kSecondSilent);  // as a stall is told: both, in this order
  EXPECT_THAT(node.On(K::kPeerSilent), Contains(A::kPromote));
}

// Every order of what can be heard and lost on the two paths: promoted if and only if the stream
// was lost and the second path is not heard.
TEST(SecondPathRoles, ASecondaryPromotesOnlyWhenBothPathsAreLost) {
  const std::vector<EventKind> events = {K::kLinkClosed, K::kPeerSilent, K::kPeerHeard,
                                         K::kSecondHeard, K::kSecondSilent};
  constexpr int kLength = 6;
  int orders = 1;
  for (int i = 0; i < kLength; ++i) orders *= static_cast<int>(events.size());
  int promoted = 0;
  for (int order = 0; order < orders; ++order) {
    Driver node(Automatic());
    node.Holding();
    bool closed = false, silent = false, second = false;
    std::string said;
    for (int i = 0, rest = order; i < kLength; ++i) {
      const EventKind kind = events[static_cast<size_t>(rest) % events.size()];
      rest /= static_cast<int>(events.size());
      absl::StrAppend(&said, " ", EventName(kind));
      const bool now_promotes = [&] {
        for (ActionKind action : node.On(kind)) {
          if (action == A::kPromote) return true;
        }
        return false;
      }();
      if (kind == K::kLinkClosed) closed = true;
      if (kind == K::kPeerSilent) silent = true;
      if (kind == K::kPeerHeard && !closed) silent = false;
      if (kind == K::kSecondHeard) second = true;
      if (kind == K::kSecondSilent) second = false;
      const bool lost = (closed || silent) && !second;
      ASSERT_EQ(now_promotes, lost) << said;
      if (lost) {
        ++promoted;
        break;
      }
    }
  }
  EXPECT_GT(promoted, orders / 2);
}

TEST(SecondPathRoles, APrimaryAsksForTheReplicaAndGoesSoloWhenItIsGivenUp) {
  Driver node(Automatic());
  node.Protected();
  const Term term = node.state().term;
  node.On(K::kSecondHeard);
  EXPECT_THAT(node.On(K::kLinkClosed), ElementsAre(A::kHoldOutput, A::kStopEpochs, A::kConnect));
  EXPECT_TRUE(node.state().releasing);
  EXPECT_FALSE(node.state().output_open);
  EXPECT_THAT(node.On(K::kReleased, Term(term.value() - 16)), IsEmpty());  // of an earlier loss
  EXPECT_THAT(node.On(K::kReleased, term), ElementsAre(A::kStopEpochs, A::kOpenOutput));
  EXPECT_EQ(node.state().mode, Mode::kSolo);
  EXPECT_GT(node.state().term, term);
  EXPECT_FALSE(node.state().releasing);
}

TEST(SecondPathRoles, APrimaryThatHearsNobodyHoldsAsEver) {
  Driver node(Automatic());
  node.Protected();
  node.On(K::kLinkClosed);
  EXPECT_EQ(node.state().mode, Mode::kDegraded);
  EXPECT_FALSE(node.state().releasing);
  EXPECT_THAT(node.On(K::kReleased, node.state().term), IsEmpty());
  // The second path comes later, goes again, and comes.
  node.On(K::kSecondHeard);
  EXPECT_TRUE(node.state().releasing);
  node.On(K::kSecondSilent);
  EXPECT_FALSE(node.state().releasing);
  EXPECT_THAT(node.state().reason, HasSubstr("both paths"));
  EXPECT_THAT(node.On(K::kReleased, node.state().term), IsEmpty());
  node.On(K::kSecondHeard);
  node.On(K::kReleased, node.state().term);
  EXPECT_EQ(node.state().mode, Mode::kSolo);
}

TEST(SecondPathRoles, ANewStreamEndsTheAsking) {
  Driver node(Automatic());
  node.Protected();
  node.On(K::kSecondHeard);
  node.On(K::kLinkClosed);
  const Term lost = node.state().term;
  node.On(K::kPeerConnected, Term(lost.value() + 16));
  EXPECT_FALSE(node.state().releasing);
  EXPECT_THAT(node.On(K::kReleased, lost), IsEmpty());
  EXPECT_EQ(node.state().mode, Mode::kSyncing);
  EXPECT_FALSE(node.state().output_open);
}

TEST(SecondPathRoles, AStartFromProtectedDisksAsksNobodyThere) {
  Driver node(Automatic());
  node.Held({.shared = Term(32)});
  node.On(K::kSecondHeard);
  EXPECT_FALSE(node.state().releasing);
  EXPECT_THAT(node.On(K::kReleased, node.state().term), IsEmpty());
}

TEST(SecondPathRoles, AFenceCommandIsForThoseWhoAreSilent) {
  Policy policy = Automatic();
  policy.arbiter = true;
  Driver node(policy);
  node.Protected();
  node.On(K::kSecondHeard);
  EXPECT_THAT(node.On(K::kLinkClosed), Not(Contains(A::kClaim)));
  EXPECT_TRUE(node.state().releasing);
  EXPECT_THAT(node.On(K::kSecondSilent), Contains(A::kClaim));
  EXPECT_FALSE(node.state().releasing);
}

TEST(SecondPathRoles, ARecordIsAskedByThePrimaryAlone) {
  Policy policy = Automatic();
  policy.arbiter = policy.arbiter_keeps_record = true;
  Driver primary(policy);
  primary.Primary();
  primary.On(K::kArbiterYes, primary.state().term);
  primary.On(K::kPeerConnected, Term(primary.state().term.value() + 16));
  primary.On(K::kArbiterYes, primary.state().term);
  primary.On(K::kSyncDone, primary.state().term);
  primary.On(K::kEpochCommitted, primary.state().term, EpochId(1));
  primary.On(K::kSecondHeard);
  EXPECT_THAT(primary.On(K::kLinkClosed), Contains(A::kClaim));
  EXPECT_FALSE(primary.state().releasing);
  Driver secondary(policy);
  secondary.Holding();
  secondary.On(K::kSecondHeard);
  EXPECT_THAT(secondary.On(K::kLinkClosed), Not(Contains(A::kClaim)));
  EXPECT_THAT(secondary.On(K::kSecondSilent), Contains(A::kClaim));
}

TEST(SecondPathRoles, ASecondaryGivesUpWhatWasMeantAndNothingElse) {
  Driver node(Automatic());
  node.Holding(Term(32));
  node.On(K::kSecondHeard);
  EXPECT_THAT(node.On(K::kReleaseAsked, Term(16)), IsEmpty());
  EXPECT_EQ(node.state().released_for, Term());
  // Its own end of the stream still stands.
  EXPECT_THAT(node.On(K::kReleaseAsked, Term(32)), ElementsAre(A::kCloseLink, A::kDropReplica));
  EXPECT_EQ(node.state().mode, Mode::kStandby);
  EXPECT_EQ(node.state().released_for, Term(32));
  EXPECT_THAT(node.On(K::kSecondSilent), IsEmpty());
  EXPECT_EQ(node.state().mode, Mode::kStandby);
  node.On(K::kPeerConnected, Term(48));
  EXPECT_EQ(node.state().released_for, Term());
  // Who holds nothing may say so of any term.
  Driver other(Automatic());
  other.Secondary();
  EXPECT_THAT(other.On(K::kReleaseAsked, Term(32)), IsEmpty());
  EXPECT_EQ(other.state().released_for, Term(32));
}

TEST(SecondPathRoles, APromotionIsNotGivenUp) {
  Driver node(Automatic());
  node.Holding(Term(32));
  node.On(K::kLinkClosed);
  ASSERT_EQ(node.state().mode, Mode::kPromoting);
  EXPECT_THAT(node.On(K::kReleaseAsked, Term(32)), IsEmpty());
  node.On(K::kPromotionDone, Term(32));
  EXPECT_THAT(node.On(K::kReleaseAsked, Term(32)), IsEmpty());
  EXPECT_EQ(node.state().released_for, Term());
}

// --- two nodes

// Streams come and go, each end hears of it when it does; the second path is heard or not as it
// pleases, and may deliver what was ever said on it, at any time and again. P1: a primary lets
// nothing out beside a secondary that is being promoted.
class World {
 public:
  World(uint64_t seed, bool fence) : random_(seed) {
    for (uint64_t i = 0; i < 2; ++i) {
      Policy policy = Automatic();
      policy.node_index = i;
      policies_[i] = policy;
      // A command that never comes to an end: only the other's word opens the output.
      policies_[i].arbiter = fence && i == 0;
    }
    Tell(0, K::kStartPrimary);
    Tell(1, K::kStartSecondary);
  }
  std::string Run(int steps) {
    for (int i = 0; i < steps; ++i) {
      Step();
      if (Promoted() && states_[0].output_open) {
        return absl::StrCat("step ", i, ": both are heard: ", history_);
      }
    }
    return "";
  }
  bool Promoted() const {
    return states_[1].mode == Mode::kPromoting || states_[1].role == Role::kPrimary;
  }
  int releases() const { return releases_; }

 private:
  void Tell(size_t node, EventKind kind, Term term = Term(), uint64_t epoch = 0) {
    Event event{};
    event.kind = kind;
    event.term = term;
    event.epoch = EpochId(epoch);
    absl::StrAppend(&history_, " ", node, ":", EventName(kind), "(", term.value(), ")");
    const bool was_open = states_[0].output_open;
    states_[node] = Next(policies_[node], states_[node], event).state;
    if (kind == K::kReleased && !was_open && states_[0].output_open) ++releases_;
    if (states_[0].releasing) asked_.insert(states_[0].term);
    if (states_[1].released_for != Term()) released_.insert(states_[1].released_for);
  }
  size_t Pick(size_t below) { return random_() % below; }
  Term Any(const std::set<Term>& of) {
    auto it = of.begin();
    std::advance(it, static_cast<long>(Pick(of.size())));
    return *it;
  }
  void Step() {
    const RoleState& primary = states_[0];
    const RoleState& secondary = states_[1];
    switch (Pick(10)) {
      case 0:  // a new stream, if nobody is in one
        if (primary.peer_connected || secondary.peer_connected || Promoted()) return;
        if (primary.mode != Mode::kSolo && primary.mode != Mode::kDegraded) return;
        stream_ = NextTerm(policies_[0], std::max(primary.newest_term, secondary.newest_term));
        Tell(1, K::kPeerConnected, stream_);
        Tell(0, K::kPeerConnected, stream_);
        return;
      case 1:
        if (primary.peer_connected && secondary.peer_connected) {
          Tell(0, K::kSyncDone, primary.term);
        }
        return;
      case 2:  // an epoch goes over, ...
        if (secondary.peer_connected && primary.sync_done) {
          Tell(1, K::kEpochCommitted, primary.term, 1);
        }
        return;
      case 3:  // ... and its ack back
        if (secondary.committed && primary.peer_connected && secondary.term == primary.term) {
          Tell(0, K::kEpochCommitted, primary.term, 1);
        }
        return;
      case 4:
        return Tell(Pick(2), Pick(2) == 0 ? K::kLinkClosed : K::kPeerSilent);
      case 5:
        return Tell(Pick(2), K::kPeerHeard);
      case 6:
      case 7:
        return Tell(Pick(2), Pick(3) == 0 ? K::kSecondSilent : K::kSecondHeard);
      case 8:
        if (!asked_.empty()) Tell(1, K::kReleaseAsked, Any(asked_));
        return;
      case 9:
        if (!released_.empty()) Tell(0, K::kReleased, Any(released_));
        return;
    }
  }

  std::mt19937_64 random_;
  Policy policies_[2];
  RoleState states_[2];
  Term stream_;
  std::set<Term> asked_, released_;
  int releases_ = 0;
  std::string history_;
};

TEST(SecondPathRoles, P1_NobodyIsHeardBesideAPromotedSecondary) {
  int releases = 0, promotions = 0;
  for (uint64_t seed = 0; seed < 4'000; ++seed) {
    World world(seed, /*fence=*/seed % 2 == 1);
    const std::string violation = world.Run(120);
    ASSERT_EQ(violation, "") << "seed " << seed;
    releases += world.releases();
    promotions += world.Promoted() ? 1 : 0;
  }
  EXPECT_GT(releases, 400);
  EXPECT_GT(promotions, 400);
}

}  // namespace
}  // namespace romulus::failover

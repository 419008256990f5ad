// What this node says on the second path, and what it makes of what it hears there.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "daemon/node.h"
#include "wire/handshake.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;
using failover::Event;
using failover::EventKind;
using PathLife = failover::SecondPath;

constexpr uint64_t kMillisecond = 1'000'000;  // in nanoseconds

v1::BeatMode BeatModeOf(failover::Mode mode) {
  switch (mode) {
    case failover::Mode::kSolo:
      return v1::BEAT_MODE_SOLO;
    case failover::Mode::kSyncing:
      return v1::BEAT_MODE_SYNCING;
    case failover::Mode::kProtected:
      return v1::BEAT_MODE_PROTECTED;
    case failover::Mode::kDegraded:
      return v1::BEAT_MODE_DEGRADED;
    case failover::Mode::kStandby:
      return v1::BEAT_MODE_STANDBY;
    case failover::Mode::kPromoting:
      return v1::BEAT_MODE_PROMOTING;
    case failover::Mode::kFenced:
      return v1::BEAT_MODE_FENCED;
    case failover::Mode::kFinished:
      return v1::BEAT_MODE_FINISHED;
  }
  return v1::BEAT_MODE_UNSPECIFIED;
}

Event WithTerm(EventKind kind, Term term) {
  Event event = EventOf(kind);
  event.term = term;
  return event;
}

void Fill(v1::PathStatus& path, const failover::HeartbeatStats& stats) {
  path.set_beats(stats.count);
  path.set_mean_gap_ns(stats.mean_gap_ns);
  path.set_jitter_ns(stats.jitter_ns);
  path.set_max_gap_ns(stats.max_gap_ns);
}

}  // namespace

absl::Status Node::OpenSecondPath() {
  if (!options_.config.self().has_heartbeat_address()) return absl::OkStatus();
  ROMULUS_ASSIGN_OR_RETURN(
      second_path_, SecondPath::Open(&options_.config, &control_, &clock_, this, Security()));
  return absl::OkStatus();
}

// --- what is said

void Node::SendBeat() {
  if (second_path_ == nullptr) return;
  beat_sent_ns_ = clock_.NowNs();
  second_path_->Send(BuildBeat());
}

v1::Beat Node::BuildBeat() const {
  const failover::RoleState& state = role_.state();
  const HelloFacts facts = Facts();
  const bool primary = state.role == failover::Role::kPrimary;
  v1::Beat beat;
  beat.set_is_primary(primary);
  beat.set_mode(BeatModeOf(state.mode));
  beat.set_term(state.term.value());
  beat.set_epoch(state.committed_epoch.value());
  beat.set_holds(facts.holds);
  *beat.mutable_lineage() = wire::LineageToProto(facts.lineage);
  if (primary && state.mode == failover::Mode::kProtected && !state.paused &&
      stop_ != Stop::kEnds && host_ != nullptr && host_->assembled()) {
    beat.set_must_progress(true);
    beat.set_progress(host_->loop().Progress());
  }
  if (state.releasing) beat.set_asks_release_term(state.term.value());
  if (!primary && facts.holds == v1::HOLDS_NOTHING) {
    beat.set_released_term(state.released_for.value());
  }
  return beat;
}

// --- what is heard

void Node::WatchSecondPath(uint64_t now_ns) {
  if (second_path_ == nullptr) return;
  const uint64_t interval_ns = config_.failover().heartbeat_interval_ms() * kMillisecond;
  if (now_ns - beat_sent_ns_ >= interval_ns) SendBeat();
  TellSecondPath(second_detector_.Tick(now_ns));
}

uint64_t Node::UntilNextBeatNs() const {
  if (second_path_ == nullptr) return ~uint64_t{0};
  const uint64_t interval_ns = config_.failover().heartbeat_interval_ms() * kMillisecond;
  const uint64_t since_ns = clock_.NowNs() - beat_sent_ns_;
  return interval_ns - std::min(interval_ns, since_ns);
}

void Node::TellSecondPath(PathLife now) {
  const PathLife was = std::exchange(second_told_, now);
  if (now == was || stop_ == Stop::kEnds) return;
  const bool on_stream = detector_.life() != failover::PeerLife::kLost;
  const bool was_stalled = was == PathLife::kStalled;
  switch (now) {
    case PathLife::kNever:
      return;
    case PathLife::kHeard:
      log_.Info("second_path_heard", {{"stalled_before", was_stalled}});
      Handle(EventOf(EventKind::kSecondHeard)).IgnoreError();
      break;
    case PathLife::kSilent:
      log_.Warning("second_path_silent", {{"silence_ns", second_detector_.silence_ns()},
                                          {"why", second_path_->detail()}});
      second_path_->Restart(absl::DeadlineExceededError("the other node is silent"));
      Handle(EventOf(EventKind::kSecondSilent, second_path_->detail())).IgnoreError();
      break;
    case PathLife::kStalled: {
      const std::string what = "its checkpoints stand still";
      log_.Error("peer_stalled", {{"what", what}});
      Handle(EventOf(EventKind::kSecondSilent, what)).IgnoreError();
      Handle(EventOf(EventKind::kPeerSilent, what)).IgnoreError();
      break;
    }
  }
  // What was only known from there is not known any more.
  if (was_stalled && on_stream) Handle(EventOf(EventKind::kPeerHeard)).IgnoreError();
  server_->NotifyChanged();
}

void Node::OnBeat(const v1::Beat& beat, uint64_t heard_ns) {
  second_detector_.OnBeat(heard_ns, {.incarnation = beat.incarnation(),
                                     .must_progress = beat.must_progress(),
                                     .progress = beat.progress()});
  TellSecondPath(second_detector_.state());
  if (stop_ == Stop::kEnds) return;
  const failover::RoleState& state = role_.state();
  const Term asked(beat.asks_release_term());
  if (asked != Term() && state.role == failover::Role::kSecondary && state.released_for != asked) {
    Handle(WithTerm(EventKind::kReleaseAsked, asked)).IgnoreError();
  }
  const Term released(beat.released_term());
  if (released != Term() && state.releasing && beat.holds() == v1::HOLDS_NOTHING) {
    Handle(WithTerm(EventKind::kReleased, released)).IgnoreError();
  }
  MeetOnSecondPath(beat);
}

// As in a Hello: the guest of one of the two is over, if the other was promoted over it.
void Node::MeetOnSecondPath(const v1::Beat& beat) {
  const failover::RoleState& state = role_.state();
  if (!beat.is_primary() || beat.holds() != v1::HOLDS_GUEST || !failover::RunsGuest(state)) return;
  const std::pair<uint64_t, uint64_t> who{beat.incarnation(), beat.term()};
  if (who == met_) return;
  met_ = who;
  log_.Error("two_primaries", {{"peer_node", beat.node_name()}, {"term", beat.term()}});
  Event event = WithTerm(EventKind::kOtherPrimary, Term(beat.term()));
  event.detail = absl::StrCat(beat.node_name(), " runs the guest in term ", beat.term());
  event.lineage = wire::LineageFrom(beat.lineage());
  Handle(std::move(event)).IgnoreError();
}

void Node::OnSecondPathClosed(const absl::Status& why) {
  log_.Info("second_path_closed", {{"why", why}});
  second_detector_.OnClosed();
  TellSecondPath(second_detector_.state());
}

void Node::OnBeatRefused(wire::BeatFault fault, const std::string& from, const absl::Status& why) {
  log_.Warning(
      "beat_refused",
      {{"kind", wire::kBeatFaultNames[static_cast<size_t>(fault)]}, {"from", from}, {"why", why}});
}

// --- what is told of it

bool Node::SecondPathFailed() const {
  return second_path_ != nullptr && role_.state().peer_connected &&
         (second_told_ == PathLife::kSilent || second_told_ == PathLife::kNever);
}

void Node::FillPaths(v1::GetStatusResponse& status) const {
  if (options_.config.peer() == nullptr) return;
  v1::PathStatus& stream = *status.add_paths();
  stream.set_path("stream");
  stream.set_heard(role_.state().peer_connected && detector_.life() != failover::PeerLife::kLost);
  stream.set_heard_ms_ago(status.peer().heard_ms_ago());
  Fill(stream, detector_.stats());
  if (second_path_ == nullptr) return;
  v1::PathStatus& second = *status.add_paths();
  second.set_path("second");
  second.set_heard(second_told_ == PathLife::kHeard || second_told_ == PathLife::kStalled);
  second.set_heard_ms_ago(second_detector_.silence_ns() / kMillisecond);
  Fill(second, second_detector_.stats());
  second.set_rtt_ns(second_path_->rtt_ns());
  second.set_detail(second_path_->detail());
  const wire::BeatFaultCounters& refused = second_path_->refused();
  for (size_t i = 0; i < refused.size(); ++i) {
    if (refused[i] != 0) {
      (*second.mutable_refused())[std::string(wire::kBeatFaultNames[i])] = refused[i];
    }
  }
}

void Node::UpdatePathMetrics() {
  const auto sample = [](bool heard, uint64_t silence_ns, const failover::HeartbeatStats& stats,
                         uint64_t rtt_ns) {
    return metrics::PathSample{.heard = heard,
                               .silence_ns = silence_ns,
                               .mean_gap_ns = stats.mean_gap_ns,
                               .jitter_ns = stats.jitter_ns,
                               .rtt_ns = rtt_ns};
  };
  const bool on_stream =
      role_.state().peer_connected && detector_.life() != failover::PeerLife::kLost;
  metrics_.SetPath(0, sample(on_stream, detector_.silence_ns(), detector_.stats(), 0));
  if (second_path_ == nullptr) return;
  const bool on_second = second_told_ == PathLife::kHeard || second_told_ == PathLife::kStalled;
  metrics_.SetPath(1, sample(on_second, second_detector_.silence_ns(), second_detector_.stats(),
                             second_path_->rtt_ns()));
  const wire::BeatFaultCounters& refused = second_path_->refused();
  for (size_t i = 0; i < refused.size(); ++i) metrics_.SetBeatsRefused(i, refused[i]);
}

}  // namespace romulus::daemon

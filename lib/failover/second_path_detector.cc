#include "failover/second_path_detector.h"

#include <algorithm>

namespace romulus::failover {
namespace {

// Between two beats nobody knows what the peer did, and we may have been stopped ourselves.
constexpr uint64_t kBelievedIntervals = 4;

}  // namespace

void SecondPathDetector::OnBeat(uint64_t now_ns, const BeatFacts& facts) {
  const bool was_heard = state_ == SecondPath::kHeard || state_ == SecondPath::kStalled;
  if (!was_heard) silence_.Reset(now_ns);
  const bool stands = was_heard && facts.must_progress && last_.must_progress &&
                      facts.incarnation == last_.incarnation && facts.progress == last_.progress;
  if (stands) {
    const uint64_t gap_ns = now_ns - std::min(now_ns, last_beat_ns_);
    stalled_for_ns_ += std::min(gap_ns, kBelievedIntervals * options_.interval_ns);
  } else {
    stalled_for_ns_ = 0;
  }
  last_ = facts;
  last_beat_ns_ = now_ns;
  if (was_heard) silence_.OnSignOfLife(now_ns);
  const bool stalled = stall_ns_ != 0 && stalled_for_ns_ >= stall_ns_;
  state_ = stalled ? SecondPath::kStalled : SecondPath::kHeard;
}

void SecondPathDetector::OnClosed() {
  if (state_ != SecondPath::kNever) state_ = SecondPath::kSilent;
}

SecondPath SecondPathDetector::Tick(uint64_t now_ns) {
  if (state_ == SecondPath::kNever) return state_;
  if (silence_.Tick(now_ns) == PeerLife::kLost) state_ = SecondPath::kSilent;
  return state_;
}

}  // namespace romulus::failover

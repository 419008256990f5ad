// What the second path says of the peer: heard, silent, or heard but not at work. Pure, as
// FailureDetector is, which it counts the silence with; it adds what only a beat can tell: that a
// primary which is to protect its guest gets nowhere, although its process lives.
//
// One thread (the control loop).
#ifndef ROMULUS_FAILOVER_SECOND_PATH_DETECTOR_H_
#define ROMULUS_FAILOVER_SECOND_PATH_DETECTOR_H_

#include <cstdint>

#include "failover/failure_detector.h"

namespace romulus::failover {

enum class SecondPath : uint8_t {
  kNever,  // nobody was heard yet
  kHeard,
  kSilent,
  kStalled,  // heard, but what it says of its work has not changed for too long
};

struct BeatFacts {
  uint64_t incarnation = 0;  // of the sender's process
  bool must_progress = false;
  uint64_t progress = 0;  // changes while the sender works
};

class SecondPathDetector {
 public:
  // `options` must be valid. `stall_ns` of beats that must progress and do not: kStalled; 0: never.
  SecondPathDetector(const FailureDetectorOptions& options, uint64_t stall_ns)
      : options_(options), stall_ns_(stall_ns), silence_(options) {}

  void OnBeat(uint64_t now_ns, const BeatFacts& facts);
  // The connection ended: whoever is not there any more is not waited for.
  void OnClosed();
  SecondPath Tick(uint64_t now_ns);

  SecondPath state() const { return state_; }
  uint64_t silence_ns() const { return silence_.silence_ns(); }
  uint64_t UntilNextTickNs() const { return silence_.UntilNextTickNs(); }
  // Of the gaps since the peer is heard.
  const HeartbeatStats& stats() const { return silence_.stats(); }

 private:
  const FailureDetectorOptions options_;
  const uint64_t stall_ns_;
  FailureDetector silence_;
  SecondPath state_ = SecondPath::kNever;
  BeatFacts last_;
  uint64_t last_beat_ns_ = 0;
  uint64_t stalled_for_ns_ = 0;
};

}  // namespace romulus::failover

#endif  // ROMULUS_FAILOVER_SECOND_PATH_DETECTOR_H_

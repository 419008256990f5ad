// Says when a silent peer counts as lost. Pure: time is given (monotonic nanoseconds), nothing is
// awaited. Any sign of life resets it; a peer whose connection stands but who says nothing is as
// lost as one whose host burned.
//
// Silence is only counted while we ourselves were running: a tick that comes late (our process was
// stopped, the host was overloaded) adds at most stall_ns, so after a stall of our own the
// peer first gets the chance to be heard. One thread (the control loop).
#ifndef ROMULUS_FAILOVER_FAILURE_DETECTOR_H_
#define ROMULUS_FAILOVER_FAILURE_DETECTOR_H_

#include <cstdint>

#include "absl/status/status.h"

namespace romulus::failover {

enum class PeerLife : uint8_t {
  kAlive,
  kSuspect,  // silent for more than half of the threshold
  kLost,
};

struct FailureDetectorOptions {
  uint64_t interval_ns = 50'000'000;    // between the peer's heartbeats, as configured
  uint64_t threshold_ns = 500'000'000;  // of silence until the peer is lost
  uint64_t tick_ns = 10'000'000;        // how often Tick() is meant to be called at least
  uint64_t stall_ns = 40'000'000;       // a tick so long after the one before: we stood still
};

// Errors: InvalidArgument naming the field, unless tick <= interval, stall >= 2 ticks and
// threshold >= 2 intervals.
absl::Status Validate(const FailureDetectorOptions& options);

struct HeartbeatStats {
  uint64_t count = 0;
  uint64_t mean_gap_ns = 0;  // moving averages over about the last 16 gaps
  uint64_t jitter_ns = 0;    // mean |gap - mean gap|
  uint64_t max_gap_ns = 0;   // since Reset()
  uint64_t own_stalls = 0;   // ticks that came late
  uint64_t max_own_stall_ns = 0;
};

class FailureDetector {
 public:
  // `options` must be valid. Nobody is watched until Reset().
  explicit FailureDetector(const FailureDetectorOptions& options);

  // A (new) peer is connected: begin with a clean slate.
  void Reset(uint64_t now_ns);
  // Nobody is there whose silence would mean anything.
  void Stop();
  void OnSignOfLife(uint64_t now_ns);
  // Sticky: once lost, lost until Reset().
  PeerLife Tick(uint64_t now_ns);
  // How long after a tick the next is meant to come: a tick's length, or less if a peer that stays
  // silent is lost before.
  uint64_t UntilNextTickNs() const;

  PeerLife life() const { return life_; }
  // Counted silence.
  uint64_t silence_ns() const { return silence_ns_; }
  const HeartbeatStats& stats() const { return stats_; }

 private:
  FailureDetectorOptions options_;
  bool watching_ = false;
  PeerLife life_ = PeerLife::kAlive;
  uint64_t last_tick_ns_ = 0;
  uint64_t last_sign_ns_ = 0;
  uint64_t silence_ns_ = 0;
  HeartbeatStats stats_;
};

}  // namespace romulus::failover

#endif  // ROMULUS_FAILOVER_FAILURE_DETECTOR_H_

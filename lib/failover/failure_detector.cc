#include "failover/failure_detector.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace romulus::failover {
namespace {

constexpr int64_t kAverageOver = 16;  // gaps

uint64_t Towards(uint64_t average, uint64_t sample) {
  const int64_t step =
      (static_cast<int64_t>(sample) - static_cast<int64_t>(average)) / kAverageOver;
  return static_cast<uint64_t>(static_cast<int64_t>(average) + step);
}

}  // namespace

absl::Status Validate(const FailureDetectorOptions& options) {
  if (options.tick_ns == 0 || options.tick_ns > options.interval_ns) {
    return absl::InvalidArgumentError(absl::StrCat(
        "failure detector: tick ", options.tick_ns,
        " ns must be between 1 and the heartbeat interval of ", options.interval_ns, " ns"));
  }
  if (options.stall_ns / 2 < options.tick_ns) {
    return absl::InvalidArgumentError(absl::StrCat("failure detector: stall ", options.stall_ns,
                                                   " ns must be at least two ticks of ",
                                                   options.tick_ns, " ns"));
  }
  if (options.threshold_ns / 2 < options.interval_ns) {
    return absl::InvalidArgumentError(absl::StrCat(
        "failure detector: threshold ", options.threshold_ns,
        " ns must be at least two heartbeat intervals of ", options.interval_ns, " ns"));
  }
  return absl::OkStatus();
}

FailureDetector::FailureDetector(const FailureDetectorOptions& options) : options_(options) {}

void FailureDetector::Reset(uint64_t now_ns) {
  watching_ = true;
  life_ = PeerLife::kAlive;
  last_tick_ns_ = now_ns;
  last_sign_ns_ = now_ns;
  silence_ns_ = 0;
  stats_ = HeartbeatStats{};
}

void FailureDetector::Stop() {
  watching_ = false;
  life_ = PeerLife::kAlive;
  silence_ns_ = 0;
}

void FailureDetector::OnSignOfLife(uint64_t now_ns) {
  if (!watching_) return;
  const uint64_t gap_ns = now_ns - std::min(now_ns, last_sign_ns_);
  last_sign_ns_ = now_ns;
  silence_ns_ = 0;
  if (life_ == PeerLife::kSuspect) life_ = PeerLife::kAlive;
  ++stats_.count;
  stats_.max_gap_ns = std::max(stats_.max_gap_ns, gap_ns);
  if (stats_.count == 1) {
    stats_.mean_gap_ns = gap_ns;
    return;
  }
  const uint64_t apart_ns =
      std::max(gap_ns, stats_.mean_gap_ns) - std::min(gap_ns, stats_.mean_gap_ns);
  stats_.jitter_ns = Towards(stats_.jitter_ns, apart_ns);
  stats_.mean_gap_ns = Towards(stats_.mean_gap_ns, gap_ns);
}

PeerLife FailureDetector::Tick(uint64_t now_ns) {
  const uint64_t since_tick_ns = now_ns - std::min(now_ns, last_tick_ns_);
  // Silence began with the sign of life, if that came after the last tick.
  const uint64_t since_sign_ns = now_ns - std::min(now_ns, last_sign_ns_);
  last_tick_ns_ = now_ns;
  if (!watching_) return life_;
  if (since_tick_ns > options_.stall_ns) {
    ++stats_.own_stalls;
    stats_.max_own_stall_ns = std::max(stats_.max_own_stall_ns, since_tick_ns);
  }
  silence_ns_ += std::min({since_tick_ns, since_sign_ns, options_.stall_ns});
  if (silence_ns_ >= options_.threshold_ns) {
    life_ = PeerLife::kLost;
  } else if (life_ != PeerLife::kLost) {
    life_ = silence_ns_ > options_.threshold_ns / 2 ? PeerLife::kSuspect : PeerLife::kAlive;
  }
  return life_;
}

uint64_t FailureDetector::UntilNextTickNs() const {
  if (!watching_ || silence_ns_ >= options_.threshold_ns) return options_.tick_ns;
  return std::min(options_.tick_ns, options_.threshold_ns - silence_ns_);
}

}  // namespace romulus::failover

#include "wire/link_rate.h"

#include <algorithm>

namespace romulus::wire {
namespace {

constexpr uint64_t kMillisecond = 1'000'000;

// A stretch ends when it is so long and so many bytes came, or when it is that much longer:
// messages come whole, up to a megabyte at a time.
constexpr uint64_t kStretchNs = 200 * kMillisecond;
constexpr uint64_t kStretchBytes = 4 << 20;
constexpr uint64_t kLongStretchNs = 1000 * kMillisecond;
// What is under way, at each report, must take so much longer at the rate that was achieved than a
// byte takes to come and its echo to go back: else it only was on its way by chance, or because the
// way is long.
constexpr double kUnderWaySeconds = 0.025;
// Beyond this share of its time at work it is the secondary that is waited for.
constexpr double kMostlyBusy = 0.5;
// More is not the way's, but a queue, or the wait of an echo for the next heartbeat, as a secondary
// that does not answer at once has it (releases before this one).
constexpr uint64_t kMostRttNs = 100 * kMillisecond;
// Before the rate is believed; it is then the second highest of as many as are kept: one stretch
// may have had what buffers held back before.
constexpr size_t kStretchesToKnow = 3;
// A link that was not what all waited for in so long is not known any more. While what is sent is
// compressed that counts for so many times less: it may be why nobody waits, and to find out takes
// a queue.
constexpr uint64_t kForgetNs = 60'000 * kMillisecond;
constexpr uint64_t kCompressedCountsLess = 30;

// Of the primary's bytes; what claims more than was sent claims nothing.
uint64_t UnderWay(const LinkReport& report) {
  return report.sent_bytes - std::min(report.sent_bytes, report.received_bytes);
}

}  // namespace

uint64_t LinkRate::Add(const LinkReport& report) {
  if (report.rtt_ns != 0 && (least_rtt_ns_ == 0 || report.rtt_ns < least_rtt_ns_)) {
    least_rtt_ns_ = report.rtt_ns;
  }
  const bool follows = begin_.has_value() && report.at_ns > begin_->at_ns &&
                       report.received_bytes >= begin_->received_bytes &&
                       report.busy_ns >= begin_->busy_ns;
  if (!follows) {
    begin_ = report;
    least_under_way_ = UnderWay(report);
    return rate_;
  }
  least_under_way_ = std::min(least_under_way_, UnderWay(report));
  const uint64_t ns = report.at_ns - begin_->at_ns;
  const uint64_t bytes = report.received_bytes - begin_->received_bytes;
  if ((ns >= kStretchNs && bytes >= kStretchBytes) || ns >= kLongStretchNs) Close(report);
  return rate_;
}

void LinkRate::Close(const LinkReport& report) {
  const uint64_t ns = report.at_ns - begin_->at_ns;
  const auto bytes = static_cast<double>(report.received_bytes - begin_->received_bytes);
  // Not more than a double holds exactly, whatever was claimed.
  const double achieved = std::min(1e15, bytes * 1e9 / static_cast<double>(ns));
  const double seconds =
      kUnderWaySeconds + static_cast<double>(std::min(least_rtt_ns_, kMostRttNs)) / 1e9;
  const bool backlog = bytes > 0 && static_cast<double>(least_under_way_) >= achieved * seconds;
  const bool idle = static_cast<double>(report.busy_ns - begin_->busy_ns) <=
                    kMostlyBusy * static_cast<double>(ns);
  if (backlog && idle) {
    Limited(static_cast<uint64_t>(achieved));
    free_ns_ = 0;
  } else {
    free_ns_ += std::min(ns, kForgetNs) / (report.compresses ? kCompressedCountsLess : 1);
    if (rate_ != 0 && achieved > static_cast<double>(rate_)) {
      Limited(static_cast<uint64_t>(achieved));
    }
    if (free_ns_ >= kForgetNs) {
      limited_count_ = 0;
      rate_ = 0;
    }
  }
  begin_ = report;
  least_under_way_ = UnderWay(report);
}

void LinkRate::Limited(uint64_t rate) {
  limited_[limited_count_ % limited_.size()] = std::max<uint64_t>(rate, 1);
  ++limited_count_;
  const size_t kept = std::min(limited_count_, limited_.size());
  if (kept < kStretchesToKnow) return;
  std::array<uint64_t, 4> sorted = limited_;
  std::sort(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(kept));
  rate_ = sorted[kept - 2];
}

}  // namespace romulus::wire

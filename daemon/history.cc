#include "daemon/history.h"

#include <utility>

namespace romulus::daemon {

namespace v1 = romulus::v1;

void History::Add(const v1::GetStatusResponse& status, uint64_t now_ns, uint64_t now_unix_ms) {
  const v1::Counters& counters = status.counters();
  const Counts now{now_ns, counters.epochs_acked(), counters.pages(), counters.bytes_sent()};
  v1::HistorySample sample;
  sample.set_unix_ms(now_unix_ms);
  sample.set_role(status.role());
  sample.set_mode(status.mode());
  sample.set_term(status.term());
  sample.set_held_output_bytes(counters.held_output_bytes());
  sample.set_unacked_epochs(counters.unacked_epochs());
  absl::MutexLock lock(&mutex_);
  const std::optional<Counts> before = std::exchange(before_, now);
  if (before && now.at_ns > before->at_ns && now.epochs > before->epochs &&
      now.pages >= before->pages && now.bytes >= before->bytes) {
    const double seconds = static_cast<double>(now.at_ns - before->at_ns) / 1e9;
    const double epochs = static_cast<double>(now.epochs - before->epochs);
    sample.set_epochs_per_second(epochs / seconds);
    sample.set_pages_per_epoch(static_cast<double>(now.pages - before->pages) / epochs);
    sample.set_bytes_per_second(static_cast<double>(now.bytes - before->bytes) / seconds);
    sample.set_pause_p50_ns(status.pause().p50_ns());
    sample.set_pause_p99_ns(status.pause().p99_ns());
    sample.set_ack_latency_p50_ns(status.pause().ack_latency_p50_ns());
    sample.set_ack_latency_p99_ns(status.pause().ack_latency_p99_ns());
  }
  samples_.push_back(std::move(sample));
  if (samples_.size() > kCapacity) samples_.pop_front();
}

v1::GetHistoryResponse History::Since(uint64_t since_unix_ms) const {
  v1::GetHistoryResponse response;
  response.set_period_ms(period_ms_);
  absl::MutexLock lock(&mutex_);
  for (const v1::HistorySample& sample : samples_) {
    if (sample.unix_ms() >= since_unix_ms) *response.add_samples() = sample;
  }
  return response;
}

}  // namespace romulus::daemon

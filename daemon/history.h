// Rates, pauses and latencies of the last hours, for `romulusctl report`: one sample a period, the
// last kCapacity of them, in memory. Any thread. Outlives the nodes that it is told of.
#ifndef ROMULUS_DAEMON_HISTORY_H_
#define ROMULUS_DAEMON_HISTORY_H_

#include <cstdint>
#include <deque>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "romulus/v1/control.pb.h"

namespace romulus::daemon {

class History {
 public:
  static constexpr size_t kCapacity = 2160;

  explicit History(uint32_t period_ms) : period_ms_(period_ms) {}

  // `now_ns`: monotonic. What is counted in `status` gives rates from the second time on; counters
  // that went back, as those of a node that began anew, start over.
  void Add(const romulus::v1::GetStatusResponse& status, uint64_t now_ns, uint64_t now_unix_ms);
  // Samples that end at `since_unix_ms` or later.
  romulus::v1::GetHistoryResponse Since(uint64_t since_unix_ms) const;

 private:
  struct Counts {
    uint64_t at_ns = 0;
    uint64_t epochs = 0;
    uint64_t pages = 0;
    uint64_t bytes = 0;
  };

  const uint32_t period_ms_;
  mutable absl::Mutex mutex_;
  std::optional<Counts> before_ ABSL_GUARDED_BY(mutex_);
  std::deque<romulus::v1::HistorySample> samples_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_HISTORY_H_

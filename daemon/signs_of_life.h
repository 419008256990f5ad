// When the peer was last heard, from threads that hear it thousands of times a second to the
// control loop that looks now and then. Any thread.
#ifndef ROMULUS_DAEMON_SIGNS_OF_LIFE_H_
#define ROMULUS_DAEMON_SIGNS_OF_LIFE_H_

#include <atomic>
#include <cstdint>

#include "base/clock.h"

namespace romulus::daemon {

class SignsOfLife {
 public:
  explicit SignsOfLife(const base::Clock* clock) : clock_(clock) {}

  void Heard() { last_ns_.store(clock_->NowNs(), std::memory_order_relaxed); }
  // Monotonic; 0: never.
  uint64_t last_ns() const { return last_ns_.load(std::memory_order_relaxed); }

 private:
  const base::Clock* clock_;
  std::atomic<uint64_t> last_ns_{0};
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_SIGNS_OF_LIFE_H_

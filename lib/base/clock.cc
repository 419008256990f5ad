#include "base/clock.h"

#include <ctime>

namespace romulus::base {

uint64_t MonotonicClock::NowNs() const {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace romulus::base

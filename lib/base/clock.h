// Monotonic time behind a seam, so that simulation can own it. Any thread.
#ifndef ROMULUS_BASE_CLOCK_H_
#define ROMULUS_BASE_CLOCK_H_

#include <cstdint>

namespace romulus::base {

class Clock {
 public:
  virtual ~Clock() = default;
  // Monotonic nanoseconds; never goes back; origin unspecified.
  virtual uint64_t NowNs() const = 0;
};

// CLOCK_MONOTONIC.
class MonotonicClock final : public Clock {
 public:
  uint64_t NowNs() const override;
};

}  // namespace romulus::base

#endif  // ROMULUS_BASE_CLOCK_H_

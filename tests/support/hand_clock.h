// A clock that stands still until it is set. Any thread.
#ifndef ROMULUS_TESTS_SUPPORT_HAND_CLOCK_H_
#define ROMULUS_TESTS_SUPPORT_HAND_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "base/clock.h"

namespace romulus::testing {

class HandClock final : public base::Clock {
 public:
  uint64_t NowNs() const override { return now_ns; }
  std::atomic<uint64_t> now_ns = 1'000'000;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_HAND_CLOCK_H_

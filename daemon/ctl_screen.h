// What `romulusctl watch` shows: the text of its screen, without a terminal. Values; one thread.
#ifndef ROMULUS_DAEMON_CTL_SCREEN_H_
#define ROMULUS_DAEMON_CTL_SCREEN_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "romulus/v1/control.pb.h"

namespace romulus::daemon {

// The last `width` of `values`, from 0 to the greatest of them; blocks of eighths with `utf8`, else
// ASCII. Where there are fewer, blanks are in front.
std::string Sparkline(const std::deque<double>& values, size_t width, bool utf8);

// Rates and latencies of one daemon, one value per status.
class RecentRates {
 public:
  static constexpr size_t kCapacity = 512;

  // `now_ns`: monotonic. Counters that went back start over.
  void Add(const romulus::v1::GetStatusResponse& status, uint64_t now_ns);

  const std::deque<double>& epochs_per_second() const { return epochs_; }
  const std::deque<double>& bytes_per_second() const { return bytes_; }
  const std::deque<double>& pause_p99_us() const { return pause_; }
  const std::deque<double>& ack_p99_us() const { return ack_; }
  const std::deque<double>& held_kib() const { return held_; }

 private:
  static void Push(std::deque<double>& values, double value);

  bool has_before_ = false;
  uint64_t before_ns_ = 0;
  uint64_t before_epochs_ = 0;
  uint64_t before_bytes_ = 0;
  std::deque<double> epochs_, bytes_, pause_, ack_, held_;
};

// How the mode is: for a colour.
enum class Mood { kGood, kBusy, kBad };
Mood MoodOf(romulus::v1::Mode mode);

// Lines, not clipped. The second one is role, mode and term.
std::vector<std::string> ScreenLines(const romulus::v1::GetStatusResponse& status,
                                     const RecentRates& recent,
                                     const std::vector<romulus::v1::Event>& events, size_t columns,
                                     bool utf8);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CTL_SCREEN_H_

// The rate of a link, from what the secondary's heartbeats tell of it: bytes that came, and how
// long the secondary was at work on them. A stretch of time shows the rate only if the link was
// what all waited for: the whole time so much was under way that it took a while to arrive, and
// the secondary was mostly idle. Other stretches show that the link does at least so much.
//
// Pure; one thread at a time. What the secondary tells may be anything; it cannot do more than make
// the estimate wrong.
#ifndef ROMULUS_WIRE_LINK_RATE_H_
#define ROMULUS_WIRE_LINK_RATE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace romulus::wire {

struct LinkReport {
  uint64_t at_ns = 0;           // by the secondary's clock
  uint64_t received_bytes = 0;  // on this stream so far
  uint64_t busy_ns = 0;         // its time at work on them so far
  uint64_t sent_bytes = 0;      // handed to the link when the report came, by the primary's count
  uint64_t rtt_ns = 0;          // of an echo that came with it, with what that waited; 0: none came
  bool compresses = false;      // what is sent: it may be for that alone that nobody waits
};

class LinkRate {
 public:
  // Bytes/s after this report; 0: not known.
  uint64_t Add(const LinkReport& report);
  uint64_t bytes_per_second() const { return rate_; }

 private:
  void Close(const LinkReport& report);
  void Limited(uint64_t rate);

  std::optional<LinkReport> begin_;  // of the stretch under way
  uint64_t least_under_way_ = 0;     // at its reports
  std::array<uint64_t, 4> limited_{};
  size_t limited_count_ = 0;
  uint64_t free_ns_ = 0;  // since the link was last what all waited for
  uint64_t least_rtt_ns_ = 0;
  uint64_t rate_ = 0;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_LINK_RATE_H_

// When to cut an epoch. Pure: it is told what is so and answers; the checkpoint loop waits and
// asks.
#ifndef ROMULUS_EPOCH_GOVERNOR_H_
#define ROMULUS_EPOCH_GOVERNOR_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "epoch/phases.h"

namespace romulus::epoch {

struct GovernorOptions {
  uint64_t max_dirty_pages = 1024;        // the budget: the N of "every N dirty pages"
  uint64_t max_interval_ns = 10'000'000;  // an epoch lasts at most this long
  uint64_t min_interval_ns = 200'000;     // and at least this, unless budget or ring end it
  // An epoch in which nothing is written may last so long instead; 0, or not above max_interval_ns:
  // no longer than any other.
  uint64_t idle_interval_ns = 0;
};

// The guest's share when pauses are longer than the intervals asked for: before an interval or
// waiting output ends an epoch, the guest has run for at least this part of the last pause, one
// fifth of the time. The bound keeps one pause that was odd (a stopped host) from holding output
// for long.
inline constexpr uint64_t kPausePerRun = 4;
inline constexpr uint64_t kMaxFloorNs = 100'000'000;

// Errors: InvalidArgument for a zero budget, a zero maximum or a minimum above the maximum.
absl::Status Validate(const GovernorOptions& options);

// What the checkpoint loop knows at one moment.
struct GovernorView {
  uint64_t now_ns = 0;
  uint64_t epoch_began_ns = 0;
  bool ring_full = false;       // a vCPU is out of the guest and waits
  bool requested = false;       // an operator or a test asked
  bool output_waiting = false;  // the gate holds bytes of this epoch
  bool budget_reached =
      false;                   // by the tracker's hint, or because the guest stands still by itself
  bool watches_budget = true;  // nobody tells when the budget is reached: it has to be looked at
  uint64_t likely_pages = 0;   // likewise, for NextLookNs(); 0: none, or not known
  bool look_stops_guest = false;  // whoever looks is a vCPU
  bool idle = false;              // nothing is dirty, by the tracker's hint, and no audit is behind
  bool slot_free = true;          // fewer than max_unacked_epochs are on their way
};

class Governor {
 public:
  explicit Governor(const GovernorOptions& options) : options_(options) {}

  // Why to cut now, if at all. Without a free slot only budget and ring cut: the guest then waits,
  // paused, for the slot (P6); other reasons let it run on. (The bitmap has neither: there the open
  // epoch is bounded by the guest's memory.)
  std::optional<CutReason> Decide(const GovernorView& view) const;

  // The latest moment at which Decide() should be asked again if nothing happens before.
  uint64_t NextLookNs(const GovernorView& view) const;

  // Learns from an epoch that lasted `ran_ns`, dirtied `pages` and whose checkpoint worked for
  // `paused_ns` (waits for the secondary are not its work): NextLookNs() then looks at the budget
  // when it is likely to be reached, instead of often, and the guest's share follows the pause.
  void Learn(uint64_t ran_ns, uint64_t pages, uint64_t paused_ns);

  // Whether the next epoch is likely to have pages: the last one had.
  bool expects_pages() const { return !was_idle_ && ns_per_page_ != 0; }

  // Whether the next epoch is likely to outlast its interval, as nothing is written. Then whoever
  // looks from outside whether it is so costs less than a vCPU that stops at each interval's end.
  bool expects_rest() const {
    return was_idle_ && options_.idle_interval_ns > options_.max_interval_ns;
  }

  const GovernorOptions& options() const { return options_; }
  void SetOptions(const GovernorOptions& options) { options_ = options; }

 private:
  // How long an epoch like this one may last.
  uint64_t LongestNs(const GovernorView& view) const;
  // When the budget may be reached; both count from the epoch's begin.
  uint64_t NextBudgetLookNs(const GovernorView& view, uint64_t ran_ns) const;

  GovernorOptions options_;
  uint64_t ns_per_page_ = 0;  // smoothed; 0: nothing learnt
  uint64_t floor_ns_ = 0;     // the guest's share after the last pause
  bool was_idle_ = false;     // the last epoch had no page
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_GOVERNOR_H_

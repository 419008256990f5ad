#include "epoch/governor.h"

#include <algorithm>

namespace romulus::epoch {
namespace {

// Looking at the budget may cost a wake-up; more often than this it would cost more than it saves.
constexpr uint64_t kMinLookNs = 20'000;

}  // namespace

absl::Status Validate(const GovernorOptions& options) {
  if (options.max_dirty_pages == 0) {
    return absl::InvalidArgumentError("max_dirty_pages must be at least 1");
  }
  if (options.max_interval_ns == 0) {
    return absl::InvalidArgumentError("max_interval must be above 0");
  }
  if (options.min_interval_ns > options.max_interval_ns) {
    return absl::InvalidArgumentError("min_interval is above max_interval");
  }
  return absl::OkStatus();
}

std::optional<CutReason> Governor::Decide(const GovernorView& view) const {
  if (view.budget_reached) return CutReason::kBudget;
  if (view.ring_full) return CutReason::kRingFull;
  if (!view.slot_free) return std::nullopt;
  if (view.requested) return CutReason::kRequest;
  const uint64_t ran_ns = view.now_ns - view.epoch_began_ns;
  if (ran_ns < floor_ns_) return std::nullopt;
  if (ran_ns >= LongestNs(view)) return CutReason::kInterval;
  if (view.output_waiting && ran_ns >= options_.min_interval_ns) return CutReason::kOutput;
  return std::nullopt;
}

uint64_t Governor::LongestNs(const GovernorView& view) const {
  return view.idle ? std::max(options_.max_interval_ns, options_.idle_interval_ns)
                   : options_.max_interval_ns;
}

uint64_t Governor::NextLookNs(const GovernorView& view) const {
  const uint64_t ran_ns = view.now_ns - view.epoch_began_ns;
  const uint64_t interval_ns = options_.max_interval_ns;
  // When the interval or output may cut; without a slot neither does, and the ack that frees one
  // wakes whoever waits here.
  uint64_t next = ran_ns + interval_ns;
  if (view.slot_free) {
    next = ran_ns < interval_ns ? interval_ns : std::min(next, LongestNs(view));
    if (view.output_waiting) next = std::min(next, options_.min_interval_ns);
    next = std::max(next, floor_ns_);
  }
  if (view.watches_budget) {
    next = std::min(next, std::max(NextBudgetLookNs(view, ran_ns), ran_ns + kMinLookNs));
  }
  return view.epoch_began_ns + std::max(next, ran_ns + 1);
}

// A full ring needs no look.
uint64_t Governor::NextBudgetLookNs(const GovernorView& view, uint64_t ran_ns) const {
  // At the pace of this epoch; or of those before it, if that was faster and this one may still
  // keep it. One that stops just below its budget is looked at ever more rarely.
  const uint64_t budget_ns = ns_per_page_ * options_.max_dirty_pages;
  const uint64_t early_ns = budget_ns - budget_ns / (view.look_stops_guest ? 16 : 8);
  // A look that stops the guest costs it more than a page too many.
  if (view.look_stops_guest && ran_ns < early_ns) return early_ns;
  const uint64_t least_ns = ran_ns / (view.look_stops_guest ? 16 : 64);
  if (view.likely_pages != 0) {
    const uint64_t left =
        options_.max_dirty_pages - std::min(options_.max_dirty_pages, view.likely_pages);
    const uint64_t ns_per_page = std::max<uint64_t>(1, ran_ns / view.likely_pages);
    if (ran_ns >= budget_ns) return ran_ns + std::max(left * ns_per_page, least_ns);
    const uint64_t left_ns = left * std::min(ns_per_page, ns_per_page_);
    return ran_ns + (view.look_stops_guest ? std::max(left_ns, least_ns) : left_ns);
  }
  // None yet: somewhat before the budget of the epochs before, or their pace would never be found
  // to have risen. Unknown, or none when there should be some: the longer the epoch has lasted, the
  // less often, and after an epoch without a page once an interval only; or an idle guest would
  // cost more looks than a busy one.
  if (ran_ns < early_ns) return early_ns;
  if (was_idle_) return ~uint64_t{0} / 2;
  return ran_ns + std::max(budget_ns == 0 ? options_.max_interval_ns / 8 : 0, ran_ns / 4);
}

void Governor::Learn(uint64_t ran_ns, uint64_t pages, uint64_t paused_ns) {
  floor_ns_ = std::min(paused_ns / kPausePerRun, kMaxFloorNs);
  was_idle_ = pages == 0;
  if (was_idle_) return;
  const uint64_t sample = std::max<uint64_t>(1, ran_ns / pages);
  // Faster at once, slower slowly: a look too early costs little, and what made one epoch late
  // (this thread, say) should not make the next one late. One far above the budget was not looked
  // at in time.
  if (ns_per_page_ == 0 || sample < ns_per_page_) {
    const bool overshot = pages > 2 * options_.max_dirty_pages;
    ns_per_page_ = ns_per_page_ == 0 || overshot ? sample : (ns_per_page_ + sample) / 2;
  } else {
    ns_per_page_ += (sample - ns_per_page_) / 16 + 1;
  }
}

}  // namespace romulus::epoch

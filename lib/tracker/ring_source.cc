#include "tracker/ring_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::tracker {
namespace {

// KVM_RESET_DIRTY_RINGS may return early when a signal is pending; every call that returns 0 with
// entries outstanding makes no progress, and so many of them mean that none will come.
constexpr int kMaxFruitlessResets = 1000;
// More pages than one instruction writes to, its page tables and an interrupt's frame with them.
constexpr size_t kMaxUnfinished = 64;

}  // namespace

RingSource::RingSource(kvm::Vm* vm, std::vector<kvm::DirtyRing*> rings,
                       const memory::MemoryLayout& layout, const RingSourceOptions& options)
    : vm_(vm), layout_(layout), options_(options) {
  for (kvm::DirtyRing* ring : rings) rings_.push_back({ring, {}, {}, 0});
}

Gfn RingSource::GfnOfPage(const Page& page) const {
  return Gfn(GfnOf(layout_.regions()[page.slot].gpa).value() + page.offset_pages);
}

absl::Status RingSource::Harvest(memory::PageSet& into) {
  uint64_t strangers = 0;
  for (Ring& ring : rings_) {
    ring.ring->Harvest([&](uint32_t slot, uint64_t offset_pages) {
      const auto& regions = layout_.regions();
      const bool is_known =
          slot < regions.size() && offset_pages < regions[slot].size_bytes >> kPageShift;
      ring.fresh.push_back({slot, offset_pages, is_known});
      if (is_known) {
        into.Insert(GfnOfPage(ring.fresh.back()));
      } else {
        ++strangers;
      }
    });
    for (const OpenPage& open : ring.open) into.Insert(GfnOfPage(open.page));
  }
  if (strangers != 0) {
    return absl::InternalError(
        absl::StrCat(strangers, " dirty ring entries name pages outside guest memory"));
  }
  return absl::OkStatus();
}

absl::Status RingSource::Reset() {
  ++resets_;
  for (Ring& ring : rings_) ResetRing(ring);
  Count();
  return ResetInKvm();
}

bool RingSource::LacksBallast() const {
  return options_.steer && rings_.size() == 1 && budget_ != 0 && stops_at_ > Budget() &&
         Budget() < rings_[0].ring->soft_limit();
}

absl::Status RingSource::Settle() {
  for (Ring& ring : rings_) GiveBallastBack(ring);
  Count();
  return ResetInKvm();
}

void RingSource::Count() {
  uint64_t open = 0;
  uint64_t hot = 0;
  for (const Ring& ring : rings_) {
    open += ring.open.size();
    hot += ring.hot;
  }
  open_ = open;
  hot_ = hot;
  stops_at_ = options_.steer && rings_.size() == 1 ? open + Room(*rings_[0].ring) : ~uint64_t{0};
}

absl::Status RingSource::ResetInKvm() {
  int fruitless = 0;
  while (to_reset_ > 0) {
    ROMULUS_ASSIGN_OR_RETURN(const uint32_t reset, vm_->ResetDirtyRings());
    if (reset > to_reset_) {
      return absl::InternalError(absl::StrCat("KVM reset ", reset, " dirty ring entries, but only ",
                                              to_reset_, " were given back"));
    }
    to_reset_ -= reset;
    if (reset == 0 && ++fruitless == kMaxFruitlessResets) {
      return absl::InternalError(
          absl::StrCat("KVM does not reset ", to_reset_, " dirty ring entries"));
    }
  }
  return absl::OkStatus();
}

void RingSource::GiveBack(kvm::DirtyRing& ring, const Page& page) {
  if (page.is_known) {
    ring.GiveBack(page.slot, page.offset_pages);
  } else {
    ring.GiveBackUnused();
  }
  ++to_reset_;
}

// Every page that was written since the last reset is either given back or open, and so is every
// page that was open: nothing else keeps a later write to it from being lost.
void RingSource::ResetRing(Ring& ring) {
  kvm::DirtyRing& entries = *ring.ring;
  // One instruction may need several pages writable at once: none of them closes before it is done.
  const bool is_stalled = entries.stalls() > 0;
  const bool filled = options_.steer && Room(entries) == 0;
  std::vector<OpenPage> open;
  uint64_t hot = 0;
  for (const OpenPage& page : ring.open) {
    const bool waits = is_stalled && !page.is_hot && open.size() - hot < kMaxUnfinished;
    if (page.closes > resets_ || waits) {
      open.push_back(page);
      hot += page.is_hot ? 1 : 0;
      continue;
    }
    if (page.is_hot) hot_pages_.Cool(GfnOfPage(page.page), resets_);
    GiveBack(entries, page.page);
  }
  for (size_t i = 0; i < ring.fresh.size(); ++i) {
    const Page& page = ring.fresh[i];
    if (StaysHot(page, hot)) {
      open.push_back({page, resets_ + HotPages::kEpochs, true});
      ++hot;
    } else if (filled && page.is_known && i + 1 == ring.fresh.size()) {
      open.push_back({page, resets_ + 1, false});
    } else {
      GiveBack(entries, page);
    }
  }
  ring.fresh.clear();
  ring.open = std::move(open);
  ring.hot = hot;
  GiveBallastBack(ring);
}

bool RingSource::StaysHot(const Page& page, uint64_t hot) {
  if (!options_.steer || options_.max_hot_pages == 0 || !page.is_known) return false;
  const bool is_hot = hot_pages_.Note(GfnOfPage(page), resets_);
  return is_hot && hot < std::min(options_.max_hot_pages, (Budget() - 1) / 2);
}

// What is left outstanding leaves room for the budget, of which open pages are a part.
void RingSource::GiveBallastBack(Ring& ring) {
  const uint64_t open = ring.open.size();
  const uint64_t room = options_.steer && budget_ != 0 && rings_.size() == 1
                            ? Budget() - std::min(Budget() - 1, open)
                            : ~uint64_t{0};
  while (Room(*ring.ring) < room && ring.ring->outstanding() > open) {
    ring.ring->GiveBackUnused();
    ++to_reset_;
  }
}

uint64_t RingSource::LikelyCount(uint64_t most) const {
  uint64_t count = hot_;
  for (const Ring& ring : rings_) count += ring.ring->LikelyCount();
  return std::min(count, most);
}

}  // namespace romulus::tracker

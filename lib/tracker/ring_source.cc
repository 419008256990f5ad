#include "tracker/ring_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::tracker {
namespace {

// A call of KVM_RESET_DIRTY_RINGS that returns 0 although entries were given back makes no
// progress, and so many of them mean that none will come. One that returns less than all was
// interrupted, and may have taken entries without protecting their pages
// (kvm::Vm::ResetDirtyRings): then nothing that is known of the guest's writes is sure any more.
constexpr int kMaxFruitlessResets = 1000;
// More pages than one instruction writes to, its page tables and an interrupt's frame with them.
constexpr size_t kMaxUnfinished = 64;

}  // namespace

RingSource::RingSource(kvm::Vm* vm, std::vector<kvm::DirtyRing*> rings,
                       const memory::MemoryLayout& layout, const RingSourceOptions& options)
    : vm_(vm), layout_(layout), options_(options) {
  for (kvm::DirtyRing* ring : rings) rings_.push_back({ring, {}, {}});
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
  uint64_t hot = 0;
  for (Ring& ring : rings_) ResetRing(ring, &hot);
  hot_ = hot;
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
  for (const Ring& ring : rings_) open += ring.open.size();
  open_ = open;
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
    if (reset != 0 && to_reset_ != 0) {
      return absl::DataLossError("KVM was interrupted while it reset dirty rings");
    }
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
void RingSource::ResetRing(Ring& ring, uint64_t* hot) {
  kvm::DirtyRing& entries = *ring.ring;
  const bool filled = options_.steer && Room(entries) == 0;
  // One instruction may need several pages writable at once: none of them closes before it is done.
  const bool is_stalled = filled && entries.stalls() > 0;
  std::vector<OpenPage> open;
  size_t unfinished = 0;
  for (const OpenPage& page : ring.open) {
    const bool stays = page.is_hot
                           ? page.closes > resets_ && *hot < MaxHot()
                           : page.closes > resets_ || (is_stalled && unfinished < kMaxUnfinished);
    if (stays) {
      open.push_back(page);
      ++(page.is_hot ? *hot : unfinished);
      continue;
    }
    if (page.is_hot) hot_pages_.Cool(GfnOfPage(page.page), resets_);
    GiveBack(entries, page.page);
  }
  for (size_t i = 0; i < ring.fresh.size(); ++i) {
    const Page& page = ring.fresh[i];
    const bool is_newest = filled && page.is_known && i + 1 == ring.fresh.size();
    const bool is_hot = TurnsHot(page, *hot);
    if ((!is_hot && !is_newest) || Holds(open, page)) {
      GiveBack(entries, page);
    } else if (is_hot) {
      open.push_back({page, resets_ + HotPages::kEpochs, true});
      ++*hot;
    } else {
      open.push_back({page, resets_ + 1, false});
    }
  }
  ring.fresh.clear();
  ring.open = std::move(open);
  GiveBallastBack(ring);
}

uint64_t RingSource::MaxHot() const { return std::min(options_.max_hot_pages, (Budget() - 1) / 2); }

bool RingSource::TurnsHot(const Page& page, uint64_t hot) {
  if (!options_.steer || options_.max_hot_pages == 0 || !page.is_known) return false;
  return hot_pages_.Note(GfnOfPage(page), resets_) && hot < MaxHot();
}

bool RingSource::Holds(const std::vector<OpenPage>& open, const Page& page) {
  return std::any_of(open.begin(), open.end(), [&page](const OpenPage& each) {
    return each.page.slot == page.slot && each.page.offset_pages == page.offset_pages;
  });
}

// What is left outstanding leaves room for the budget, of which open pages are a part.
void RingSource::GiveBallastBack(Ring& ring) {
  const uint64_t open = ring.open.size();
  const bool steers = options_.steer && budget_ != 0 && rings_.size() == 1;
  // Where KVM itself writes a page before the guest has done anything, it takes one more each time.
  const uint64_t least = 1 + std::min<uint64_t>(ring.ring->stalls(), kMaxUnfinished);
  const uint64_t room =
      steers ? std::max(Budget() - std::min(Budget(), open), least) : ~uint64_t{0};
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

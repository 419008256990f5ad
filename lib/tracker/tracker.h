// All dirt of one guest in one place (P4): what KVM logged, what the VMM itself wrote, and what an
// aborted checkpoint put back (P5). The checkpoint calls Harvest, Reset, Union in this order with
// the guest paused and either keeps the pages or puts them back. One thread at a time; SetBudget,
// StopsItselfAt and the hints (Likely...) any.
#ifndef ROMULUS_TRACKER_TRACKER_H_
#define ROMULUS_TRACKER_TRACKER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "base/failpoints.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"
#include "tracker/dirty_source.h"

namespace romulus::tracker {

class Tracker {
 public:
  // `memory` and `failpoints` (may be null) outlive the tracker.
  Tracker(std::unique_ptr<DirtySource> source, memory::GuestMemory* memory,
          base::Failpoints* failpoints);

  absl::Status Harvest();
  absl::Status Reset();
  // Everything dirty now, ascending. Valid until the next call of anything here.
  const memory::PageSet& Union();
  // The pages of Union() are safe elsewhere: forget them.
  void Forget();
  // They are not: they stay, and are part of the next Union(). Harvest or Reset may have failed
  // before.
  void PutBack();
  // Adds pages from outside (the remainder of a full sync).
  void Add(const memory::PageSet& pages);

  void SetBudget(uint64_t pages) { source_->SetBudget(pages); }
  bool StopsItselfAt(uint64_t pages) const { return source_->StopsItselfAt(pages); }
  bool LacksBallast() const { return source_->LacksBallast(); }
  absl::Status Settle() { return source_->Settle(); }
  bool Tells() const { return source_->Tells(); }
  bool LikelyAtLeast(uint64_t pages) const { return source_->LikelyAtLeast(pages); }
  uint64_t LikelyCount(uint64_t most) const { return source_->LikelyCount(most); }
  // A hint: whether neither the guest nor the VMM has written a page since the last harvest.
  bool LikelyNone() const;
  const DirtySource& source() const { return *source_; }

 private:
  std::unique_ptr<DirtySource> source_;
  memory::GuestMemory* memory_;
  base::Failpoints* failpoints_;
  memory::PageSet dirty_;
};

}  // namespace romulus::tracker

#endif  // ROMULUS_TRACKER_TRACKER_H_

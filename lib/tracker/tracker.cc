#include "tracker/tracker.h"

#include <utility>

namespace romulus::tracker {

Tracker::Tracker(std::unique_ptr<DirtySource> source, memory::GuestMemory* memory,
                 base::Failpoints* failpoints)
    : source_(std::move(source)),
      memory_(memory),
      failpoints_(failpoints),
      dirty_(memory->layout().gfn_end()) {}

absl::Status Tracker::Harvest() {
  if (base::Fires(failpoints_, "tracker.harvest")) return absl::InternalError("failpoint");
  const size_t before = dirty_.size();
  absl::Status status = source_->Harvest(dirty_);
  // The oracle test proves with this that it would notice a lost page. Not the newest one: its
  // entry may have come before its write, but by the next entry of the same vCPU the write is done.
  if (dirty_.size() > before + 1 && base::Fires(failpoints_, "tracker.drop_one_page")) {
    dirty_.Erase(dirty_.pages()[before]);
  }
  return status;
}

absl::Status Tracker::Reset() {
  if (base::Fires(failpoints_, "tracker.reset")) return absl::InternalError("failpoint");
  return source_->Reset();
}

const memory::PageSet& Tracker::Union() {
  memory_->write_log().Drain(dirty_);
  dirty_.Sort();
  return dirty_;
}

void Tracker::Forget() { dirty_.Clear(); }

// Nothing to do: a page leaves the set only by Forget(). The name is for the reader of a rollback.
void Tracker::PutBack() {
  if (base::Fires(failpoints_, "tracker.forget_put_back")) dirty_.Clear();
}

bool Tracker::LikelyNone() const {
  return source_->LikelyNone() && memory_->write_log().LikelyEmpty();
}

void Tracker::Add(const memory::PageSet& pages) { dirty_.InsertAll(pages); }

}  // namespace romulus::tracker

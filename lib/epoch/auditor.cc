#include "epoch/auditor.h"

#include <algorithm>
#include <span>

namespace romulus::epoch {
namespace {

// Read and hashed in one go: short beside a pause, long enough for the call that reads them.
constexpr uint64_t kSlicePages = 16;
// The pace aims at a bit less than the time of a pass, of which epochs that come late cost some.
constexpr double kPace = 0.875;

}  // namespace

Auditor::Auditor(const memory::GuestMemory* guest_memory, const base::Clock* clock,
                 const AuditOptions& options)
    : memory_(guest_memory),
      clock_(clock),
      options_(options),
      total_(guest_memory->layout().page_count()),
      buffer_(std::make_unique<std::byte[]>(kSlicePages * kPageSize)) {
  window_.reserve(options_.max_pages_per_epoch);
}

void Auditor::BeginStream() {
  window_.clear();
  done_ = 0;
  pass_began_ns_ = clock_->NowNs();
}

uint64_t Auditor::PagesDue() const {
  const double share = static_cast<double>(clock_->NowNs() - pass_began_ns_) /
                       (static_cast<double>(std::max<uint64_t>(options_.pass_ns, 1)) * kPace);
  return share >= 1 ? total_ : static_cast<uint64_t>(share * static_cast<double>(total_));
}

bool Auditor::IsBehind() const {
  const uint64_t due = PagesDue();
  return due == total_ || due > done_ + total_ / kAuditSlack;
}

bool Auditor::HashSome() {
  const uint64_t next = done_ + window_.size();
  const uint64_t due = PagesDue();
  const uint64_t room = options_.max_pages_per_epoch - window_.size();
  // Whole slices, but for the end of the pass.
  if (room == 0 || next >= due || (due - next < kSlicePages && due < total_)) return false;
  const Gfn first = memory_->layout().GfnAt(next);
  uint64_t count = std::min({kSlicePages, room, due - next});
  while (memory_->layout().Find(GpaOf(first), count * kPageSize) == nullptr) --count;
  const auto read = [&] {
    return memory::ReadPages(*memory_, first, std::span(buffer_.get(), count * kPageSize)).ok();
  };
  if (!read()) {
    // A page that the kernel has given up (poisoned, or swapped out to a bad disk) is passed over,
    // alone: the pass must go on behind it.
    count = 1;
    if (!read()) {
      ++done_;
      return true;
    }
  }
  for (uint64_t i = 0; i < count; ++i) {
    window_.push_back(
        {Gfn(first.value() + i),
         memory::HashPage128(memory::PageBytes(buffer_.get() + i * kPageSize, kPageSize)),
         /*valid=*/false});
  }
  return true;
}

void Auditor::OnHarvest(const memory::PageSet& dirty) {
  for (Hashed& page : window_) page.valid = !dirty.Contains(page.gfn);
}

std::vector<AuditRun> Auditor::TakeRuns() {
  std::vector<AuditRun> runs;
  for (const Hashed& page : window_) {
    if (!page.valid) continue;
    const bool joins =
        !runs.empty() && runs.back().first.value() + runs.back().hashes.size() == page.gfn.value();
    if (!joins) runs.push_back({page.gfn, {}});
    runs.back().hashes.push_back(page.hash);
  }
  done_ += window_.size();
  window_.clear();
  if (done_ == total_) {
    const uint64_t now_ns = clock_->NowNs();
    last_pass_ns_ = now_ns - pass_began_ns_;
    last_pass_end_ns_ = now_ns;
    ++passes_;
    done_ = 0;
    pass_began_ns_ = now_ns;
  }
  return runs;
}

AuditProgress Auditor::progress() const {
  return {.pages_done = done_,
          .pages_total = total_,
          .passes = passes_,
          .last_pass_ns = last_pass_ns_,
          .last_pass_end_ns = last_pass_end_ns_};
}

}  // namespace romulus::epoch

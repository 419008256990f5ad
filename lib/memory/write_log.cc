#include "memory/write_log.h"

#include <bit>

namespace romulus::memory {

WriteLog::WriteLog(Gfn gfn_end)
    : words_((gfn_end.value() + 63) / 64),
      pages_(std::make_unique<std::atomic<uint64_t>[]>(words_)),
      summary_(std::make_unique<std::atomic<uint64_t>[]>((words_ + 63) / 64)) {}

void WriteLog::Mark(Gfn gfn) {
  const uint64_t word = gfn.value() / 64;
  // Page first, summary second; Drain() clears in the other order, so a mark is never lost between.
  pages_[word].fetch_or(1ull << (gfn.value() % 64), std::memory_order_release);
  summary_[word / 64].fetch_or(1ull << (word % 64), std::memory_order_release);
}

bool WriteLog::LikelyEmpty() const {
  for (uint64_t s = 0; s < (words_ + 63) / 64; ++s) {
    if (summary_[s].load(std::memory_order_relaxed) != 0) return false;
  }
  return true;
}

void WriteLog::Drain(PageSet& into) {
  for (uint64_t s = 0; s < (words_ + 63) / 64; ++s) {
    if (summary_[s].load(std::memory_order_relaxed) == 0) continue;
    uint64_t marked = summary_[s].exchange(0, std::memory_order_acquire);
    for (; marked != 0; marked &= marked - 1) {
      const uint64_t word = s * 64 + static_cast<uint64_t>(std::countr_zero(marked));
      uint64_t pages = pages_[word].exchange(0, std::memory_order_acquire);
      for (; pages != 0; pages &= pages - 1) {
        into.Insert(Gfn(word * 64 + static_cast<uint64_t>(std::countr_zero(pages))));
      }
    }
  }
}

}  // namespace romulus::memory

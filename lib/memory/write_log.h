// Which pages the VMM itself wrote since the last drain: KVM does not see writes through our own
// mapping, so promise P4 rests on this bitmap. Mark() from any thread at any time; Drain() from the
// checkpoint thread with the guest paused and the devices quiet.
#ifndef ROMULUS_MEMORY_WRITE_LOG_H_
#define ROMULUS_MEMORY_WRITE_LOG_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "base/types.h"
#include "memory/page_set.h"

namespace romulus::memory {

class WriteLog {
 public:
  // For GFNs below `gfn_end`.
  explicit WriteLog(Gfn gfn_end);

  void Mark(Gfn gfn);
  // Moves every marked page into `into` and clears it here. Costs by the number of marked words.
  void Drain(PageSet& into);
  // Whether nothing is marked. A hint: a mark that is being made may not be seen. Any thread.
  bool LikelyEmpty() const;

 private:
  // Two levels, so that a drain looks only at words that something marked.
  uint64_t words_;
  std::unique_ptr<std::atomic<uint64_t>[]> pages_;
  std::unique_ptr<std::atomic<uint64_t>[]> summary_;
};

}  // namespace romulus::memory

#endif  // ROMULUS_MEMORY_WRITE_LOG_H_

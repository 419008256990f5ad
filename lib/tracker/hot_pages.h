// Which pages are written in nearly every epoch: a guess, and no harm if it is wrong. Values; one
// thread at a time.
#ifndef ROMULUS_TRACKER_HOT_PAGES_H_
#define ROMULUS_TRACKER_HOT_PAGES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/types.h"

namespace romulus::tracker {

class HotPages {
 public:
  // A page is hot when it was first written to in so many epochs,
  static constexpr uint8_t kWrites = 3;
  // with no more epochs than this from one to the next.
  static constexpr uint64_t kApart = 2;
  // It is taken for hot so many epochs long, and the next write to it, if it comes at once, makes
  // it hot again.
  static constexpr uint64_t kEpochs = 64;

  // Notes a first write to the page in epoch `epoch`; epochs never fall. True if the page is hot,
  // the first time in an epoch.
  bool Note(Gfn gfn, uint64_t epoch);
  // The page was taken for hot until `epoch`.
  void Cool(Gfn gfn, uint64_t epoch);

 private:
  struct Line {
    Gfn gfn;
    uint8_t writes = 0;
    uint64_t epoch = 0;
  };
  // Direct-mapped: two pages of one line disturb each other. Made by the first Note().
  static constexpr size_t kLines = 1u << 14;
  Line& LineOf(Gfn gfn) { return lines_[gfn.value() % kLines]; }

  std::vector<Line> lines_;
};

}  // namespace romulus::tracker

#endif  // ROMULUS_TRACKER_HOT_PAGES_H_

#include "tracker/hot_pages.h"

namespace romulus::tracker {

bool HotPages::Note(Gfn gfn, uint64_t epoch) {
  if (lines_.empty()) lines_.resize(kLines);
  Line& line = LineOf(gfn);
  if (line.gfn == gfn && line.writes != 0 && line.epoch == epoch)
    return false;  // KVM says it twice
  if (line.gfn != gfn || line.writes == 0 || epoch - line.epoch > kApart) {
    line = {gfn, 0, epoch};
  }
  line.epoch = epoch;
  if (line.writes < kWrites) ++line.writes;
  return line.writes == kWrites;
}

void HotPages::Cool(Gfn gfn, uint64_t epoch) {
  if (lines_.empty()) lines_.resize(kLines);
  LineOf(gfn) = {gfn, kWrites - 1, epoch};
}

}  // namespace romulus::tracker

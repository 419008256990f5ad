#include "daemon/progress.h"

#include <algorithm>

namespace romulus::daemon {

ProgressJudge::Verdict ProgressJudge::Judge(const std::vector<LoopLook>& looks, uint64_t now_ns) {
  Verdict verdict;
  for (auto& [name, loop] : loops_) loop.seen = false;
  for (const LoopLook& look : looks) {
    auto [at, is_new] = loops_.try_emplace(look.name);
    Loop& loop = at->second;
    loop.seen = true;
    // A new one has to move first, too: the time runs from now on.
    if (is_new) loop = {.mark = look.mark, .moved_ns = now_ns, .seen = true};
    const uint64_t still_ns = now_ns - std::min(now_ns, loop.moved_ns);
    if (look.mark != loop.mark || !look.owes) {
      if (loop.late) verdict.goes_on.push_back({look.name, still_ns});
      loop.mark = look.mark;
      loop.moved_ns = now_ns;
      loop.moved = true;
      loop.late = false;
    } else if (still_ns >= late_ns_ && !loop.late) {
      loop.late = true;
      verdict.late.push_back({look.name, still_ns});
    }
  }
  for (auto at = loops_.begin(); at != loops_.end();) {
    const Loop& loop = at->second;
    if (loop.seen) {
      ++at;
      continue;
    }
    if (loop.late) verdict.goes_on.push_back({at->first, now_ns - loop.moved_ns});
    at = loops_.erase(at);
  }
  verdict.beat = std::all_of(loops_.begin(), loops_.end(),
                             [](const auto& entry) { return entry.second.moved; });
  if (verdict.beat) {
    for (auto& [name, loop] : loops_) loop.moved = false;
  }
  return verdict;
}

}  // namespace romulus::daemon

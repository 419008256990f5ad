// Whether all that must get on does: judges looks at the loops of a process, and says when its
// watchdog may be fed and which loop is late. Pure: no clock, no thread.
//
// A loop that owes progress must have moved between two beats, however many looks lie between; one
// that owes none (a guest that stands still on purpose, a thread that waits for its peer) counts as
// moved. So a beat says that everybody did something since the one before.
#ifndef ROMULUS_DAEMON_PROGRESS_H_
#define ROMULUS_DAEMON_PROGRESS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace romulus::daemon {

struct LoopLook {
  std::string name;
  uint64_t mark = 0;  // differs from an earlier look's if the loop did something meanwhile
  bool owes = true;
};

class ProgressJudge {
 public:
  // `timeout_ns`: the watchdog's; half of it without a move is late.
  explicit ProgressJudge(uint64_t timeout_ns) : late_ns_(timeout_ns / 2) {}

  struct Change {
    std::string name;
    uint64_t for_ns = 0;  // how long it has not moved, or had not
  };
  struct Verdict {
    bool beat = false;
    std::vector<Change> late;     // since this look
    std::vector<Change> goes_on;  // that were late, and moved or went
  };
  // All loops there are now, each name once.
  Verdict Judge(const std::vector<LoopLook>& looks, uint64_t now_ns);

 private:
  struct Loop {
    uint64_t mark = 0;
    uint64_t moved_ns = 0;  // when it was last seen to
    bool moved = false;     // since the last beat
    bool late = false;
    bool seen = false;
  };

  const uint64_t late_ns_;
  std::map<std::string, Loop> loops_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_PROGRESS_H_

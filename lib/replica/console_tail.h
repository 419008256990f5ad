// The end of the guest's console stream as the secondary must know it: the bytes of committed
// epochs that the primary is not yet known to have released. After a promotion exactly these are
// said again, at their offset. Bounded (P6). One thread at a time.
#ifndef ROMULUS_REPLICA_CONSOLE_TAIL_H_
#define ROMULUS_REPLICA_CONSOLE_TAIL_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace romulus::replica {

class ConsoleTail {
 public:
  explicit ConsoleTail(uint64_t cap_bytes) : cap_bytes_(cap_bytes) {}

  // A full sync: the stream may go on anywhere.
  void Reset();
  // Whether Append() of the same would be taken. Errors: Fault::kConsole if `offset` is not the end
  // of the stream (the first append may be anywhere), its end overflows, or `released` lies beyond
  // it; Fault::kCap if more than the cap would be unreleased.
  absl::Status Check(uint64_t offset, uint64_t size_bytes, uint64_t released) const;
  // The bytes of one committed epoch; Check() has passed.
  void Append(uint64_t offset, absl::string_view bytes, uint64_t released);
  // The primary has released the stream up to here; beyond the known end counts as the end.
  void Released(uint64_t offset);

  // Stream offset of tail()[0].
  uint64_t offset() const { return end_ - tail_.size(); }
  // One past the last committed byte.
  uint64_t end() const { return end_; }
  const std::string& tail() const { return tail_; }

 private:
  uint64_t cap_bytes_;
  bool started_ = false;
  uint64_t end_ = 0;
  std::string tail_;
};

// Owned by replica, implemented by the daemon: gets the console bytes of every committed epoch, in
// order, so that a node whose console is a file can keep the whole stream by position (byte k of
// the stream is byte k of the file). Called with the store's lock held: must not block for long and
// must not call the store.
class CommittedConsole {
 public:
  virtual ~CommittedConsole() = default;
  virtual void OnCommitted(uint64_t offset, absl::string_view bytes) = 0;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_CONSOLE_TAIL_H_

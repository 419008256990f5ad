// Console bytes that were released and have not left the process yet, in order. Bounded by whoever
// pushes: over its cap it says so, and the guest waits (P6); nothing is ever dropped.
//
// A position counts the bytes ever pushed; an offset is a place in the guest's stream. They differ
// by a constant as long as the stream goes on without a jump, which only another guest in the same
// process could make. Any thread; `on_room` is called without the lock, by the thread that took
// bytes off.
#ifndef ROMULUS_DAEMON_CONSOLE_QUEUE_H_
#define ROMULUS_DAEMON_CONSOLE_QUEUE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/cond_var.h"

namespace romulus::daemon {

struct ConsoleBytes {
  uint64_t offset = 0;  // in the stream
  std::string bytes;
};

class ConsoleQueue {
 public:
  // OverCap() turns true above `cap_bytes`, and false again at half of it.
  ConsoleQueue(uint64_t cap_bytes, std::function<void()> on_room)
      : cap_bytes_(cap_bytes), on_room_(std::move(on_room)) {}

  void Push(uint64_t offset, absl::string_view bytes);
  // At most `max_bytes` from `position` on, which is not before begin(); empty at the end.
  ConsoleBytes Read(uint64_t position, size_t max_bytes) const;
  // Everything before `position` has left the process; an older position changes nothing.
  void Written(uint64_t position);

  uint64_t begin() const;  // position of the oldest byte still here
  uint64_t end() const;
  uint64_t queued_bytes() const { return queued_bytes_.load(std::memory_order_acquire); }
  // Until all that was pushed has left the process; whether it has.
  bool AwaitWritten(absl::Duration timeout) const;
  bool OverCap() const { return over_cap_.load(std::memory_order_acquire); }

  // Offsets; nullopt before the first Push().
  std::optional<uint64_t> start_offset() const;
  std::optional<uint64_t> written_offset() const;
  // What is queued, up to the end of the stream. No bytes if there are none.
  ConsoleBytes Unwritten() const;

 private:
  struct Piece {
    uint64_t position = 0;
    uint64_t offset = 0;
    std::string bytes;
    uint64_t end() const { return position + bytes.size(); }
  };

  const uint64_t cap_bytes_;
  const std::function<void()> on_room_;

  mutable absl::Mutex mutex_;
  mutable base::CondVar all_written_;
  std::deque<Piece> pieces_ ABSL_GUARDED_BY(mutex_);
  uint64_t begin_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t end_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<uint64_t> start_offset_ ABSL_GUARDED_BY(mutex_);
  std::optional<uint64_t> end_offset_ ABSL_GUARDED_BY(mutex_);
  std::atomic<uint64_t> queued_bytes_{0};
  std::atomic<bool> over_cap_{false};
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_CONSOLE_QUEUE_H_

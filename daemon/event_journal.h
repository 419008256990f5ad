// What happened when: the log's lines that somebody will ask for later, numbered, in memory and in
// a file that survives restarts. Both are bounded; nobody who can cause events, a guest or a peer,
// can wash the others out faster than one per kind and half minute, once a burst is used up.
//
// Any thread. Adding does no I/O: an own thread writes. Outlives the nodes that it is told of.
#ifndef ROMULUS_DAEMON_EVENT_JOURNAL_H_
#define ROMULUS_DAEMON_EVENT_JOURNAL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/cond_var.h"
#include "daemon/event_file.h"
#include "daemon/event_kinds.h"
#include "daemon/log.h"
#include "romulus/v1/config.pb.h"
#include "romulus/v1/events.pb.h"

namespace romulus::daemon {

// Where the journal of this node belongs; empty: nowhere. `state_directory`: systemd's, or empty.
std::string EventFolder(const romulus::v1::Config& config, const std::string& state_directory);

class EventJournal final : public LogListener {
 public:
  struct Options {
    std::string vm{};
    std::string node{};
    std::string folder{};                // empty: in memory only
    uint64_t max_bytes = 1u << 20;       // of each of the two files
    const base::Clock* clock = nullptr;  // for limits, outlives it; null: CLOCK_MONOTONIC
  };
  // Without a file that can be used there is still a journal, in memory: file_status() says why.
  explicit EventJournal(Options options);
  ~EventJournal() override;  // what was added is in the file, if it can be

  void OnLogged(romulus::v1::Severity severity, absl::string_view kind,
                std::initializer_list<LogField> fields) override;
  // Of the node, for the events to come.
  void SetTerm(uint64_t term);

  // Behind `number`, oldest first, at most `count`.
  std::vector<romulus::v1::Event> After(uint64_t number, size_t count) const;
  // Behind which those begin that are not older than `since_unix_ms`; of these the last `last`, if
  // that is not 0.
  uint64_t Before(uint64_t since_unix_ms, uint64_t last) const;
  uint64_t last_number() const;  // 0: none yet
  // Whether there is one behind `number`, at the latest after `patience`.
  bool Await(uint64_t number, absl::Duration patience) const;

  absl::Status file_status() const;
  uint64_t unreadable_lines() const { return unreadable_lines_; }  // when it was opened

 private:
  struct Limit {
    uint64_t tokens = 0;
    uint64_t filled_ns = 0;
    uint64_t left_out = 0;
  };
  struct Kept {
    romulus::v1::Event event;
    size_t bytes;  // of its line
  };
  bool Admit(const std::string& kind, const std::string& text)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Load(const std::vector<std::string>& lines);
  void Keep(romulus::v1::Event event, size_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Write();

  const Options options_;
  const base::MonotonicClock monotonic_;
  std::unique_ptr<EventFile> file_;  // the writer's, once it runs; null: none
  uint64_t unreadable_lines_ = 0;

  mutable absl::Mutex mutex_;
  mutable base::CondVar changed_;
  std::deque<Kept> kept_ ABSL_GUARDED_BY(mutex_);
  size_t kept_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t number_ ABSL_GUARDED_BY(mutex_) = 0;  // the last one given
  uint64_t term_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Limit> limits_ ABSL_GUARDED_BY(mutex_);
  std::string unwritten_ ABSL_GUARDED_BY(mutex_);
  uint64_t lost_ ABSL_GUARDED_BY(mutex_) = 0;  // to the file
  absl::Status file_status_ ABSL_GUARDED_BY(mutex_);
  bool end_ ABSL_GUARDED_BY(mutex_) = false;

  std::thread writer_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_EVENT_JOURNAL_H_

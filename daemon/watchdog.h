// Feeds the service manager's watchdog as long as every loop of this process gets on, and names the
// one that does not before the process is killed for it.
//
// Looks from a thread of its own, eight times in the watchdog's time, so that a hanging control
// loop is named, too; a process that is frozen as a whole looks no more. Where the manager has no
// watchdog nothing is looked at, and there is no thread.
//
// Add() and the end of a Loop from any thread, but not from within a probe. Outlives its loops.
#ifndef ROMULUS_DAEMON_WATCHDOG_H_
#define ROMULUS_DAEMON_WATCHDOG_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "base/cond_var.h"
#include "base/executor.h"
#include "daemon/log.h"
#include "daemon/progress.h"
#include "daemon/service_manager.h"

namespace romulus::daemon {

class Watchdog {
 public:
  // What a probe sees; `owes` false: nothing is expected of the loop now.
  struct Mark {
    uint64_t mark = 0;
    bool owes = true;
  };
  // On the watchdog's thread; must not block.
  using Probe = std::function<Mark()>;

  Watchdog(ServiceManager& manager, const base::Clock& clock, Log log);
  ~Watchdog();

  // Watched until it is destroyed; then its probe is not called any more.
  class Loop {
   public:
    ~Loop() { owner_->Remove(id_); }
    Loop(const Loop&) = delete;
    Loop& operator=(const Loop&) = delete;

   private:
    friend class Watchdog;
    Loop(Watchdog* owner, uint64_t id) : owner_(owner), id_(id) {}
    Watchdog* const owner_;
    const uint64_t id_;
  };
  [[nodiscard]] std::unique_ptr<Loop> Add(std::string name, Probe probe);
  // The same of an executor, which outlives the loop: it answers what is posted to it. While
  // `excused` says so it owes nothing.
  [[nodiscard]] std::unique_ptr<Loop> AddExecutor(std::string name, base::Executor* executor,
                                                  std::function<bool()> excused = nullptr);

  // `what` is done by the calling thread, which meanwhile answers nobody, and is late after
  // `within_ns`; until Settled().
  void Expect(std::string what, uint64_t within_ns);
  void Settled();

 private:
  struct Watched {
    std::string name;
    Probe probe;
  };
  struct Expected {
    std::string what;
    uint64_t until_ns = 0;
  };

  void Remove(uint64_t id);
  void Run();
  void LookAround() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  ServiceManager& manager_;
  const base::Clock& clock_;
  Log log_;
  const uint64_t timeout_ns_;  // 0: none
  absl::Mutex mutex_;
  base::CondVar changed_;
  ProgressJudge judge_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Watched> loops_ ABSL_GUARDED_BY(mutex_);
  std::optional<Expected> expected_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_WATCHDOG_H_

#include "daemon/watchdog.h"

#include <pthread.h>

#include <atomic>
#include <utility>
#include <vector>

namespace romulus::daemon {
namespace {

constexpr uint64_t kLooks = 8;  // in the watchdog's time

}  // namespace

Watchdog::Watchdog(ServiceManager& manager, const base::Clock& clock, Log log)
    : manager_(manager),
      clock_(clock),
      log_(std::move(log)),
      timeout_ns_(manager.watchdog_ns()),
      judge_(timeout_ns_) {
  if (timeout_ns_ != 0) thread_ = std::thread([this] { Run(); });
}

Watchdog::~Watchdog() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

std::unique_ptr<Watchdog::Loop> Watchdog::Add(std::string name, Probe probe) {
  absl::MutexLock lock(&mutex_);
  const uint64_t id = next_id_++;
  loops_.emplace(id, Watched{std::move(name), std::move(probe)});
  return std::unique_ptr<Loop>(new Loop(this, id));
}

std::unique_ptr<Watchdog::Loop> Watchdog::AddExecutor(std::string name, base::Executor* executor,
                                                      std::function<bool()> excused) {
  struct Questions {
    std::atomic<uint64_t> answered{0};
    uint64_t asked = 0;  // the watchdog's thread
  };
  // One question at a time, so that a loop that hangs is not buried in them.
  return Add(std::move(name),
             [executor, excused = std::move(excused), questions = std::make_shared<Questions>()] {
               const uint64_t answered = questions->answered.load();
               if (answered == questions->asked) {
                 ++questions->asked;
                 executor->Post([questions] { questions->answered.fetch_add(1); });
               }
               return Mark{answered, excused == nullptr || !excused()};
             });
}

void Watchdog::Remove(uint64_t id) {
  absl::MutexLock lock(&mutex_);  // a probe that is being called has returned then
  loops_.erase(id);
}

void Watchdog::Expect(std::string what, uint64_t within_ns) {
  absl::MutexLock lock(&mutex_);
  expected_ = Expected{std::move(what), clock_.NowNs() + within_ns};
}

void Watchdog::Settled() {
  absl::MutexLock lock(&mutex_);
  expected_.reset();
}

void Watchdog::Run() {
  ::pthread_setname_np(::pthread_self(), "watchdog");
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    LookAround();
    changed_.WaitWithTimeout(&mutex_,
                             absl::Nanoseconds(static_cast<int64_t>(timeout_ns_ / kLooks)));
  }
}

void Watchdog::LookAround() {
  const uint64_t now_ns = clock_.NowNs();
  std::vector<LoopLook> looks;
  for (const auto& [id, loop] : loops_) {
    const Mark mark = loop.probe();
    looks.push_back({.name = loop.name, .mark = mark.mark, .owes = mark.owes});
  }
  if (expected_) {
    looks.push_back({.name = expected_->what, .mark = 0, .owes = now_ns >= expected_->until_ns});
  }
  const ProgressJudge::Verdict verdict = judge_.Judge(looks, now_ns);
  for (const ProgressJudge::Change& change : verdict.late) {
    log_.Error("loop_late", {{"loop", change.name},
                             {"for_ms", change.for_ns / 1'000'000},
                             {"watchdog_ms", timeout_ns_ / 1'000'000}});
  }
  for (const ProgressJudge::Change& change : verdict.goes_on) {
    log_.Warning("loop_goes_on",
                 {{"loop", change.name}, {"was_late_ms", change.for_ns / 1'000'000}});
  }
  if (verdict.beat) manager_.Beat();
}

}  // namespace romulus::daemon

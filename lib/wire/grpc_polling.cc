#include "wire/grpc_polling.h"

#include <grpc/support/time.h>
#include <grpcpp/completion_queue.h>

#include <cstdlib>

#include "absl/time/time.h"

namespace romulus::wire {
namespace {

using std::chrono::milliseconds;

// Nobody says when a descriptor is free again. Each try costs a few bytes that gRPC forgets.
constexpr milliseconds kTryAgain(10);
// How often somebody looks whether the queue's thread is at work for long; so long is long.
constexpr milliseconds kLook(1000);
// So long at most its thread waits for the one that waits in its stead.
constexpr milliseconds kStep(20);

}  // namespace

void PollOwnSockets() { ::setenv("GRPC_POLL_STRATEGY", "poll,epoll1", /*overwrite=*/0); }

bool NextTag(grpc::CompletionQueue& queue, void** tag, bool* ok) {
  for (;;) {
    switch (queue.AsyncNext(tag, ok, gpr_inf_future(GPR_CLOCK_MONOTONIC))) {
      case grpc::CompletionQueue::GOT_EVENT:
        return true;
      case grpc::CompletionQueue::SHUTDOWN:
        return false;
      case grpc::CompletionQueue::TIMEOUT:
        std::this_thread::sleep_for(kTryAgain);
    }
  }
}

AttendedQueue::AttendedQueue(grpc::CompletionQueue* queue)
    : queue_(queue), thread_([this] { Attend(); }) {}

AttendedQueue::~AttendedQueue() { Leave(); }

void AttendedQueue::Leave() {
  {
    absl::MutexLock lock(&mutex_);
    leaving_ = true;
    leave_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

bool AttendedQueue::Next(void** tag, bool* ok) {
  at_work_.store(false);  // before the lock: whoever waits in our stead stops
  bool got = false;
  {
    absl::MutexLock lock(&waiting_);
    if (!kept_.empty()) {
      *tag = kept_.front().tag;
      *ok = kept_.front().ok;
      kept_.pop_front();
      got = true;
    }
  }
  if (!got) got = NextTag(*queue_, tag, ok);
  since_.store(Clock::now().time_since_epoch().count());
  at_work_.store(got);
  return got;
}

bool AttendedQueue::AwaitLeaving(milliseconds at_most) {
  absl::MutexLock lock(&mutex_);
  return leave_.AwaitUntil(&mutex_, base::CondVar::After(absl::FromChrono(at_most)),
                           [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return leaving_; });
}

void AttendedQueue::Attend() {
  while (!AwaitLeaving(kLook)) {
    const Clock::time_point since{Clock::duration(since_.load())};
    if (at_work_.load() && Clock::now() - since >= kLook) WaitInItsStead();
  }
}

void AttendedQueue::WaitInItsStead() {
  do {
    absl::MutexLock lock(&waiting_);
    if (!at_work_.load()) return;
    Got got{};
    const gpr_timespec until = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                            gpr_time_from_millis(kStep.count(), GPR_TIMESPAN));
    const auto said = queue_->AsyncNext(&got.tag, &got.ok, until);
    if (said == grpc::CompletionQueue::GOT_EVENT) kept_.push_back(got);
    if (said == grpc::CompletionQueue::SHUTDOWN) return;
  } while (!AwaitLeaving(kStep));
}

}  // namespace romulus::wire

// How this process waits for gRPC's sockets and completions.
#ifndef ROMULUS_WIRE_GRPC_POLLING_H_
#define ROMULUS_WIRE_GRPC_POLLING_H_

#include <atomic>
#include <chrono>
#include <deque>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/cond_var.h"

namespace grpc {
class CompletionQueue;
}

namespace romulus::wire {

// Each thread waits for its own sockets (GRPC_POLL_STRATEGY, gRPC's environment_variables.md). By
// default one epoll serves the process: whoever happens to wait there, a server of controls say,
// reads what came for the link, wakes the link's thread for it, and a third one to wait in his
// place. A value that is set already stays. Before gRPC is used and other threads are started.
// Not beside channels that are kept while no call is under way, as etcd's: nobody would wait for
// their new connection, which then never stands.
void PollOwnSockets();

// As CompletionQueue::Next: false only once the queue is shut down and empty. A thread's first wait
// takes a descriptor, and Next would say the same if the process has none left; this tries again
// until it has.
bool NextTag(grpc::CompletionQueue& queue, void** tag, bool* ok);

// A server's queue with one thread, whose work may wait for a disk. Who does not wait for his
// sockets does not answer the peer's pings either, nor new peers' handshakes: when that thread has
// been at work for one to two seconds, another waits in its stead, and keeps for it what comes.
class AttendedQueue {
 public:
  // Starts the other thread. The queue outlives it, and is shut down after Leave().
  explicit AttendedQueue(grpc::CompletionQueue* queue);
  ~AttendedQueue();
  AttendedQueue(const AttendedQueue&) = delete;
  AttendedQueue& operator=(const AttendedQueue&) = delete;

  // NextTag() of the queue, in order. Always the same thread, which is at work from when this
  // returns until it calls again.
  bool Next(void** tag, bool* ok);
  // The other thread ends. From any but those two; idempotent.
  void Leave();

 private:
  struct Got {
    void* tag;
    bool ok;
  };
  using Clock = std::chrono::steady_clock;

  void Attend();
  // For as long as the queue's thread is at work.
  void WaitInItsStead();
  bool AwaitLeaving(std::chrono::milliseconds at_most);

  grpc::CompletionQueue* const queue_;
  std::atomic<bool> at_work_{false};
  std::atomic<Clock::rep> since_{0};

  absl::Mutex waiting_;  // held by the other thread while it waits
  std::deque<Got> kept_ ABSL_GUARDED_BY(waiting_);

  absl::Mutex mutex_;
  base::CondVar leave_;
  bool leaving_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_GRPC_POLLING_H_

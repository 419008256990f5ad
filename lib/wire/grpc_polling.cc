#include "wire/grpc_polling.h"

#include <grpc/support/time.h>
#include <grpcpp/completion_queue.h>

#include <chrono>
#include <cstdlib>
#include <thread>

namespace romulus::wire {

void PollOwnSockets() { ::setenv("GRPC_POLL_STRATEGY", "poll,epoll1", /*overwrite=*/0); }

bool NextTag(grpc::CompletionQueue& queue, void** tag, bool* ok) {
  // Nobody says when a descriptor is free again.
  constexpr std::chrono::milliseconds kTryAgain(10);
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

}  // namespace romulus::wire

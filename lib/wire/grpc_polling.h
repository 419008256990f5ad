// How this process waits for gRPC's sockets and completions.
#ifndef ROMULUS_WIRE_GRPC_POLLING_H_
#define ROMULUS_WIRE_GRPC_POLLING_H_

namespace grpc {
class CompletionQueue;
}

namespace romulus::wire {

// Each thread waits for its own sockets (GRPC_POLL_STRATEGY, gRPC's environment_variables.md). By
// default one epoll serves the process: whoever happens to wait there, a server of controls say,
// reads what came for the link, wakes the link's thread for it, and a third one to wait in his
// place. A value that is set already stays. Before gRPC is used and other threads are started.
void PollOwnSockets();

// As CompletionQueue::Next: false only once the queue is shut down and empty. A thread's first wait
// takes a descriptor, and Next would say the same if the process has none left; this tries again
// until it has.
bool NextTag(grpc::CompletionQueue& queue, void** tag, bool* ok);

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_GRPC_POLLING_H_

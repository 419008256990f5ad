// How gRPC waits for its sockets in this process.
#ifndef ROMULUS_WIRE_GRPC_POLLING_H_
#define ROMULUS_WIRE_GRPC_POLLING_H_

#include <cstdlib>

namespace romulus::wire {

// Each thread waits for its own sockets (GRPC_POLL_STRATEGY, gRPC's environment_variables.md). By
// default one epoll serves the process, and whoever happens to wait there, a server of controls
// say, reads a heartbeat or an ack, wakes the link's thread for it, and a third one to wait in his
// place. A value that is set already stays. Before gRPC is used and other threads are started.
inline void PollOwnSockets() { ::setenv("GRPC_POLL_STRATEGY", "poll", /*overwrite=*/0); }

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_GRPC_POLLING_H_

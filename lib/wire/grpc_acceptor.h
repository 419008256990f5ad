// Accepts a gRPC server's connections in its stead: gRPC's own listener never accepts again after
// accept(2) once failed for want of a descriptor, and knows no bound on its connections. A
// connection is handed to gRPC when its peer first says something; until then it can be given up
// for a newer one, so that silent strangers cannot keep the real peer out.
// Listen, AddTo, Start and Stop in this order by one owner; Start makes one thread.
#ifndef ROMULUS_WIRE_GRPC_ACCEPTOR_H_
#define ROMULUS_WIRE_GRPC_ACCEPTOR_H_

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grpc {
class ServerBuilder;
class ServerCredentials;
}  // namespace grpc

namespace romulus::wire {

struct GrpcAcceptorOptions {
  // Open at once, and half as many of one host (by its address, unless it is this very one by a
  // Unix socket): whoever begins handshakes and does not end them leaves room for others. One that
  // comes on top ends the oldest silent one, of its host if that has too many, or is closed if
  // there is none.
  size_t max_connections = 64;
  // How long a peer may say nothing, not shake hands, or have no call open.
  std::chrono::milliseconds patience{5000};
  // TCP_USER_TIMEOUT of the connections; 0 leaves it to the kernel.
  uint32_t user_timeout_ms = 0;
  // Told once per burst, on the acceptor's thread: why connections are ended or cannot be accepted,
  // and how many were ended since Listen. Must not block.
  std::function<void(const absl::Status& why, uint64_t ended)> on_crowded;
  // Set: connections are TLS. One that begins otherwise is closed, unanswered, and told: `from` as
  // gRPC writes a peer. On the acceptor's thread; must not block.
  std::function<void(const std::string& from)> on_plain_text;
};

class GrpcAcceptor {
 public:
  // Binds "host:port" (every address of the host; port 0 for any), "[v6]:port" or "unix:/path".
  // Errors: AlreadyExists, naming the address, if it is in use; InvalidArgument if it is none; else
  // what bind(2) says.
  static absl::StatusOr<std::unique_ptr<GrpcAcceptor>> Listen(absl::string_view address,
                                                              GrpcAcceptorOptions options);
  // Stop().
  virtual ~GrpcAcceptor() = default;

  // The TCP port in use; 0 for a Unix socket.
  virtual int port() const = 0;
  // Before the server is built, instead of AddListeningPort.
  virtual void AddTo(grpc::ServerBuilder& builder,
                     std::shared_ptr<grpc::ServerCredentials> credentials) = 0;
  // When the server was built.
  virtual void Start() = 0;
  // Before the server is shut down: the address is free when this returns. Idempotent.
  virtual void Stop() = 0;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_GRPC_ACCEPTOR_H_

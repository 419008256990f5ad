// The listening end, of replication the secondary's door: hands every incoming stream of the
// options' service to an acceptor as a Link. Methods from any thread; the acceptor and the
// listeners are called by the server's threads.
#ifndef ROMULUS_WIRE_GRPC_SERVER_H_
#define ROMULUS_WIRE_GRPC_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "wire/grpc_link.h"
#include "wire/link.h"

namespace romulus::wire {

class LinkAcceptor {
 public:
  virtual ~LinkAcceptor() = default;
  // A peer opened a stream; nothing was read from it yet. Returns who hears it: a listener that
  // lives until its OnClosed has returned; or null to refuse (the link may then be dropped at
  // once). The link may be destroyed at any time, though not from the listener's own calls; that
  // closes the stream and waits for OnClosed. Called on a server thread; must not block. `peer` is
  // for the log only.
  virtual LinkListener* Accept(std::unique_ptr<Link> link, absl::string_view peer) = 0;
  // Once per burst: there are more connections than can be had, for the reason `why`; so far
  // `ended` were ended for it. On a thread of the server; must not block.
  virtual void OnCrowded(const absl::Status& /*why*/, uint64_t /*ended*/) {}
};

class GrpcLinkServer {
 public:
  // Listens on `address` ("host:port", port 0 for any; "unix:/path"). `acceptor` outlives the
  // server. Errors: AlreadyExists, naming the address, if it is in use; else what bind(2) says.
  static absl::StatusOr<std::unique_ptr<GrpcLinkServer>> Listen(absl::string_view address,
                                                                const GrpcLinkOptions& options,
                                                                LinkAcceptor* acceptor);
  // Shutdown().
  virtual ~GrpcLinkServer() = default;

  // The TCP port in use; 0 for a Unix socket.
  virtual int port() const = 0;
  // Accepts nothing more, closes every stream (each listener hears OnClosed before this returns),
  // and ends the server's threads. Bounded in time; idempotent; not from a listener.
  virtual void Shutdown() = 0;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_GRPC_SERVER_H_

// The connecting end of a gRPC stream: service Replication (replication_service.proto), where it is
// the primary's, or Heartbeats (heartbeats_service.proto), whose messages are one serialized Beat
// each. Only grpc_link.*, grpc_server.* and their shared grpc_stream.* know gRPC; everything else
// sees a Link.
#ifndef ROMULUS_WIRE_GRPC_LINK_H_
#define ROMULUS_WIRE_GRPC_LINK_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "wire/link.h"
#include "wire/tls.h"

namespace romulus::wire {

// How a stream's two ends prove who they are: mutual TLS, or nothing at all.
struct LinkSecurity {
  std::shared_ptr<TlsIdentity> tls = nullptr;  // null: plain text
  // Which DNS name the other end's certificate must have. A stream ends when its certificate is not
  // trusted any more.
  std::string peer_name = "";
};

enum class LinkService { kReplication, kHeartbeats };

struct GrpcLinkOptions {
  LinkService service = LinkService::kReplication;
  LinkSecurity security;
  // One message holds one or more whole frames.
  size_t max_message_bytes = 8u << 20;
  // Send() waits while this much is handed over and not yet taken by the transport (P6).
  size_t max_queued_bytes = 4u << 20;
  // A dead host is noticed by HTTP/2 pings even when nobody watches heartbeats. The answer to one
  // waits behind all that the sockets hold, megabytes on a link that may be slow, so it has time;
  // who must know sooner listens to heartbeats.
  uint32_t keepalive_ms = 5000;
  uint32_t keepalive_timeout_ms = 20'000;
  // ConnectGrpcLink only: how long to wait for the peer to answer the connection.
  uint32_t connect_timeout_ms = 2000;
};

// Connects to `address` ("host:port", "[v6]:port" or "unix:/path") and opens the stream. Blocks for
// at most connect_timeout_ms. `listener` outlives the link. The link owns one thread, on which the
// listener is called; destroying the link closes it and waits until OnClosed has returned, so never
// destroy a link from its listener. Errors: Unavailable, naming the address, if nobody answers in
// time; PermissionDenied if it is not the peer that the security names.
absl::StatusOr<std::unique_ptr<Link>> ConnectGrpcLink(absl::string_view address,
                                                      const GrpcLinkOptions& options,
                                                      LinkListener* listener);

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_GRPC_LINK_H_

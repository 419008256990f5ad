// TlsIdentity in gRPC's words: credentials of both ends, and who is at the other one. TLS is 1.2 at
// least (gRPC's own bound), a client's certificate is required and verified, and each connection
// uses what the files said last. Any thread.
#ifndef ROMULUS_WIRE_GRPC_TLS_H_
#define ROMULUS_WIRE_GRPC_TLS_H_

#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "wire/tls.h"

namespace romulus::wire {

// Plain text if `identity` is null. To be kept until the server accepts nothing more.
std::shared_ptr<grpc::ServerCredentials> TlsServerCredentials(
    std::shared_ptr<TlsIdentity> identity);

// The same for a client; `arguments` of its channel are told that the server has to be `name`.
std::shared_ptr<grpc::ChannelCredentials> TlsChannelCredentials(const TlsMaterial& material,
                                                                const std::string& name,
                                                                grpc::ChannelArguments& arguments);

// Who is at the other end of a call; empty without TLS.
struct TlsPeer {
  std::vector<std::string> names;  // the certificate's DNS names
  std::string chain;               // for StillTrusted()

  bool Is(absl::string_view name) const;
  std::string NamesText() const;
};
TlsPeer TlsPeerOf(const grpc::AuthContext& context);

// "The certificate is another's" is an error only of the client's attempt to connect.
bool IsWrongName(absl::string_view connect_error);

// Handshakes fail inside gRPC, and only its log says why. From now on this is listened to:
// `identity`, if it still exists, is told of each, at this end or the other, that does not come to
// its end. Which peer it was the log does not say. The process has one log: the last call counts;
// with null nobody is told any more when this returns.
void ListenToHandshakes(const std::shared_ptr<TlsIdentity>& identity);

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_GRPC_TLS_H_

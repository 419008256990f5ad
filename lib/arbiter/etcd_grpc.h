// Calls of one etcd member over gRPC, without what they mean. Only etcd_grpc.cc knows gRPC.
//
// Threads: one, the executor's: everything is called there, and answers come there. gRPC's own
// threads only post to it.
#ifndef ROMULUS_ARBITER_ETCD_GRPC_H_
#define ROMULUS_ARBITER_ETCD_GRPC_H_

#include <memory>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/executor.h"
#include "etcd/etcd.pb.h"

namespace romulus::arbiter {

// PEM texts. Without `enabled`: plain text.
struct EtcdTls {
  bool enabled = false;
  std::string ca;    // empty: the system's
  std::string cert;  // with `key`: what this client proves itself with; empty: nothing
  std::string key;
};

class EtcdMember {
 public:
  // Its status is the call's own: gRPC's code and the server's words. DeadlineExceeded when
  // `timeout` is over.
  template <typename Response>
  using Done = absl::AnyInvocable<void(absl::StatusOr<Response>) &&>;

  // `address` is "host:port"; TLS expects the host in the member's certificate. Connects with the
  // first call. `executor` outlives the member.
  static std::unique_ptr<EtcdMember> Make(const std::string& address, const EtcdTls& tls,
                                          base::Executor* executor);
  // Calls under way are cancelled and awaited, which takes no longer than a moment; nothing is
  // answered any more.
  virtual ~EtcdMember() = default;

  // `token`: of Authenticate; empty: none.
  virtual void Range(const etcdserverpb::RangeRequest& request, const std::string& token,
                     absl::Duration timeout, Done<etcdserverpb::RangeResponse> done) = 0;
  virtual void Txn(const etcdserverpb::TxnRequest& request, const std::string& token,
                   absl::Duration timeout, Done<etcdserverpb::TxnResponse> done) = 0;
  virtual void Authenticate(const etcdserverpb::AuthenticateRequest& request,
                            absl::Duration timeout,
                            Done<etcdserverpb::AuthenticateResponse> done) = 0;
};

}  // namespace romulus::arbiter

#endif  // ROMULUS_ARBITER_ETCD_GRPC_H_

#include "arbiter/etcd_grpc.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <functional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "etcd/etcd.grpc.pb.h"

namespace romulus::arbiter {
namespace {

// An answer has one record of a kilobyte at most; what is far beyond is not read.
constexpr int kMaxMessageBytes = 64 << 10;

std::shared_ptr<grpc::ChannelCredentials> CredentialsFor(const EtcdTls& tls) {
  if (!tls.enabled) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = tls.ca;
  options.pem_private_key = tls.key;
  options.pem_cert_chain = tls.cert;
  return grpc::SslCredentials(options);
}

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // A member that comes back is found again soon: gRPC would wait up to two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // No proxy that the environment names stands between a node and its arbiter.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A connection whose other end is gone is not used for ever. etcd takes more than one ping in
  // five seconds for an attack.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3'000);
  // Whether a call is made again, and where, is decided by whoever knows what it means.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return arguments;
}

// A deadline that no wall clock moves.
gpr_timespec MonotonicIn(absl::Duration timeout) {
  return gpr_time_add(
      gpr_now(GPR_CLOCK_MONOTONIC),
      gpr_time_from_millis(std::max<int64_t>(1, absl::ToInt64Milliseconds(timeout)), GPR_TIMESPAN));
}

// The calls of a member that gRPC has not given back.
class Calls {
 public:
  void Add(std::shared_ptr<grpc::ClientContext> context) {
    absl::MutexLock lock(&mutex_);
    contexts_.insert(std::move(context));
  }
  void Remove(const std::shared_ptr<grpc::ClientContext>& context) {
    absl::MutexLock lock(&mutex_);
    contexts_.erase(context);
  }
  void CancelAndAwait() {
    std::vector<std::shared_ptr<grpc::ClientContext>> contexts;
    {
      absl::MutexLock lock(&mutex_);
      contexts.assign(contexts_.begin(), contexts_.end());
    }
    // Not with the lock held: gRPC may give the call back from within.
    for (const auto& context : contexts) context->TryCancel();
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(
        +[](Contexts* open) { return open->empty(); }, &contexts_));
  }

 private:
  using Contexts = std::unordered_set<std::shared_ptr<grpc::ClientContext>>;
  absl::Mutex mutex_;
  Contexts contexts_ ABSL_GUARDED_BY(mutex_);
};

template <typename Request, typename Response>
struct Call {
  grpc::ClientContext context;
  Request request;
  Response response;
  grpc::Status status;
  EtcdMember::Done<Response> done;
};

class GrpcMember final : public EtcdMember {
 public:
  GrpcMember(const std::string& address, const EtcdTls& tls, base::Executor* executor)
      : executor_(executor),
        calls_(std::make_shared<Calls>()),
        alive_(std::make_shared<bool>(true)),
        channel_(grpc::CreateCustomChannel(address, CredentialsFor(tls), Arguments())),
        kv_(etcdserverpb::KV::NewStub(channel_)),
        auth_(etcdserverpb::Auth::NewStub(channel_)) {}
  ~GrpcMember() override { calls_->CancelAndAwait(); }

  void Range(const etcdserverpb::RangeRequest& request, const std::string& token,
             absl::Duration timeout, Done<etcdserverpb::RangeResponse> done) override {
    Start<etcdserverpb::RangeRequest, etcdserverpb::RangeResponse>(
        request, token, timeout, std::move(done),
        [this](auto... arguments) { kv_->async()->Range(arguments...); });
  }
  void Txn(const etcdserverpb::TxnRequest& request, const std::string& token,
           absl::Duration timeout, Done<etcdserverpb::TxnResponse> done) override {
    Start<etcdserverpb::TxnRequest, etcdserverpb::TxnResponse>(
        request, token, timeout, std::move(done),
        [this](auto... arguments) { kv_->async()->Txn(arguments...); });
  }
  void Authenticate(const etcdserverpb::AuthenticateRequest& request, absl::Duration timeout,
                    Done<etcdserverpb::AuthenticateResponse> done) override {
    Start<etcdserverpb::AuthenticateRequest, etcdserverpb::AuthenticateResponse>(
        request, "", timeout, std::move(done),
        [this](auto... arguments) { auth_->async()->Authenticate(arguments...); });
  }

 private:
  template <typename Request, typename Response, typename Method>
  void Start(const Request& request, const std::string& token, absl::Duration timeout,
             Done<Response> done, const Method& method) {
    auto call = std::make_shared<Call<Request, Response>>();
    call->request = request;
    call->done = std::move(done);
    if (!token.empty()) call->context.AddMetadata("token", token);
    call->context.set_deadline(MonotonicIn(timeout));
    const std::shared_ptr<grpc::ClientContext> context(call, &call->context);
    calls_->Add(context);
    // On a thread of gRPC's. The destructor waits for Remove, so the executor is there until then.
    std::function<void(grpc::Status)> returned =
        [call, context, calls = calls_, executor = executor_,
         alive = std::weak_ptr<bool>(alive_)](grpc::Status status) {
          call->status = std::move(status);
          executor->Post([call, alive] {
            if (alive.expired()) return;
            if (call->status.ok()) {
              std::move(call->done)(std::move(call->response));
            } else {
              std::move(call->done)(
                  absl::Status(static_cast<absl::StatusCode>(call->status.error_code()),
                               call->status.error_message()));
            }
          });
          calls->Remove(context);
        };
    method(&call->context, &call->request, &call->response, std::move(returned));
  }

  base::Executor* const executor_;
  const std::shared_ptr<Calls> calls_;
  const std::shared_ptr<bool> alive_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  const std::unique_ptr<etcdserverpb::Auth::Stub> auth_;
};

}  // namespace

std::unique_ptr<EtcdMember> EtcdMember::Make(const std::string& address, const EtcdTls& tls,
                                             base::Executor* executor) {
  return std::make_unique<GrpcMember>(address, tls, executor);
}

}  // namespace romulus::arbiter

#include "arbiter/etcd_grpc.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/async_unary_call.h>
#include <grpcpp/support/channel_arguments.h>

#include <algorithm>
#include <memory>
#include <thread>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
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

// Who waits on the queue for an answer.
class Pending {
 public:
  virtual ~Pending() = default;
  virtual void Answered() = 0;
  virtual void Cancel() = 0;
};

// The calls of a member that gRPC has not given back, and the thread that waits for them. (gRPC's
// callback API has threads of its own, which Debian 12's version ends with an abort now and then
// when the last channel goes that uses it.)
class Calls {
 public:
  Calls() : thread_([this] { Run(); }) {}
  // All are given back, cancelled.
  ~Calls() {
    {
      absl::MutexLock lock(&mutex_);
      for (Pending* call : open_) call->Cancel();
      mutex_.Await(absl::Condition(
          +[](Open* open) { return open->empty(); }, &open_));
    }
    queue_.Shutdown();
    thread_.join();
  }

  grpc::CompletionQueue& queue() { return queue_; }
  // Before the call is begun; its tag is `call`.
  void Add(Pending* call) {
    absl::MutexLock lock(&mutex_);
    open_.insert(call);
  }

 private:
  using Open = std::unordered_set<Pending*>;

  // The queue orders what is done before and after a call by means of its own, which no tool sees.
  void AwaitAdded(Pending* call) {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(open_.contains(call));
  }

  void Run() {
    void* tag = nullptr;
    bool ok = false;
    while (queue_.Next(&tag, &ok)) {
      std::unique_ptr<Pending> call(static_cast<Pending*>(tag));
      AwaitAdded(call.get());
      call->Answered();
      absl::MutexLock lock(&mutex_);
      open_.erase(call.get());
      call.reset();  // before the destructor can go on
    }
  }

  grpc::CompletionQueue queue_;
  absl::Mutex mutex_;
  Open open_ ABSL_GUARDED_BY(mutex_);
  std::thread thread_;
};

template <typename Response>
struct Call final : public Pending {
  void Answered() override {
    auto answer = std::make_shared<absl::StatusOr<Response>>(std::move(response));
    if (!status.ok()) {
      *answer =
          absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
    }
    executor->Post([answer, alive = alive,
                    done = std::make_shared<EtcdMember::Done<Response>>(std::move(done))] {
      if (!alive.expired()) std::move (*done)(std::move(*answer));
    });
  }
  void Cancel() override { context.TryCancel(); }

  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader;
  Response response;
  grpc::Status status;
  EtcdMember::Done<Response> done;
  base::Executor* executor = nullptr;
  std::weak_ptr<bool> alive;
};

class GrpcMember final : public EtcdMember {
 public:
  GrpcMember(const std::string& address, const EtcdTls& tls, base::Executor* executor)
      : executor_(executor),
        alive_(std::make_shared<bool>(true)),
        channel_(grpc::CreateCustomChannel(address, CredentialsFor(tls), Arguments())),
        kv_(etcdserverpb::KV::NewStub(channel_)),
        auth_(etcdserverpb::Auth::NewStub(channel_)) {}

  void Range(const etcdserverpb::RangeRequest& request, const std::string& token,
             absl::Duration timeout, Done<etcdserverpb::RangeResponse> done) override {
    Start(token, timeout, std::move(done), [&](grpc::ClientContext* context) {
      return kv_->PrepareAsyncRange(context, request, &calls_.queue());
    });
  }
  void Txn(const etcdserverpb::TxnRequest& request, const std::string& token,
           absl::Duration timeout, Done<etcdserverpb::TxnResponse> done) override {
    Start(token, timeout, std::move(done), [&](grpc::ClientContext* context) {
      return kv_->PrepareAsyncTxn(context, request, &calls_.queue());
    });
  }
  void Authenticate(const etcdserverpb::AuthenticateRequest& request, absl::Duration timeout,
                    Done<etcdserverpb::AuthenticateResponse> done) override {
    Start("", timeout, std::move(done), [&](grpc::ClientContext* context) {
      return auth_->PrepareAsyncAuthenticate(context, request, &calls_.queue());
    });
  }

 private:
  template <typename Response, typename Prepare>
  void Start(const std::string& token, absl::Duration timeout, Done<Response> done,
             const Prepare& prepare) {
    auto* const call = new Call<Response>;  // the queue's until it is answered
    call->done = std::move(done);
    call->executor = executor_;
    call->alive = alive_;
    if (!token.empty()) call->context.AddMetadata("token", token);
    call->context.set_deadline(MonotonicIn(timeout));
    call->reader = prepare(&call->context);
    calls_.Add(call);
    call->reader->StartCall();
    call->reader->Finish(&call->response, &call->status, static_cast<Pending*>(call));
  }

  base::Executor* const executor_;
  const std::shared_ptr<bool> alive_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  const std::unique_ptr<etcdserverpb::Auth::Stub> auth_;
  Calls calls_;  // first to go
};

}  // namespace

std::unique_ptr<EtcdMember> EtcdMember::Make(const std::string& address, const EtcdTls& tls,
                                             base::Executor* executor) {
  return std::make_unique<GrpcMember>(address, tls, executor);
}

}  // namespace romulus::arbiter

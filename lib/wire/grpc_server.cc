#include "wire/grpc_server.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "romulus/v1/heartbeats_service.grpc.pb.h"
#include "romulus/v1/replication_service.grpc.pb.h"
#include "wire/grpc_acceptor.h"
#include "wire/grpc_polling.h"
#include "wire/grpc_stream.h"
#include "wire/grpc_tls.h"

namespace romulus::wire {
namespace {

using RawReplication = v1::Replication::WithRawMethod_Replicate<v1::Replication::Service>;
using RawHeartbeats = v1::Heartbeats::WithRawMethod_Exchange<v1::Heartbeats::Service>;

// Streams that stand at once: one primary, and a few that are being refused.
constexpr size_t kMaxStreams = 16;

// What streams need to outlive the server object that users hold.
struct Core {
  explicit Core(LinkService which) : kind(which) {}
  grpc::Service* service() {
    if (kind == LinkService::kHeartbeats) return &heartbeats;
    return &replication;
  }

  const LinkService kind;
  // Destroyed from the bottom up: server, then queue, then services, of which one is registered.
  RawReplication replication;
  RawHeartbeats heartbeats;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  std::unique_ptr<grpc::Server> server;
};

class ServerStream final : public GrpcStream {
 public:
  ServerStream(const GrpcLinkOptions& options, std::shared_ptr<Core> core)
      : GrpcStream(options, core->queue.get()), core_(std::move(core)), call_(&context_) {}

  void Request() {
    grpc::ServerCompletionQueue* const queue = core_->queue.get();
    if (core_->kind == LinkService::kHeartbeats) {
      core_->heartbeats.RequestExchange(&context_, &call_, queue, queue, &start_);
    } else {
      core_->replication.RequestReplicate(&context_, &call_, queue, queue, &start_);
    }
  }
  std::string peer() const { return context_.peer(); }
  // Whether the peer is whom `security` names. Once, when the stream has come in.
  absl::Status CheckPeer(const LinkSecurity& security) {
    if (security.tls == nullptr) return absl::OkStatus();
    TlsPeer who = TlsPeerOf(*context_.auth_context());
    if (!who.Is(security.peer_name)) {
      const absl::Status why = absl::PermissionDeniedError(absl::StrCat(
          "the certificate is of ", who.NamesText(), ", not of '", security.peer_name, "'"));
      security.tls->Refused(TlsRefusal::kWrongName, peer(), std::string(why.message()));
      return why;
    }
    {
      absl::MutexLock lock(&chain_mutex_);
      chain_ = std::move(who.chain);
    }
    return CheckTrust(*security.tls, *security.tls->current());
  }
  // Whether that still holds.
  absl::Status CheckTrust(TlsIdentity& tls, const TlsMaterial& now) {
    absl::MutexLock lock(&chain_mutex_);
    if (chain_.empty()) return absl::OkStatus();  // still to come
    const absl::Status trusted = StillTrusted(now, chain_);
    if (trusted.ok()) return trusted;
    tls.Refused(TlsRefusal::kRevoked, peer(), std::string(trusted.message()));
    return absl::PermissionDeniedError(
        absl::StrCat("the certificate is not trusted any more: ", trusted.message()));
  }

 private:
  void StartRead(grpc::ByteBuffer* into, Tag* tag) override { call_.Read(into, tag); }
  void StartWrite(const grpc::ByteBuffer& message, Tag* tag) override { call_.Write(message, tag); }
  bool HasWritesDone() const override { return false; }
  void StartWritesDone(Tag*) override {}
  void StartFinish(const absl::Status& why, Tag* tag) override {
    call_.Finish(
        grpc::Status(static_cast<grpc::StatusCode>(why.raw_code()), std::string(why.message())),
        tag);
  }
  absl::Status FinishStatus() const override { return absl::OkStatus(); }
  void Cancel() override { context_.TryCancel(); }

  const std::shared_ptr<Core> core_;
  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer> call_;
  Tag start_{this, Op::kStart};
  absl::Mutex chain_mutex_;
  std::string chain_ ABSL_GUARDED_BY(chain_mutex_);
};

class Server final : public GrpcLinkServer {
 public:
  Server(const GrpcLinkOptions& options, LinkAcceptor* acceptor)
      : options_(options), acceptor_(acceptor), core_(std::make_shared<Core>(options.service)) {}
  ~Server() override { Shutdown(); }

  absl::Status Start(absl::string_view address) {
    GrpcAcceptorOptions accepting;
    accepting.user_timeout_ms = options_.keepalive_timeout_ms;
    accepting.on_crowded = [this](const absl::Status& why, uint64_t ended) {
      acceptor_->OnCrowded(why, ended);
    };
    if (const auto tls = options_.security.tls; tls != nullptr) {
      accepting.on_plain_text = [tls](const std::string& from) {
        tls->Refused(TlsRefusal::kPlainText, from, "what came is not TLS");
      };
    }
    ROMULUS_ASSIGN_OR_RETURN(connections_, GrpcAcceptor::Listen(address, std::move(accepting)));
    grpc::ServerBuilder builder;
    for (const auto& [name, value] : TransportArguments(options_)) {
      builder.AddChannelArgument(name, value);
    }
    connections_->AddTo(builder, TlsServerCredentials(options_.security.tls));
    builder.RegisterService(core_->service());
    core_->queue = builder.AddCompletionQueue();
    core_->server = builder.BuildAndStart();
    if (core_->server == nullptr) {
      stopped_ = true;
      core_->queue->Shutdown();
      void* got = nullptr;
      bool ok = false;
      while (NextTag(*core_->queue, &got, &ok)) {
      }
      return absl::UnavailableError(absl::StrCat("cannot listen on ", address));
    }
    attended_.emplace(core_->queue.get());
    thread_ = std::thread([this] { Run(); });
    if (options_.security.tls != nullptr) {
      watch_ = options_.security.tls->Subscribe([this](const TlsMaterial& now) { LookAgain(now); });
    }
    connections_->Start();
    return absl::OkStatus();
  }

  int port() const override { return connections_->port(); }

  void Shutdown() override {
    absl::MutexLock one_at_a_time(&shutdown_mutex_);
    if (stopped_ || core_->server == nullptr) return;  // never started
    stopped_ = true;
    watch_.reset();
    connections_->Stop();
    std::vector<std::shared_ptr<ServerStream>> standing;
    {
      absl::MutexLock lock(&mutex_);
      stopping_ = true;
      for (const auto& [key, stream] : streams_) {
        if (key != requested_) standing.push_back(stream);
      }
    }
    for (const auto& stream : standing) {
      stream->Close(absl::UnavailableError("the server shuts down"));
    }
    standing.clear();
    // Waits for calls to end, then cancels what is left.
    core_->server->Shutdown(MonotonicIn(std::chrono::milliseconds(700)));
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(
          +[](decltype(streams_)* streams) { return streams->empty(); }, &streams_));
    }
    attended_->Leave();
    core_->queue->Shutdown();
    thread_.join();
  }

 private:
  void RequestNextLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    auto next = std::make_shared<ServerStream>(options_, core_);
    next->SetQueueThread(thread_id_);
    requested_ = next.get();
    streams_.emplace(requested_, next);
    next->Request();
  }

  void Run() {
    thread_id_ = std::this_thread::get_id();
    {
      absl::MutexLock lock(&mutex_);
      if (!stopping_) RequestNextLocked();
    }
    void* got = nullptr;
    bool ok = false;
    while (attended_->Next(&got, &ok)) {
      const GrpcStream::Tag* tag = static_cast<GrpcStream::Tag*>(got);
      GrpcStream* const stream = tag->stream;
      if (tag->op == GrpcStream::Op::kStart) {
        Incoming(stream, ok);
        continue;
      }
      stream->OnTag(tag->op, ok);
      if (stream->done()) Forget(stream);
    }
  }

  void Incoming(GrpcStream* key, bool ok) {
    std::shared_ptr<ServerStream> stream;
    absl::Status refused;
    {
      absl::MutexLock lock(&mutex_);
      requested_ = nullptr;
      if (!ok) {
        streams_.erase(key);
        return;
      }
      stream = streams_.at(key);
      if (streams_.size() > kMaxStreams) refused = absl::ResourceExhaustedError("too many streams");
      if (stopping_) {
        refused = absl::UnavailableError("the server shuts down");
      } else {
        RequestNextLocked();
      }
    }
    LinkListener* listener = nullptr;
    if (refused.ok()) refused = stream->CheckPeer(options_.security);
    if (refused.ok()) {
      listener = acceptor_->Accept(std::make_unique<GrpcStreamLink>(stream), stream->peer());
      refused = absl::PermissionDeniedError("stream refused");
    }
    stream->SetListener(listener);
    if (listener == nullptr) stream->Close(refused);
    stream->Begin();
  }

  // The CAs have changed.
  void LookAgain(const TlsMaterial& now) {
    std::vector<std::shared_ptr<ServerStream>> standing;
    {
      absl::MutexLock lock(&mutex_);
      for (const auto& [key, stream] : streams_) {
        if (key != requested_) standing.push_back(stream);
      }
    }
    for (const auto& stream : standing) {
      const absl::Status trusted = stream->CheckTrust(*options_.security.tls, now);
      if (!trusted.ok()) stream->Close(trusted);
    }
  }

  void Forget(GrpcStream* key) {
    std::shared_ptr<ServerStream> last;  // destroyed without the lock
    absl::MutexLock lock(&mutex_);
    if (auto found = streams_.find(key); found != streams_.end()) {
      last = std::move(found->second);
      streams_.erase(found);
    }
  }

  const GrpcLinkOptions options_;
  LinkAcceptor* const acceptor_;
  const std::shared_ptr<Core> core_;
  std::unique_ptr<GrpcAcceptor> connections_;
  std::thread::id thread_id_;              // the queue's thread, set and used by it
  std::optional<AttendedQueue> attended_;  // of core_->queue
  std::thread thread_;
  std::unique_ptr<TlsIdentity::Subscription> watch_;

  absl::Mutex shutdown_mutex_;
  bool stopped_ ABSL_GUARDED_BY(shutdown_mutex_) = false;

  absl::Mutex mutex_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  // All that have operations in flight, also the one that waits for the next peer.
  absl::flat_hash_map<GrpcStream*, std::shared_ptr<ServerStream>> streams_ ABSL_GUARDED_BY(mutex_);
  GrpcStream* requested_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcLinkServer>> GrpcLinkServer::Listen(
    absl::string_view address, const GrpcLinkOptions& options, LinkAcceptor* acceptor) {
  auto server = std::make_unique<Server>(options, acceptor);
  ROMULUS_RETURN_IF_ERROR(server->Start(address));
  return server;
}

}  // namespace romulus::wire

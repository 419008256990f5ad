#include "wire/grpc_server.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "romulus/v1/replication_service.grpc.pb.h"
#include "wire/grpc_stream.h"

namespace romulus::wire {
namespace {

using RawService = v1::Replication::WithRawMethod_Replicate<v1::Replication::Service>;

// Streams that stand at once: one primary, and a few that are being refused.
constexpr size_t kMaxStreams = 16;

std::shared_ptr<grpc::ServerCredentials> CredentialsFor(const LinkSecurity& security) {
  switch (security.kind) {
    case LinkSecurity::Kind::kPlainText:
      break;
  }
  return grpc::InsecureServerCredentials();
}

absl::Status InUse(absl::string_view address) {
  return absl::AlreadyExistsError(
      absl::StrCat("cannot listen on ", address, ": the address is in use"));
}

// gRPC removes a socket file that it finds, also one on which another daemon listens.
absl::Status ProbeUnix(absl::string_view address, absl::string_view path) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on ", address,
                                                   ": a socket's path has 1 to ",
                                                   sizeof(name.sun_path) - 1, " bytes"));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return base::ErrnoStatus(errno, "socket");
  // SAFETY: sockaddr_un is the sockaddr of AF_UNIX.
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0) {
    return InUse(address);
  }
  const size_t slash = path.rfind('/');
  const std::string folder(
      slash == absl::string_view::npos ? "." : std::string(path.substr(0, slash + 1)));
  if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    return base::ErrnoStatus(errno, absl::StrCat("cannot listen on ", address));
  }
  return absl::OkStatus();
}

// What bind(2) says to this address, in words; gRPC only logs it.
absl::Status ProbeTcp(absl::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on ", address, ": want host:port or unix:/path"));
  }
  absl::string_view host = address.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port(address.substr(colon + 1));
  if (const int error = ::getaddrinfo(host.empty() ? nullptr : std::string(host).c_str(),
                                      port.c_str(), &hints, &found);
      error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot listen on ", address, ": ", ::gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> free_found(found, ::freeaddrinfo);
  base::UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return base::ErrnoStatus(errno, "socket");
  const int one = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0) {
    if (errno == EADDRINUSE) return InUse(address);
    return base::ErrnoStatus(errno, absl::StrCat("cannot listen on ", address));
  }
  return absl::OkStatus();
}

// What streams need to outlive the server object that users hold.
struct Core {
  // Destroyed from the bottom up: server, then queue, then service.
  RawService service;
  std::unique_ptr<grpc::ServerCompletionQueue> queue;
  std::unique_ptr<grpc::Server> server;
};

class ServerStream final : public GrpcStream {
 public:
  ServerStream(const GrpcLinkOptions& options, std::shared_ptr<Core> core)
      : GrpcStream(options, core->queue.get()), core_(std::move(core)), call_(&context_) {}

  void Request() {
    core_->service.RequestReplicate(&context_, &call_, core_->queue.get(), core_->queue.get(),
                                    &start_);
  }
  std::string peer() const { return context_.peer(); }

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
};

class Server final : public GrpcLinkServer {
 public:
  Server(const GrpcLinkOptions& options, LinkAcceptor* acceptor)
      : options_(options), acceptor_(acceptor), core_(std::make_shared<Core>()) {}
  ~Server() override { Shutdown(); }

  absl::Status Start(absl::string_view address) {
    absl::string_view path = address;
    const bool is_unix = absl::ConsumePrefix(&path, "unix:");
    absl::ConsumePrefix(&path, "//");
    ROMULUS_RETURN_IF_ERROR(is_unix ? ProbeUnix(address, path) : ProbeTcp(address));
    grpc::ServerBuilder builder;
    for (const auto& [name, value] : TransportArguments(options_)) {
      builder.AddChannelArgument(name, value);
    }
    int bound = 0;
    builder.AddListeningPort(std::string(address), CredentialsFor(options_.security), &bound);
    builder.RegisterService(&core_->service);
    core_->queue = builder.AddCompletionQueue();
    core_->server = builder.BuildAndStart();
    if (core_->server == nullptr || bound == 0) {
      stopped_ = true;
      if (core_->server != nullptr) core_->server->Shutdown();
      core_->queue->Shutdown();
      void* got = nullptr;
      bool ok = false;
      while (core_->queue->Next(&got, &ok)) {
      }
      return absl::UnavailableError(absl::StrCat("cannot listen on ", address));
    }
    port_ = is_unix ? 0 : bound;
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void Shutdown() override {
    absl::MutexLock one_at_a_time(&shutdown_mutex_);
    if (stopped_ || core_->server == nullptr) return;  // never started
    stopped_ = true;
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
    while (core_->queue->Next(&got, &ok)) {
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
    if (refused.ok()) {
      listener = acceptor_->Accept(std::make_unique<GrpcStreamLink>(stream), stream->peer());
      refused = absl::PermissionDeniedError("stream refused");
    }
    stream->SetListener(listener);
    if (listener == nullptr) stream->Close(refused);
    stream->Begin();
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
  int port_ = 0;
  std::thread::id thread_id_;  // the queue's thread, set and used by it
  std::thread thread_;

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

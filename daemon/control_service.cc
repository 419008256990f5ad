#include "daemon/control_service.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/resource_quota.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "daemon/console_socket.h"
#include "romulus/v1/control.grpc.pb.h"
#include "wire/grpc_acceptor.h"
#include "wire/grpc_tls.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;
using std::chrono::steady_clock;

// Longer than a promotion or a flush ever takes; a client's own deadline is usually shorter.
constexpr std::chrono::seconds kAnswerTimeout{30};
constexpr std::chrono::milliseconds kCancelPoll{100};
constexpr std::chrono::milliseconds kShutdownGrace{500};
constexpr int kMaxCallsPerConnection = 8;
constexpr int kMaxThreads = 128;  // of one address
constexpr size_t kEventsAtATime = 256;
constexpr std::chrono::seconds kAskAgain{1};

grpc::Status ToGrpc(const absl::Status& status) {
  // What a caller makes itself of a daemon that does not answer; this one does.
  if (absl::IsUnavailable(status)) {
    return grpc::Status(grpc::StatusCode::ABORTED, std::string(status.message()));
  }
  // The codes are the same numbers (absl/status/status.h, grpc/impl/codegen/status.h).
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()));
}

// Where an answer is waited for. Shared with the answer, which may come after the caller has gone.
template <typename T>
class Waiter {
 public:
  Answer<T> MakeAnswer(std::shared_ptr<Waiter> self) {
    return [self = std::move(self)](absl::StatusOr<T> value) {
      std::lock_guard lock(self->mutex_);
      self->value_.emplace(std::move(value));
      self->changed_.notify_all();
    };
  }
  absl::StatusOr<T> Wait(const grpc::ServerContext& context) {
    const auto give_up = steady_clock::now() + kAnswerTimeout;
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kCancelPoll, [this] { return value_.has_value(); })) {
      if (context.IsCancelled()) return absl::CancelledError("the caller has gone");
      if (steady_clock::now() > give_up) return absl::DeadlineExceededError("no answer in time");
    }
    return *std::move(value_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<absl::StatusOr<T>> value_;
};

enum class Role { kReadOnly, kAdmin };

class Service final : public v1::Control::Service {
 public:
  // Without `remote` everybody may do everything.
  Service(ControlBackend* backend, std::optional<RemoteControl> remote)
      : backend_(backend), remote_(std::move(remote)) {}

  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest*,
                         v1::GetStatusResponse* response) override {
    return Ask<v1::GetStatusResponse>(*context, Role::kReadOnly, response,
                                      [this](auto answer) { backend_->GetStatus(answer); });
  }
  grpc::Status WatchStatus(grpc::ServerContext* context, const v1::WatchStatusRequest* request,
                           grpc::ServerWriter<v1::GetStatusResponse>* writer) override;
  grpc::Status Failover(grpc::ServerContext* context, const v1::FailoverRequest* request,
                        v1::FailoverResponse* response) override {
    return Ask<v1::FailoverResponse>(
        *context, Role::kAdmin, response,
        [this, force = request->force()](auto answer) { backend_->Failover(force, answer); });
  }
  grpc::Status Switchover(grpc::ServerContext* context, const v1::SwitchoverRequest* request,
                          v1::SwitchoverResponse* response) override {
    return Ask<v1::SwitchoverResponse>(*context, Role::kAdmin, response,
                                       [this, timeout_ms = request->timeout_ms()](auto answer) {
                                         backend_->Switchover(timeout_ms, answer);
                                       });
  }
  grpc::Status Pause(grpc::ServerContext* context, const v1::PauseRequest*,
                     v1::PauseResponse* response) override {
    return Ask<v1::PauseResponse>(*context, Role::kAdmin, response,
                                  [this](auto answer) { backend_->Pause(answer); });
  }
  grpc::Status Resume(grpc::ServerContext* context, const v1::ResumeRequest*,
                      v1::ResumeResponse* response) override {
    return Ask<v1::ResumeResponse>(*context, Role::kAdmin, response,
                                   [this](auto answer) { backend_->Resume(answer); });
  }
  grpc::Status Unprotect(grpc::ServerContext* context, const v1::UnprotectRequest* request,
                         v1::UnprotectResponse*) override {
    bool done = false;
    return Ask<bool>(*context, Role::kAdmin, &done, [this, force = request->force()](auto answer) {
      backend_->SetProtection(false, force, answer);
    });
  }
  grpc::Status Protect(grpc::ServerContext* context, const v1::ProtectRequest*,
                       v1::ProtectResponse*) override {
    bool done = false;
    return Ask<bool>(*context, Role::kAdmin, &done,
                     [this](auto answer) { backend_->SetProtection(true, false, answer); });
  }
  grpc::Status ListEpochs(grpc::ServerContext* context, const v1::ListEpochsRequest* request,
                          v1::ListEpochsResponse* response) override {
    return Ask<v1::ListEpochsResponse>(
        *context, Role::kReadOnly, response,
        [this, last = request->last()](auto answer) { backend_->ListEpochs(last, answer); });
  }
  grpc::Status ListEvents(grpc::ServerContext* context, const v1::ListEventsRequest* request,
                          grpc::ServerWriter<v1::Event>* writer) override;
  grpc::Status GetHistory(grpc::ServerContext* context, const v1::GetHistoryRequest* request,
                          v1::GetHistoryResponse* response) override {
    if (const grpc::Status may = Authorize(*context, Role::kReadOnly); !may.ok()) return may;
    *response = backend_->history().Since(request->since_unix_ms());
    return grpc::Status::OK;
  }
  grpc::Status Set(grpc::ServerContext* context, const v1::SetRequest* request,
                   v1::SetResponse* response) override {
    return Ask<v1::SetResponse>(*context, Role::kAdmin, response, [this, request](auto answer) {
      backend_->Set(request->tunables(), answer);
    });
  }

  void NotifyChanged() {
    std::lock_guard lock(mutex_);
    ++version_;
    changed_.notify_all();
  }
  void Stop() {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }

 private:
  bool stopping() {
    std::lock_guard lock(mutex_);
    return stopping_;
  }
  grpc::Status Authorize(const grpc::ServerContext& context, Role role) const;
  template <typename T, typename Call>
  grpc::Status Ask(const grpc::ServerContext& context, Role role, T* response, const Call& call) {
    if (const grpc::Status may = Authorize(context, role); !may.ok()) return may;
    auto waiter = std::make_shared<Waiter<T>>();
    call(waiter->MakeAnswer(waiter));
    absl::StatusOr<T> answer = waiter->Wait(context);
    if (!answer.ok()) return ToGrpc(answer.status());
    *response = *std::move(answer);
    return grpc::Status::OK;
  }

  ControlBackend* const backend_;
  const std::optional<RemoteControl> remote_;
  std::mutex mutex_;
  std::condition_variable changed_;
  uint64_t version_ = 0;
  bool stopping_ = false;
};

// At each call: a connection may be older than what the CA file says.
grpc::Status Service::Authorize(const grpc::ServerContext& context, Role role) const {
  if (!remote_) return grpc::Status::OK;
  const auto refuse = [&](wire::TlsRefusal kind, const std::string& why) {
    remote_->tls->Refused(kind, context.peer(), why);
    return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, why);
  };
  const wire::TlsPeer caller = wire::TlsPeerOf(*context.auth_context());
  const absl::Status trusted = wire::StillTrusted(*remote_->tls->current(), caller.chain);
  if (!trusted.ok()) {
    return refuse(wire::TlsRefusal::kRevoked,
                  absl::StrCat("the certificate is not trusted any more: ", trusted.message()));
  }
  const auto is_one_of = [&](const std::vector<std::string>& names) {
    return std::any_of(names.begin(), names.end(),
                       [&](const std::string& name) { return caller.Is(name); });
  };
  if (is_one_of(remote_->admins)) return grpc::Status::OK;
  if (!is_one_of(remote_->read_only)) {
    return refuse(wire::TlsRefusal::kRole,
                  absl::StrCat("the certificate's name, ", caller.NamesText(),
                               ", is in neither admins nor read_only of this node's `tls { }`"));
  }
  if (role == Role::kReadOnly) return grpc::Status::OK;
  return refuse(wire::TlsRefusal::kRole,
                absl::StrCat("the certificate's name, ", caller.NamesText(),
                             ", is in read_only of this node's `tls { }`: it may only look"));
}

grpc::Status Service::WatchStatus(grpc::ServerContext* context,
                                  const v1::WatchStatusRequest* request,
                                  grpc::ServerWriter<v1::GetStatusResponse>* writer) {
  const std::chrono::milliseconds period(request->min_period_ms() == 0 ? 1000
                                                                       : request->min_period_ms());
  std::unique_lock lock(mutex_);
  while (!stopping_ && !context->IsCancelled()) {
    const uint64_t seen = version_;
    const auto next = steady_clock::now() + period;
    lock.unlock();
    v1::GetStatusResponse status;
    const grpc::Status asked = Ask<v1::GetStatusResponse>(
        *context, Role::kReadOnly, &status, [this](auto answer) { backend_->GetStatus(answer); });
    if (!asked.ok()) return asked;
    if (!writer->Write(status)) return grpc::Status::OK;
    lock.lock();
    while (!stopping_ && !context->IsCancelled() &&
           (version_ == seen || steady_clock::now() < next)) {
      changed_.wait_for(lock, kCancelPoll);
    }
  }
  return grpc::Status::OK;
}

grpc::Status Service::ListEvents(grpc::ServerContext* context, const v1::ListEventsRequest* request,
                                 grpc::ServerWriter<v1::Event>* writer) {
  const EventJournal& events = backend_->events();
  uint64_t after = events.Before(request->since_unix_ms(), request->last());
  // What is beyond the last one was another journal's.
  if (request->after_number() <= events.last_number()) {
    after = std::max(after, request->after_number());
  }
  while (!stopping() && !context->IsCancelled()) {
    if (const grpc::Status may = Authorize(*context, Role::kReadOnly); !may.ok()) return may;
    const std::vector<v1::Event> some = events.After(after, kEventsAtATime);
    for (const v1::Event& event : some) {
      if (!writer->Write(event)) return grpc::Status::OK;
      after = event.number();
    }
    if (some.size() == kEventsAtATime) continue;
    if (!request->follow()) return grpc::Status::OK;
    // Who may look is looked at again now and then, also while nothing happens.
    const auto again = steady_clock::now() + kAskAgain;
    while (!stopping() && !context->IsCancelled() && steady_clock::now() < again &&
           !events.Await(after, absl::FromChrono(kCancelPoll))) {
    }
  }
  return grpc::Status::OK;
}

// One address.
class Door {
 public:
  Door(ControlBackend* backend, std::optional<RemoteControl> remote)
      : tls_(remote ? remote->tls : nullptr), service_(backend, std::move(remote)) {}
  ~Door() { Shutdown(); }

  absl::Status Open(const std::string& address);
  void NotifyChanged() { service_.NotifyChanged(); }
  void Shutdown() {
    if (server_ == nullptr) return;
    connections_->Stop();
    service_.Stop();
    // By the monotonic clock: a wall clock that is set meanwhile must not stretch it.
    server_->Shutdown(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                   gpr_time_from_millis(kShutdownGrace.count(), GPR_TIMESPAN)));
    server_->Wait();
    server_.reset();
  }

 private:
  const std::shared_ptr<wire::TlsIdentity> tls_;  // null: plain text
  Service service_;
  std::unique_ptr<wire::GrpcAcceptor> connections_;
  std::unique_ptr<grpc::Server> server_;
};

absl::Status Door::Open(const std::string& address) {
  absl::string_view path = address;
  const bool is_unix = absl::ConsumePrefix(&path, "unix:");
  absl::ConsumePrefix(&path, "//");
  // gRPC would take the socket away from a daemon that still listens on it.
  if (is_unix) {
    const std::string folder = std::filesystem::path(std::string(path)).parent_path().string();
    std::error_code error;
    if (!std::filesystem::is_directory(folder, error)) {
      return absl::NotFoundError(
          absl::StrCat("control address ", address, ": there is no folder ", folder,
                       "; make it for this daemon's user alone: `mkdir -m 0700 -p ", folder,
                       "` (under systemd RuntimeDirectory= does so at each start)"));
    }
    ROMULUS_RETURN_IF_ERROR(
        base::Annotate(RemoveStaleSocket(std::string(path)), "control address"));
  }
  wire::GrpcAcceptorOptions accepting;
  if (tls_ != nullptr) {
    accepting.on_plain_text = [tls = tls_](const std::string& from) {
      tls->Refused(wire::TlsRefusal::kPlainText, from, "what came is not TLS");
    };
  }
  absl::StatusOr<std::unique_ptr<wire::GrpcAcceptor>> bound =
      wire::GrpcAcceptor::Listen(address, std::move(accepting));
  if (!bound.ok()) return base::Annotate(bound.status(), "control address");
  connections_ = *std::move(bound);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(64 << 10);
  // Each call has a thread while it lasts, and one that watches lasts as long as its caller likes.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxCallsPerConnection);
  builder.SetResourceQuota(grpc::ResourceQuota("control").SetMaxThreads(kMaxThreads));
  connections_->AddTo(builder, wire::TlsServerCredentials(tls_));
  builder.RegisterService(&service_);
  server_ = builder.BuildAndStart();
  grpc::EnableDefaultHealthCheckService(false);  // of servers that are made later: this one's only
  if (server_ == nullptr) {
    return absl::UnavailableError(absl::StrCat("control address ", address, ": no server"));
  }
  if (is_unix && ::chmod(std::string(path).c_str(), 0600) != 0) {
    return base::ErrnoStatus(errno, absl::StrCat("control address ", address));
  }
  connections_->Start();
  return absl::OkStatus();
}

class Server final : public ControlServer {
 public:
  Server(ControlBackend* backend, std::optional<RemoteControl> remote) {
    doors_.push_back(std::make_unique<Door>(backend, std::nullopt));
    if (remote) doors_.push_back(std::make_unique<Door>(backend, std::move(remote)));
  }
  ~Server() override { Shutdown(); }

  absl::Status Open(size_t door, const std::string& address) { return doors_[door]->Open(address); }
  void NotifyChanged() override {
    for (const auto& door : doors_) door->NotifyChanged();
  }
  void Shutdown() override {
    for (const auto& door : doors_) door->Shutdown();
  }

 private:
  std::vector<std::unique_ptr<Door>> doors_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Listen(
    const std::string& address, ControlBackend* backend, std::optional<RemoteControl> remote) {
  const std::string elsewhere = remote ? remote->address : "";
  auto server = std::make_unique<Server>(backend, std::move(remote));
  ROMULUS_RETURN_IF_ERROR(server->Open(0, address));
  if (!elsewhere.empty()) ROMULUS_RETURN_IF_ERROR(server->Open(1, elsewhere));
  return server;
}

}  // namespace romulus::daemon

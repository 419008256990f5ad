#include "wire/grpc_link.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "wire/grpc_polling.h"
#include "wire/grpc_stream.h"
#include "wire/grpc_tls.h"

namespace romulus::wire {
namespace {

// replication_service.proto, heartbeats_service.proto. Both messages are one length-delimited field
// 1, so that one way to wrap and unwrap them does for both.
const char* MethodOf(LinkService service) {
  return service == LinkService::kReplication ? "/romulus.v1.Replication/Replicate"
                                              : "/romulus.v1.Heartbeats/Exchange";
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const GrpcLinkOptions& options) {
  grpc::ChannelArguments arguments;
  for (const auto& [name, value] : TransportArguments(options)) arguments.SetInt(name, value);
  const LinkSecurity& security = options.security;
  const std::shared_ptr<grpc::ChannelCredentials> credentials =
      security.tls == nullptr
          ? grpc::InsecureChannelCredentials()
          : TlsChannelCredentials(*security.tls->current(), security.peer_name, arguments);
  return grpc::CreateCustomChannel(address, credentials, arguments);
}

absl::Status FromGrpc(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

// Owns the completion queue; its thread holds a reference until the queue is drained.
class ClientStream final : public GrpcStream {
 public:
  ClientStream(const std::string& address, const GrpcLinkOptions& options)
      : ClientStream(address, options, std::make_unique<grpc::CompletionQueue>()) {}

  // Blocks. On an error nothing of the stream is in use any more.
  absl::Status Start(LinkService service, uint32_t timeout_ms) {
    Tag tag{this, Op::kStart};
    call_ = stub_.PrepareCall(&context_, MethodOf(service), queue_.get());
    call_->StartCall(&tag);
    void* got = nullptr;
    bool ok = false;
    const gpr_timespec deadline = MonotonicIn(std::chrono::milliseconds(timeout_ms));
    const bool in_time = queue_->AsyncNext(&got, &ok, deadline) == grpc::CompletionQueue::GOT_EVENT;
    if (in_time && ok) return absl::OkStatus();
    if (!in_time) {
      context_.TryCancel();
      NextTag(*queue_, &got, &ok);
    }
    call_->Finish(&status_, &tag);
    NextTag(*queue_, &got, &ok);
    queue_->Shutdown();
    while (NextTag(*queue_, &got, &ok)) {
    }
    if (!in_time) return absl::UnavailableError(absl::StrCat("no answer in ", timeout_ms, " ms"));
    return absl::UnavailableError(status_.error_message());
  }

  // Of a stream that was started.
  TlsPeer peer() const { return TlsPeerOf(*context_.auth_context()); }

  // The thread's work: until the stream is done and its queue empty.
  void Run() {
    SetQueueThread(std::this_thread::get_id());
    Begin();
    void* got = nullptr;
    bool ok = false;
    while (!done() && NextTag(*queue_, &got, &ok)) OnTag(static_cast<Tag*>(got)->op, ok);
    queue_->Shutdown();
    while (NextTag(*queue_, &got, &ok)) {
    }
  }

 private:
  ClientStream(const std::string& address, const GrpcLinkOptions& options,
               std::unique_ptr<grpc::CompletionQueue> queue)
      : GrpcStream(options, queue.get()),
        queue_(std::move(queue)),
        stub_(MakeChannel(address, options)) {}

  void StartRead(grpc::ByteBuffer* into, Tag* tag) override { call_->Read(into, tag); }
  void StartWrite(const grpc::ByteBuffer& message, Tag* tag) override {
    call_->Write(message, tag);
  }
  bool HasWritesDone() const override { return true; }
  void StartWritesDone(Tag* tag) override { call_->WritesDone(tag); }
  void StartFinish(const absl::Status&, Tag* tag) override { call_->Finish(&status_, tag); }
  absl::Status FinishStatus() const override { return FromGrpc(status_); }
  void Cancel() override { context_.TryCancel(); }

  std::unique_ptr<grpc::CompletionQueue> queue_;
  grpc::GenericStub stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  grpc::Status status_;
};

class ClientLink final : public GrpcStreamLink {
 public:
  ClientLink(const std::shared_ptr<ClientStream>& stream, LinkSecurity security, TlsPeer peer)
      : GrpcStreamLink(stream),
        security_(std::move(security)),
        peer_(std::move(peer)),
        thread_([stream] { stream->Run(); }) {}
  ~ClientLink() override {
    watch_.reset();
    stream_->Detach();
    if (thread_.get_id() == std::this_thread::get_id()) {
      thread_.detach();  // it holds the stream and ends when it returns from the listener
    } else {
      thread_.join();
    }
  }

  // The certificate was looked at when the connection was made. Once.
  void WatchTrust(const std::string& address) {
    if (security_.tls == nullptr) return;
    const auto look = [this, address](const TlsMaterial& now) {
      const absl::Status trusted = StillTrusted(now, peer_.chain);
      if (trusted.ok()) return;
      security_.tls->Refused(TlsRefusal::kRevoked, address, std::string(trusted.message()));
      stream_->Close(absl::PermissionDeniedError(absl::StrCat(
          "the certificate of ", address, " is not trusted any more: ", trusted.message())));
    };
    watch_ = security_.tls->Subscribe(look);
    look(*security_.tls->current());
  }

 private:
  const LinkSecurity security_;
  const TlsPeer peer_;
  std::unique_ptr<TlsIdentity::Subscription> watch_;
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Link>> ConnectGrpcLink(absl::string_view address,
                                                      const GrpcLinkOptions& options,
                                                      LinkListener* listener) {
  auto stream = std::make_shared<ClientStream>(std::string(address), options);
  if (absl::Status started = stream->Start(options.service, options.connect_timeout_ms);
      !started.ok()) {
    if (options.security.tls != nullptr && IsWrongName(started.message())) {
      options.security.tls->Refused(TlsRefusal::kWrongName, std::string(address),
                                    std::string(started.message()));
    }
    return absl::UnavailableError(
        absl::StrCat("cannot connect to ", address, ": ", started.message()));
  }
  const LinkSecurity& security = options.security;
  TlsPeer peer;
  if (security.tls != nullptr) peer = stream->peer();
  // gRPC takes a wildcard for any name, and a certificate without names for its subject's.
  const bool is_peer = security.tls == nullptr || peer.Is(security.peer_name);
  stream->SetListener(is_peer ? listener : nullptr);
  auto link = std::make_unique<ClientLink>(stream, security, std::move(peer));
  if (!is_peer) {
    const absl::Status why = absl::PermissionDeniedError(
        absl::StrCat(address, " is ", stream->peer().NamesText(), " by its certificate, not '",
                     security.peer_name, "'"));
    security.tls->Refused(TlsRefusal::kWrongName, std::string(address), std::string(why.message()));
    return why;
  }
  link->WatchTrust(std::string(address));
  return std::unique_ptr<Link>(std::move(link));
}

}  // namespace romulus::wire

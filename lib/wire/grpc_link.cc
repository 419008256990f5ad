#include "wire/grpc_link.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <chrono>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "wire/grpc_stream.h"

namespace romulus::wire {
namespace {

// replication_service.proto, heartbeats_service.proto. Both messages are one length-delimited field
// 1, so that one way to wrap and unwrap them does for both.
const char* MethodOf(LinkService service) {
  return service == LinkService::kReplication ? "/romulus.v1.Replication/Replicate"
                                              : "/romulus.v1.Heartbeats/Exchange";
}

std::shared_ptr<grpc::ChannelCredentials> CredentialsFor(const LinkSecurity& security) {
  switch (security.kind) {
    case LinkSecurity::Kind::kPlainText:
      break;
  }
  return grpc::InsecureChannelCredentials();
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
      queue_->Next(&got, &ok);
    }
    call_->Finish(&status_, &tag);
    queue_->Next(&got, &ok);
    queue_->Shutdown();
    while (queue_->Next(&got, &ok)) {
    }
    if (!in_time) return absl::UnavailableError(absl::StrCat("no answer in ", timeout_ms, " ms"));
    return absl::UnavailableError(status_.error_message());
  }

  // The thread's work: until the stream is done and its queue empty.
  void Run() {
    SetQueueThread(std::this_thread::get_id());
    Begin();
    void* got = nullptr;
    bool ok = false;
    while (!done() && queue_->Next(&got, &ok)) OnTag(static_cast<Tag*>(got)->op, ok);
    queue_->Shutdown();
    while (queue_->Next(&got, &ok)) {
    }
  }

 private:
  ClientStream(const std::string& address, const GrpcLinkOptions& options,
               std::unique_ptr<grpc::CompletionQueue> queue)
      : GrpcStream(options, queue.get()),
        queue_(std::move(queue)),
        stub_(grpc::CreateCustomChannel(address, CredentialsFor(options.security),
                                        ArgumentsFor(options))) {}

  static grpc::ChannelArguments ArgumentsFor(const GrpcLinkOptions& options) {
    grpc::ChannelArguments arguments;
    for (const auto& [name, value] : TransportArguments(options)) arguments.SetInt(name, value);
    return arguments;
  }

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
  explicit ClientLink(const std::shared_ptr<ClientStream>& stream)
      : GrpcStreamLink(stream), thread_([stream] { stream->Run(); }) {}
  ~ClientLink() override {
    stream_->Detach();
    if (thread_.get_id() == std::this_thread::get_id()) {
      thread_.detach();  // it holds the stream and ends when it returns from the listener
    } else {
      thread_.join();
    }
  }

 private:
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Link>> ConnectGrpcLink(absl::string_view address,
                                                      const GrpcLinkOptions& options,
                                                      LinkListener* listener) {
  auto stream = std::make_shared<ClientStream>(std::string(address), options);
  if (absl::Status started = stream->Start(options.service, options.connect_timeout_ms);
      !started.ok()) {
    return absl::UnavailableError(
        absl::StrCat("cannot connect to ", address, ": ", started.message()));
  }
  stream->SetListener(listener);
  return std::make_unique<ClientLink>(stream);
}

}  // namespace romulus::wire

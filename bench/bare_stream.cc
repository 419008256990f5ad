#include "bare_stream.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "wire/grpc_stream.h"

namespace romulus::bench {
namespace {

// Waits for the one operation under way. False if it did not succeed.
bool Next(grpc::CompletionQueue& queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue.Next(&tag, &ok) && ok;
}

grpc::ByteBuffer CountMessage(uint64_t count) {
  const grpc::Slice slice(&count, sizeof(count));
  return grpc::ByteBuffer(&slice, 1);
}

// One stream: read to its end, then the number of bytes as the only answer.
void ServeOne(grpc::GenericServerAsyncReaderWriter& stream, grpc::CompletionQueue& queue) {
  uint64_t bytes = 0;
  grpc::ByteBuffer message;
  while (stream.Read(&message, nullptr), Next(queue)) bytes += message.Length();
  stream.Write(CountMessage(bytes), nullptr);
  Next(queue);
  stream.Finish(grpc::Status::OK, nullptr);
  Next(queue);
}

}  // namespace

absl::Status ServeBareStream() {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  for (const auto& [name, value] : wire::TransportArguments({})) {
    builder.AddChannelArgument(name, value);
  }
  grpc::AsyncGenericService service;
  builder.RegisterAsyncGenericService(&service);
  const std::unique_ptr<grpc::ServerCompletionQueue> queue = builder.AddCompletionQueue();
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return absl::UnavailableError("no port to listen on");
  std::thread serving([&] {
    for (;;) {
      grpc::GenericServerContext context;
      grpc::GenericServerAsyncReaderWriter stream(&context);
      service.RequestCall(&context, &stream, queue.get(), queue.get(), nullptr);
      if (!Next(*queue)) return;
      ServeOne(stream, *queue);
    }
  });
  std::printf("%d\n", port);
  std::fflush(stdout);
  char byte;
  while (::read(STDIN_FILENO, &byte, 1) > 0) {
  }
  server->Shutdown();
  queue->Shutdown();
  serving.join();
  return absl::OkStatus();
}

absl::Status SendBareStream(const std::string& address, std::span<const std::byte> source,
                            size_t message_bytes, const std::function<void()>& connected,
                            const std::function<bool(uint64_t sent_bytes)>& done) {
  grpc::ChannelArguments arguments;
  for (const auto& [name, value] : wire::TransportArguments({})) arguments.SetInt(name, value);
  grpc::GenericStub stub(
      grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, "/romulus.bench/Bare", &queue);
  call->StartCall(nullptr);
  bool fine = Next(queue);
  connected();
  uint64_t sent = 0;
  for (size_t at = 0; fine && !done(sent); at += message_bytes) {
    if (at + message_bytes > source.size()) at = 0;
    const grpc::Slice slice(source.data() + at, message_bytes, grpc::Slice::STATIC_SLICE);
    call->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    fine = Next(queue);
    sent += message_bytes;
  }
  uint64_t read = 0;
  if (fine) {
    call->WritesDone(nullptr);
    grpc::ByteBuffer answer;
    grpc::Slice slice;
    fine = Next(queue) && (call->Read(&answer, nullptr), Next(queue)) &&
           answer.DumpToSingleSlice(&slice).ok() && slice.size() == sizeof(read);
    if (fine) std::memcpy(&read, slice.begin(), sizeof(read));
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  Next(queue);
  if (fine && read == sent) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("sent ", sent, " bytes, ", read, " read: ", status.error_message()));
}

}  // namespace romulus::bench

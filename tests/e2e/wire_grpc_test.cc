// The gRPC link over real sockets on loopback.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "unit/wire_pair.h"
#include "wire/grpc_link.h"
#include "wire/grpc_server.h"

namespace romulus::wire {
namespace {

using testing::HasSubstr;

class Heard : public LinkListener {
 public:
  void OnMessage(absl::string_view frames) override {
    std::function<void(absl::string_view)> act;
    {
      absl::MutexLock lock(&mutex_);
      act = on_message_;
    }
    if (act) act(frames);
    absl::MutexLock lock(&mutex_);
    ++messages_;
    bytes_ += frames.size();
    last_ = std::string(frames);
    ROMULUS_CHECK(closed_ == 0 || many_streams);
  }
  void OnClosed(const absl::Status& why) override {
    absl::MutexLock lock(&mutex_);
    ++closed_;
    why_ = why;
  }
  void AwaitMessages(size_t count) {
    absl::MutexLock lock(&mutex_);
    auto enough = [this, count] { return messages_ >= count; };
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience));
  }
  absl::Status AwaitClosed() {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(
                                              +[](int* closed) { return *closed > 0; }, &closed_),
                                          kPatience));
    return why_;
  }
  size_t messages() {
    absl::MutexLock lock(&mutex_);
    return messages_;
  }
  size_t bytes() {
    absl::MutexLock lock(&mutex_);
    return bytes_;
  }
  std::string last() {
    absl::MutexLock lock(&mutex_);
    return last_;
  }
  int closed() {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }
  // What to do with each message, on the link's thread.
  void SetOnMessage(std::function<void(absl::string_view)> act) {
    absl::MutexLock lock(&mutex_);
    on_message_ = std::move(act);
  }
  bool many_streams = false;  // hears one after the other

 private:
  absl::Mutex mutex_;
  size_t messages_ = 0;
  size_t bytes_ = 0;
  std::string last_;
  int closed_ = 0;
  absl::Status why_;
  std::function<void(absl::string_view)> on_message_;
};

// Takes one stream after the other.
class Acceptor final : public LinkAcceptor {
 public:
  LinkListener* Accept(std::unique_ptr<Link> link, absl::string_view peer) override {
    EXPECT_FALSE(peer.empty());
    if (refuse) return nullptr;
    absl::MutexLock lock(&mutex_);
    links_.push_back(std::move(link));
    ++accepted_;
    return &heard;
  }
  Link* AwaitLink(size_t index = 0) {
    absl::MutexLock lock(&mutex_);
    auto there = [this, index] { return links_.size() > index; };
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience));
    return links_[index].get();
  }
  std::unique_ptr<Link> Take(size_t index = 0) {
    AwaitLink(index);
    absl::MutexLock lock(&mutex_);
    return std::move(links_[index]);
  }
  Heard heard;
  bool refuse = false;

 private:
  absl::Mutex mutex_;
  std::vector<std::unique_ptr<Link>> links_;
  int accepted_ = 0;
};

class GrpcLinkTest : public testing::Test {
 protected:
  GrpcLinkTest() {
    auto server = GrpcLinkServer::Listen("127.0.0.1:0", options_, &acceptor_);
    ROMULUS_CHECK(server.ok());
    server_ = *std::move(server);
    address_ = absl::StrCat("127.0.0.1:", server_->port());
  }
  absl::Status Connect() {
    auto link = ConnectGrpcLink(address_, options_, &heard_);
    if (!link.ok()) return link.status();
    link_ = *std::move(link);
    return absl::OkStatus();
  }

  absl::Notification go_on_;  // outlives those who wait for it
  GrpcLinkOptions options_;
  Acceptor acceptor_;
  Heard heard_;
  std::unique_ptr<GrpcLinkServer> server_;
  std::string address_;
  std::unique_ptr<Link> link_;
};

TEST_F(GrpcLinkTest, MessagesGoBothWaysInOrder) {
  ASSERT_TRUE(Connect().ok());
  std::vector<std::string> order;
  acceptor_.heard.SetOnMessage([&](absl::string_view message) { order.emplace_back(message); });
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(link_->Send(absl::StrCat("m", i)).ok());
  acceptor_.heard.AwaitMessages(1000);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(order[static_cast<size_t>(i)], absl::StrCat("m", i));
  ASSERT_TRUE(acceptor_.AwaitLink()->Send("answer").ok());
  heard_.AwaitMessages(1);
  EXPECT_EQ(heard_.last(), "answer");
}

TEST_F(GrpcLinkTest, MessagesOfEverySize) {
  ASSERT_TRUE(Connect().ok());
  size_t sent = 0;
  std::vector<size_t> sizes = {0, 1, 126, 127, 128, 129, 16383, 16384, 65535, 1 << 20, 7 << 20};
  sizes.push_back(options_.max_message_bytes - 16);
  for (size_t size : sizes) {
    std::string message(size, '\0');
    for (size_t i = 0; i < size; ++i) message[i] = static_cast<char>(i * 31 + size);
    ASSERT_TRUE(link_->Send(message).ok());
    acceptor_.heard.AwaitMessages(++sent);
    ASSERT_EQ(acceptor_.heard.last() == message, true) << size;
  }
  EXPECT_EQ(link_->Send(std::string(options_.max_message_bytes, 'x')).code(),
            absl::StatusCode::kInvalidArgument);
  ASSERT_TRUE(link_->Send("still good").ok());
  acceptor_.heard.AwaitMessages(sent + 1);
}

TEST_F(GrpcLinkTest, ManySendersAtOnce) {
  ASSERT_TRUE(Connect().ok());
  Link* back = acceptor_.AwaitLink();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Link* link = t % 2 == 0 ? link_.get() : back;
      for (int i = 0; i < 500; ++i) ASSERT_TRUE(link->Send(std::string(1000, 'x')).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
  acceptor_.heard.AwaitMessages(1000);
  heard_.AwaitMessages(1000);
}

TEST_F(GrpcLinkTest, CloseByTheClientDeliversWhatWasSent) {
  ASSERT_TRUE(Connect().ok());
  ASSERT_TRUE(link_->Send("goodbye").ok());
  link_->Close(absl::CancelledError("enough"));
  EXPECT_FALSE(link_->Send("late").ok());
  EXPECT_EQ(heard_.AwaitClosed().message(), "enough");
  EXPECT_FALSE(acceptor_.heard.AwaitClosed().ok());
  EXPECT_EQ(acceptor_.heard.last(), "goodbye");
  EXPECT_EQ(absl::IsUnavailable(acceptor_.AwaitLink()->Send("to nobody")), true);
}

TEST_F(GrpcLinkTest, CloseByTheServerDeliversWhatWasSentAndSaysWhy) {
  ASSERT_TRUE(Connect().ok());
  ASSERT_TRUE(link_->Send("hello").ok());
  acceptor_.heard.AwaitMessages(1);
  Link* back = acceptor_.AwaitLink();
  ASSERT_TRUE(back->Send("goodbye").ok());
  back->Close(absl::FailedPreconditionError("no secondary here"));
  EXPECT_THAT(std::string(heard_.AwaitClosed().message()), HasSubstr("no secondary here"));
  EXPECT_EQ(heard_.last(), "goodbye");
  EXPECT_EQ(acceptor_.heard.AwaitClosed().message(), "no secondary here");
  link_.reset();
  EXPECT_EQ(heard_.closed(), 1);
  EXPECT_EQ(acceptor_.heard.closed(), 1);
}

TEST_F(GrpcLinkTest, ClosingAndDestroyingFromWithinTheListener) {
  ASSERT_TRUE(Connect().ok());
  acceptor_.AwaitLink();
  heard_.SetOnMessage([this](absl::string_view) {
    link_->Close(absl::AbortedError("inside"));
    link_.reset();
  });
  acceptor_.heard.SetOnMessage(
      [this](absl::string_view) { acceptor_.AwaitLink()->Send("answer").IgnoreError(); });
  ASSERT_TRUE(link_->Send("question").ok());
  EXPECT_FALSE(acceptor_.heard.AwaitClosed().ok());
  heard_.AwaitMessages(1);
  EXPECT_EQ(heard_.closed(), 0);  // destroyed: hears no more
}

TEST_F(GrpcLinkTest, DestroyingTheServersLinkEndsTheStream) {
  ASSERT_TRUE(Connect().ok());
  acceptor_.Take().reset();
  EXPECT_EQ(acceptor_.heard.closed(), 1);
  EXPECT_FALSE(heard_.AwaitClosed().ok());
}

TEST_F(GrpcLinkTest, ARefusedStreamEnds) {
  acceptor_.refuse = true;
  ASSERT_TRUE(Connect().ok());
  EXPECT_THAT(std::string(heard_.AwaitClosed().message()), HasSubstr("refused"));
  EXPECT_EQ(acceptor_.heard.closed(), 0);
}

TEST_F(GrpcLinkTest, ShutdownEndsEveryStreamAndIsBounded) {
  ASSERT_TRUE(Connect().ok());
  Heard second;
  auto other = ConnectGrpcLink(address_, options_, &second);
  ASSERT_TRUE(other.ok());
  acceptor_.AwaitLink(1);
  server_->Shutdown();
  server_->Shutdown();
  EXPECT_EQ(acceptor_.heard.closed(), 2);
  EXPECT_FALSE(heard_.AwaitClosed().ok());
  EXPECT_FALSE(second.AwaitClosed().ok());
  // The links still exist; they only are of no use.
  EXPECT_FALSE(acceptor_.AwaitLink()->Send("x").ok());
  server_.reset();
  link_.reset();
  EXPECT_FALSE(Connect().ok());
}

TEST_F(GrpcLinkTest, LinksMayOutliveTheServer) {
  ASSERT_TRUE(Connect().ok());
  std::unique_ptr<Link> back = acceptor_.Take();
  server_.reset();
  EXPECT_FALSE(back->Send("x").ok());
  back->Close(absl::OkStatus());
  back.reset();
  EXPECT_EQ(acceptor_.heard.closed(), 1);
}

TEST_F(GrpcLinkTest, NobodyThereIsAnErrorWithTheAddress) {
  server_.reset();
  const absl::Status status = Connect();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr(address_));
  EXPECT_THAT(std::string(status.message()), HasSubstr("refused"));
}

TEST_F(GrpcLinkTest, AnAddressThatNeverAnswersIsGivenUpInTime) {
  // A listening socket whose owner never accepts: TCP connects, HTTP/2 never speaks.
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(fd, 1), 0);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  options_.connect_timeout_ms = 200;
  address_ = absl::StrCat("127.0.0.1:", ntohs(address.sin_port));
  EXPECT_EQ(Connect().code(), absl::StatusCode::kUnavailable);
  ::close(fd);
}

TEST_F(GrpcLinkTest, PortInUseNamesTheAddress) {
  Acceptor other;
  const auto second = GrpcLinkServer::Listen(address_, options_, &other);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(address_));
  // And the first still works.
  ASSERT_TRUE(Connect().ok());
  ASSERT_TRUE(link_->Send("x").ok());
  acceptor_.heard.AwaitMessages(1);
}

TEST_F(GrpcLinkTest, AddressesThatCannotBeListenedOnAreExplained) {
  Acceptor other;
  for (const char* address : {"nonsense", "127.0.0.1:nonsense", "no-such-host.invalid:1",
                              "192.0.2.1:0", "unix:", "unix:/no/such/folder/x"}) {
    const auto server = GrpcLinkServer::Listen(address, options_, &other);
    ASSERT_FALSE(server.ok()) << address;
    EXPECT_THAT(std::string(server.status().message()), HasSubstr(address));
  }
}

TEST_F(GrpcLinkTest, EveryAddressOfAHostLeadsIn) {
  heard_.many_streams = true;
  const std::pair<const char*, const char*> kinds[] = {
      {"localhost:0", "127.0.0.1:"}, {"0.0.0.0:0", "127.0.0.1:"}, {"[::1]:0", "[::1]:"},
      {"[::]:0", "[::1]:"},          {"[::]:0", "127.0.0.1:"},    {":0", "127.0.0.1:"}};
  for (const auto& [listened, reached] : kinds) {
    Acceptor acceptor;
    auto server = GrpcLinkServer::Listen(listened, options_, &acceptor);
    if (server.status().code() == absl::StatusCode::kUnavailable) continue;  // a host without IPv6
    ASSERT_TRUE(server.ok()) << listened << ": " << server.status();
    address_ = absl::StrCat(reached, (*server)->port());
    ASSERT_TRUE(Connect().ok()) << listened << " by " << address_;
    ASSERT_TRUE(link_->Send("x").ok());
    acceptor.heard.AwaitMessages(1);
    link_.reset();
    server->reset();
  }
}

TEST_F(GrpcLinkTest, AfterShutdownTheAddressIsFree) {
  acceptor_.heard.many_streams = true;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(Connect().ok());
    ASSERT_TRUE(link_->Send("x").ok());
    server_.reset();
    auto again = GrpcLinkServer::Listen(address_, options_, &acceptor_);
    ASSERT_TRUE(again.ok()) << again.status();
    server_ = *std::move(again);
    heard_.AwaitClosed().IgnoreError();
    link_.reset();
  }
}

TEST_F(GrpcLinkTest, UnixSockets) {
  const std::string path =
      absl::StrCat(std::filesystem::temp_directory_path().string(), "/wire-", ::getpid(), ".sock");
  address_ = absl::StrCat("unix:", path);
  Acceptor acceptor;
  auto server = GrpcLinkServer::Listen(address_, options_, &acceptor);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->port(), 0);
  // A second daemon must not take the name from the first.
  EXPECT_EQ(GrpcLinkServer::Listen(address_, options_, &acceptor).status().code(),
            absl::StatusCode::kAlreadyExists);
  ASSERT_TRUE(Connect().ok());
  ASSERT_TRUE(link_->Send("x").ok());
  acceptor.heard.AwaitMessages(1);
  link_.reset();
  server->reset();
  // A name left behind by a killed daemon is no obstacle.
  std::filesystem::remove(path);
}

// --- bounds (P6)

TEST_F(GrpcLinkTest, ASlowReceiverMakesTheSenderWait) {
  acceptor_.heard.SetOnMessage([&](absl::string_view) { go_on_.WaitForNotification(); });
  ASSERT_TRUE(Connect().ok());
  constexpr size_t kMessage = 256u << 10;
  size_t sent = 0;
  absl::Status status;
  // Far more than any buffer on the way; it must stop long before.
  while (sent < (256u << 20)) {
    status = link_->SendWithin(absl::Milliseconds(500), std::string(kMessage, 'x'));
    if (!status.ok()) break;
    sent += kMessage;
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  // Queue here, window over there, the kernel's socket buffers, one message in the listener.
  EXPECT_LT(sent, 2 * options_.max_queued_bytes + (16u << 20));
  EXPECT_LE(acceptor_.heard.messages(), 1u);
  go_on_.Notify();
  acceptor_.heard.AwaitMessages(sent / kMessage);
  ASSERT_TRUE(link_->SendWithin(kPatience, "after").ok());
}

TEST_F(GrpcLinkTest, ABlockedSenderWakesWhenTheLinkCloses) {
  acceptor_.heard.SetOnMessage([&](absl::string_view) { go_on_.WaitForNotification(); });
  ASSERT_TRUE(Connect().ok());
  absl::Status status;
  std::thread sender([&] {
    while (status.ok()) status = link_->Send(std::string(1 << 20, 'x'));
  });
  while (link_->SendWithin(absl::Milliseconds(100), std::string(1 << 20, 'x')).ok()) {
  }
  link_->Close(absl::CancelledError("enough"));
  sender.join();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(heard_.AwaitClosed().message(), "enough");
  go_on_.Notify();
}

// --- peers that are no Romulus

// A client that speaks gRPC but not Romulus.
class RawClient {
 public:
  explicit RawClient(const std::string& address)
      : stub_(grpc::CreateChannel(address, grpc::InsecureChannelCredentials())),
        call_(stub_.PrepareCall(&context_, "/romulus.v1.Replication/Replicate", &queue_)) {
    call_->StartCall(this);
    ROMULUS_CHECK(Wait());
  }
  // False once the stream is over.
  bool Write(const std::string& message) {
    const grpc::Slice slice(message);
    call_->Write(grpc::ByteBuffer(&slice, 1), this);
    return Wait();
  }
  void Cancel() { context_.TryCancel(); }
  grpc::Status Finish() {
    grpc::Status status;
    call_->Finish(&status, this);
    Wait();
    return status;
  }

 private:
  bool Wait() {
    void* tag = nullptr;
    bool ok = false;
    ROMULUS_CHECK(queue_.Next(&tag, &ok));
    return ok;
  }
  grpc::GenericStub stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
};

TEST_F(GrpcLinkTest, BytesThatAreNoFrameBatchEndTheStream) {
  RawClient client(address_);
  ASSERT_TRUE(client.Write("\xff\xff\xff\xff garbage"));
  EXPECT_EQ(acceptor_.heard.AwaitClosed().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(acceptor_.heard.messages(), 0u);
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(GrpcLinkTest, AWellFormedBatchInAnotherLayoutIsUnderstood) {
  // The field given twice, as protobuf allows: the last one counts.
  RawClient client(address_);
  ASSERT_TRUE(client.Write("\x0a\x01x\x0a\x03yes"));
  acceptor_.heard.AwaitMessages(1);
  EXPECT_EQ(acceptor_.heard.last(), "yes");
  client.Cancel();
  acceptor_.heard.AwaitClosed().IgnoreError();
  EXPECT_FALSE(client.Finish().ok());
}

// Answers that nobody reads may not pile up in the answering side's memory (P6).
TEST_F(GrpcLinkTest, APeerThatNeverReadsItsAnswersIsLeft) {
  acceptor_.heard.SetOnMessage([&](absl::string_view) {
    acceptor_.AwaitLink()->Send(std::string(1 << 20, 'a')).IgnoreError();
  });
  RawClient client(address_);
  while (acceptor_.heard.closed() == 0 && client.Write("\x0a\x01?")) {
  }
  EXPECT_EQ(acceptor_.heard.AwaitClosed().code(), absl::StatusCode::kResourceExhausted);
  client.Cancel();  // else Finish() waits for the answers to be read
  client.Finish();
}

TEST_F(GrpcLinkTest, MoreStreamsThanAllowedAreRefused) {
  std::vector<std::unique_ptr<Heard>> heards;
  std::vector<std::unique_ptr<Link>> links;
  size_t refused = 0;
  for (int i = 0; i < 24; ++i) {
    heards.push_back(std::make_unique<Heard>());
    auto link = ConnectGrpcLink(address_, options_, heards.back().get());
    ASSERT_TRUE(link.ok()) << link.status();
    links.push_back(*std::move(link));
  }
  for (size_t i = 16; i < 24; ++i) {
    const absl::Status why = heards[i]->AwaitClosed();
    refused += why.code() == absl::StatusCode::kResourceExhausted;
  }
  EXPECT_EQ(refused, 8u);
  links.clear();
  server_.reset();
}

// --- a peer that dies

TEST_F(GrpcLinkTest, AKilledPeerIsNoticedAtOnce) {
  // A process of its own: /proc/self/exe with the address, see main below.
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::execl("/proc/self/exe", "wire_grpc_test", "--connect-and-hang", address_.c_str(), nullptr);
    ::_exit(127);
  }
  acceptor_.heard.AwaitMessages(1);
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  EXPECT_EQ(acceptor_.heard.AwaitClosed().code(), absl::StatusCode::kUnavailable);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
}

// --- all of it together

TEST(GrpcReplicationTest, APrimaryAndASecondaryOverSockets) {
  TestSecondary secondary(16);
  class SessionAcceptor final : public LinkAcceptor {
   public:
    explicit SessionAcceptor(TestSecondary* secondary) : secondary_(secondary) {}
    LinkListener* Accept(std::unique_ptr<Link> link, absl::string_view) override {
      return secondary_->Connect(std::move(link));
    }
    TestSecondary* secondary_;
  } acceptor(&secondary);
  auto server = GrpcLinkServer::Listen("127.0.0.1:0", {}, &acceptor);
  ASSERT_TRUE(server.ok()) << server.status();
  TestPrimary primary(16);
  primary.options.sender.heartbeat_interval_ns = 2'000'000;
  primary.Scribble(2000);
  primary.rounds = 4;
  ASSERT_TRUE(primary
                  .Open([&](LinkListener* listener) {
                    return ConnectGrpcLink(absl::StrCat("127.0.0.1:", (*server)->port()), {},
                                           listener);
                  })
                  .ok());
  ASSERT_TRUE(primary.HandshakeAndSync().ok());
  for (int epoch = 0; epoch < 2000; ++epoch) {
    ASSERT_TRUE(primary.session->epochs().AwaitRoom(kPatience).ok());
    primary.Scribble(epoch % 100 == 0 ? 500 : 3);
    primary.CutEpoch();
  }
  ASSERT_TRUE(primary.session->epochs().AwaitAllAcked(kPatience).ok());
  secondary.AwaitApplied(EpochId(2000));
  EXPECT_EQ(primary.Difference(*secondary.memory), "");
  primary.session->SendGoodbye(v1::Goodbye::REASON_UNPROTECT, "test", kPatience);
  secondary.AwaitClosed();
  EXPECT_EQ(secondary.goodbye.reason(), v1::Goodbye::REASON_UNPROTECT);
  primary.session.reset();
  EXPECT_EQ(primary.acks.acks().size(), 2000u);  // each is told after it counts
  (*server)->Shutdown();
}

}  // namespace

// The other process of AKilledPeerIsNoticedAtOnce.
int ConnectAndHang(const char* address) {
  Heard heard;
  auto link = ConnectGrpcLink(address, {}, &heard);
  if (!link.ok() || !(*link)->Send("here").ok()) return 1;
  heard.AwaitClosed().IgnoreError();
  return 0;
}

}  // namespace romulus::wire

int main(int argc, char** argv) {
  if (argc > 2 && std::string(argv[1]) == "--connect-and-hang") {
    return romulus::wire::ConnectAndHang(argv[2]);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

// A server whose thread is at work for long, as it is while a disk hangs.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "base/check.h"
#include "base/unique_fd.h"
#include "unit/wire_pair.h"
#include "wire/grpc_link.h"
#include "wire/grpc_polling.h"
#include "wire/grpc_server.h"

namespace romulus::wire {
namespace {

// Before main() nothing of gRPC is in use.
const bool as_the_daemon = (PollOwnSockets(), true);

class Deaf final : public LinkListener {
 public:
  void OnMessage(absl::string_view) override {}
  void OnClosed(const absl::Status&) override {}
};

// The first message keeps the thread until it may go on; the second is noted.
class Slow final : public LinkListener, public LinkAcceptor {
 public:
  LinkListener* Accept(std::unique_ptr<Link> link, absl::string_view) override {
    if (link_ != nullptr) {
      second_link_ = std::move(link);
      accepted_second.Notify();
    } else {
      link_ = std::move(link);
    }
    return this;
  }
  void OnMessage(absl::string_view message) override {
    if (message != "work") return heard_second.Notify();
    at_work.Notify();
    go_on.WaitForNotification();
  }
  void OnClosed(const absl::Status&) override {}

  absl::Notification at_work, go_on, accepted_second, heard_second;

 private:
  std::unique_ptr<Link> link_, second_link_;
};

// A bare connection, whose recv() waits for so long at most.
base::UniqueFd Dial(int port) {
  base::UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const timeval patience = absl::ToTimeval(kPatience);
  ::setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(static_cast<uint16_t>(port));
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // SAFETY: sockaddr_in is the sockaddr of AF_INET.
  const auto* generic = reinterpret_cast<const sockaddr*>(&name);
  ROMULUS_CHECK(::connect(fd.get(), generic, sizeof(name)) == 0);
  return fd;
}

// Says hello and pings (RFC 9113, sections 3.4, 6.5 and 6.7); whether that was answered.
bool PingIsAnswered(int port) {
  constexpr absl::string_view kSettings("\0\0\0\4\0\0\0\0\0", 9);
  constexpr absl::string_view kPing("\0\0\10\6\0\0\0\0\0romulus!", 17);
  constexpr absl::string_view kPong("\0\0\10\6\1\0\0\0\0romulus!", 17);
  const base::UniqueFd peer = Dial(port);
  const std::string said = absl::StrCat("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", kSettings, kPing);
  ROMULUS_CHECK(::send(peer.get(), said.data(), said.size(), MSG_NOSIGNAL) ==
                static_cast<ssize_t>(said.size()));
  std::string answer;
  while (!absl::StrContains(answer, kPong)) {
    char bytes[512];
    const ssize_t got = ::recv(peer.get(), bytes, sizeof(bytes), 0);
    if (got <= 0) return false;
    answer.append(bytes, static_cast<size_t>(got));
  }
  return true;
}

TEST(GrpcAttendedTest, P7_AServerWhoseThreadIsAtWorkForLongStillAnswers) {
  ASSERT_TRUE(as_the_daemon);
  const GrpcLinkOptions options;
  Slow slow;
  const auto server = GrpcLinkServer::Listen("127.0.0.1:0", options, &slow);
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = absl::StrCat("127.0.0.1:", (*server)->port());
  Deaf first_heard, second_heard;
  const auto first = ConnectGrpcLink(address, options, &first_heard);
  ASSERT_TRUE(first.ok()) << first.status();
  ASSERT_TRUE((*first)->Send("work").ok());
  slow.at_work.WaitForNotification();
  EXPECT_TRUE(PingIsAnswered((*server)->port()));
  // What comes for the thread meanwhile is kept for it.
  const auto second = ConnectGrpcLink(address, options, &second_heard);
  EXPECT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(PingIsAnswered((*server)->port()));
  EXPECT_FALSE(slow.accepted_second.HasBeenNotified());
  slow.go_on.Notify();
  ASSERT_TRUE(second.ok());
  EXPECT_TRUE(slow.accepted_second.WaitForNotificationWithTimeout(kPatience));
  ASSERT_TRUE((*second)->Send("more").ok());
  EXPECT_TRUE(slow.heard_second.WaitForNotificationWithTimeout(kPatience));
  (*server)->Shutdown();
}

}  // namespace
}  // namespace romulus::wire

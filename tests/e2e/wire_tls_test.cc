// Who is believed on a link with TLS, by certificates as people who err or attack have them made:
// without a DNS name, with a wildcard, with a name that seems to end early; by way of another CA.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "base/unique_fd.h"
#include "support/temp_folder.h"
#include "wire/grpc_link.h"
#include "wire/grpc_server.h"
#include "wire/tls.h"

namespace romulus::wire {
namespace {

using romulus::testing::ReadAll;
using romulus::testing::TempFolder;
using romulus::testing::WriteAll;
using ::testing::HasSubstr;

constexpr absl::Duration kPatience = absl::Seconds(60);

class End final : public LinkListener {
 public:
  void OnMessage(absl::string_view message) override {
    absl::MutexLock lock(&mutex_);
    last_ = std::string(message);
  }
  void OnClosed(const absl::Status& why) override {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
    why_ = why;
  }
  void AwaitMessage(const std::string& message) {
    const auto there = [&] { return last_ == message; };
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience));
  }
  absl::Status AwaitClosed() {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&closed_), kPatience));
    return why_;
  }

 private:
  absl::Mutex mutex_;
  std::string last_;
  bool closed_ = false;
  absl::Status why_;
};

class Taker final : public LinkAcceptor {
 public:
  LinkListener* Accept(std::unique_ptr<Link> link, absl::string_view) override {
    absl::MutexLock lock(&mutex_);
    link_ = std::move(link);
    return &heard;
  }
  bool has_link() {
    absl::MutexLock lock(&mutex_);
    return link_ != nullptr;
  }
  End heard;

 private:
  absl::Mutex mutex_;
  std::unique_ptr<Link> link_;
};

// Of one node: what was refused, and each change of the files.
class Told final : public TlsListener {
 public:
  void OnTlsRefused(TlsRefusal, const std::string&, const std::string& detail) override {
    absl::MutexLock lock(&mutex_);
    refusals_.push_back(detail);
  }
  void OnTlsReloaded(const TlsMaterial&) override {
    absl::MutexLock lock(&mutex_);
    ++reloads_;
  }
  void OnTlsReloadFailed(const absl::Status&) override {}
  void AwaitReload() {
    const auto there = [this] { return reloads_ > 0; };
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience));
    --reloads_;
  }
  std::vector<std::string> refusals() {
    absl::MutexLock lock(&mutex_);
    return refusals_;
  }

 private:
  absl::Mutex mutex_;
  int reloads_ = 0;
  std::vector<std::string> refusals_;
};

class TlsLinkTest : public ::testing::Test {
 protected:
  TlsLinkTest() {
    Shell(absl::StrCat(ROMULUS_SOURCE_DIR "/scripts/certs . alpha beta.host.example"));
  }
  ~TlsLinkTest() override {
    link_.reset();
    server_.reset();
  }

  void Shell(const std::string& command) const {
    const std::string all =
        absl::StrCat("cd ", folder_.path(), " && ( ", command, " ) > openssl.log 2>&1");
    ROMULUS_CHECK(std::system(all.c_str()) == 0);
  }
  // `name`.pem and `name`.key, signed by `ca`, with that subject and these extensions.
  void Sign(const std::string& name, const std::string& subject, const std::string& extensions,
            const std::string& ca = "ca") const {
    WriteAll(folder_.Path("extensions"), extensions);
    Shell(absl::StrCat("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc ",
                       "-subj '", subject, "' -keyout ", name, ".key -out request && ",
                       "openssl x509 -req -in request -CA ", ca, ".pem -CAkey ", ca,
                       ".key -days 2 -set_serial 7 -out ", name, ".pem -extfile extensions"));
  }
  // As whoever has no scruples: no name of its own is asked for.
  std::shared_ptr<TlsIdentity> Identity(const std::string& name, Told* told,
                                        const std::string& ca = "ca.pem") const {
    auto identity = TlsIdentity::Open({.ca_file = folder_.Path(ca),
                                       .cert_file = folder_.Path(name + ".pem"),
                                       .key_file = folder_.Path(name + ".key")},
                                      "", told);
    ROMULUS_CHECK(identity.ok());
    return *std::move(identity);
  }
  // A server that has `server`'s files and wants `alpha`; a client that has `client`'s and wants
  // beta.host.example.
  absl::Status Connect(const std::string& client, const std::string& server) {
    link_.reset();
    server_.reset();
    GrpcLinkOptions at_server;
    at_server.security = {.tls = server_tls_ = Identity(server, &server_told_, "server.ca.pem"),
                          .peer_name = "alpha"};
    auto listening = GrpcLinkServer::Listen("127.0.0.1:0", at_server, &taker_);
    ROMULUS_CHECK(listening.ok());
    server_ = *std::move(listening);
    GrpcLinkOptions at_client;
    at_client.connect_timeout_ms = 20'000;
    at_client.security = {.tls = client_tls_ = Identity(client, &client_told_),
                          .peer_name = "beta.host.example"};
    auto link =
        ConnectGrpcLink(absl::StrCat("127.0.0.1:", server_->port()), at_client, &at_client_);
    if (!link.ok()) return link.status();
    link_ = *std::move(link);
    return absl::OkStatus();
  }
  void SetUp() override {
    WriteAll(folder_.Path("server.ca.pem"), ReadAll(folder_.Path("ca.pem")));
  }

  TempFolder folder_;
  Told client_told_, server_told_;
  Taker taker_;
  End at_client_;
  std::shared_ptr<TlsIdentity> client_tls_, server_tls_;
  std::unique_ptr<GrpcLinkServer> server_;
  std::unique_ptr<Link> link_;
};

constexpr char kPlain[] = "basicConstraints = CA:FALSE\n";
// subjectAltName: dNSName "alpha\0.evil".
constexpr char kEndsEarly[] = "2.5.29.17 = DER:30:0D:82:0B:61:6C:70:68:61:00:2E:65:76:69:6C\n";

TEST_F(TlsLinkTest, TheRightNamesMeetInWhateverCase) {
  Sign("loud", "/CN=x", "subjectAltName = DNS:other, DNS:BETA.Host.Example\n");
  ASSERT_TRUE(Connect("alpha", "loud").ok());
  ASSERT_TRUE(link_->Send("hello").ok());
  taker_.heard.AwaitMessage("hello");
}

TEST_F(TlsLinkTest, AServerIsNotBelievedForAWildcardOrASubject) {
  Sign("wild", "/CN=beta.host.example", "subjectAltName = DNS:*.host.example\n");
  Sign("nameless", "/CN=beta.host.example", kPlain);
  Sign("address", "/CN=beta.host.example", "subjectAltName = IP:127.0.0.1\n");
  uint64_t refused = 0;
  for (const char* server : {"wild", "nameless", "address", "alpha"}) {
    const absl::Status why = Connect("alpha", server);
    EXPECT_FALSE(why.ok()) << server;
    EXPECT_GT(client_tls_->refused(TlsRefusal::kWrongName), 0u) << server << ": " << why;
    refused += client_tls_->refused(TlsRefusal::kWrongName);
  }
  EXPECT_EQ(refused, 4u);
}

TEST_F(TlsLinkTest, AClientIsNotBelievedForAWildcardASubjectOrANameThatSeemsToEnd) {
  Sign("wild", "/CN=alpha", "subjectAltName = DNS:*, DNS:alph*\n");
  Sign("nameless", "/CN=alpha", kPlain);
  Sign("mail", "/CN=alpha", "subjectAltName = email:alpha, URI:alpha\n");
  Sign("early", "/CN=alpha", kEndsEarly);
  for (const char* client : {"wild", "nameless", "mail", "early", "beta.host.example"}) {
    End heard;
    const absl::Status connected = Connect(client, "beta.host.example");
    ASSERT_TRUE(connected.ok()) << client << ": " << connected;
    while (server_tls_->refused(TlsRefusal::kWrongName) == 0 && !taker_.has_link()) {
      link_->SendWithin(absl::Milliseconds(10), "x").IgnoreError();
    }
    EXPECT_FALSE(taker_.has_link()) << client;
    EXPECT_EQ(server_tls_->refused(TlsRefusal::kWrongName), 1u) << client;
  }
  EXPECT_THAT(server_told_.refusals(), ::testing::Contains(HasSubstr("is of nobody, not of")));
}

TEST_F(TlsLinkTest, ACertificateInBetweenTravelsAlongAndIsJudgedWithTheRestAtAReload) {
  Sign("between", "/CN=between", "basicConstraints = critical, CA:TRUE\n");
  for (const auto& [leaf, name] :
       {std::pair("left", "DNS:alpha\n"), std::pair("right", "DNS:beta.host.example\n")}) {
    Sign(leaf, "/CN=x", absl::StrCat("subjectAltName = ", name), "between");
    const std::string path = folder_.Path(absl::StrCat(leaf, ".pem"));
    WriteAll(path, ReadAll(path) + ReadAll(folder_.Path("between.pem")));
  }
  ASSERT_TRUE(Connect("left", "right").ok());
  ASSERT_TRUE(link_->Send("one").ok());
  taker_.heard.AwaitMessage("one");
  // Another CA beside theirs, in front: each end looks at the other's chain again.
  Shell(absl::StrCat(ROMULUS_SOURCE_DIR "/scripts/certs other nobody"));
  const std::string own = ReadAll(folder_.Path("ca.pem"));
  const std::string other = ReadAll(folder_.Path("other/ca.pem"));
  for (const char* file : {"ca.pem", "server.ca.pem"}) WriteAll(folder_.Path(file), other + own);
  client_told_.AwaitReload();
  server_told_.AwaitReload();
  ASSERT_TRUE(link_->Send("two").ok());
  taker_.heard.AwaitMessage("two");
  EXPECT_EQ(client_tls_->refused(TlsRefusal::kRevoked), 0u);
  EXPECT_EQ(server_tls_->refused(TlsRefusal::kRevoked), 0u);
  // Theirs goes.
  WriteAll(folder_.Path("server.ca.pem"), other);
  EXPECT_TRUE(absl::IsPermissionDenied(taker_.heard.AwaitClosed()));
  EXPECT_EQ(server_tls_->refused(TlsRefusal::kRevoked), 1u);
}

// Handshakes that do not come to an end, as many as there is room for.
TEST_F(TlsLinkTest, P6_OneHostsHalfHandshakesLeaveRoomForAnothersPeer) {
  ASSERT_TRUE(Connect("alpha", "beta.host.example").ok());
  sockaddr_in stranger{}, there{};
  stranger.sin_family = there.sin_family = AF_INET;
  stranger.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);  // another host, as far as can be seen
  there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  there.sin_port = htons(static_cast<uint16_t>(server_->port()));
  std::vector<base::UniqueFd> half;
  for (int i = 0; i < 200; ++i) {
    half.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    // SAFETY: sockaddr_in is the sockaddr of AF_INET.
    ASSERT_EQ(
        ::bind(half.back().get(), reinterpret_cast<const sockaddr*>(&stranger), sizeof(stranger)),
        0);
    // SAFETY: as above.
    ASSERT_EQ(
        ::connect(half.back().get(), reinterpret_cast<const sockaddr*>(&there), sizeof(there)), 0);
    const char handshake = 22;
    ::send(half.back().get(), &handshake, 1, MSG_NOSIGNAL);
  }
  GrpcLinkOptions again;
  again.connect_timeout_ms = 3'000;  // the strangers are given up after five seconds
  again.security = {.tls = client_tls_, .peer_name = "beta.host.example"};
  End heard;
  const auto link = ConnectGrpcLink(absl::StrCat("127.0.0.1:", server_->port()), again, &heard);
  EXPECT_TRUE(link.ok()) << link.status();
}

}  // namespace
}  // namespace romulus::wire

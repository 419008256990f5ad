#include "wire/grpc_acceptor.h"

#include <fcntl.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/unique_fd.h"

namespace romulus::wire {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// No event tells that a descriptor has become free somewhere in the process or on the host.
constexpr milliseconds kAcceptAgain{100};
// No connection gets the last descriptors: gRPC's waits for calls take one each, and not all of its
// code survives when there is none (wire/grpc_polling.h).
constexpr rlim_t kKeptDescriptors = 4;
// So long without trouble, and what comes then is a new burst.
constexpr std::chrono::seconds kBurstEnds{10};
// ContentType of the first record of a TLS connection: RFC 8446, section 5.1.
constexpr char kTlsHandshake = 22;

// Descriptors are given out from the lowest on, so that of the last ones is one above all others.
bool IsOfTheLast(int fd) {
  rlimit limit{};
  return ::getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
         static_cast<rlim_t>(fd) + kKeptDescriptors >= limit.rlim_cur;
}

// To the lowest number that is free, if that is lower.
void MoveDown(base::UniqueFd& fd) {
  base::UniqueFd lower(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (lower.valid() && lower.get() < fd.get()) fd = std::move(lower);
}

absl::Status InUse(absl::string_view address) {
  return absl::AlreadyExistsError(
      absl::StrCat("cannot listen on ", address, ": the address is in use"));
}

absl::Status Cannot(absl::string_view address, int error) {
  if (error == EADDRINUSE) return InUse(address);
  return base::ErrnoStatus(error, absl::StrCat("cannot listen on ", address));
}

void SetInt(int fd, int level, int name, int value) {
  ::setsockopt(fd, level, name, &value, sizeof(value));
}

absl::StatusOr<base::UniqueFd> Bind(absl::string_view address, int family, const sockaddr* name,
                                    socklen_t size, const GrpcAcceptorOptions& options,
                                    bool v6_only) {
  base::UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Cannot(address, errno);
  if (family != AF_UNIX) {
    SetInt(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    // What is accepted inherits these.
    SetInt(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
    if (options.user_timeout_ms != 0) {
      SetInt(fd.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(options.user_timeout_ms));
    }
  }
  if (family == AF_INET6) SetInt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, v6_only ? 1 : 0);
  if (::bind(fd.get(), name, size) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) {
    return Cannot(address, errno);
  }
  return fd;
}

// 0 if it has none.
int PortOf(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  // SAFETY: sockaddr_storage holds every family's sockaddr.
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0) return 0;
  in_port_t port = 0;
  if (name.ss_family == AF_INET) {
    // SAFETY: the family was just looked at.
    port = reinterpret_cast<const sockaddr_in*>(&name)->sin_port;
  } else if (name.ss_family == AF_INET6) {
    // SAFETY: the family was just looked at.
    port = reinterpret_cast<const sockaddr_in6*>(&name)->sin6_port;
  }
  return ntohs(port);
}

// As gRPC writes it; empty if it has gone.
std::string PeerOf(int fd) {
  sockaddr_storage name{};
  socklen_t size = sizeof(name);
  // SAFETY: sockaddr_storage holds every family's sockaddr.
  const auto* generic = reinterpret_cast<const sockaddr*>(&name);
  char host[NI_MAXHOST];
  char port[NI_MAXSERV];
  // SAFETY: as above.
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&name), &size) != 0 ||
      ::getnameinfo(generic, size, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "";
  }
  return name.ss_family == AF_INET6 ? absl::StrCat("ipv6:[", host, "]:", port)
                                    : absl::StrCat("ipv4:", host, ":", port);
}

// Whom a peer belongs to, as far as its address tells: of IPv6 a host has 64 bits of its own (RFC
// 4291, section 2.5.4). Empty for a Unix socket, whose folder says who may use it.
std::string HostOf(const sockaddr_storage& peer) {
  if (peer.ss_family == AF_INET) {
    // SAFETY: the family was just looked at.
    const in_addr& address = reinterpret_cast<const sockaddr_in*>(&peer)->sin_addr;
    return {reinterpret_cast<const char*>(&address), sizeof(address)};
  }
  if (peer.ss_family != AF_INET6) return "";
  // SAFETY: the family was just looked at.
  const in6_addr& address = reinterpret_cast<const sockaddr_in6*>(&peer)->sin6_addr;
  const bool has_v4 = IN6_IS_ADDR_V4MAPPED(&address);
  // SAFETY: bytes of the address, which has sixteen.
  return {reinterpret_cast<const char*>(&address) + (has_v4 ? 12 : 0), has_v4 ? 4u : 8u};
}

// Another's socket, or whatever else lies there, is not taken away; one that nobody listens on is.
absl::StatusOr<base::UniqueFd> BindUnix(absl::string_view address, const std::string& path,
                                        const GrpcAcceptorOptions& options) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(name.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("cannot listen on ", address,
                                                   ": a socket's path has 1 to ",
                                                   sizeof(name.sun_path) - 1, " bytes"));
  }
  std::memcpy(name.sun_path, path.data(), path.size());
  // SAFETY: sockaddr_un is the sockaddr of AF_UNIX.
  const auto* generic = reinterpret_cast<const sockaddr*>(&name);
  struct stat found {};
  if (::lstat(path.c_str(), &found) == 0 && S_ISSOCK(found.st_mode)) {
    const base::UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd.valid()) return Cannot(address, errno);
    // EAGAIN: somebody listens, with a full backlog.
    if (::connect(fd.get(), generic, sizeof(name)) == 0 || errno == EAGAIN) return InUse(address);
    ::unlink(path.c_str());
  }
  return Bind(address, AF_UNIX, generic, sizeof(name), options, false);
}

absl::StatusOr<std::vector<base::UniqueFd>> BindTcp(absl::string_view address,
                                                    const GrpcAcceptorOptions& options) {
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
  std::vector<base::UniqueFd> bound;
  absl::Status why;
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    sockaddr_storage name{};
    std::memcpy(&name, one->ai_addr, one->ai_addrlen);
    if (!bound.empty()) {
      // All of a host's addresses get one port. SAFETY: both families have the port in one place.
      reinterpret_cast<sockaddr_in*>(&name)->sin_port =
          htons(static_cast<uint16_t>(PortOf(bound.front().get())));
    }
    // "[::]" alone takes IPv4 as well; beside an IPv4 address each takes its own.
    const bool v6_only = found->ai_next != nullptr;
    // SAFETY: sockaddr_storage holds every family's sockaddr.
    absl::StatusOr<base::UniqueFd> fd =
        Bind(address, one->ai_family, reinterpret_cast<const sockaddr*>(&name), one->ai_addrlen,
             options, v6_only);
    if (fd.ok()) {
      bound.push_back(*std::move(fd));
    } else if (absl::IsAlreadyExists(fd.status())) {
      return fd.status();
    } else {
      why = fd.status();  // such as no IPv6 on this host
    }
  }
  if (bound.empty()) return why;
  return bound;
}

class Acceptor final : public GrpcAcceptor {
 public:
  explicit Acceptor(GrpcAcceptorOptions options) : options_(std::move(options)) {}
  ~Acceptor() override { Stop(); }

  absl::Status Bind(absl::string_view address) {
    wake_.Reset(::eventfd(0, EFD_CLOEXEC));
    if (!wake_.valid()) return base::ErrnoStatus(errno, "eventfd");
    absl::string_view path = address;
    if (!absl::ConsumePrefix(&path, "unix:")) {
      ROMULUS_ASSIGN_OR_RETURN(listeners_, BindTcp(address, options_));
      port_ = PortOf(listeners_.front().get());
      return absl::OkStatus();
    }
    absl::ConsumePrefix(&path, "//");
    ROMULUS_ASSIGN_OR_RETURN(base::UniqueFd fd, BindUnix(address, std::string(path), options_));
    listeners_.push_back(std::move(fd));
    path_ = std::string(path);
    return absl::OkStatus();
  }

  int port() const override { return port_; }

  void AddTo(grpc::ServerBuilder& builder,
             std::shared_ptr<grpc::ServerCredentials> credentials) override {
    using Experimental = grpc::ServerBuilder::experimental_type;
    const auto patience_ms = static_cast<int>(options_.patience.count());
    builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, patience_ms);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, patience_ms);
    credentials_ = std::move(credentials);
    to_grpc_ = builder.experimental().AddExternalConnectionAcceptor(
        Experimental::ExternalConnectionType::FROM_FD, credentials_);
  }

  void Start() override {
    thread_ = std::thread([this] { Run(); });
  }

  void Stop() override {
    if (thread_.joinable()) {
      ::eventfd_write(wake_.get(), 1);
      thread_.join();
    }
    silent_.clear();
    listeners_.clear();
    if (!path_.empty()) ::unlink(std::exchange(path_, {}).c_str());
  }

 private:
  struct Silent {
    base::UniqueFd fd;
    steady_clock::time_point end_at;
    std::string host;
  };
  // gRPC owns and closes these; whether one is still open is told by its socket's inode.
  struct Handed {
    int fd;
    ino_t inode;
    std::string host;
    bool IsStillOpen() const {
      struct stat now {};
      return ::fstat(fd, &now) == 0 && S_ISSOCK(now.st_mode) && now.st_ino == inode;
    }
  };

  void Run() {
    std::vector<pollfd> polled;
    for (;;) {
      const auto now = steady_clock::now();
      while (!silent_.empty() && silent_.front().end_at <= now) silent_.pop_front();
      polled.clear();
      polled.push_back({.fd = wake_.get(), .events = POLLIN, .revents = 0});
      for (const auto& fd : listeners_) {
        polled.push_back({.fd = now < rest_until_ ? -1 : fd.get(), .events = POLLIN, .revents = 0});
      }
      for (const auto& one : silent_) {
        polled.push_back({.fd = one.fd.get(), .events = POLLIN, .revents = 0});
      }
      if (::poll(polled.data(), polled.size(), TimeoutMs(now)) < 0) {
        if (errno == EINTR) continue;
        // EINVAL: more than the limit on descriptors, which was lowered meanwhile.
        if (!EndOldestSilent(base::ErrnoStatus(errno, "poll"))) {
          ::poll(polled.data(), 1, static_cast<int>(kAcceptAgain.count()));
        }
        continue;
      }
      if (polled[0].revents != 0) return;
      HandOver(polled);
      for (size_t i = 0; i < listeners_.size(); ++i) {
        if (polled[1 + i].revents != 0) Accept(listeners_[i].get());
      }
    }
  }

  int TimeoutMs(steady_clock::time_point now) const {
    auto until = steady_clock::time_point::max();
    if (now < rest_until_) until = rest_until_;
    if (!silent_.empty()) until = std::min(until, silent_.front().end_at);
    if (until == steady_clock::time_point::max()) return -1;
    return static_cast<int>(std::chrono::ceil<milliseconds>(until - now).count());
  }

  // Whoever has said something becomes gRPC's; whoever has gone is forgotten.
  void HandOver(const std::vector<pollfd>& polled) {
    std::deque<Silent> still;
    for (size_t i = 0; i < silent_.size(); ++i) {
      Silent& one = silent_[i];
      if (polled[1 + listeners_.size() + i].revents == 0) {
        still.push_back(std::move(one));
        continue;
      }
      char byte = 0;
      struct stat socket {};
      if (::recv(one.fd.get(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) != 1 ||
          ::fstat(one.fd.get(), &socket) != 0) {
        continue;
      }
      if (options_.on_plain_text && byte != kTlsHandshake) {
        options_.on_plain_text(PeerOf(one.fd.get()));
        continue;
      }
      handed_.push_back({.fd = one.fd.get(), .inode = socket.st_ino, .host = std::move(one.host)});
      grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
      parameters.fd = one.fd.Release();
      to_grpc_->HandleNewConnection(&parameters);
    }
    silent_ = std::move(still);
  }

  void Accept(int listener) {
    sockaddr_storage peer{};
    socklen_t size = sizeof(peer);
    // SAFETY: sockaddr_storage holds every family's sockaddr.
    base::UniqueFd fd(::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &size,
                                SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid()) {
      const int error = errno;
      if (error == EAGAIN || error == EINTR || error == ECONNABORTED) return;
      // No error of accept(2) is a reason to stop; those of the host's resources pass.
      const absl::Status why = base::ErrnoStatus(error, "accept");
      if (EndOldestSilent(why)) return;
      rest_until_ = steady_clock::now() + kAcceptAgain;
      Crowded(why);
      return;
    }
    std::erase_if(handed_, [](const Handed& one) { return !one.IsStillOpen(); });
    const std::string host = HostOf(peer);
    if (!host.empty() && IsFull(host)) {
      // In the middle of a handshake it is gRPC's, which alone may end it.
      ++ended_;
      Crowded(absl::ResourceExhaustedError(
          absl::StrCat("more than ", options_.max_connections / 2, " connections of one host")));
      if (!EndSilentOf(host)) return;
    }
    absl::Status why;
    if (IsOfTheLast(fd.get())) {
      why = absl::ResourceExhaustedError("few descriptors are left");
    } else if (silent_.size() + handed_.size() >= options_.max_connections) {
      why = absl::ResourceExhaustedError(
          absl::StrCat("more than ", options_.max_connections, " connections"));
    }
    if (!why.ok()) {
      if (!EndOldestSilent(why)) {
        ++ended_;
        Crowded(why);
        return;
      }
      MoveDown(fd);
      if (IsOfTheLast(fd.get())) return;  // somebody else has the place that became free
    }
    silent_.push_back(
        {.fd = std::move(fd), .end_at = steady_clock::now() + options_.patience, .host = host});
  }

  bool IsFull(const std::string& host) const {
    const auto is_its = [&](const auto& one) { return one.host == host; };
    return static_cast<size_t>(std::count_if(silent_.begin(), silent_.end(), is_its) +
                               std::count_if(handed_.begin(), handed_.end(), is_its)) >=
           options_.max_connections / 2;
  }
  bool EndSilentOf(const std::string& host) {
    const auto oldest = std::find_if(silent_.begin(), silent_.end(),
                                     [&](const Silent& one) { return one.host == host; });
    if (oldest == silent_.end()) return false;
    silent_.erase(oldest);
    return true;
  }

  bool EndOldestSilent(const absl::Status& why) {
    if (silent_.empty()) return false;
    silent_.pop_front();
    ++ended_;
    Crowded(why);
    return true;
  }

  void Crowded(const absl::Status& why) {
    const auto now = steady_clock::now();
    if (now >= burst_ends_ && options_.on_crowded) options_.on_crowded(why, ended_);
    burst_ends_ = now + kBurstEnds;
  }

  const GrpcAcceptorOptions options_;
  base::UniqueFd wake_;
  std::vector<base::UniqueFd> listeners_;
  int port_ = 0;
  std::string path_;                                      // of a Unix socket that is ours
  std::shared_ptr<grpc::ServerCredentials> credentials_;  // gRPC does not keep them
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> to_grpc_;
  std::thread thread_;

  // The thread's own.
  std::deque<Silent> silent_;  // oldest first
  std::vector<Handed> handed_;
  steady_clock::time_point rest_until_;
  steady_clock::time_point burst_ends_;
  uint64_t ended_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcAcceptor>> GrpcAcceptor::Listen(absl::string_view address,
                                                                   GrpcAcceptorOptions options) {
  auto acceptor = std::make_unique<Acceptor>(std::move(options));
  ROMULUS_RETURN_IF_ERROR(acceptor->Bind(address));
  return acceptor;
}

}  // namespace romulus::wire

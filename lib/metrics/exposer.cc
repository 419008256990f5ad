#include "metrics/exposer.h"

#include <netdb.h>
#include <prometheus/exposer.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "metrics/instruments.h"

namespace romulus::metrics {
namespace {

struct HostPort {
  std::string host;
  std::string port;
};

absl::StatusOr<HostPort> Split(absl::string_view address) {
  const size_t colon = address.rfind(':');
  int port = -1;
  if (colon == absl::string_view::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      port < 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics address '", address, "' is not ip:port"));
  }
  absl::string_view host = address.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[") && !absl::ConsumeSuffix(&host, "]")) {
    return absl::InvalidArgumentError(absl::StrCat("metrics address '", address, "' lacks a ']'"));
  }
  return HostPort{std::string(host), absl::StrCat(port)};
}

constexpr std::chrono::milliseconds kKnockAgain{5};

// Connects without waiting for it, and hangs up.
void Knock(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (::getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found) != 0) return;
  base::UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // "Any address" (0.0.0.0, ::) means this host to connect(), as loopback does (ip(7), ipv6(7)).
  if (fd.valid()) (void)::connect(fd.get(), found->ai_addr, found->ai_addrlen);
  ::freeaddrinfo(found);
}

// The HTTP server says only "problem binding to port"; bind() here first says which problem.
absl::Status TryBind(absl::string_view address, const HostPort& at) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(at.host.c_str(), at.port.c_str(), &hints, &found);
      error != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics address '", address, "' is not ip:port: ", ::gai_strerror(error)));
  }
  base::UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  int error = 0;
  if (!fd.valid() || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      ::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0 || ::listen(fd.get(), 1) != 0) {
    error = errno;
  }
  ::freeaddrinfo(found);
  if (error == EADDRINUSE) {
    return absl::AlreadyExistsError(
        absl::StrCat("metrics address ", address, " is in use by another process"));
  }
  return error == 0 ? absl::OkStatus()
                    : base::ErrnoStatus(error, absl::StrCat("metrics address ", address));
}

}  // namespace

struct Exposer::Impl {
  std::unique_ptr<prometheus::Exposer> server;
  std::string host;
  int port = 0;
};

Exposer::Exposer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

// The HTTP server's listening thread sleeps in poll() for up to two seconds (civetweb,
// SOCKET_TIMEOUT_QUANTUM) and only then sees that it is to stop. A connection wakes it at once; it
// has to come after the server was told, so it comes again until the server is gone.
Exposer::~Exposer() {
  std::atomic<bool> gone{false};
  std::thread stop([this, &gone] {
    impl_->server.reset();
    gone = true;
  });
  while (!gone) {
    Knock(impl_->host, impl_->port);
    std::this_thread::sleep_for(kKnockAgain);
  }
  stop.join();
}

absl::StatusOr<std::unique_ptr<Exposer>> Exposer::Listen(absl::string_view address,
                                                         const Metrics& metrics) {
  ROMULUS_ASSIGN_OR_RETURN(const HostPort at, Split(address));
  ROMULUS_RETURN_IF_ERROR(TryBind(address, at));
  auto impl = std::make_unique<Impl>();
  // The library reports errors by exceptions; they end here.
  try {
    impl->server = std::make_unique<prometheus::Exposer>(std::string(address), 2);
    impl->server->RegisterCollectable(metrics.impl_->registry);
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("metrics address ", address, ": ", error.what()));
  }
  impl->host = at.host;
  const std::vector<int> ports = impl->server->GetListeningPorts();
  impl->port = ports.empty() ? 0 : ports.front();
  return std::unique_ptr<Exposer>(new Exposer(std::move(impl)));
}

int Exposer::port() const { return impl_->port; }

}  // namespace romulus::metrics

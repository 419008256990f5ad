#include "daemon/console_socket.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::daemon {
namespace {

namespace asio = boost::asio;
using Protocol = asio::local::stream_protocol;
using Clock = std::chrono::steady_clock;

// At most so much is on its way to one client.
constexpr size_t kWriteBytes = 64u << 10;

class SocketConsole;

// Console's thread only.
class Client : public std::enable_shared_from_this<Client> {
 public:
  Client(Protocol::socket socket, SocketConsole* console, uint64_t position)
      : socket_(std::move(socket)), console_(console), position_(position) {}

  void Start() { Read(); }
  // Sends what there is, unless it is at it already.
  void Pump();
  // Of the next byte that the client has not taken.
  uint64_t position() const { return position_; }
  // Nothing was taken since then; far ahead if nothing waits.
  Clock::time_point stuck_since() const { return writing_ ? since_ : Clock::time_point::max(); }
  void Close() {
    boost::system::error_code ignored;
    socket_.close(ignored);
  }

 private:
  void Read();
  void Leave();

  Protocol::socket socket_;
  SocketConsole* const console_;
  std::array<char, 256> ignored_;  // what a client sends is not for the guest yet
  uint64_t position_;
  std::string under_way_;
  bool writing_ = false;
  Clock::time_point since_;
};

class SocketConsole final : public Console {
 public:
  SocketConsole(std::string path, std::unique_ptr<asio::io_context> io,
                std::unique_ptr<Protocol::acceptor> acceptor, const ConsoleOptions& options,
                ConsoleEvents events)
      : Console(options.cap_bytes, events.on_room),
        path_(std::move(path)),
        options_(options),
        events_(std::move(events)),
        io_(std::move(io)),
        acceptor_(std::move(acceptor)),
        timer_(*io_) {
    Accept();
    Watch();
    thread_ = std::thread([this] { io_->run(); });
  }
  ~SocketConsole() override {
    stop_at_ = Clock::now() + options_.drain_time;
    asio::post(*io_, [this] {
      stopping_ = true;
      boost::system::error_code ignored;
      acceptor_->close(ignored);
      Advance();
      Watch();
    });
    thread_.join();
    if (left_ != 0 && events_.on_left) events_.on_left(left_);
    ::unlink(path_.c_str());
  }

  void Emit(uint64_t offset, absl::string_view bytes) override {
    queue_.Push(offset, bytes);
    // One wake-up is enough for all that is pushed until it runs: posted work does not pile up.
    if (pumping_.exchange(true)) return;
    asio::post(*io_, [this] {
      pumping_ = false;
      const auto clients = clients_;  // one may leave while it is sent to
      for (const auto& client : clients) client->Pump();
      Advance();
    });
  }

  // Console's thread, as all below.
  const ConsoleQueue& queue() const { return queue_; }
  void Remove(const std::shared_ptr<Client>& client) {
    clients_.erase(client);
    Advance();
  }
  // What every client has got has left; so has everything while there is no client.
  void Advance() {
    uint64_t written = queue_.end();
    for (const auto& client : clients_) written = std::min(written, client->position());
    queue_.Written(written);
    if (stopping_ && queue_.queued_bytes() == 0) CloseAll();
  }

 private:
  void Accept() {
    acceptor_->async_accept(
        [this](const boost::system::error_code& error, Protocol::socket socket) {
          if (error == asio::error::operation_aborted || !acceptor_->is_open()) return;
          if (!error && clients_.size() < kMaxConsoleClients) {
            auto client = std::make_shared<Client>(std::move(socket), this, queue_.end());
            clients_.insert(client);
            client->Start();
            client->Pump();  // what came between
          }
          Accept();
        });
  }

  // Looks after clients that take nothing, now and then.
  void Watch() {
    const auto now = Clock::now();
    if (stopping_ && now >= stop_at_) return CloseAll();
    const auto clients = clients_;
    for (const auto& client : clients) {
      if (client->stuck_since() > now - options_.client_patience) continue;
      const uint64_t missed = queue_.end() - client->position();
      client->Close();
      Remove(client);
      if (events_.on_cut_off) events_.on_cut_off(missed);
    }
    if (closed_) return;
    timer_.expires_after(std::max(std::min(options_.client_patience, options_.drain_time) / 4,
                                  std::chrono::milliseconds(1)));
    timer_.async_wait([this](const boost::system::error_code& error) {
      if (!error) Watch();
    });
  }

  void CloseAll() {
    if (std::exchange(closed_, true)) return;
    left_ = queue_.queued_bytes();
    for (const auto& client : clients_) client->Close();
    clients_.clear();
    timer_.cancel();
  }

  const std::string path_;
  const ConsoleOptions options_;
  const ConsoleEvents events_;
  const std::unique_ptr<asio::io_context> io_;
  const std::unique_ptr<Protocol::acceptor> acceptor_;
  asio::steady_timer timer_;
  std::atomic<bool> pumping_{false};
  Clock::time_point stop_at_;  // set before `stopping_` is
  // Console's thread.
  std::set<std::shared_ptr<Client>> clients_;
  bool stopping_ = false;
  bool closed_ = false;
  uint64_t left_ = 0;
  std::thread thread_;
};

void Client::Read() {
  socket_.async_read_some(
      asio::buffer(ignored_),
      [self = shared_from_this()](const boost::system::error_code& error, size_t) {
        if (error) return self->Leave();
        self->Read();
      });
}

void Client::Pump() {
  if (writing_ || !socket_.is_open()) return;
  under_way_ = console_->queue().Read(position_, kWriteBytes).bytes;
  if (under_way_.empty()) return;
  writing_ = true;
  since_ = Clock::now();
  socket_.async_write_some(
      asio::buffer(under_way_),
      [self = shared_from_this()](const boost::system::error_code& error, size_t taken) {
        if (error) return self->Leave();
        self->writing_ = false;
        self->position_ += taken;
        self->Pump();
        self->console_->Advance();
      });
}

void Client::Leave() {
  if (!socket_.is_open()) return;
  Close();
  console_->Remove(shared_from_this());
}

}  // namespace

absl::Status RemoveStaleSocket(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  if (!S_ISSOCK(info.st_mode)) {
    return absl::AlreadyExistsError(absl::StrCat("'", path, "' exists and is not a socket"));
  }
  asio::io_context io;
  Protocol::socket probe(io);
  boost::system::error_code error;
  probe.connect(Protocol::endpoint(path), error);
  if (!error) {
    return absl::AlreadyExistsError(absl::StrCat("'", path, "' is in use by another process"));
  }
  if (error != asio::error::connection_refused) {
    return base::ErrnoStatus(error.value(), absl::StrCat("socket '", path, "'"));
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return base::ErrnoStatus(errno, absl::StrCat("removing stale socket '", path, "'"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Console>> OpenSocketConsole(const std::string& path,
                                                           const ConsoleOptions& options,
                                                           ConsoleEvents events) {
  ROMULUS_RETURN_IF_ERROR(RemoveStaleSocket(path));
  auto io = std::make_unique<asio::io_context>(1);
  auto acceptor = std::make_unique<Protocol::acceptor>(*io);
  const Protocol::endpoint endpoint(path);
  boost::system::error_code error;
  acceptor->open(endpoint.protocol(), error);
  if (!error) acceptor->bind(endpoint, error);
  if (!error && ::chmod(path.c_str(), 0600) != 0)
    error.assign(errno, boost::system::system_category());
  if (!error) acceptor->listen(asio::socket_base::max_listen_connections, error);
  if (error) return base::ErrnoStatus(error.value(), absl::StrCat("console socket '", path, "'"));
  return std::make_unique<SocketConsole>(path, std::move(io), std::move(acceptor), options,
                                         std::move(events));
}

}  // namespace romulus::daemon

#include "daemon/console_socket.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <deque>
#include <limits>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::daemon {
namespace {

namespace asio = boost::asio;
using Protocol = asio::local::stream_protocol;
using Bytes = std::shared_ptr<const std::string>;

class SocketConsole;

class Client : public std::enable_shared_from_this<Client> {
 public:
  Client(Protocol::socket socket, SocketConsole* console)
      : socket_(std::move(socket)), console_(console) {}

  void Start() { Read(); }
  void Send(const Bytes& bytes);
  uint64_t queued_bytes() const { return queued_bytes_; }
  void Close() {
    boost::system::error_code ignored;
    socket_.close(ignored);
  }

 private:
  void Read();
  void Write();
  void Leave();

  Protocol::socket socket_;
  SocketConsole* const console_;
  std::array<char, 256> ignored_;  // what a client sends is not for the guest yet
  std::deque<Bytes> queue_;
  uint64_t queued_bytes_ = 0;
};

class SocketConsole final : public Console {
 public:
  SocketConsole(std::string path, std::unique_ptr<asio::io_context> io,
                std::unique_ptr<Protocol::acceptor> acceptor)
      : path_(std::move(path)), io_(std::move(io)), acceptor_(std::move(acceptor)) {
    Accept();
    thread_ = std::thread([this] { io_->run(); });
  }
  ~SocketConsole() override {
    asio::post(*io_, [this] {
      boost::system::error_code ignored;
      acceptor_->close(ignored);
      for (const auto& client : clients_) client->Close();
      clients_.clear();
    });
    thread_.join();
    ::unlink(path_.c_str());
  }

  void Emit(uint64_t offset, absl::string_view bytes) override {
    if (bytes.empty()) return;
    uint64_t unset = kNoOffset;
    if (start_offset_.compare_exchange_strong(unset, offset)) written_offset_ = offset;
    asio::post(*io_, [this, offset, shared = std::make_shared<const std::string>(bytes)] {
      // A client that is too slow leaves while it is sent to: iterate over a copy.
      const auto clients = clients_;
      for (const auto& client : clients) client->Send(shared);
      taken_offset_ = offset + shared->size();
      UpdateWritten();
    });
  }
  bool OverCap() const override { return false; }  // slow clients are cut off instead
  std::optional<uint64_t> written_offset() const override {
    const uint64_t offset = written_offset_;
    return offset == kNoOffset ? std::nullopt : std::optional<uint64_t>(offset);
  }
  std::optional<uint64_t> start_offset() const override {
    const uint64_t offset = start_offset_;
    return offset == kNoOffset ? std::nullopt : std::optional<uint64_t>(offset);
  }

  void Remove(const std::shared_ptr<Client>& client) {
    clients_.erase(client);
    UpdateWritten();
  }
  // What every client has got; the slowest counts. Console's thread.
  void UpdateWritten() {
    if (taken_offset_ == kNoOffset) return;
    uint64_t waiting = 0;
    for (const auto& client : clients_) waiting = std::max(waiting, client->queued_bytes());
    const uint64_t written = taken_offset_ - std::min(waiting, taken_offset_);
    if (written > written_offset_) written_offset_ = written;
  }

 private:
  static constexpr uint64_t kNoOffset = std::numeric_limits<uint64_t>::max();

  void Accept() {
    acceptor_->async_accept(
        [this](const boost::system::error_code& error, Protocol::socket socket) {
          if (error == asio::error::operation_aborted || !acceptor_->is_open()) return;
          if (!error && clients_.size() < kMaxConsoleClients) {
            auto client = std::make_shared<Client>(std::move(socket), this);
            clients_.insert(client);
            client->Start();
          }
          Accept();
        });
  }

  const std::string path_;
  const std::unique_ptr<asio::io_context> io_;
  const std::unique_ptr<Protocol::acceptor> acceptor_;
  std::set<std::shared_ptr<Client>> clients_;  // console's thread
  std::atomic<uint64_t> start_offset_{kNoOffset};
  std::atomic<uint64_t> written_offset_{kNoOffset};
  uint64_t taken_offset_ = kNoOffset;  // console's thread
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

void Client::Send(const Bytes& bytes) {
  if (queued_bytes_ + bytes->size() > kClientQueueBytes) return Leave();
  queued_bytes_ += bytes->size();
  queue_.push_back(bytes);
  if (queue_.size() == 1) Write();
}

void Client::Write() {
  asio::async_write(socket_, asio::buffer(*queue_.front()),
                    [self = shared_from_this()](const boost::system::error_code& error, size_t) {
                      if (error) return self->Leave();
                      self->queued_bytes_ -= self->queue_.front()->size();
                      self->queue_.pop_front();
                      self->console_->UpdateWritten();
                      if (!self->queue_.empty()) self->Write();
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

absl::StatusOr<std::unique_ptr<Console>> OpenSocketConsole(const std::string& path) {
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
  return std::make_unique<SocketConsole>(path, std::move(io), std::move(acceptor));
}

}  // namespace romulus::daemon

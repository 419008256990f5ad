#include "daemon/console.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "daemon/console_socket.h"

namespace romulus::daemon {
namespace {

// How long the destructor waits for a reader of standard output.
constexpr std::chrono::seconds kDrainTime{2};

// A file (by position) or standard output (one after the other), behind a queue and a thread.
class FdConsole final : public Console {
 public:
  FdConsole(base::UniqueFd owned, int fd, bool by_position, ConsoleEvents events)
      : owned_(std::move(owned)),
        fd_(fd),
        by_position_(by_position),
        events_(std::move(events)),
        thread_([this] { ThreadMain(); }) {}

  ~FdConsole() override {
    {
      std::lock_guard lock(mutex_);
      stop_at_ = std::chrono::steady_clock::now() + kDrainTime;
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void Emit(uint64_t offset, absl::string_view bytes) override {
    if (bytes.empty()) return;
    std::lock_guard lock(mutex_);
    if (!start_offset_) start_offset_ = written_offset_ = offset;
    queue_.push_back({offset, std::string(bytes)});
    queued_bytes_ += bytes.size();
    over_cap_ = queued_bytes_ > kConsoleQueueBytes;
    changed_.notify_all();
  }

  std::optional<uint64_t> written_offset() const override {
    std::lock_guard lock(mutex_);
    return written_offset_;
  }
  bool OverCap() const override { return over_cap_.load(std::memory_order_acquire); }
  std::optional<uint64_t> start_offset() const override {
    std::lock_guard lock(mutex_);
    return start_offset_;
  }

 private:
  struct Chunk {
    uint64_t offset = 0;
    std::string bytes;
  };

  void ThreadMain() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      const Chunk chunk = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      if (!failed_) Write(chunk);
      lock.lock();
      queued_bytes_ -= chunk.bytes.size();
      written_offset_ = chunk.offset + chunk.bytes.size();
      const bool room = over_cap_ && queued_bytes_ <= kConsoleQueueBytes / 2;
      if (!room) continue;
      over_cap_ = false;
      lock.unlock();
      if (events_.on_room) events_.on_room();
      lock.lock();
    }
  }

  void Write(const Chunk& chunk) {
    size_t done = 0;
    while (done < chunk.bytes.size()) {
      if (!by_position_ && !WaitWritable()) return;
      const char* from = chunk.bytes.data() + done;
      const size_t left = chunk.bytes.size() - done;
      const ssize_t written =
          by_position_ ? ::pwrite(fd_, from, left, static_cast<off_t>(chunk.offset + done))
                       : ::write(fd_, from, std::min(left, kPipeSafeBytes));
      if (written >= 0) {
        done += static_cast<size_t>(written);
      } else if (errno != EINTR && errno != EAGAIN) {
        // Told once; what follows is dropped rather than held for ever: the guest must not depend
        // on a reader that is gone.
        failed_ = true;
        if (events_.on_error) events_.on_error(base::ErrnoStatus(errno, "console"));
        return;
      }
    }
  }

  // False: the daemon stops and nobody reads.
  bool WaitWritable() {
    for (;;) {
      pollfd wait{fd_, POLLOUT, 0};
      if (::poll(&wait, 1, 100) != 0) return true;
      std::lock_guard lock(mutex_);
      if (stopping_ && std::chrono::steady_clock::now() > stop_at_) return false;
    }
  }

  // A pipe that poll() calls writable takes this much without blocking (pipe(7), PIPE_BUF).
  static constexpr size_t kPipeSafeBytes = 4096;

  const base::UniqueFd owned_;
  const int fd_;
  const bool by_position_;
  const ConsoleEvents events_;
  bool failed_ = false;  // console's thread only

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Chunk> queue_;
  uint64_t queued_bytes_ = 0;
  std::optional<uint64_t> start_offset_;
  std::optional<uint64_t> written_offset_;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point stop_at_;
  std::atomic<bool> over_cap_{false};
  std::thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Console>> Console::Open(const romulus::v1::Console& config,
                                                       ConsoleEvents events) {
  if (config.has_unix_socket()) return OpenSocketConsole(config.unix_socket());
  if (!config.has_file()) {
    return std::make_unique<FdConsole>(base::UniqueFd(), STDOUT_FILENO, /*by_position=*/false,
                                       std::move(events));
  }
  // Not truncated: after a failover and back, the file still holds what this node released before.
  base::UniqueFd fd(::open(config.file().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640));
  if (!fd.valid()) {
    return base::ErrnoStatus(errno, absl::StrCat("console file '", config.file(), "'"));
  }
  const int raw = fd.get();
  return std::make_unique<FdConsole>(std::move(fd), raw, /*by_position=*/true, std::move(events));
}

}  // namespace romulus::daemon

#include "daemon/console.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/unique_fd.h"
#include "daemon/console_socket.h"

namespace romulus::daemon {
namespace {

// At most so much is written at once.
constexpr size_t kWriteBytes = 64u << 10;
// A pipe that poll() calls writable takes this much without blocking (pipe(7), PIPE_BUF).
constexpr size_t kPipeSafeBytes = 4096;

// A file (by position) or standard output (one after the other), behind a queue and a thread.
class FdConsole final : public Console {
 public:
  FdConsole(base::UniqueFd owned, int fd, bool by_position, const ConsoleOptions& options,
            ConsoleEvents events)
      : Console(options.cap_bytes, events.on_room),
        owned_(std::move(owned)),
        fd_(fd),
        by_position_(by_position),
        options_(options),
        events_(std::move(events)),
        thread_([this] { ThreadMain(); }) {}

  ~FdConsole() override {
    {
      std::lock_guard lock(mutex_);
      stop_at_ = std::chrono::steady_clock::now() + options_.drain_time;
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
    const uint64_t left = queue_.queued_bytes();
    if (left != 0 && events_.on_left) events_.on_left(left);
  }

  void Emit(uint64_t offset, absl::string_view bytes) override {
    queue_.Push(offset, bytes);
    { std::lock_guard lock(mutex_); }  // the thread has either seen it or waits
    changed_.notify_all();
  }

  absl::Status failure() const override {
    std::lock_guard lock(mutex_);
    return failure_;
  }

 private:
  void ThreadMain() {
    std::chrono::milliseconds backoff = options_.retry_min;
    while (AwaitWork()) {
      const absl::StatusOr<size_t> written = WriteSome();
      Note(written.status());
      if (written.ok()) {
        queue_.Written(queue_.begin() + *written);
        backoff = options_.retry_min;
        continue;
      }
      std::unique_lock lock(mutex_);
      const auto again = std::chrono::steady_clock::now() + backoff;
      while (!GivesUpLocked() && std::chrono::steady_clock::now() < again) {
        changed_.wait_until(lock, stopping_ ? std::min(again, stop_at_) : again);
      }
      backoff = std::min(2 * backoff, options_.retry_max);
    }
  }

  // False: there is nothing more to do, or no more time for it.
  bool AwaitWork() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return stopping_ || queue_.queued_bytes() != 0; });
    if (queue_.queued_bytes() == 0) return false;
    // A file that takes bytes takes all of them, however late this thread comes to run; a reader
    // might take one now and then for ever.
    return !GivesUpLocked() || (by_position_ && failure_.ok());
  }
  bool GivesUpLocked() const { return stopping_ && std::chrono::steady_clock::now() >= stop_at_; }

  // Of the bytes in front, how many were written; 0 if the reader has no room just now.
  absl::StatusOr<size_t> WriteSome() {
    const ConsoleBytes front = queue_.Read(queue_.begin(), kWriteBytes);
    if (!by_position_) {
      pollfd wait{fd_, POLLOUT, 0};
      if (::poll(&wait, 1, 100) == 0) return 0;
    }
    const ssize_t written = by_position_ ? ::pwrite(fd_, front.bytes.data(), front.bytes.size(),
                                                    static_cast<off_t>(front.offset))
                                         : ::write(fd_, front.bytes.data(),
                                                   std::min(front.bytes.size(), kPipeSafeBytes));
    if (written > 0) return static_cast<size_t>(written);
    if (written == 0) return base::ErrnoStatus(EIO, "console: nothing was written");
    if (errno == EINTR || errno == EAGAIN) return 0;
    return base::ErrnoStatus(errno, "console");
  }

  // Says it when it changes.
  void Note(const absl::Status& status) {
    {
      std::lock_guard lock(mutex_);
      if (status == failure_) return;
      failure_ = status;
    }
    if (events_.on_failure) events_.on_failure(status);
  }

  const base::UniqueFd owned_;
  const int fd_;
  const bool by_position_;
  const ConsoleOptions options_;
  const ConsoleEvents events_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  absl::Status failure_;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point stop_at_;
  std::thread thread_;
};

// Two daemons of one node, each with addresses of its own, would write over each other. The lock is
// of the open file description (fcntl(2)): gone with the process, whatever it dies of. Without
// locks (some network file systems have none) there is no telling.
absl::Status LockFile(int fd, const std::string& path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) return absl::OkStatus();
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("console file '", path, "' is another process's; stop that one (`fuser -v ",
                   path, "` names it), or give each guest a file of its own"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Console>> Console::Open(const romulus::v1::Console& config,
                                                       const ConsoleOptions& options,
                                                       ConsoleEvents events) {
  if (config.has_unix_socket())
    return OpenSocketConsole(config.unix_socket(), options, std::move(events));
  if (!config.has_file()) {
    return std::make_unique<FdConsole>(base::UniqueFd(), STDOUT_FILENO, /*by_position=*/false,
                                       options, std::move(events));
  }
  // Not truncated: after a failover and back, the file still holds what this node released before.
  base::UniqueFd fd(::open(config.file().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0640));
  if (!fd.valid()) {
    return base::ErrnoStatus(errno, absl::StrCat("console file '", config.file(), "'"));
  }
  ROMULUS_RETURN_IF_ERROR(LockFile(fd.get(), config.file()));
  const int raw = fd.get();
  return std::make_unique<FdConsole>(std::move(fd), raw, /*by_position=*/true, options,
                                     std::move(events));
}

}  // namespace romulus::daemon

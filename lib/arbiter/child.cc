#include "arbiter/child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace romulus::arbiter {
namespace {

using std::chrono::steady_clock;

constexpr auto kKillTakes = std::chrono::seconds(2);
constexpr size_t kReadBytes = 4096;
constexpr int kMaxLastReads = 16;  // of what was said before the end and not read yet

int MillisUntil(steady_clock::time_point when) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(when - steady_clock::now());
  return static_cast<int>(std::clamp<int64_t>(left.count(), 0, 1'000'000'000));
}

// What a program says, within bounds; all of it is read, or the program would wait.
class Lines {
 public:
  explicit Lines(const ChildRequest& request) : request_(request) {}

  void Add(const char* bytes, size_t size) {
    for (size_t i = 0; i < size; ++i) {
      if (bytes[i] == '\n') {
        EndLine();
      } else if (lines_.size() >= request_.max_lines || line_.size() >= request_.max_line_bytes) {
        ++dropped_;
      } else {
        line_ += absl::ascii_isprint(bytes[i]) ? bytes[i] : '?';
      }
    }
  }
  std::vector<std::string> Take() {
    EndLine();
    if (dropped_ > 0) {
      if (lines_.size() >= request_.max_lines) lines_.pop_back();
      lines_.push_back(absl::StrCat("(", dropped_, " more bytes)"));
    }
    return std::move(lines_);
  }

 private:
  void EndLine() {
    if (!line_.empty()) lines_.push_back(line_);
    line_.clear();
  }
  const ChildRequest& request_;
  std::vector<std::string> lines_;
  std::string line_;
  uint64_t dropped_ = 0;
};

// True while there may be more.
bool ReadSome(int fd, Lines* lines) {
  char bytes[kReadBytes];
  const ssize_t got = ::read(fd, bytes, sizeof(bytes));
  if (got > 0) lines->Add(bytes, static_cast<size_t>(got));
  return got > 0;
}

std::vector<char*> Pointers(std::vector<std::string>* words) {
  std::vector<char*> pointers;
  for (std::string& word : *words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

// posix_spawn, because it shares the memory until the exec: fork() would copy the page tables of a
// guest, and in a process with threads its child may hardly do anything. The child leads a group of
// its own, has no descriptor but these, and no signal blocked or ignored.
int Spawn(const ChildRequest& request, int output, pid_t* pid) {
  std::vector<std::string> argv = request.argv;
  std::vector<std::string> environment = request.environment;
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  ROMULUS_CHECK(::posix_spawn_file_actions_init(&actions) == 0);
  ROMULUS_CHECK(::posix_spawnattr_init(&attributes) == 0);
  ::posix_spawn_file_actions_adddup2(&actions, output, 1);
  ::posix_spawn_file_actions_adddup2(&actions, output, 2);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  sigset_t none, all;
  ::sigemptyset(&none);
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setpgroup(&attributes, 0);
  ::posix_spawnattr_setflags(
      &attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  const int error = ::posix_spawn(pid, argv[0].c_str(), &actions, &attributes,
                                  Pointers(&argv).data(), Pointers(&environment).data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&actions);
  return error;
}

absl::Status SpawnFailed(const std::string& program, int error) {
  const std::string what = base::ErrnoStatus(error, "cannot run " + program).ToString();
  // These pass; everything else is about the file.
  if (error == EAGAIN || error == ENOMEM || error == EMFILE || error == ENFILE ||
      error == ETXTBSY || error == EINTR) {
    return absl::UnavailableError(what);
  }
  return absl::FailedPreconditionError(what);
}

}  // namespace

ChildRunner::ChildRunner() : stop_(::eventfd(0, EFD_CLOEXEC)) { ROMULUS_CHECK(stop_.valid()); }

void ChildRunner::Stop() {
  const uint64_t one = 1;
  ROMULUS_CHECK(::write(stop_.get(), &one, sizeof(one)) == sizeof(one));
}

ChildResult ChildRunner::Run(const ChildRequest& request) {
  ChildResult result;
  if (stuck_ != 0 && ::waitpid(stuck_, nullptr, WNOHANG) == 0) {
    result.status = absl::UnavailableError(
        absl::StrCat("process ", stuck_, " of an earlier run cannot be killed"));
    return result;
  }
  stuck_ = 0;
  const auto end = steady_clock::now() + absl::ToChronoNanoseconds(request.timeout);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    result.status = SpawnFailed(request.argv[0], errno);
    return result;
  }
  const base::UniqueFd output(ends[0]);
  base::UniqueFd input(ends[1]);
  ::fcntl(output.get(), F_SETFL, O_NONBLOCK);
  pid_t pid = 0;
  if (const int error = Spawn(request, input.get(), &pid); error != 0) {
    result.status = SpawnFailed(request.argv[0], error);
    return result;
  }
  input.Reset();
  const base::UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));

  Lines lines(request);
  pollfd polled[3] = {
      {process.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}, {output.get(), POLLIN, 0}};
  bool ended = false;
  const char* killed = process.valid() ? nullptr : "killed, as it cannot be watched";
  while (!ended && killed == nullptr) {
    const int ready = ::poll(polled, 3, MillisUntil(end));
    if (ready < 0 && errno != EINTR) killed = "killed, as it cannot be watched";
    if (ready <= 0) {
      if (steady_clock::now() >= end) killed = "killed, as it did not end in time";
      continue;
    }
    if (polled[2].revents != 0 && !ReadSome(output.get(), &lines) && errno != EINTR) {
      polled[2].fd = -1;  // closed; the program may go on
    }
    ended = polled[0].revents != 0;
    if (!ended && polled[1].revents != 0) killed = "killed, as the daemon ends";
    // One that floods its output is never without an event.
    if (!ended && steady_clock::now() >= end) killed = "killed, as it did not end in time";
  }
  // The leader is not reaped yet, so the group's number is nobody else's.
  ::kill(-pid, SIGKILL);
  if (!ended && process.valid()) {
    pollfd gone = {process.get(), POLLIN, 0};
    ::poll(&gone, 1, MillisUntil(steady_clock::now() + kKillTakes));
  }
  for (int i = 0; i < kMaxLastReads && ReadSome(output.get(), &lines); ++i) {
  }
  result.lines = lines.Take();
  int status = 0;
  const pid_t reaped = ::waitpid(pid, &status, WNOHANG);
  if (reaped == 0) stuck_ = pid;
  if (killed != nullptr) {
    result.status = absl::UnavailableError(killed);
  } else if (reaped != pid) {
    result.status = absl::UnavailableError("nobody knows how it ended");
  } else if (!WIFEXITED(status)) {
    result.status = absl::UnavailableError(absl::StrCat("ended by signal ", WTERMSIG(status)));
  } else {
    result.exit_code = WEXITSTATUS(status);
  }
  return result;
}

}  // namespace romulus::arbiter

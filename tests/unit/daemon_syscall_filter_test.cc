// Each filter in a process of its own: it is for good.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/sched.h>
#include <sched.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <thread>

#include "daemon/syscall_filter.h"

namespace romulus::daemon {
namespace {

// Ends the process with 0 if `call` is refused.
void ExpectRefused(const char* what, const std::function<long()>& call) {
  errno = 0;
  if (call() == -1 && errno == EPERM) return;
  std::fprintf(stderr, "%s was not refused: errno %d\n", what, errno);
  ::_exit(1);
}

void ExpectDone(const char* what, long result) {
  if (result != -1) return;
  std::fprintf(stderr, "%s: errno %d\n", what, errno);
  ::_exit(1);
}

// Ends the process with 0 if there is no clone3(2); a C library then takes clone(2).
void ExpectNoClone3() {
  clone_args arguments{};
  arguments.exit_signal = SIGCHLD;
  errno = 0;
  const long child = ::syscall(SYS_clone3, &arguments, sizeof(arguments));
  if (child == 0) ::_exit(0);
  if (child == -1 && errno == ENOSYS) return;
  std::fprintf(stderr, "clone3: %ld, errno %d\n", child, errno);
  ::_exit(1);
}

class SyscallFilterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!SyscallFilterIsBuiltIn()) GTEST_SKIP() << "a build with sanitizers has none";
    ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  }
  static void Narrow(SyscallFilter filter) {
    const absl::Status done = NarrowSyscalls(filter);
    if (done.ok()) return;
    std::fprintf(stderr, "%s\n", done.ToString().c_str());
    ::_exit(1);
  }
};

TEST_F(SyscallFilterTest, StrictAllowsWhatADaemonDoes) {
  EXPECT_EXIT(
      {
        // A thread that is there before has the filter, too.
        const int go = ::eventfd(0, 0);
        std::thread before([go] {
          uint64_t value = 0;
          ExpectDone("read", ::read(go, &value, sizeof(value)));
          ExpectRefused("fork of an older thread", [] { return ::syscall(SYS_fork); });
        });
        Narrow(SyscallFilter::kStrict);
        const uint64_t one = 1;
        ExpectDone("write", ::write(go, &one, sizeof(one)));
        before.join();
        int done = 0;
        std::thread([&done] { done = 1; }).join();
        const int file = ::open("/proc/self/status", O_RDONLY | O_CLOEXEC);
        ExpectDone("open", file);
        int waiting = 0;
        const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ExpectDone("socket", listener);
        ExpectDone("FIONREAD", ::ioctl(listener, FIONREAD, &waiting));
        void* memory =
            ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ::_exit(memory != MAP_FAILED && done == 1 ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(SyscallFilterTest, StrictRefusesTheRest) {
  EXPECT_EXIT(
      {
        Narrow(SyscallFilter::kStrict);
        ExpectRefused("fork", [] { return ::fork(); });
        ExpectRefused("execve", [] { return ::execl("/bin/true", "true", nullptr); });
        ExpectRefused("ptrace", [] { return ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr); });
        ExpectRefused("kill", [] { return ::kill(::getppid(), 0); });
        ExpectRefused("setuid", [] { return ::setuid(::getuid()); });
        ExpectRefused("chown", [] { return ::chown("/none", 0, 0); });
        ExpectRefused("TIOCSTI", [] { return ::ioctl(0, TIOCSTI, "x"); });
        ExpectRefused("bpf", [] { return ::syscall(SYS_bpf, 0, nullptr, 0); });
        ExpectRefused("seccomp", [] { return ::syscall(SYS_seccomp, 0, 0, nullptr); });
        ExpectNoClone3();
        ::_exit(0);
      },
      ::testing::ExitedWithCode(0), "");
}

// As a fence command is started.
void SpawnTrue() {
  char program[] = "/bin/true";
  char* words[] = {program, nullptr};
  pid_t spawned = 0;
  if (::posix_spawn(&spawned, program, nullptr, nullptr, words, nullptr) != 0) ::_exit(1);
  int ended = 0;
  ExpectDone("waitpid", ::waitpid(spawned, &ended, 0));
  if (ended != 0) ::_exit(1);
}

TEST_F(SyscallFilterTest, WideStartsProgramsThatHaveTheFilterToo) {
  EXPECT_EXIT(
      {
        Narrow(SyscallFilter::kWide);
        ExpectRefused("mount", [] { return ::mount("a", "/b", "tmpfs", 0, nullptr); });
        ExpectRefused("clone", [] {
          return ::syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWNET | SIGCHLD, 0, 0, 0, 0);
        });
        ExpectNoClone3();
        int done = 0;
        std::thread([&done] { done = 1; }).join();
        if (done != 1) ::_exit(1);
        SpawnTrue();
        const pid_t child = ::fork();
        ExpectDone("fork", child);
        if (child == 0) {
          ExpectRefused("unshare", [] { return ::syscall(SYS_unshare, 0); });
          ::execl("/bin/true", "true", nullptr);
          ::_exit(1);
        }
        int status = 0;
        ExpectDone("waitpid", ::waitpid(child, &status, 0));
        ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace romulus::daemon

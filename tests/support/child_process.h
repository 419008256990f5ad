// Programs that a test starts. They die with the thread that started them. One thread.
#ifndef ROMULUS_TESTS_SUPPORT_CHILD_PROCESS_H_
#define ROMULUS_TESTS_SUPPORT_CHILD_PROCESS_H_

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "base/check.h"

namespace romulus::testing {

class ChildProcess {
 public:
  ChildProcess() = default;
  // What it says is added to `log`.
  ChildProcess(std::vector<std::string> argv, const std::string& log) {
    argv.insert(argv.begin(), {"setpriv", "--pdeathsig", "KILL"});
    std::vector<char*> raw;
    for (std::string& word : argv) raw.push_back(word.data());
    raw.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                       0600);
    ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
    ::posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    ROMULUS_CHECK(::posix_spawnp(&pid_, raw[0], &actions, nullptr, raw.data(), environ) == 0);
    ::posix_spawn_file_actions_destroy(&actions);
  }
  ~ChildProcess() { Kill(); }
  ChildProcess(ChildProcess&& other) noexcept { *this = std::move(other); }
  ChildProcess& operator=(ChildProcess&& other) noexcept {
    std::swap(pid_, other.pid_);
    return *this;
  }

  bool running() const { return pid_ > 0; }
  void Signal(int signal) {
    if (running()) ::kill(pid_, signal);
  }
  void Kill() {
    Signal(SIGKILL);
    Wait();
  }
  // Its exit code; -1 if a signal ended it.
  int Wait() {
    if (!running()) return -1;
    int status = 0;
    ROMULUS_CHECK(::waitpid(pid_, &status, 0) == pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_ = -1;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_CHILD_PROCESS_H_

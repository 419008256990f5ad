// Runs one program to its end or to a deadline, whichever comes first, and nothing of it stays.
// Run() may be called on any thread, one at a time; Stop() on any other.
#ifndef ROMULUS_ARBITER_CHILD_H_
#define ROMULUS_ARBITER_CHILD_H_

#include <sys/types.h>

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/unique_fd.h"

namespace romulus::arbiter {

struct ChildRequest {
  std::vector<std::string> argv;         // the program first, by its path
  std::vector<std::string> environment;  // "NAME=value"
  absl::Duration timeout;
  size_t max_lines = 64;
  size_t max_line_bytes = 256;
};

struct ChildResult {
  // OK: it ended by exit(`exit_code`). Unavailable, saying how: it ended otherwise, was killed at
  // the deadline or by Stop(), or could not be started for want of something. FailedPrecondition:
  // there is no such program, or it is none.
  absl::Status status;
  int exit_code = -1;
  std::vector<std::string> lines;  // of its output and errors, printable
};

class ChildRunner {
 public:
  ChildRunner();
  // Not while Run() is under way.
  ~ChildRunner() = default;

  // Takes at most the timeout and two seconds, for a program that even SIGKILL does not end at once
  // (it waits for a disk or a network file system). Then nothing else is run until it is gone.
  ChildResult Run(const ChildRequest& request);
  // Ends what runs, and whatever is run later.
  void Stop();

 private:
  base::UniqueFd stop_;  // an eventfd
  pid_t stuck_ = 0;      // killed, and not gone yet
};

}  // namespace romulus::arbiter

#endif  // ROMULUS_ARBITER_CHILD_H_

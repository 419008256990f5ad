// An arbiter that is a program: a fence command, as Pacemaker's agents are. It makes sure that the
// peer does not run the guest (cuts its power, its network, ...) and says so by its exit code:
//
//   0                       yes: the peer is fenced, this node may go on
//   anything else, a signal,
//   or no end in time       silent: nothing is known
//
// It keeps no record: its yes is worth what the command is, and two nodes that fence each other at
// the same moment are both right to believe it only if each yes means that the other is off. To
// begin to protect (kProtect) needs nobody's permission here: the peer is at hand, and fencing it
// would be absurd.
//
// What is asked is in the command's environment, beside the daemon's own: ROMULUS_VM (name),
// ROMULUS_UUID, ROMULUS_ACTION (promote or solo), ROMULUS_EXPECTED_TERM, ROMULUS_TERM (the one
// wanted), ROMULUS_NODE (this one), ROMULUS_PEER (the one to fence). Standard input is empty, all
// other descriptors are closed but output and errors, which go to the log. The same claim may be
// made again, so fencing what is fenced must be a success.
//
// The command is the leader of a process group; what is left of the group when it ends, or when the
// time is over, is killed. One runs at a time: a claim meanwhile is silent.
//
// Threads and lifetime: as failover::Arbiter; one thread of its own while a command runs.
#ifndef ROMULUS_ARBITER_COMMAND_ARBITER_H_
#define ROMULUS_ARBITER_COMMAND_ARBITER_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/executor.h"
#include "failover/arbiter.h"

namespace romulus::arbiter {

struct CommandOptions {
  // Program and arguments; no shell. The program is an absolute path.
  std::vector<std::string> argv;
  // Each line that a command says, printable and at most kMaxLineBytes long; called on the
  // executor's thread before the answer. Not more than kMaxLines of a command: the last one says
  // that more was dropped. May be null.
  std::function<void(const std::string& line)> on_output = nullptr;

  static constexpr size_t kMaxLines = 64;
  static constexpr size_t kMaxLineBytes = 256;
};

// `executor` outlives the arbiter, and is the one that it is called on. Errors: InvalidArgument if
// there is no absolute path. Whether it can be run is found out by running it: what cannot is a
// kError.
absl::StatusOr<std::unique_ptr<failover::Arbiter>> MakeCommandArbiter(
    const CommandOptions& options, const failover::ArbiterIdentity& identity,
    base::Executor* executor);

}  // namespace romulus::arbiter

#endif  // ROMULUS_ARBITER_COMMAND_ARBITER_H_

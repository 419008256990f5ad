// The arbiter that a configuration describes. Called on the control loop, as the arbiter then is.
#ifndef ROMULUS_DAEMON_MAKE_ARBITER_H_
#define ROMULUS_DAEMON_MAKE_ARBITER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/executor.h"
#include "daemon/config.h"
#include "failover/arbiter.h"

namespace romulus::daemon {

// Who asks: this node of `config` on this host. Errors: the host has no identity, and an arbiter
// that keeps a record needs one (host_identity.h).
absl::StatusOr<failover::ArbiterIdentity> ArbiterIdentityOf(const LoadedConfig& config,
                                                            const std::string& build);

// Null: none. `on_output` is told what a fence command says, line by line. `executor` outlives the
// arbiter. Errors: files that cannot be read, by name.
absl::StatusOr<std::unique_ptr<failover::Arbiter>> MakeArbiter(
    const LoadedConfig& config, const failover::ArbiterIdentity& identity, base::Executor* executor,
    std::function<void(const std::string&)> on_output);

// How long this node waits before it asks: a fence command's delay_ms, if it is the second node.
absl::Duration ArbiterDelay(const LoadedConfig& config);

// Its timeout_ms; zero if there is none.
absl::Duration ArbiterTimeout(const romulus::v1::Config& config);

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_MAKE_ARBITER_H_

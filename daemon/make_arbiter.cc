#include "daemon/make_arbiter.h"

#include <utility>

#include "arbiter/command_arbiter.h"
#include "arbiter/etcd_arbiter.h"
#include "base/status.h"
#include "daemon/host_identity.h"

namespace romulus::daemon {
namespace {

arbiter::EtcdOptions OptionsOf(const romulus::v1::Etcd& etcd) {
  arbiter::EtcdOptions options;
  options.endpoints.assign(etcd.endpoints().begin(), etcd.endpoints().end());
  options.prefix = etcd.prefix();
  options.cluster_id = etcd.cluster_id();
  options.tls = etcd.has_tls();
  options.ca_file = etcd.tls().ca_file();
  options.cert_file = etcd.tls().cert_file();
  options.key_file = etcd.tls().key_file();
  options.user = etcd.user();
  options.password_file = etcd.password_file();
  return options;
}

}  // namespace

absl::StatusOr<failover::ArbiterIdentity> ArbiterIdentityOf(const LoadedConfig& config,
                                                            const std::string& build) {
  failover::ArbiterIdentity identity;
  identity.vm_name = config.config.name();
  identity.vm_uuid = config.config.uuid();
  identity.node = config.self().name();
  if (config.peer() != nullptr) identity.peer = config.peer()->name();
  identity.build = build;
  if (config.config.failover().arbiter().has_etcd()) {
    ROMULUS_ASSIGN_OR_RETURN(identity.host_id, HostId(identity.vm_uuid, HostIdFiles()));
    identity.host_name = HostName();
  }
  return identity;
}

absl::StatusOr<std::unique_ptr<failover::Arbiter>> MakeArbiter(
    const LoadedConfig& config, const failover::ArbiterIdentity& identity, base::Executor* executor,
    std::function<void(const std::string&)> on_output) {
  const romulus::v1::Arbiter& chosen = config.config.failover().arbiter();
  if (chosen.has_etcd()) {
    return arbiter::MakeEtcdArbiter(OptionsOf(chosen.etcd()), identity, executor);
  }
  if (chosen.has_command()) {
    arbiter::CommandOptions options;
    options.argv.assign(chosen.command().argv().begin(), chosen.command().argv().end());
    options.on_output = std::move(on_output);
    return arbiter::MakeCommandArbiter(options, identity, executor);
  }
  return nullptr;
}

absl::Duration ArbiterDelay(const LoadedConfig& config) {
  const romulus::v1::Arbiter& chosen = config.config.failover().arbiter();
  const bool is_first =
      config.config.nodes_size() == 0 || config.config.nodes(0).name() == config.config.node_name();
  if (!chosen.has_command() || is_first) return absl::ZeroDuration();
  return absl::Milliseconds(chosen.command().delay_ms());
}

absl::Duration ArbiterTimeout(const romulus::v1::Config& config) {
  const romulus::v1::Arbiter& chosen = config.failover().arbiter();
  if (chosen.has_etcd()) return absl::Milliseconds(chosen.etcd().timeout_ms());
  if (chosen.has_command()) return absl::Milliseconds(chosen.command().timeout_ms());
  return absl::ZeroDuration();
}

}  // namespace romulus::daemon

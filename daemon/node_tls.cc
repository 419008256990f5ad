// Who this node is on the network, and whom it believes: the one identity that all its servers and
// connections have, and what is told of it.
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "daemon/config_tls.h"
#include "daemon/node.h"
#include "wire/grpc_tls.h"

namespace romulus::daemon {
namespace {

constexpr uint64_t kHourNs = 3'600'000'000'000;

}  // namespace

absl::Status Node::OpenTls() {
  if (!config_.has_tls()) return absl::OkStatus();
  ROMULUS_ASSIGN_OR_RETURN(
      tls_, wire::TlsIdentity::Open(TlsFilesOf(config_.tls()), config_.node_name(), this));
  wire::ListenToHandshakes(tls_);
  log_.Info("tls",
            {{"name", config_.node_name()}, {"expires_unix_s", tls_->current()->expires_unix_s}});
  return absl::OkStatus();
}

void Node::CloseTls() {
  if (tls_ != nullptr) wire::ListenToHandshakes(nullptr);
}

wire::LinkSecurity Node::Security() const {
  const romulus::v1::Node* peer = options_.config.peer();
  return {.tls = tls_, .peer_name = peer == nullptr ? "" : peer->name()};
}

std::optional<RemoteControl> Node::Remote() const {
  const romulus::v1::Node& self = options_.config.self();
  if (!self.has_remote_control_address()) return std::nullopt;
  const romulus::v1::Tls& tls = config_.tls();
  return RemoteControl{.address = self.remote_control_address(),
                       .tls = tls_,
                       .admins = {tls.admins().begin(), tls.admins().end()},
                       .read_only = {tls.read_only().begin(), tls.read_only().end()}};
}

void Node::RepeatInsecure() {
  if (!config_.insecure()) return;
  log_.Warning("insecure",
               {{"why",
                 "insecure: true: guest memory and disks cross the network in plain text, "
                 "and whoever reaches this node may be its primary"}});
  control_.PostAfter(kHourNs, [this] { RepeatInsecure(); });
}

void Node::UpdateTlsMetrics() {
  if (tls_ == nullptr) return;
  metrics_.SetTlsExpiry(tls_->current()->expires_unix_s);
  for (size_t i = 0; i < wire::kTlsRefusalCount; ++i) {
    metrics_.SetTlsRefusals(i, tls_->refused(static_cast<wire::TlsRefusal>(i)));
  }
}

void Node::FillTls(romulus::v1::GetStatusResponse& status) const {
  if (tls_ == nullptr && !config_.insecure()) return;
  romulus::v1::TlsStatus& tls = *status.mutable_tls();
  tls.set_insecure(config_.insecure());
  if (tls_ == nullptr) return;
  tls.set_name(config_.node_name());
  tls.set_expires_unix_s(tls_->current()->expires_unix_s);
  for (size_t i = 0; i < wire::kTlsRefusalCount; ++i) {
    const uint64_t count = tls_->refused(static_cast<wire::TlsRefusal>(i));
    if (count != 0) (*tls.mutable_refused())[std::string(wire::kTlsRefusalNames[i])] = count;
  }
}

void Node::OnTlsRefused(wire::TlsRefusal why, const std::string& from, const std::string& detail) {
  log_.Warning("tls_refused", {{"reason", wire::kTlsRefusalNames[static_cast<size_t>(why)]},
                               {"from", from},
                               {"why", detail}});
}

void Node::OnTlsReloaded(const wire::TlsMaterial& now) {
  log_.Info("tls_reloaded", {{"expires_unix_s", now.expires_unix_s}});
}

void Node::OnTlsReloadFailed(const absl::Status& why) {
  log_.Error("tls_reload_failed", {{"why", why}});
}

}  // namespace romulus::daemon

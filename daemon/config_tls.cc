#include "daemon/config_tls.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/config_check.h"

namespace romulus::daemon {
namespace {

using romulus::v1::Config;
using romulus::v1::Node;
using romulus::v1::Tls;

constexpr int kMaxNames = 64;

void CheckNames(const google::protobuf::RepeatedPtrField<std::string>& names,
                const std::string& field, const ConfigPlace& at) {
  for (int i = 0; i < names.size(); ++i) {
    if (!ValidName(names[i])) at.Error(field, kNameRule, i);
  }
}

void CheckFiles(const Tls& tls, const Config& config, const ConfigOptions& options,
                const ConfigPlace& at) {
  if (!tls.has_ca_file()) at.Error("ca_file", "must be set");
  if (!tls.has_cert_file()) at.Error("cert_file", "must be set");
  if (!tls.has_key_file()) at.Error("key_file", "must be set");
  if (!options.check_files || !tls.has_ca_file() || !tls.has_cert_file() || !tls.has_key_file()) {
    return;
  }
  const size_t before = at.errors();
  CheckFile(tls.ca_file(), "ca_file", at);
  CheckFile(tls.cert_file(), "cert_file", at);
  CheckSecretFile(tls.key_file(), "key_file", at);
  if (at.errors() != before || !config.has_node_name()) return;
  const auto read = wire::ReadTlsFiles(TlsFilesOf(tls), config.node_name());
  if (read.ok()) return;
  // Its message names one of the three first.
  const std::string why(read.status().message());
  const auto where = [&](const std::string& path) {
    return why.find(absl::StrCat("'", path, "'"));
  };
  const char* field = "ca_file";
  if (where(tls.cert_file()) < where(tls.ca_file())) field = "cert_file";
  if (where(tls.key_file()) < std::min(where(tls.cert_file()), where(tls.ca_file()))) {
    field = "key_file";
  }
  at.Error(field, why);
}

// Plain text is for those who cannot be overheard, and for those who say that they want it.
void CheckPlainText(const Config& config, const ConfigPlace& root) {
  if (config.has_tls() || config.insecure() || config.nodes_size() < 2) return;
  for (int i = 0; i < config.nodes_size(); ++i) {
    const Node& node = config.nodes(i);
    for (const auto& [field, address] : {std::pair<const char*, const std::string&>{
                                             "replication_address", node.replication_address()},
                                         std::pair<const char*, const std::string&>{
                                             "heartbeat_address", node.heartbeat_address()}}) {
      const std::string host = SplitHostPort(address).host;
      if (host.empty() || IsLoopback(host)) continue;
      root.Sub("nodes", i)
          .Error(field,
                 absl::StrCat("'", address,
                              "' is not a loopback address: needs `tls { }`, or `insecure: true` "
                              "where only the two hosts share the network"));
    }
  }
}

}  // namespace

void CheckTls(const Config& config, const ConfigOptions& options, const ConfigPlace& root) {
  for (int i = 0; i < config.nodes_size(); ++i) {
    const Node& node = config.nodes(i);
    const ConfigPlace at = root.Sub("nodes", i);
    if (config.has_tls() && IsIp(node.name())) {
      at.Error("name", "is an IP address, which no certificate has as a DNS name");
    }
    if (!node.has_remote_control_address()) continue;
    if (SplitHostPort(node.remote_control_address()).host.empty()) {
      at.Error("remote_control_address",
               absl::StrCat("'", node.remote_control_address(), "' is not host:port"));
    }
    if (!config.has_tls()) {
      at.Error("remote_control_address",
               "needs `tls { }`: whoever reaches it may fail the guest over");
    } else if (config.tls().admins_size() + config.tls().read_only_size() == 0) {
      at.Error("remote_control_address",
               "nobody may use it: `tls { }` has neither admins nor read_only");
    }
  }
  CheckPlainText(config, root);
  if (!config.has_tls()) return;
  if (config.insecure()) root.Error("insecure", "contradicts tls");
  const Tls& tls = config.tls();
  const ConfigPlace at = root.Sub("tls");
  CheckFiles(tls, config, options, at);
  CheckNames(tls.admins(), "admins", at);
  CheckNames(tls.read_only(), "read_only", at);
  if (tls.admins_size() + tls.read_only_size() > kMaxNames) {
    root.Error("tls", absl::StrCat("more than ", kMaxNames, " names in admins and read_only"));
  }
}

void MapTlsPaths(const std::function<std::string(const std::string&)>& map, Tls* tls) {
  if (tls->has_ca_file()) tls->set_ca_file(map(tls->ca_file()));
  if (tls->has_cert_file()) tls->set_cert_file(map(tls->cert_file()));
  if (tls->has_key_file()) tls->set_key_file(map(tls->key_file()));
}

wire::TlsFiles TlsFilesOf(const Tls& tls) {
  return {.ca_file = tls.ca_file(), .cert_file = tls.cert_file(), .key_file = tls.key_file()};
}

}  // namespace romulus::daemon

#include "daemon/config_arbiter.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "daemon/config_check.h"

namespace romulus::daemon {
namespace {

using romulus::v1::Arbiter;
using romulus::v1::Etcd;
using romulus::v1::EtcdTls;
using romulus::v1::FenceCommand;

constexpr int kMaxWords = 32;
constexpr int kMaxEndpoints = 16;
constexpr size_t kMaxPrefix = 128;
constexpr uint32_t kMinTimeoutMs = 100;
constexpr uint32_t kMaxCommandTimeoutMs = 600'000;
constexpr uint32_t kMaxDelayMs = 60'000;
constexpr uint32_t kMaxEtcdTimeoutMs = 60'000;

void CheckTimeout(uint32_t value, uint32_t max, const ConfigPlace& at) {
  if (value >= kMinTimeoutMs && value <= max) return;
  at.Error("timeout_ms", absl::StrCat(value, " is out of range: ", kMinTimeoutMs, " to ", max));
}

void CheckCommand(const FenceCommand& command, const ConfigOptions& options,
                  const ConfigPlace& at) {
  CheckTimeout(command.timeout_ms(), kMaxCommandTimeoutMs, at);
  if (command.delay_ms() > kMaxDelayMs) {
    at.Error("delay_ms", absl::StrCat(command.delay_ms(), " is more than ", kMaxDelayMs));
  }
  if (command.argv_size() == 0) return at.Error("argv", "must be set");
  if (command.argv_size() > kMaxWords) {
    at.Error("argv", absl::StrCat(command.argv_size(), " words, at most ", kMaxWords), kMaxWords);
  }
  for (int i = 0; i < command.argv_size(); ++i) {
    if (absl::StrContains(command.argv(i), '\0')) at.Error("argv", "has a zero byte", i);
  }
  const std::string& program = command.argv(0);
  if (program.empty()) return at.Error("argv", "the program must not be empty", 0);
  if (!options.check_files) return;
  struct stat info {};
  if (::stat(program.c_str(), &info) != 0) {
    at.Error("argv", absl::StrCat("cannot use '", program, "': ", std::strerror(errno)), 0);
  } else if (!S_ISREG(info.st_mode)) {
    at.Error("argv", absl::StrCat("'", program, "' is not a file"), 0);
  } else if (::access(program.c_str(), X_OK) != 0) {
    at.Error("argv", absl::StrCat("cannot run '", program, "': ", std::strerror(errno)), 0);
  }
}

void CheckEtcdTls(const EtcdTls& tls, const ConfigOptions& options, const ConfigPlace& at) {
  if (tls.has_cert_file() && !tls.has_key_file()) {
    at.Error("cert_file", "contradicts a missing key_file: both prove who this node is");
  }
  if (tls.has_key_file() && !tls.has_cert_file()) {
    at.Error("key_file", "contradicts a missing cert_file: both prove who this node is");
  }
  if (!options.check_files) return;
  if (tls.has_ca_file()) CheckFile(tls.ca_file(), "ca_file", at);
  if (tls.has_cert_file()) CheckFile(tls.cert_file(), "cert_file", at);
  if (tls.has_key_file()) CheckSecretFile(tls.key_file(), "key_file", at);
}

void CheckEndpoints(const Etcd& etcd, const ConfigPlace& at) {
  if (etcd.endpoints_size() == 0) at.Error("endpoints", "must be set");
  if (etcd.endpoints_size() > kMaxEndpoints) {
    at.Error("endpoints",
             absl::StrCat(etcd.endpoints_size(), " endpoints, at most ", kMaxEndpoints),
             kMaxEndpoints);
  }
  std::set<std::string> seen;
  for (int i = 0; i < etcd.endpoints_size(); ++i) {
    const std::string& endpoint = etcd.endpoints(i);
    if (absl::StrContains(endpoint, "://")) {
      at.Error("endpoints",
               absl::StrCat("'", endpoint, "': write host:port; `tls { }` stands for https"), i);
    } else if (SplitHostPort(endpoint).host.empty()) {
      at.Error("endpoints", absl::StrCat("'", endpoint, "' is not host:port"), i);
    } else if (!seen.insert(endpoint).second) {
      at.Error("endpoints", absl::StrCat("'", endpoint, "' is there twice"), i);
    }
  }
}

void CheckEtcd(const Etcd& etcd, const ConfigOptions& options, const ConfigPlace& at) {
  CheckTimeout(etcd.timeout_ms(), kMaxEtcdTimeoutMs, at);
  CheckEndpoints(etcd, at);
  const std::string& prefix = etcd.prefix();
  if (!absl::StartsWith(prefix, "/") || !absl::EndsWith(prefix, "/") ||
      prefix.size() > kMaxPrefix ||
      !std::all_of(prefix.begin(), prefix.end(), absl::ascii_isgraph)) {
    at.Error("prefix", absl::StrCat("must begin and end with '/', without blanks, at most ",
                                    kMaxPrefix, " characters"));
  }
  if (etcd.has_cluster_id() && etcd.cluster_id() == 0) {
    at.Error("cluster_id", "is no cluster's; leave it away if it is not known");
  }
  if (etcd.has_tls()) CheckEtcdTls(etcd.tls(), options, at.Sub("tls"));
  if (etcd.has_user() && etcd.user().empty()) at.Error("user", "must not be empty");
  if (etcd.has_user() && !etcd.has_password_file()) {
    at.Error("user", "contradicts a missing password_file");
  }
  if (etcd.has_password_file() && !etcd.has_user()) {
    at.Error("password_file", "contradicts a missing user");
  }
  if (etcd.has_password_file() && options.check_files) {
    CheckSecretFile(etcd.password_file(), "password_file", at);
  }
}

}  // namespace

void CheckArbiter(const romulus::v1::Config& config, const ConfigOptions& options,
                  const ConfigPlace& failover) {
  if (!config.failover().has_arbiter()) return;
  const Arbiter& arbiter = config.failover().arbiter();
  const ConfigPlace at = failover.Sub("arbiter");
  if (arbiter.kind_case() == Arbiter::KIND_NOT_SET) {
    return failover.Error("arbiter", "says nothing: one of none, command and etcd must be set");
  }
  if (config.nodes_size() == 1 && !arbiter.has_none()) {
    failover.Error("arbiter", "contradicts a single node: there is nothing to decide");
  }
  if (arbiter.has_command()) CheckCommand(arbiter.command(), options, at.Sub("command"));
  if (arbiter.has_etcd()) CheckEtcd(arbiter.etcd(), options, at.Sub("etcd"));
}

void MapArbiterPaths(const std::function<std::string(const std::string&)>& map, Arbiter* arbiter) {
  if (arbiter->has_command() && arbiter->command().argv_size() > 0) {
    FenceCommand& command = *arbiter->mutable_command();
    command.set_argv(0, map(command.argv(0)));
  }
  if (!arbiter->has_etcd()) return;
  Etcd& etcd = *arbiter->mutable_etcd();
  if (etcd.has_password_file()) etcd.set_password_file(map(etcd.password_file()));
  if (!etcd.has_tls()) return;
  EtcdTls& tls = *etcd.mutable_tls();
  if (tls.has_ca_file()) tls.set_ca_file(map(tls.ca_file()));
  if (tls.has_cert_file()) tls.set_cert_file(map(tls.cert_file()));
  if (tls.has_key_file()) tls.set_key_file(map(tls.key_file()));
}

}  // namespace romulus::daemon

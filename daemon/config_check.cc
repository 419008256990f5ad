#include "daemon/config_check.h"

#include <sched.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <bit>
#include <boost/asio/ip/address.hpp>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "daemon/config_arbiter.h"
#include "daemon/config_devices.h"
#include "daemon/config_tls.h"

namespace romulus::daemon {
namespace {

using romulus::v1::Config;
using romulus::v1::Failover;
using romulus::v1::Node;
using romulus::v1::Tracking;

struct Range {
  const char* message;
  const char* field;
  uint64_t min;
  uint64_t max;
};

// As documented in config.proto; a test compares the two.
constexpr Range kRanges[] = {
    {"guest", "vcpus", 1, 8},
    {"guest", "memory_mib", 4, 1'048'576},
    {"tracking", "ring_entries", 256, 65'536},
    {"tracking", "hot_pages", 0, 65'536},
    {"checkpoint", "max_dirty_pages", 1, 16'777'216},
    {"checkpoint", "max_interval_us", 100, 60'000'000},
    {"checkpoint", "min_interval_us", 0, 60'000'000},
    {"checkpoint", "idle_interval_us", 0, 60'000'000},
    {"checkpoint", "staging_mib", 1, 65'536},
    {"checkpoint", "max_unacked_epochs", 1, 4'096},
    {"checkpoint", "held_output_kib", 4, 1'024},
    {"checkpoint", "previous_cache_mib", 0, 65'536},
    {"checkpoint", "held_frames_kib", 128, 1'048'576},
    {"checkpoint", "disk_log_mib", 16, 65'536},
    {"failover", "heartbeat_interval_ms", 1, 60'000},
    {"failover", "heartbeat_timeout_ms", 3, 600'000},
    {"failover", "stall_timeout_ms", 0, 600'000},
    {"audit", "pass_seconds", 0, 604'800},
    {"audit", "disk_pass_seconds", 0, 31'536'000},
    {"stop", "hand_over_ms", 1'000, 25'000},
    {"stop", "shut_down_seconds", 0, 3'600},
    {"limits", "replica_staging_mib", 0, 1'048'576},
    {"limits", "reconnect_min_ms", 1, 600'000},
    {"limits", "reconnect_max_ms", 1, 600'000},
    {"limits", "epoch_records", 1, 65'536},
    {"events", "max_kib", 16, 65'536},
    {"events", "history_period_ms", 100, 3'600'000},
};

std::string RangeError(const Range& range, uint64_t value) {
  if (value >= range.min && value <= range.max) return "";
  return absl::StrCat(value, " is out of range: ", range.min, " to ", range.max);
}

bool ValidUuid(absl::string_view uuid) {
  if (uuid.size() != 36) return false;
  for (size_t i = 0; i < uuid.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? uuid[i] != '-' : !absl::ascii_isxdigit(uuid[i])) return false;
  }
  return true;
}

void CheckSocketPath(const std::string& path, const std::string& field, const ConfigPlace& at) {
  if (!absl::StartsWith(path, "/")) {
    at.Error(field, absl::StrCat("the path of a Unix socket must be absolute, not '", path, "'"));
  } else if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    at.Error(field, absl::StrCat("the path of a Unix socket has at most ",
                                 sizeof(sockaddr_un::sun_path) - 1, " bytes"));
  }
}

void CheckControlAddress(const std::string& address, const ConfigPlace& at) {
  if (absl::StartsWith(address, "unix:")) {
    absl::string_view path = address;
    if (!absl::ConsumePrefix(&path, "unix://")) absl::ConsumePrefix(&path, "unix:");
    CheckSocketPath(std::string(path), "control_address", at);
    return;
  }
  const HostPort split = SplitHostPort(address);
  if (split.host.empty()) {
    at.Error("control_address",
             absl::StrCat("'", address, "' is neither unix:///path nor host:port"));
  } else if (!IsLoopback(split.host)) {
    at.Error("control_address",
             absl::StrCat("'", address,
                          "' is not a loopback address: whoever reaches it may fail "
                          "the guest over"));
  }
}

// Two servers of one node cannot share a port, unless on two addresses.
void CheckPorts(const Node& node, const ConfigPlace& at) {
  const auto any = [](const std::string& host) { return host == "0.0.0.0" || host == "::"; };
  const std::pair<const char*, HostPort> servers[] = {
      {"replication_address", SplitHostPort(node.replication_address())},
      {"heartbeat_address", SplitHostPort(node.heartbeat_address())},
      {"control_address", SplitHostPort(node.control_address())},
      {"metrics_address", SplitHostPort(node.metrics_address())},
      {"remote_control_address", SplitHostPort(node.remote_control_address())}};
  for (const auto& later : servers) {
    for (const auto& [field, earlier] : servers) {
      if (later.first == field) break;
      const HostPort& own = later.second;
      if (own.host.empty() || own.port != earlier.port) continue;
      if (own.host == earlier.host || any(own.host) || any(earlier.host)) {
        at.Error(later.first, absl::StrCat("port ", own.port, " is ", field, "'s already"));
      }
    }
  }
}

void CheckNode(const Node& node, bool two_nodes, const ConfigPlace& at) {
  if (!ValidName(node.name())) at.Error("name", kNameRule);
  if (node.has_replication_address()) {
    if (SplitHostPort(node.replication_address()).host.empty()) {
      at.Error("replication_address",
               absl::StrCat("'", node.replication_address(), "' is not host:port"));
    }
  } else if (two_nodes) {
    at.Error("replication_address", "must be set when there are two nodes");
  }
  if (node.has_heartbeat_address() && SplitHostPort(node.heartbeat_address()).host.empty()) {
    at.Error("heartbeat_address",
             absl::StrCat("'", node.heartbeat_address(), "' is not host:port"));
  }
  if (node.has_control_address()) {
    CheckControlAddress(node.control_address(), at);
  } else {
    at.Error("control_address", "must be set");
  }
  if (node.has_metrics_address() && !IsIp(SplitHostPort(node.metrics_address()).host)) {
    at.Error("metrics_address", absl::StrCat("'", node.metrics_address(), "' is not ip:port"));
  }
  CheckPorts(node, at);
}

// The second path has two ends.
void CheckHeartbeats(const Config& config, const ConfigPlace& root) {
  std::set<std::string> addresses;
  for (int i = 0; i < config.nodes_size(); ++i) {
    const Node& node = config.nodes(i);
    if (!node.has_heartbeat_address()) continue;
    const ConfigPlace at = root.Sub("nodes", i);
    if (config.nodes_size() < 2) {
      at.Error("heartbeat_address", "contradicts a single node, which nobody could hear");
      continue;
    }
    if (!addresses.insert(node.heartbeat_address()).second) {
      at.Error("heartbeat_address", "another node has the same");
    }
    const Node& other = config.nodes(i == 0 ? 1 : 0);
    if (!other.has_heartbeat_address()) {
      at.Error("heartbeat_address",
               absl::StrCat("'", other.name(), "' has none: both nodes must have one, or neither"));
    }
    if (node.heartbeat_address() == other.replication_address()) {
      at.Error("heartbeat_address",
               absl::StrCat("is the replication_address of '", other.name(), "'"));
    }
  }
}

void CheckNodes(const Config& config, const ConfigOptions& options, const ConfigPlace& root) {
  const int count = config.nodes_size();
  if (count == 0) root.Error("nodes", "at least one node must be set");
  if (count > 2) root.Error("nodes", "more than two nodes are not supported", 2);
  std::set<std::string> names;
  std::set<std::string> replication;
  for (int i = 0; i < count; ++i) {
    const Node& node = config.nodes(i);
    const ConfigPlace at = root.Sub("nodes", i);
    CheckNode(node, count > 1, at);
    if (!names.insert(node.name()).second) {
      at.Error("name", absl::StrCat("'", node.name(), "' names another node already"));
    }
    if (node.has_replication_address() && !replication.insert(node.replication_address()).second) {
      at.Error("replication_address", "another node has the same");
    }
  }
  CheckHeartbeats(config, root);
  if (config.has_node_name()) {
    if (!names.contains(config.node_name())) {
      root.Error("node_name", absl::StrCat(options.node ? "--node " : "", "'", config.node_name(),
                                           "' is none of the nodes"));
    }
  } else if (count > 1) {
    root.Error("node_name", "must be set, here or with --node, when there are two nodes");
  }
}

void CheckFolderOf(const std::string& path, const std::string& field, const ConfigPlace& at) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    at.Error(field, absl::StrCat("there is no folder '", folder.string(), "'"));
  } else if (std::filesystem::is_directory(path, error)) {
    at.Error(field, absl::StrCat("'", path, "' is a folder"));
  }
}

void CheckGuest(const Config& config, const ConfigOptions& options, const ConfigPlace& root) {
  const ConfigPlace at = root.Sub("guest");
  if (!config.guest().has_kernel()) {
    at.Error("kernel", "must be set");
  } else if (options.check_files) {
    CheckFile(config.guest().kernel(), "kernel", at);
  }
  if (config.guest().has_initrd() && options.check_files) {
    CheckFile(config.guest().initrd(), "initrd", at);
  }
  const std::string& command_line = config.guest().command_line();
  if (command_line.size() > 2047) {
    at.Error("command_line", absl::StrCat(command_line.size(), " bytes, at most 2047"));
  }
  if (command_line.find('\0') != std::string::npos) at.Error("command_line", "has a zero byte");
  CheckDevices(config, options, at);
}

void CheckConsole(const Config& config, const ConfigOptions& options, const ConfigPlace& root) {
  const ConfigPlace at = root.Sub("console");
  if (config.console().has_file()) {
    if (config.console().file().empty()) {
      at.Error("file", "must not be empty");
    } else if (options.check_files) {
      CheckFolderOf(config.console().file(), "file", at);
    }
  }
  if (config.console().has_unix_socket()) {
    CheckSocketPath(config.console().unix_socket(), "unix_socket", at);
  }
}

void CheckEvents(const Config& config, const ConfigOptions& options, const ConfigPlace& root) {
  if (!config.events().has_folder() || !options.check_files) return;
  const std::string& folder = config.events().folder();
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    root.Sub("events").Error("folder", absl::StrCat("there is no folder '", folder, "'"));
  } else if (::access(folder.c_str(), W_OK | X_OK) != 0) {
    root.Sub("events").Error(
        "folder", absl::StrCat("no file can be made in '", folder, "': ", std::strerror(errno)));
  }
}

void CheckTracking(const Config& config, const ConfigOptions& options, const ConfigPlace& root) {
  const ConfigPlace at = root.Sub("tracking");
  const Tracking& tracking = config.tracking();
  if (tracking.mode() == Tracking::MODE_UNSPECIFIED) at.Error("mode", "must be one of the others");
  if (tracking.mode() == Tracking::MODE_BITMAP) {
    if (tracking.has_ring_entries()) {
      at.Error("ring_entries", "contradicts mode: MODE_BITMAP, which has no rings");
    }
    if (tracking.has_hot_pages()) {
      at.Error("hot_pages", "contradicts mode: MODE_BITMAP, which has no rings");
    }
    return;
  }
  if (!std::has_single_bit(tracking.ring_entries())) {
    at.Error("ring_entries", absl::StrCat(tracking.ring_entries(), " is not a power of two"));
  }
  if (!options.host_max_ring_entries) return;
  const uint32_t max = *options.host_max_ring_entries;
  if (max == 0 && tracking.mode() == Tracking::MODE_RING) {
    at.Error("mode", "KVM on this host has no dirty rings; use MODE_AUTO or MODE_BITMAP");
  } else if (max != 0 && tracking.ring_entries() > max) {
    at.Error("ring_entries",
             absl::StrCat(tracking.ring_entries(), " is more than this host's maximum of ", max));
  }
}

void CheckCpus(const Config& config, const ConfigPlace& root) {
  const ConfigPlace at = root.Sub("cpus");
  const auto check = [&at](const char* field, const auto& cpus) {
    for (const uint32_t cpu : cpus) {
      if (cpu >= CPU_SETSIZE) at.Error(field, absl::StrCat("there can be no CPU ", cpu));
    }
  };
  check("vcpus", config.cpus().vcpus());
  check("others", config.cpus().others());
}

void CheckFailover(const Config& config, const ConfigOptions& options, const ConfigPlace& root) {
  const ConfigPlace at = root.Sub("failover");
  const Failover& failover = config.failover();
  const bool arbiter_decides = failover.arbiter().has_etcd() || failover.arbiter().has_command();
  if (arbiter_decides && failover.on_secondary_lost() != Failover::ON_SECONDARY_LOST_UNSPECIFIED) {
    at.Error("on_secondary_lost",
             "contradicts arbiter: its answer decides whether a primary that lost its secondary "
             "goes on; leave this away");
  } else if (failover.auto_failover() &&
             failover.on_secondary_lost() == Failover::ON_SECONDARY_LOST_SOLO) {
    at.Error("on_secondary_lost",
             "contradicts auto_failover: true: when only the link is cut, both nodes would run the "
             "guest and both would be heard");
  }
  if (failover.stay_fenced() && !failover.arbiter().has_etcd()) {
    at.Error("stay_fenced",
             "needs an etcd arbiter: without one a node that lost the term always stays fenced");
  }
  if (uint64_t{failover.heartbeat_timeout_ms()} < 3 * uint64_t{failover.heartbeat_interval_ms()}) {
    at.Error("heartbeat_timeout_ms", absl::StrCat(failover.heartbeat_timeout_ms(),
                                                  " is less than three times "
                                                  "heartbeat_interval_ms, ",
                                                  failover.heartbeat_interval_ms()));
  }
  CheckArbiter(config, options, at);
}

}  // namespace

HostPort SplitHostPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  HostPort split;
  if (colon == absl::string_view::npos ||
      !absl::SimpleAtoi(address.substr(colon + 1), &split.port) || split.port < 1 ||
      split.port > 65535) {
    return {};
  }
  absl::string_view host = address.substr(0, colon);
  const bool bracketed = absl::ConsumePrefix(&host, "[") && absl::ConsumeSuffix(&host, "]");
  for (const char c : host) {
    const bool allowed = absl::ascii_isalnum(c) || c == '.' || c == '-' || c == '_' ||
                         (bracketed && (c == ':' || c == '%'));
    if (!allowed) return {};
  }
  split.host = std::string(host);
  return split;
}

void CheckFile(const std::string& path, const std::string& field, const ConfigPlace& at) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    at.Error(field, absl::StrCat("cannot use '", path, "': ", std::strerror(errno)));
  } else if (!S_ISREG(info.st_mode)) {
    at.Error(field, absl::StrCat("'", path, "' is not a file"));
  } else if (::access(path.c_str(), R_OK) != 0) {
    at.Error(field, absl::StrCat("cannot read '", path, "': ", std::strerror(errno)));
  } else if (info.st_size == 0) {
    at.Error(field, absl::StrCat("'", path, "' is empty"));
  }
}

void CheckSecretFile(const std::string& path, const std::string& field, const ConfigPlace& at) {
  CheckFile(path, field, at);
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && (info.st_mode & S_IRWXO) != 0) {
    at.Error(field, absl::StrCat("'", path, "' is open to everybody: `chmod o-rwx` it"));
  }
}

bool IsIp(const std::string& host) {
  boost::system::error_code error;
  boost::asio::ip::make_address(host, error);
  return !error;
}

bool IsLoopback(const std::string& host) {
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(host, error);
  return host == "localhost" || (!error && address.is_loopback());
}

bool ValidName(absl::string_view name) {
  if (name.empty() || name.size() > 64 || !absl::ascii_isalnum(name[0])) return false;
  for (const char c : name) {
    if (!absl::ascii_isalnum(c) && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

std::string CheckRange(absl::string_view field, uint64_t value) {
  for (const Range& range : kRanges) {
    if (field == range.field) return RangeError(range, value);
  }
  return "no such field";
}

void CheckConfig(const Config& config, const ConfigOptions& options, const ConfigPlace& root) {
  if (!config.has_name()) {
    root.Error("name", "must be set");
  } else if (!ValidName(config.name())) {
    root.Error("name", kNameRule);
  }
  if (!config.has_uuid()) {
    root.Error("uuid", "must be set (`uuidgen` makes one)");
  } else if (!ValidUuid(config.uuid())) {
    root.Error("uuid", absl::StrCat("'", config.uuid(), "' is not a UUID (`uuidgen` makes one)"));
  }
  if (config.log_level() == romulus::v1::LOG_LEVEL_UNSPECIFIED) {
    root.Error("log_level", "must be one of the others");
  }
  for (const Range& range : kRanges) {
    const ConfigPlace at = root.Sub(range.message);
    const std::string error = RangeError(range, at.Number(range.field));
    if (!error.empty()) at.Error(range.field, error);
  }
  if (config.audit().on_mismatch() == romulus::v1::Audit::ON_MISMATCH_UNSPECIFIED) {
    root.Sub("audit").Error("on_mismatch", "must be one of the others");
  }
  if (config.checkpoint().compression() == romulus::v1::Checkpoint::COMPRESSION_UNSPECIFIED) {
    root.Sub("checkpoint").Error("compression", "must be one of the others");
  }
  if (config.stop().on_stop() == romulus::v1::Stop::ON_STOP_UNSPECIFIED) {
    root.Sub("stop").Error("on_stop", "must be one of the others");
  }
  CheckNodes(config, options, root);
  CheckTls(config, options, root);
  CheckGuest(config, options, root);
  CheckConsole(config, options, root);
  CheckTracking(config, options, root);
  CheckCpus(config, root);
  CheckEvents(config, options, root);
  CheckFailover(config, options, root);
  if (config.checkpoint().min_interval_us() > config.checkpoint().max_interval_us()) {
    root.Sub("checkpoint")
        .Error("min_interval_us", absl::StrCat(config.checkpoint().min_interval_us(),
                                               " is more than max_interval_us, ",
                                               config.checkpoint().max_interval_us()));
  }
  if (config.limits().reconnect_min_ms() > config.limits().reconnect_max_ms()) {
    root.Sub("limits").Error("reconnect_min_ms", absl::StrCat(config.limits().reconnect_min_ms(),
                                                              " is more than reconnect_max_ms, ",
                                                              config.limits().reconnect_max_ms()));
  }
}

}  // namespace romulus::daemon

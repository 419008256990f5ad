#include "daemon/refused_config.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "daemon/config_check.h"

namespace romulus::daemon {
namespace {

// Of the journal; what is configured may be what is wrong.
constexpr uint64_t kMinKib = 16;
constexpr uint64_t kMaxKib = 65'536;

}  // namespace

void TellRefused(const LoadedConfig& refused, EventJournal& events) {
  if (refused.ok()) return;
  std::string why = refused.errors.front().ToString();
  const size_t more = refused.errors.size() - 1;
  if (more != 0) absl::StrAppend(&why, " (and ", more, more == 1 ? " error" : " errors", " more)");
  events.OnLogged(romulus::v1::SEVERITY_ERROR, "config_refused", {{"why", why}});
}

void LeaveRefused(const LoadedConfig& refused, const std::string& node,
                  const std::string& state_directory) {
  romulus::v1::Config config = refused.config;
  if (!node.empty()) config.set_node_name(node);
  const bool is_there =
      std::any_of(config.nodes().begin(), config.nodes().end(),
                  [&](const auto& one) { return one.name() == config.node_name(); });
  if (!is_there || !ValidName(config.name()) || !ValidName(config.node_name())) return;
  const std::string folder = EventFolder(config, state_directory);
  // What could not be parsed has its paths as they were written.
  if (!absl::StartsWith(folder, "/") || absl::StrContains(folder, '{')) return;
  EventJournal events(
      {.vm = config.name(),
       .node = config.node_name(),
       .folder = folder,
       .max_bytes = std::clamp<uint64_t>(config.events().max_kib(), kMinKib, kMaxKib) << 10});
  TellRefused(refused, events);
}

}  // namespace romulus::daemon

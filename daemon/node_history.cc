// What is remembered of this node for those who ask later: events that no other place tells the
// log, and the samples of the last hours.
#include <chrono>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

uint64_t UnixMs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count());
}

std::string FaultsText(const vmm::VirtioFacts& facts) {
  std::vector<std::string> names;
  for (size_t i = 0; i < facts.faults.size(); ++i) {
    if (facts.faults[i] == 0) continue;
    names.push_back(absl::StrCat(devices::VirtioFaultName(static_cast<devices::VirtioFault>(i)),
                                 " ", facts.faults[i]));
  }
  return absl::StrJoin(names, ", ");
}

}  // namespace

// Before all else that is told of the same event: it happens in the new term.
void Node::TellTerm(Term before, const std::string& event) {
  const failover::RoleState& now = role_.state();
  if (now.term == before) return;
  options_.events->SetTerm(now.term.value());
  log_.Info("term", {{"term", now.term.value()}, {"was", before.value()}, {"cause", event}});
}

void Node::Remember() {
  options_.history->Add(BuildStatus(), clock_.NowNs(), UnixMs());
  const uint64_t lines = options_.events->unreadable_lines();
  metrics_.SetEventsUnreadable(lines);
  if (lines != 0 && !told_unreadable_) {
    log_.Warning("events_unreadable", {{"lines", lines}});
    told_unreadable_ = true;
  }
  const absl::Status file = options_.events->file_status();
  if (!std::exchange(told_events_lost_, !file.ok()) && !file.ok()) {
    log_.Warning("events_not_written", {{"why", file}});
  }
  control_.PostAfter(uint64_t{config_.events().history_period_ms()} * 1'000'000,
                     [this] { Remember(); });
}

void Node::WatchDrivers() {
  if (host_ == nullptr || !host_->assembled()) return;
  const std::vector<vmm::VirtioFacts> all = host_->machine().virtio_facts();
  drivers_failed_.resize(all.size());
  for (size_t i = 0; i < all.size(); ++i) {
    const bool before = drivers_failed_[i];
    drivers_failed_[i] = all[i].needs_reset;
    if (before || !all[i].needs_reset) continue;
    log_.Warning("device_needs_reset", {{"device", all[i].name}, {"faults", FaultsText(all[i])}});
  }
}

}  // namespace romulus::daemon

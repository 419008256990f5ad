// The node as a service: one line of what it is, and the loops that must get on.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

constexpr uint64_t kDiskPatienceNs = 1'000'000'000;

Watchdog::Mark MarkOf(const base::WorkMark::Look& look) { return {look.moves, look.at_work}; }

}  // namespace

void Node::TellManager() {
  if (options_.manager == nullptr) return;
  const failover::RoleState& state = role_.state();
  std::string line =
      absl::StrCat(std::string(failover::RoleName(state.role)), ", ",
                   std::string(failover::ModeName(state.mode)), ", term ", state.term.value());
  if (const romulus::v1::Node* peer = options_.config.peer()) {
    absl::StrAppend(&line, state.peer_connected ? ", with " : ", without ", peer->name());
  }
  const std::string reason = ReasonOf(state.reason);
  if (!reason.empty()) absl::StrAppend(&line, ": ", reason);
  // Before the loop turns nobody is served.
  watched_.empty() ? options_.manager->Status(line) : options_.manager->Ready(line);
}

bool Node::DiskHangs() const {
  const std::optional<disk::DiskWait> wait = files_.oldest();
  const uint64_t now_ns = clock_.NowNs();
  return wait && now_ns - std::min(now_ns, wait->since_ns) > kDiskPatienceNs;
}

std::function<bool()> Node::DiskExcuse() const {
  return [this] { return DiskHangs(); };
}

void Node::WatchLoops() {
  if (options_.watchdog == nullptr) return;
  Watchdog& watchdog = *options_.watchdog;
  watchdog.Settled();
  const auto add = [&](std::string name, Watchdog::Probe probe) {
    watched_.push_back(watchdog.Add(std::move(name), [this, probe = std::move(probe)] {
      Watchdog::Mark mark = probe();
      mark.owes = mark.owes && !DiskHangs();
      return mark;
    }));
  };
  watched_.push_back(watchdog.AddExecutor("control", &control_, DiskExcuse()));
  if (disk_files_ != nullptr) {
    add("journal", [files = disk_files_.get()] { return MarkOf(files->work()); });
  }
  if (secondary_ != nullptr) {
    watched_.push_back(watchdog.AddExecutor("promoter", &secondary_->promoter(), DiskExcuse()));
    add("replica", [secondary = secondary_.get(), files = disk_files_.get()] {
      Watchdog::Mark mark = MarkOf(secondary->stream_work());
      // It may wait for room in the journal.
      if (files != nullptr) mark.mark += files->work().moves;
      return mark;
    });
  }
  if (host_ != nullptr) WatchGuest();
}

void Node::WatchGuest() {
  if (options_.watchdog == nullptr) return;
  Watchdog& watchdog = *options_.watchdog;
  const std::shared_ptr<GuestHost> host = host_;
  watched_.push_back(watchdog.Add("checkpoint", [this, host] {
    return Watchdog::Mark{host->loop().Progress(), !DiskHangs()};
  }));
  watched_.push_back(watchdog.AddExecutor("devices", &host->device_loop(), DiskExcuse()));
  for (int vcpu = 0; vcpu < host->machine().vcpu_count(); ++vcpu) {
    watched_.push_back(watchdog.Add(absl::StrCat("vcpu", vcpu), [host, vcpu] {
      const vmm::Machine::Pulse pulse = host->machine().TakePulse(vcpu);
      return Watchdog::Mark{pulse.answers, pulse.owes};
    }));
  }
}

}  // namespace romulus::daemon

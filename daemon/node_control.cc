// What an operator asks of the node, and what it says of itself.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "daemon/metric_labels.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;
using failover::Event;
using failover::EventKind;

constexpr absl::Duration kPauseFlushTimeout = absl::Seconds(5);
constexpr uint64_t kUnprotectTimeoutNs = 3'000'000'000;
constexpr uint32_t kDefaultEpochs = 20;

uint64_t UnixMs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count());
}

}  // namespace

void Node::GetStatus(Answer<v1::GetStatusResponse> answer) {
  control_.Post([this, answer = std::move(answer)] { answer(BuildStatus()); });
}

void Node::Failover(bool force, Answer<v1::FailoverResponse> answer) {
  control_.Post([this, force, answer = std::move(answer)] {
    promotion_by_operator_ = true;
    Event event{};
    event.kind = EventKind::kOpFailover;
    event.force = force;
    failover_answers_.push_back(answer);
    const absl::Status refused = Handle(std::move(event));
    if (refused.ok()) return;  // OnPromotion answers
    promotion_by_operator_ = false;
    failover_answers_.pop_back();
    answer(refused);
  });
}

void Node::AnswerFailovers(const absl::Status& status) {
  v1::FailoverResponse response;
  if (last_failover_) {
    response.set_term(last_failover_->term());
    response.set_epoch(last_failover_->epoch());
    response.set_activate_ns(last_failover_->activate_ns());
  }
  for (const auto& answer : std::exchange(failover_answers_, {})) {
    if (status.ok()) {
      answer(response);
    } else {
      answer(status);
    }
  }
  promotion_by_operator_ = false;
}

void Node::RecordFailover(const failover::Promotion& promotion, uint64_t detect_ns) {
  v1::LastFailover& last = last_failover_.emplace();
  last.set_at_unix_ms(UnixMs());
  last.set_detect_ns(detect_ns);
  last.set_activate_ns(promotion.times.total_ns);
  last.set_term(role_.state().promotion_term.value());
  last.set_from_term(promotion.from_term.value());
  last.set_epoch(promotion.epoch.value());
  last.set_by_operator(promotion_by_operator_);
  metrics_.Failover(promotion_by_operator_, detect_ns, promotion.times.total_ns, last.at_unix_ms());
}

void Node::Pause(Answer<v1::PauseResponse> answer) {
  control_.Post([this, answer = std::move(answer)] {
    const absl::Status refused = Handle(EventOf(EventKind::kOpPause));
    if (!refused.ok()) return answer(refused);
    // Behind the pause itself, which runs on the helper too.
    helper_->Post([host = host_, answer] {
      v1::PauseResponse response;
      if (host != nullptr) {
        absl::StatusOr<EpochId> flushed = host->loop().Flush(kPauseFlushTimeout);
        if (flushed.ok()) response.set_epoch(flushed->value());
      }
      answer(response);
    });
  });
}

void Node::Resume(Answer<v1::ResumeResponse> answer) {
  control_.Post([this, answer = std::move(answer)] {
    const absl::Status refused = Handle(EventOf(EventKind::kOpResume));
    if (!refused.ok()) return answer(refused);
    helper_->Post([answer] { answer(v1::ResumeResponse()); });
  });
}

void Node::SetProtection(bool wanted, bool force, Answer<bool> answer) {
  control_.Post([this, wanted, force, answer = std::move(answer)] {
    Event event = EventOf(wanted ? EventKind::kOpProtect : EventKind::kOpUnprotect);
    event.force = force;
    const absl::Status refused = Handle(std::move(event));
    if (!refused.ok()) return answer(refused);
    if (!wanted && role_.state().unprotecting) return unprotect_answers_.push_back(answer);
    answer(true);
  });
}

void Node::AskUnprotect() {
  if (primary_ != nullptr) primary_->AskUnprotect(clock_.NowNs() + kUnprotectTimeoutNs);
  control_.PostAfter(kUnprotectTimeoutNs, [this, generation = ++unprotect_generation_] {
    if (generation != unprotect_generation_) return;
    Handle(EventOf(EventKind::kUnprotectUnanswered)).IgnoreError();
  });
}

void Node::AnswerUnprotects() {
  ++unprotect_generation_;
  const bool done = !role_.state().protect_wanted;
  for (const auto& answer : std::exchange(unprotect_answers_, {})) {
    if (done) {
      answer(true);
    } else {
      answer(absl::FailedPreconditionError(
          absl::StrCat("the secondary did not say that it gave its replica up (this node is ",
                       failover::ModeName(role_.state().mode),
                       "): ", std::string(failover::kUnprotectByForce))));
    }
  }
}

void Node::ListEpochs(uint32_t last, Answer<v1::ListEpochsResponse> answer) {
  // Records have their own lock, and writing a thousand of them down is not the control loop's
  // work.
  v1::ListEpochsResponse response;
  for (v1::EpochRecord& record : records_.Last(last == 0 ? kDefaultEpochs : last)) {
    *response.add_epochs() = std::move(record);
  }
  answer(std::move(response));
}

void Node::Set(const v1::Tunables& tunables, Answer<v1::SetResponse> answer) {
  const auto check = [](absl::string_view field, uint32_t value) {
    const std::string wrong = CheckRange(field, value);
    return wrong.empty() ? absl::OkStatus()
                         : absl::InvalidArgumentError(absl::StrCat(field, ": ", wrong));
  };
  absl::Status valid;
  if (tunables.has_max_dirty_pages()) {
    valid.Update(check("max_dirty_pages", tunables.max_dirty_pages()));
  }
  if (tunables.has_max_interval_us()) {
    valid.Update(check("max_interval_us", tunables.max_interval_us()));
  }
  if (tunables.has_min_interval_us()) {
    valid.Update(check("min_interval_us", tunables.min_interval_us()));
  }
  if (tunables.has_idle_interval_us()) {
    valid.Update(check("idle_interval_us", tunables.idle_interval_us()));
  }
  if (!valid.ok()) return answer(valid);
  control_.Post([this, tunables, answer = std::move(answer)] {
    v1::Tunables wanted = BuildTunables();
    wanted.MergeFrom(tunables);
    if (wanted.min_interval_us() > wanted.max_interval_us()) {
      return answer(absl::InvalidArgumentError(
          absl::StrCat("min_interval_us: ", wanted.min_interval_us(),
                       " is more than max_interval_us, ", wanted.max_interval_us())));
    }
    if (host_ == nullptr || !host_->assembled()) {
      return answer(absl::FailedPreconditionError("no guest runs here"));
    }
    epoch::GovernorOptions governor;
    governor.max_dirty_pages = wanted.max_dirty_pages();
    governor.max_interval_ns = uint64_t{wanted.max_interval_us()} * 1000;
    governor.min_interval_ns = uint64_t{wanted.min_interval_us()} * 1000;
    governor.idle_interval_ns = uint64_t{wanted.idle_interval_us()} * 1000;
    host_->loop().SetGovernorOptions(governor);
    log_.Info("tunables", {{"max_dirty_pages", wanted.max_dirty_pages()},
                           {"max_interval_us", wanted.max_interval_us()},
                           {"min_interval_us", wanted.min_interval_us()},
                           {"idle_interval_us", wanted.idle_interval_us()}});
    v1::SetResponse response;
    *response.mutable_tunables() = BuildTunables();
    answer(response);
  });
}

v1::Tunables Node::BuildTunables() const {
  const epoch::GovernorOptions governor = host_ != nullptr && host_->assembled()
                                              ? host_->loop().governor_options()
                                              : GovernorFrom(config_.checkpoint());
  v1::Tunables tunables;
  tunables.set_max_dirty_pages(static_cast<uint32_t>(governor.max_dirty_pages));
  tunables.set_max_interval_us(static_cast<uint32_t>(governor.max_interval_ns / 1000));
  tunables.set_min_interval_us(static_cast<uint32_t>(governor.min_interval_ns / 1000));
  tunables.set_idle_interval_us(static_cast<uint32_t>(governor.idle_interval_ns / 1000));
  return tunables;
}

HelloFacts Node::Facts() const {
  const failover::RoleState& state = role_.state();
  HelloFacts facts;
  facts.newest_term = state.newest_term;
  facts.lineage = state.lineage;
  facts.instance = instance_;
  facts.has_claim = state.claim.has_value();
  if (state.role == failover::Role::kPrimary) {
    if (state.guest_running) facts.holds = v1::HOLDS_GUEST;
  } else if (state.committed || state.peer_connected || state.mode == failover::Mode::kPromoting) {
    facts.holds = v1::HOLDS_REPLICA;
  }
  facts.plays_secondary =
      state.role == failover::Role::kSecondary && state.mode != failover::Mode::kPromoting &&
      state.mode != failover::Mode::kFenced && state.mode != failover::Mode::kFinished &&
      !state.claim && stop_ == Stop::kNo;
  if (!facts.plays_secondary) {
    facts.role_detail =
        absl::StrCat("this node is ", std::string(failover::RoleName(state.role)), ", ",
                     std::string(failover::ModeName(state.mode)), ", in term ", state.term.value(),
                     state.claim ? ", and waits for its arbiter" : "");
  }
  return facts;
}

v1::GetStatusResponse Node::BuildStatus() const {
  const failover::RoleState& state = role_.state();
  v1::GetStatusResponse status;
  status.set_vm_name(config_.name());
  status.set_vm_uuid(config_.uuid());
  status.set_node_name(config_.node_name());
  status.set_role(state.role == failover::Role::kPrimary ? v1::ROLE_PRIMARY : v1::ROLE_SECONDARY);
  status.set_mode(ModeToProto(state.mode));
  status.set_reason(ReasonOf(state.reason));
  status.set_since_unix_ms(since_unix_ms_);
  status.set_term(state.term.value());
  status.set_epoch_acked(state.committed_epoch.value());
  status.set_guest_paused(state.paused);
  status.set_build(BuildName());
  status.set_pid(static_cast<uint64_t>(::getpid()));
  v1::Peer& peer = *status.mutable_peer();
  if (const v1::Node* node = options_.config.peer()) {
    peer.set_node_name(node->name());
    peer.set_address(node->replication_address());
  }
  peer.set_connected(state.peer_connected);
  peer.set_detail(peer_detail_);
  peer.set_build(peer_build_);
  if (state.peer_connected) peer.set_protocol_version(peer_protocol_);
  if (state.peer_connected && primary_ != nullptr) {
    if (const auto use = primary_->link_use()) {
      peer.set_compression(std::string(codec::CompressionName(use->compression)));
      peer.set_link_bytes_per_second(use->bytes_per_second);
    }
  }
  if (const uint64_t heard_ns = signs_.last_ns(); heard_ns != 0) {
    peer.set_heard(true);
    peer.set_heard_ms_ago((clock_.NowNs() - std::min(clock_.NowNs(), heard_ns)) / 1'000'000);
  }
  *status.mutable_sync() = sync_;
  records_.FillCounters(*status.mutable_counters());
  status.mutable_counters()->set_epochs_aborted(epochs_aborted_);
  *status.mutable_pause() = records_.Percentiles();
  if (last_failover_) *status.mutable_last_failover() = *last_failover_;
  if (switchovers_.last) *status.mutable_last_switchover() = *switchovers_.last;
  v1::Machine& machine = *status.mutable_machine();
  machine.set_vcpus(config_.guest().vcpus());
  machine.set_memory_mib(config_.guest().memory_mib());
  *status.mutable_tunables() = BuildTunables();
  FillReplica(status);
  FillGuest(status);
  FillDisks(status);
  FillArbiter(status);
  FillPaths(status);
  FillAudit(status);
  FillTls(status);
  return status;
}

std::string Node::ReasonOf(const std::string& mode_reason) const {
  const absl::Status failure = console_->failure();
  const std::string wait = DiskWaitText();
  std::string reason = mode_reason;
  if (!wait.empty()) {
    const bool promoting = role_.state().mode == failover::Mode::kPromoting;
    absl::StrAppend(&reason, reason.empty() ? "" : "; ", promoting ? "the promotion " : "", wait);
  }
  if (SecondPathFailed()) absl::StrAppend(&reason, "; the second path is silent");
  if (!stamp_status_.ok()) {
    return absl::StrCat(reason, "; output waits: ", std::string(stamp_status_.message()));
  }
  if (failure.ok()) return reason;
  return absl::StrCat(reason, reason.empty() ? "" : "; ",
                      "output waits: ", std::string(failure.message()));
}

void Node::FillReplica(v1::GetStatusResponse& status) const {
  if (secondary_ == nullptr) return;
  v1::Counters& counters = *status.mutable_counters();
  const replica::ReplicaCounters& replica = secondary_->counters();
  auto& errors = *counters.mutable_frame_errors();
  const std::vector<std::string> names = FrameErrorNames();
  const std::vector<uint64_t> values = FrameErrorCounts(replica);
  for (size_t i = 0; i < names.size(); ++i) {
    if (values[i] != 0) errors[names[i]] = values[i];
  }
  if (role_.state().role == failover::Role::kPrimary) return;
  counters.set_epochs_acked(replica.epochs_committed);
  counters.set_pages(replica.pages_committed);
  counters.set_disk_records(replica.disk_records_committed);
  counters.set_disk_bytes(replica.disk_bytes_committed);
  counters.set_bytes_sent(replica.message_bytes);
  counters.set_staging_used_bytes(secondary_->replica_status().staged_bytes);
}

void Node::FillGuest(v1::GetStatusResponse& status) const {
  if (host_ == nullptr || !host_->assembled()) return;
  const epoch::CheckpointLoop& loop = host_->loop();
  const uint64_t cut = loop.last_cut().value();
  const uint64_t acked = loop.last_acked().value();
  status.set_epoch_cut(cut);
  v1::Counters& counters = *status.mutable_counters();
  counters.set_unacked_epochs(cut > acked ? cut - acked : 0);
  counters.set_held_output_bytes(host_->gate().held_bytes());
  counters.set_staging_used_bytes(host_->staging().used_bytes());
  const auto exits = host_->machine().exit_counts();
  for (size_t i = 0; i < exits.size(); ++i) {
    (*counters.mutable_exits())[std::string(kvm::kExitNames[i])] = exits[i];
  }
  FillDevices(status);
  v1::ConsoleOffsets& console = *status.mutable_console();
  console.set_start(console_->start_offset().value_or(host_->gate().released_offset()));
  console.set_released(console_->written_offset().value_or(host_->gate().released_offset()));
  console.set_queued_bytes(console_->queued_bytes());
  console.set_failure(std::string(console_->failure().message()));
  status.mutable_machine()->set_tracker(host_->tracker_name());
  status.mutable_machine()->set_ring_entries(host_->ring_entries());
  const uint64_t pages = records_.MeanPages();
  status.mutable_machine()->set_pages_per_epoch(pages);
  status.mutable_machine()->set_better_tracker(host_->BetterTracker(pages));
}

void Node::FillDevices(v1::GetStatusResponse& status) const {
  for (const vmm::VirtioFacts& facts : host_->machine().virtio_facts()) {
    v1::DeviceStatus& device = *status.add_devices();
    device.set_name(facts.name);
    device.set_needs_reset(facts.needs_reset);
    for (size_t i = 0; i < facts.faults.size(); ++i) {
      if (facts.faults[i] == 0) continue;
      const auto fault = static_cast<devices::VirtioFault>(i);
      (*device.mutable_faults())[std::string(devices::VirtioFaultName(fault))] = facts.faults[i];
    }
  }
  for (const DeviceCounters& of_device : host_->devices().counters()) {
    for (v1::DeviceStatus& device : *status.mutable_devices()) {
      if (device.name() != of_device.name) continue;
      for (const auto& [name, count] : of_device.counters) {
        if (count != 0) (*device.mutable_counters())[name] = count;
      }
    }
  }
}

void Node::UpdateDeviceMetrics() {
  const std::vector<vmm::VirtioFacts> all = host_->machine().virtio_facts();
  for (size_t i = 0; i < all.size(); ++i) {
    metrics_.SetDevice(i, all[i].needs_reset, all[i].faults);
  }
  const std::vector<metrics::DiskTotals> disks = host_->devices().disk_totals();
  for (size_t i = 0; i < disks.size(); ++i) metrics_.SetDisk(i, disks[i]);
  const std::vector<metrics::NicTotals> nics = host_->devices().nic_totals();
  for (size_t i = 0; i < nics.size(); ++i) metrics_.SetNic(i, nics[i]);
}

void Node::UpdateMetrics() {
  const failover::RoleState& state = role_.state();
  metrics_.SetRole(static_cast<size_t>(state.role));
  metrics_.SetMode(static_cast<size_t>(state.mode), since_unix_ms_);
  metrics_.SetTerm(state.newest_term.value());
  TellDiskWait();
  UpdatePathMetrics();
  UpdateTlsMetrics();
  WatchDrivers();
  if (host_ != nullptr && host_->assembled()) {
    const uint64_t cut = host_->loop().last_cut().value();
    const uint64_t acked = host_->loop().last_acked().value();
    metrics_.SetEpoch(cut, acked);
    metrics_.SetUnackedEpochs(cut > acked ? cut - acked : 0);
    metrics_.SetHeldOutput(host_->gate().held_bytes());
    metrics_.SetStagingUsed(host_->staging().used_bytes());
    metrics_.SetDiskLog(host_->disk_log() == nullptr ? 0 : host_->disk_log()->held_bytes());
    metrics_.SetConsoleReleased(
        console_->written_offset().value_or(host_->gate().released_offset()));
    metrics_.SetConsoleQueue(console_->queued_bytes(), !console_->failure().ok());
    const auto exits = host_->machine().exit_counts();
    for (size_t i = 0; i < exits.size(); ++i) metrics_.SetExits(i, exits[i]);
    UpdateDeviceMetrics();
  } else {
    metrics_.SetEpoch(0, state.committed_epoch.value());
  }
  if (secondary_ == nullptr) return;
  UpdateAuditMetrics();
  const replica::ReplicaCounters& replica = secondary_->counters();
  metrics_.SetCommitted(replica.epochs_committed, replica.pages_committed);
  metrics_.SetReceived(replica.message_bytes);
  metrics_.SetDisksCommitted(replica.disk_records_committed, replica.disk_bytes_committed,
                             replica.disk_failures);
  const std::vector<uint64_t> errors = FrameErrorCounts(replica);
  for (size_t i = 0; i < errors.size(); ++i) metrics_.SetFrameErrors(i, errors[i]);
}

}  // namespace romulus::daemon

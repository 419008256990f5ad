// The node's disks: opened once, stamped as the role machine says, shown in the status.
#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/status.h"
#include "daemon/guest_disks.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

constexpr uint64_t kStampRetryNs = 1'000'000'000;
// Longer than a disk that works takes; then it is told.
constexpr uint64_t kSlowDiskNs = 1'000'000'000;

}  // namespace

absl::Status Node::OpenDisks() {
  ROMULUS_ASSIGN_OR_RETURN(disks_, OpenDiskCopies(config_, files_));
  const DiskCopies replicated = ReplicatedOf(disks_);
  stamps_ = std::make_unique<DiskStamps>(replicated);
  overwrite_peer_ = options_.overwrite_peer;
  if (replicated.empty()) return absl::OkStatus();
  replica::DiskFilesOptions options = DiskFilesOptionsFrom(config_.checkpoint(), replicated.size());
  options.on_dropped = [this](const std::string& path, const replica::DroppedTail& tail) {
    log_.Warning("journal_tail_dropped", {{"file", path},
                                          {"offset", tail.offset_bytes},
                                          {"bytes", tail.size_bytes},
                                          {"kept_term", tail.last_kept.term.value()},
                                          {"kept_epoch", tail.last_kept.epoch.value()}});
  };
  if (start_as_primary_) return stamps_->MakeBootable(options, files_);
  ROMULUS_ASSIGN_OR_RETURN(disk_files_, replica::DiskFiles::Open(replicated, options, files_));
  for (const replica::DiskFacts& facts : disk_files_->facts()) {
    if (facts.unusable.empty()) continue;
    log_.Error("disk_unusable", {{"disk", facts.name}, {"why", facts.unusable}});
  }
  return absl::OkStatus();
}

std::string Node::DiskWaitText() const {
  const std::optional<disk::DiskWait> wait = files_.oldest();
  const uint64_t now_ns = clock_.NowNs();
  if (!wait || now_ns < wait->since_ns + kSlowDiskNs) return "";
  return absl::StrFormat("waits for %s (%s) since %.1f s", wait->path, wait->what,
                         static_cast<double>(now_ns - wait->since_ns) * 1e-9);
}

void Node::TellDiskWait() {
  const std::optional<disk::DiskWait> wait = files_.oldest();
  const uint64_t now_ns = clock_.NowNs();
  const uint64_t wait_ns = wait ? now_ns - std::min(now_ns, wait->since_ns) : 0;
  metrics_.SetDiskWait(wait_ns);
  if (told_wait_since_ns_ != 0 && (!wait || wait->since_ns != told_wait_since_ns_)) {
    log_.Info("disk_goes_on", {{"waited_ms", (now_ns - told_wait_since_ns_) / 1'000'000}});
    told_wait_since_ns_ = told_wait_ns_ = 0;
    server_->NotifyChanged();
  }
  if (wait_ns < std::max(kSlowDiskNs, 2 * told_wait_ns_)) return;
  told_wait_since_ns_ = wait->since_ns;
  told_wait_ns_ = wait_ns;
  log_.Warning("disk_waits", {{"file", wait->path},
                              {"operation", wait->what},
                              {"wait_ms", wait_ns / 1'000'000},
                              {"mode", failover::ModeName(role_.state().mode)}});
  server_->NotifyChanged();
}

void Node::RecordStamps() {
  const failover::RoleState& state = role_.state();
  if (state.role != failover::Role::kPrimary || !state.guest_running) return;
  const auto record = [&] {
    if (state.held_since_start) return stamps_->RecordHeld();
    stamps_->SetLineage(state.lineage);
    std::optional<Term> covers;
    // What the secondary holds is about to be overwritten, because it was found to be contained
    // here.
    if (state.peer_connected && !state.claim) covers = state.term;
    return stamps_->Record(state.term, !state.output_open, covers);
  };
  const absl::Status recorded = record();
  if (!recorded.ok() && stamp_status_.ok()) log_.Error("stamp_failed", {{"why", recorded}});
  stamp_status_ = recorded;
}

void Node::OpenOutput() {
  if (host_ == nullptr) return;
  if (stamp_status_.ok()) return host_->OpenOutput();
  // After a crash of both hosts the other node's copy would look like the newer one.
  control_.PostAfter(kStampRetryNs, [this, generation = output_generation_] {
    if (generation != output_generation_ || !role_.state().output_open) return;
    RecordStamps();
    OpenOutput();
    if (stamp_status_.ok()) server_->NotifyChanged();
  });
}

void Node::NoteDiskProgress(const wire::SyncProgress& progress) {
  disk_progress_ = progress.disks;
  uint64_t total = 0, done = 0, sent = 0, equal = 0;
  for (const wire::DiskProgress& disk : progress.disks) {
    total += disk.bytes_total;
    done += disk.bytes_done;
    sent += disk.bytes_sent;
    equal += disk.bytes_equal;
  }
  sync_.set_disk_bytes_total(total);
  sync_.set_disk_bytes_done(done);
  sync_.set_disk_bytes_sent(sent);
  sync_.set_disk_bytes_equal(equal);
  metrics_.SetDiskSyncProgress(done, total);
}

void Node::FillDisks(romulus::v1::GetStatusResponse& status) const {
  const bool is_secondary = host_ == nullptr && secondary_ != nullptr && disk_files_ != nullptr;
  const auto add = [&](const wire::DiskCopy& copy) {
    romulus::v1::DiskStatus& disk = *status.add_disks();
    disk.set_name(copy.name);
    disk.set_path(copy.path);
    disk.set_size_bytes(copy.size_bytes);
    disk.set_role(std::string(DiskRoleName(copy.role)));
    disk.set_term(copy.term.value());
    disk.set_epoch(copy.epoch.value());
    disk.set_unusable(copy.unusable);
    for (const wire::DiskProgress& progress : disk_progress_) {
      if (progress.disk != copy.disk || !sync_.active()) continue;
      disk.set_sync_bytes_done(progress.bytes_done);
      disk.set_sync_bytes_total(progress.bytes_total);
    }
  };
  if (is_secondary) {
    // An epoch is in the journal when it is committed: the copies are at it.
    const replica::EpochKey newest = secondary_->replica_status().newest;
    for (replica::DiskFacts disk : secondary_->disk_facts()) {
      if (disk.role == replica::CopyRole::kSecondary) disk.stamp = std::max(disk.stamp, newest);
      add(ToWire(disk));
    }
  } else {
    for (const wire::DiskCopy& disk : stamps_->ForHello()) add(disk);
  }
  if (host_ == nullptr || host_->disk_log() == nullptr) return;
  status.mutable_counters()->set_disk_log_bytes(host_->disk_log()->held_bytes());
}

void Node::CloseDisks(bool guest_ran_here) {
  if (stamps_ == nullptr) return;
  const absl::Status closed =
      disk_files_ != nullptr && !guest_ran_here ? disk_files_->Close() : stamps_->Close();
  disk_files_.reset();
  if (!closed.ok()) log_.Error("disks_not_closed", {{"why", closed}});
}

}  // namespace romulus::daemon

// The node's disks: opened once, stamped as the role machine says, shown in the status.
#include <utility>

#include "base/status.h"
#include "daemon/guest_disks.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

constexpr uint64_t kStampRetryNs = 1'000'000'000;

}  // namespace

absl::Status Node::OpenDisks() {
  ROMULUS_ASSIGN_OR_RETURN(disks_, OpenDiskCopies(config_));
  const DiskCopies replicated = ReplicatedOf(disks_);
  stamps_ = std::make_unique<DiskStamps>(replicated);
  overwrite_peer_ = options_.overwrite_peer;
  if (replicated.empty()) return absl::OkStatus();
  const replica::DiskFilesOptions options =
      DiskFilesOptionsFrom(config_.checkpoint(), replicated.size());
  if (options_.start_as_primary) return stamps_->MakeBootable(options, disk::PosixFiles());
  ROMULUS_ASSIGN_OR_RETURN(disk_files_,
                           replica::DiskFiles::Open(replicated, options, disk::PosixFiles()));
  return absl::OkStatus();
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
    if (state.peer_connected) covers = state.term;
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
    for (const wire::DiskProgress& progress : disk_progress_) {
      if (progress.disk != copy.disk || !sync_.active()) continue;
      disk.set_sync_bytes_done(progress.bytes_done);
      disk.set_sync_bytes_total(progress.bytes_total);
    }
  };
  if (is_secondary) {
    for (const replica::DiskFacts& disk : secondary_->disk_facts()) add(ToWire(disk));
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

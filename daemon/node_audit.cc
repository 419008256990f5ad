// The audit as this node tells it: log, status and metrics, in either role.
#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "daemon/node.h"

namespace romulus::daemon {
namespace {

namespace v1 = romulus::v1;

// A replica that is wrong everywhere fills no log.
constexpr uint64_t kLogEveryNs = 1'000'000'000;

uint64_t UnixMs() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                   std::chrono::system_clock::now().time_since_epoch())
                                   .count());
}

// When the last pass ended, by the wall clock; 0: none has.
uint64_t EndedUnixMs(uint64_t ended_ns, uint64_t now_ns) {
  if (ended_ns == 0) return 0;
  return UnixMs() - (now_ns - std::min(now_ns, ended_ns)) / 1'000'000;
}

std::string WhatFollows(v1::Audit::OnMismatch then) {
  switch (then) {
    case v1::Audit::ON_MISMATCH_REPAIR:
      return "sent again with the next epoch";
    case v1::Audit::ON_MISMATCH_FULL_SYNC:
      return "full sync";
    default:
      return "nothing is done";
  }
}

}  // namespace

uint64_t Node::Unlogged::Take(uint64_t more, uint64_t now_ns) {
  count += more;
  if (logged_ns != 0 && now_ns - logged_ns < kLogEveryNs) return 0;
  logged_ns = now_ns;
  return std::exchange(count, 0);
}

void Node::NoteMismatch(size_t pages, EpochId epoch, Gfn gfn, const std::string& then) {
  audit_.set_last_mismatch(
      absl::StrFormat("page %#x in epoch %d: %s", gfn.value(), epoch.value(), then));
  audit_.set_last_mismatch_unix_ms(UnixMs());
  const uint64_t logged = mismatched_pages_.Take(pages, clock_.NowNs());
  if (logged == 0) return;
  log_.Error("audit_mismatch", {{"pages", logged},
                                {"gfn", absl::StrFormat("%#x", gfn.value())},
                                {"epoch", epoch.value()},
                                {"then", then}});
}

void Node::NoteDiskMismatch(size_t blocks, EpochId epoch, const epoch::DiskBlock& block,
                            const std::string& then) {
  const auto& disks = config_.guest().disks();
  const int index = static_cast<int>(block.disk);
  const std::string name = index < disks.size() ? disks.at(index).name() : absl::StrCat(index);
  audit_.set_last_disk_mismatch(absl::StrFormat("disk %s, %d bytes at %d, in epoch %d: %s", name,
                                                epoch::kDiskBlockBytes, block.offset_bytes(),
                                                epoch.value(), then));
  audit_.set_last_disk_mismatch_unix_ms(UnixMs());
  const uint64_t logged = mismatched_blocks_.Take(blocks, clock_.NowNs());
  if (logged == 0) return;
  log_.Error("disk_audit_mismatch", {{"blocks", logged},
                                     {"disk", name},
                                     {"offset_bytes", block.offset_bytes()},
                                     {"epoch", epoch.value()},
                                     {"then", then}});
}

void Node::OnAuditMismatch(const wire::AuditReport& report) {
  const std::string then = WhatFollows(config_.audit().on_mismatch());
  if (!report.mismatches.empty()) {
    const wire::AuditReport::Mismatch& first = report.mismatches.front();
    NoteMismatch(report.mismatches.size(), first.epoch, first.gfn, then);
  }
  if (!report.block_mismatches.empty()) {
    const wire::AuditReport::BlockMismatch& first = report.block_mismatches.front();
    NoteDiskMismatch(report.block_mismatches.size(), first.epoch, first.block, then);
  }
  // Not a link that just ends: a secondary with automatic failover would promote what is wrong.
  if (config_.audit().on_mismatch() == v1::Audit::ON_MISMATCH_FULL_SYNC) {
    failover::Event event =
        EventOf(failover::EventKind::kStreamBroken, "audit: the replica is wrong: full sync");
    event.goodbye = failover::GoodbyeReason::kReplicaWrong;
    Handle(std::move(event)).IgnoreError();
  }
}

void Node::OnReplicaMismatch(const std::vector<replica::AuditMismatch>& pages) {
  if (pages.empty()) return;
  NoteMismatch(pages.size(), pages.front().epoch, pages.front().gfn, "told to the primary");
  DoubtReplica();
}

void Node::OnReplicaDiskMismatch(const std::vector<replica::DiskAuditMismatch>& blocks) {
  if (blocks.empty()) return;
  NoteDiskMismatch(blocks.size(), blocks.front().epoch, blocks.front().block,
                   "told to the primary");
  DoubtReplica();
}

// What is repaired is the guest again an epoch later; what a full sync is to mend is not until
// then.
void Node::DoubtReplica() {
  if (config_.audit().on_mismatch() != v1::Audit::ON_MISMATCH_FULL_SYNC) return;
  Handle(EventOf(failover::EventKind::kReplicaWrong, "a full sync is to follow")).IgnoreError();
}

void Node::FillAudit(v1::GetStatusResponse& status) const {
  const v1::Audit& configured = config_.audit();
  const bool is_on = configured.pass_seconds() != 0 || configured.disk_pass_seconds() != 0;
  if (!is_on || secondary_ == nullptr) return;
  v1::AuditStatus& audit = *status.mutable_audit();
  audit = audit_;
  audit.set_pages(secondary_->counters().audited_pages);
  audit.set_mismatches(secondary_->counters().audit_mismatches);
  audit.set_disk_blocks(secondary_->counters().audited_blocks);
  audit.set_disk_mismatches(secondary_->counters().audit_block_mismatches);
  if (host_ == nullptr || !host_->assembled()) return;
  if (host_->auditor() != nullptr) {
    const epoch::AuditProgress progress = host_->auditor()->progress();
    audit.set_passes(progress.passes);
    audit.set_last_pass_ns(progress.last_pass_ns);
    audit.set_last_pass_unix_ms(EndedUnixMs(progress.last_pass_end_ns, clock_.NowNs()));
    audit.set_pass_pages_done(progress.pages_done);
    audit.set_pass_pages_total(progress.pages_total);
  }
  if (host_->disk_auditor() != nullptr) {
    const epoch::DiskAuditProgress progress = host_->disk_auditor()->progress();
    audit.set_disk_passes(progress.passes);
    audit.set_disk_last_pass_ns(progress.last_pass_ns);
    audit.set_disk_last_pass_unix_ms(EndedUnixMs(progress.last_pass_end_ns, clock_.NowNs()));
    audit.set_pass_blocks_done(progress.blocks_done);
    audit.set_pass_blocks_total(progress.blocks_total);
    audit.set_blocks_left_out(progress.blocks_left_out);
  }
}

void Node::UpdateAuditMetrics() {
  const replica::ReplicaCounters& counters = secondary_->counters();
  metrics_.SetAudit(counters.audited_pages, counters.audit_mismatches);
  metrics_.SetDiskAudit(counters.audited_blocks, counters.audit_block_mismatches);
  if (host_ == nullptr || !host_->assembled()) return;
  if (host_->auditor() != nullptr) {
    const epoch::AuditProgress progress = host_->auditor()->progress();
    metrics_.SetAuditPasses(progress.passes, progress.last_pass_ns,
                            EndedUnixMs(progress.last_pass_end_ns, clock_.NowNs()));
  }
  if (host_->disk_auditor() != nullptr) {
    const epoch::DiskAuditProgress progress = host_->disk_auditor()->progress();
    metrics_.SetDiskAuditPasses(progress.passes, progress.last_pass_ns,
                                EndedUnixMs(progress.last_pass_end_ns, clock_.NowNs()));
  }
}

}  // namespace romulus::daemon

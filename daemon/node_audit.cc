// The audit as this node tells it: log, status and metrics, in either role.
#include <algorithm>
#include <chrono>

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
uint64_t EndedUnixMs(const epoch::AuditProgress& progress, uint64_t now_ns) {
  if (progress.last_pass_end_ns == 0) return 0;
  return UnixMs() - (now_ns - std::min(now_ns, progress.last_pass_end_ns)) / 1'000'000;
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

void Node::NoteMismatch(size_t pages, EpochId epoch, Gfn gfn, const std::string& then) {
  audit_.set_last_mismatch(
      absl::StrFormat("page %#x in epoch %d: %s", gfn.value(), epoch.value(), then));
  audit_.set_last_mismatch_unix_ms(UnixMs());
  mismatches_unlogged_ += pages;
  const uint64_t now_ns = clock_.NowNs();
  if (mismatch_logged_ns_ != 0 && now_ns - mismatch_logged_ns_ < kLogEveryNs) return;
  mismatch_logged_ns_ = now_ns;
  log_.Error("audit_mismatch", {{"pages", mismatches_unlogged_},
                                {"gfn", absl::StrFormat("%#x", gfn.value())},
                                {"epoch", epoch.value()},
                                {"then", then}});
  mismatches_unlogged_ = 0;
}

void Node::OnAuditMismatch(const wire::AuditReport& report) {
  if (report.mismatches.empty()) return;
  const wire::AuditReport::Mismatch& first = report.mismatches.front();
  NoteMismatch(report.mismatches.size(), first.epoch, first.gfn,
               WhatFollows(config_.audit().on_mismatch()));
}

void Node::OnReplicaMismatch(const std::vector<replica::AuditMismatch>& pages) {
  if (pages.empty()) return;
  NoteMismatch(pages.size(), pages.front().epoch, pages.front().gfn, "told to the primary");
}

void Node::FillAudit(v1::GetStatusResponse& status) const {
  if (config_.audit().pass_seconds() == 0 || secondary_ == nullptr) return;
  v1::AuditStatus& audit = *status.mutable_audit();
  audit = audit_;
  audit.set_pages(secondary_->counters().audited_pages);
  audit.set_mismatches(secondary_->counters().audit_mismatches);
  if (host_ == nullptr || !host_->assembled() || host_->auditor() == nullptr) return;
  const epoch::AuditProgress progress = host_->auditor()->progress();
  audit.set_passes(progress.passes);
  audit.set_last_pass_ns(progress.last_pass_ns);
  audit.set_last_pass_unix_ms(EndedUnixMs(progress, clock_.NowNs()));
  audit.set_pass_pages_done(progress.pages_done);
  audit.set_pass_pages_total(progress.pages_total);
}

void Node::UpdateAuditMetrics() {
  const replica::ReplicaCounters& counters = secondary_->counters();
  metrics_.SetAudit(counters.audited_pages, counters.audit_mismatches);
  if (host_ == nullptr || !host_->assembled() || host_->auditor() == nullptr) return;
  const epoch::AuditProgress progress = host_->auditor()->progress();
  metrics_.SetAuditPasses(progress.passes, progress.last_pass_ns,
                          EndedUnixMs(progress, clock_.NowNs()));
}

}  // namespace romulus::daemon

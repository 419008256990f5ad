#include "metrics/metrics.h"

#include <prometheus/text_serializer.h>

#include "metrics/instruments.h"

namespace romulus::metrics {
namespace {

double Seconds(uint64_t ns) { return static_cast<double>(ns) * 1e-9; }
double Number(uint64_t value) { return static_cast<double>(value); }
double UnixSeconds(uint64_t unix_ms) { return static_cast<double>(unix_ms) * 1e-3; }

void SetState(const Labelled<prometheus::Gauge>& states, size_t current) {
  for (size_t i = 0; i < states.size(); ++i) states.at(i).Set(0);
  states.at(current).Set(1);
}

// One thread does this, so that reading and adding need not be one step.
void RaiseTo(prometheus::Counter& counter, uint64_t total) {
  const double more = Number(total) - counter.Value();
  if (more > 0) counter.Increment(more);
}

}  // namespace

Metrics::Metrics(absl::string_view vm, absl::string_view node, Labels labels)
    : impl_(std::make_unique<Impl>(
          prometheus::Labels{{"vm", std::string(vm)}, {"node", std::string(node)}}, labels)) {
  impl_->instruments.build_info->Set(1);
  impl_->instruments.start_timestamp_seconds->SetToCurrentTime();
}

Metrics::~Metrics() = default;

void Metrics::EpochCut(const EpochSample& sample) {
  Instruments& to = impl_->instruments;
  to.epochs.at(sample.cut_reason).Increment();
  to.pages->Increment(Number(sample.pages));
  to.pause_seconds->Observe(Seconds(sample.pause_ns));
  to.interval_seconds->Observe(Seconds(sample.interval_ns));
  for (size_t i = 0; i < sample.phase_ns.size(); ++i) {
    to.phase_seconds.at(i).Observe(Seconds(sample.phase_ns[i]));
  }
}

void Metrics::EpochAcked(uint64_t ack_latency_ns) {
  impl_->instruments.epochs_acked->Increment();
  impl_->instruments.ack_latency_seconds->Observe(Seconds(ack_latency_ns));
}

void Metrics::EpochAborted() { impl_->instruments.epochs_aborted->Increment(); }

void Metrics::Encoded(size_t encoding, uint64_t pages, uint64_t bytes) {
  impl_->instruments.encoded_pages.at(encoding).Increment(Number(pages));
  impl_->instruments.encoded_bytes.at(encoding).Increment(Number(bytes));
}

void Metrics::Compressed(size_t method, uint64_t raw_bytes, uint64_t wire_bytes) {
  impl_->instruments.compression_in_bytes.at(method).Increment(Number(raw_bytes));
  impl_->instruments.compression_out_bytes.at(method).Increment(Number(wire_bytes));
}
void Metrics::Sent(uint64_t bytes) { impl_->instruments.sent_bytes->Increment(Number(bytes)); }

void Metrics::SetRole(size_t role) { SetState(impl_->instruments.role, role); }
void Metrics::SetMode(size_t mode, uint64_t since_unix_ms) {
  SetState(impl_->instruments.mode, mode);
  impl_->instruments.mode_timestamp_seconds->Set(UnixSeconds(since_unix_ms));
}
void Metrics::SetTerm(uint64_t term) { impl_->instruments.term->Set(Number(term)); }

void Metrics::SetEpoch(uint64_t cut, uint64_t acked) {
  impl_->instruments.epoch_cut->Set(Number(cut));
  impl_->instruments.epoch_acked->Set(Number(acked));
}

void Metrics::SetHeldOutput(uint64_t bytes) {
  impl_->instruments.held_output_bytes->Set(Number(bytes));
}
void Metrics::SetLimits(const ConfiguredLimits& limits) {
  const Instruments& to = impl_->instruments;
  to.held_output_limit_bytes->Set(Number(limits.held_output_bytes));
  to.disk_log_limit_bytes->Set(Number(limits.disk_log_bytes));
  to.staging_limit_bytes->Set(Number(limits.staging_bytes));
  to.unacked_epochs_limit->Set(Number(limits.unacked_epochs));
  to.heartbeat_timeout_seconds->Set(Seconds(limits.heartbeat_timeout_ns));
  for (const NicInstruments& nic : to.nics) {
    nic.buffer_limit_bytes->Set(Number(limits.held_frames_bytes));
  }
}
void Metrics::SetStagingUsed(uint64_t bytes) {
  impl_->instruments.staging_used_bytes->Set(Number(bytes));
}
void Metrics::SetUnackedEpochs(uint64_t epochs) {
  impl_->instruments.unacked_epochs->Set(Number(epochs));
}

void Metrics::SetSyncProgress(uint64_t pages_done, uint64_t pages_total) {
  impl_->instruments.sync_pages->Set(Number(pages_total));
  impl_->instruments.sync_pages_done->Set(Number(pages_done));
}
void Metrics::SetDiskSyncProgress(uint64_t bytes_done, uint64_t bytes_total) {
  impl_->instruments.disk_sync_bytes->Set(Number(bytes_total));
  impl_->instruments.disk_sync_bytes_done->Set(Number(bytes_done));
}
void Metrics::SetDiskWait(uint64_t wait_ns) {
  impl_->instruments.disk_wait_seconds->Set(Seconds(wait_ns));
}
void Metrics::SetDiskLog(uint64_t bytes) { impl_->instruments.disk_log_bytes->Set(Number(bytes)); }
void Metrics::FullSyncCompleted() { impl_->instruments.full_syncs->Increment(); }

void Metrics::SetPeerConnected(bool connected) {
  impl_->instruments.peer_connected->Set(connected ? 1 : 0);
}
void Metrics::SetConsoleReleased(uint64_t offset_bytes) {
  impl_->instruments.console_released_bytes->Set(Number(offset_bytes));
}
void Metrics::SetConsoleQueue(uint64_t bytes, bool failing) {
  impl_->instruments.console_queued_bytes->Set(Number(bytes));
  impl_->instruments.console_failing->Set(failing ? 1 : 0);
}

void Metrics::SetExits(size_t kind, uint64_t total) {
  RaiseTo(impl_->instruments.exits.at(kind), total);
}
void Metrics::SetFrameErrors(size_t kind, uint64_t total) {
  RaiseTo(impl_->instruments.frame_errors.at(kind), total);
}
void Metrics::SetCommitted(uint64_t epochs, uint64_t pages) {
  RaiseTo(*impl_->instruments.epochs_committed, epochs);
  RaiseTo(*impl_->instruments.pages_committed, pages);
}
void Metrics::SetReceived(uint64_t bytes) { RaiseTo(*impl_->instruments.received_bytes, bytes); }

void Metrics::SetDisksCommitted(uint64_t records, uint64_t bytes, uint64_t failures) {
  RaiseTo(*impl_->instruments.disk_records_committed, records);
  RaiseTo(*impl_->instruments.disk_bytes_committed, bytes);
  RaiseTo(*impl_->instruments.disk_failures, failures);
}

void Metrics::SetAudit(uint64_t pages, uint64_t mismatches) {
  RaiseTo(*impl_->instruments.audit_pages, pages);
  RaiseTo(*impl_->instruments.audit_mismatches, mismatches);
}
void Metrics::SetAuditPasses(uint64_t passes, uint64_t last_pass_ns, uint64_t last_pass_unix_ms) {
  RaiseTo(*impl_->instruments.audit_passes, passes);
  impl_->instruments.audit_pass_seconds->Set(Seconds(last_pass_ns));
  impl_->instruments.audit_last_pass_time_seconds->Set(Number(last_pass_unix_ms) * 1e-3);
}
void Metrics::SetDiskAudit(uint64_t blocks, uint64_t mismatches) {
  RaiseTo(*impl_->instruments.audit_disk_blocks, blocks);
  RaiseTo(*impl_->instruments.audit_disk_mismatches, mismatches);
}
void Metrics::SetDiskAuditPasses(uint64_t passes, uint64_t last_pass_ns,
                                 uint64_t last_pass_unix_ms) {
  RaiseTo(*impl_->instruments.audit_disk_passes, passes);
  impl_->instruments.audit_disk_pass_seconds->Set(Seconds(last_pass_ns));
  impl_->instruments.audit_last_disk_pass_time_seconds->Set(Number(last_pass_unix_ms) * 1e-3);
}

void Metrics::SetDevice(size_t device, bool needs_reset, std::span<const uint64_t> faults) {
  Instruments& to = impl_->instruments;
  if (device >= to.device_faults.size()) return;
  to.device_needs_reset.at(device).Set(needs_reset ? 1 : 0);
  for (size_t i = 0; i < faults.size(); ++i) RaiseTo(to.device_faults[device].at(i), faults[i]);
}

void Metrics::SetDisk(size_t disk, const DiskTotals& totals) {
  if (disk >= impl_->instruments.disks.size()) return;
  const DiskInstruments& to = impl_->instruments.disks[disk];
  RaiseTo(*to.reads, totals.reads);
  RaiseTo(*to.writes, totals.writes);
  RaiseTo(*to.zeroes, totals.zeroes);
  RaiseTo(*to.flushes, totals.flushes);
  RaiseTo(*to.read_bytes, totals.read_bytes);
  RaiseTo(*to.write_bytes, totals.write_bytes);
  RaiseTo(*to.errors, totals.errors);
}

void Metrics::SetNic(size_t nic, const NicTotals& totals) {
  if (nic >= impl_->instruments.nics.size()) return;
  const NicInstruments& to = impl_->instruments.nics[nic];
  RaiseTo(*to.frames_in, totals.frames_in);
  RaiseTo(*to.frames_out, totals.frames_out);
  RaiseTo(*to.bytes_in, totals.bytes_in);
  RaiseTo(*to.bytes_out, totals.bytes_out);
  RaiseTo(*to.dropped_in, totals.dropped_in);
  RaiseTo(*to.dropped_out, totals.dropped_out);
  RaiseTo(*to.bad_frames, totals.bad_frames);
  RaiseTo(*to.mac_clashes, totals.mac_clashes);
  to.held_bytes->Set(Number(totals.held_bytes));
  to.queued_bytes->Set(Number(totals.queued_bytes));
  to.buffer_used_bytes->Set(Number(totals.cap_bytes_used));
}

void Metrics::SetPath(size_t path, const PathSample& sample) {
  const Instruments& to = impl_->instruments;
  if (path >= to.path_heard.size()) return;
  to.path_heard.at(path).Set(sample.heard ? 1 : 0);
  to.path_silence_seconds.at(path).Set(Seconds(sample.silence_ns));
  to.path_gap_seconds.at(path).Set(Seconds(sample.mean_gap_ns));
  to.path_jitter_seconds.at(path).Set(Seconds(sample.jitter_ns));
  to.path_rtt_seconds.at(path).Set(Seconds(sample.rtt_ns));
}
void Metrics::SetBeatsRefused(size_t fault, uint64_t total) {
  RaiseTo(impl_->instruments.beats_refused.at(fault), total);
}
void Metrics::SetTlsRefusals(size_t reason, uint64_t total) {
  RaiseTo(impl_->instruments.tls_refusals.at(reason), total);
}
void Metrics::SetTlsExpiry(int64_t unix_s) {
  impl_->instruments.tls_expiry->Set(static_cast<double>(unix_s));
}

void Metrics::SetEventsUnreadable(uint64_t lines) {
  impl_->instruments.events_unreadable_lines->Set(Number(lines));
}

void Metrics::ArbiterAnswered(size_t verdict) {
  impl_->instruments.arbiter_answers.at(verdict).Increment();
}

void Metrics::SetArbiterUp(bool up) {
  if (impl_->instruments.arbiter_up.size() != 0) impl_->instruments.arbiter_up.at(0).Set(up);
}

void Metrics::Failover(bool by_operator, uint64_t detect_ns, uint64_t activate_ns,
                       uint64_t at_unix_ms) {
  impl_->instruments.failovers.at(by_operator ? 1 : 0).Increment();
  impl_->instruments.failover_detect_seconds->Set(Seconds(detect_ns));
  impl_->instruments.failover_activate_seconds->Set(Seconds(activate_ns));
  impl_->instruments.failover_timestamp_seconds->Set(UnixSeconds(at_unix_ms));
}

void Metrics::SetSwitchovers(std::span<const uint64_t> totals, uint64_t last_pause_ns,
                             uint64_t last_unix_ms) {
  for (size_t i = 0; i < totals.size(); ++i)
    RaiseTo(impl_->instruments.switchovers.at(i), totals[i]);
  impl_->instruments.switchover_pause_seconds->Set(Seconds(last_pause_ns));
  impl_->instruments.switchover_timestamp_seconds->Set(UnixSeconds(last_unix_ms));
}

std::string Metrics::Text() const {
  return prometheus::TextSerializer().Serialize(impl_->registry->Collect());
}

}  // namespace romulus::metrics

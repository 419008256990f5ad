#include "metrics/instruments.h"

// Names follow https://prometheus.io/docs/practices/naming/: base units (seconds, bytes), counters
// end in _total, one prefix.

namespace romulus::metrics {
namespace {

using prometheus::Counter;
using prometheus::Gauge;
using prometheus::Histogram;

// 10 us to 1 s in steps of about 2: a pause is some hundred microseconds, a phase some ten.
const Histogram::BucketBoundaries kPauseBuckets = {10e-6,  20e-6,  50e-6,  100e-6, 150e-6, 200e-6,
                                                   250e-6, 350e-6, 500e-6, 1e-3,   2e-3,   5e-3,
                                                   10e-3,  20e-3,  50e-3,  100e-3, 1.0};
const Histogram::BucketBoundaries kPhaseBuckets = {
    1e-6, 2e-6, 5e-6, 10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 5e-3, 20e-3, 100e-3};
const Histogram::BucketBoundaries kLatencyBuckets = {50e-6, 100e-6, 200e-6, 300e-6, 500e-6,
                                                     1e-3,  2e-3,   5e-3,   10e-3,  20e-3,
                                                     50e-3, 100e-3, 0.5,    1.0,    5.0};

}  // namespace

class Instruments::Builder {
 public:
  Builder(prometheus::Registry& registry, const prometheus::Labels& constant)
      : registry_(registry), constant_(constant) {}

  Counter* MakeCounter(const char* name, const char* help) {
    return &CounterFamily(name, help).Add({});
  }
  // One more series of a name that others have already: the same name, help and kind.
  Counter* MakeCounter(const char* name, const char* help, const prometheus::Labels& labels) {
    return &CounterFamily(name, help).Add(labels);
  }
  Gauge* MakeGauge(const char* name, const char* help, const prometheus::Labels& labels) {
    return &GaugeFamily(name, help).Add(labels);
  }
  Gauge* MakeGauge(const char* name, const char* help) { return &GaugeFamily(name, help).Add({}); }
  Histogram* MakeHistogram(const char* name, const char* help,
                           const Histogram::BucketBoundaries& buckets) {
    return &HistogramFamily(name, help).Add({}, buckets);
  }

  Labelled<Counter> Counters(const char* name, const char* help, const char* label,
                             const std::vector<std::string>& values) {
    Labelled<Counter> made;
    auto& family = CounterFamily(name, help);
    for (const std::string& value : values) made.Add(family.Add({{label, value}}));
    made.Add(family.Add({{label, "other"}}));
    return made;
  }
  Labelled<Gauge> Gauges(const char* name, const char* help, const char* label,
                         const std::vector<std::string>& values) {
    Labelled<Gauge> made;
    auto& family = GaugeFamily(name, help);
    for (const std::string& value : values) made.Add(family.Add({{label, value}}));
    made.Add(family.Add({{label, "other"}}));
    return made;
  }
  // Of things that are there or not: no "other", and none at all without values.
  Labelled<Gauge> GaugesOfEach(const char* name, const char* help, const char* label,
                               const std::vector<std::string>& values) {
    Labelled<Gauge> made;
    for (const std::string& value : values) made.Add(*MakeGauge(name, help, {{label, value}}));
    return made;
  }
  Labelled<Histogram> Histograms(const char* name, const char* help, const char* label,
                                 const std::vector<std::string>& values,
                                 const Histogram::BucketBoundaries& buckets) {
    Labelled<Histogram> made;
    auto& family = HistogramFamily(name, help);
    for (const std::string& value : values) made.Add(family.Add({{label, value}}, buckets));
    made.Add(family.Add({{label, "other"}}, buckets));
    return made;
  }

 private:
  prometheus::Family<Counter>& CounterFamily(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Labels(constant_).Register(registry_);
  }
  prometheus::Family<Gauge>& GaugeFamily(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Labels(constant_).Register(registry_);
  }
  prometheus::Family<Histogram>& HistogramFamily(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Labels(constant_).Register(registry_);
  }

  prometheus::Registry& registry_;
  const prometheus::Labels& constant_;
};

Instruments::Instruments(prometheus::Registry& registry, const prometheus::Labels& constant,
                         const Labels& labels) {
  Builder make(registry, constant);
  epochs = make.Counters("romulus_epochs_total", "Epochs cut on this primary, by reason.", "reason",
                         labels.cut_reasons);
  epochs_acked = make.MakeCounter("romulus_epochs_acked_total", "Epochs that the secondary acked.");
  epochs_aborted = make.MakeCounter("romulus_epochs_aborted_total",
                                    "Checkpoints that failed; their pages were put back.");
  epochs_committed = make.MakeCounter("romulus_epochs_committed_total",
                                      "Epochs that this secondary verified and committed.");
  pages =
      make.MakeCounter("romulus_epoch_pages_total", "Dirty pages in epochs cut on this primary.");
  pages_committed = make.MakeCounter("romulus_committed_pages_total",
                                     "Pages in epochs that this secondary committed.");
  encoded_pages = make.Counters("romulus_encoded_pages_total", "Pages sent, by encoding.",
                                "encoding", labels.encodings);
  encoded_bytes = make.Counters("romulus_encoded_bytes_total",
                                "Bytes that pages took on the stream, by encoding.", "encoding",
                                labels.encodings);
  compression_in_bytes = make.Counters(
      "romulus_compression_in_bytes_total",
      "Bytes of pages and disk blocks that were to be compressed, by method; \"none\": "
      "sent as they are, because it gained too little.",
      "method", labels.compressions);
  compression_out_bytes =
      make.Counters("romulus_compression_out_bytes_total",
                    "Bytes that were sent for them, by method.", "method", labels.compressions);
  frame_errors = make.Counters("romulus_frame_errors_total",
                               "Frames of the peer that were refused, by what was wrong.", "kind",
                               labels.frame_errors);
  exits = make.Counters("romulus_exits_total", "vCPU exits to this process, by kind.", "kind",
                        labels.exit_kinds);
  sent_bytes = make.MakeCounter("romulus_sent_bytes_total", "Bytes of frames sent to the peer.");
  received_bytes = make.MakeCounter("romulus_received_bytes_total", "Bytes of frames received.");
  full_syncs = make.MakeCounter("romulus_full_syncs_total", "Full syncs completed.");
  disk_records_committed =
      make.MakeCounter("romulus_committed_disk_records_total",
                       "Disk writes and flushes in epochs that this secondary committed.");
  disk_bytes_committed =
      make.MakeCounter("romulus_committed_disk_bytes_total",
                       "Bytes of disks written in epochs that this secondary committed.");
  disk_failures = make.MakeCounter(
      "romulus_disk_failures_total",
      "Replicas that this secondary gave up because its disks failed or were full.");
  audit_pages = make.MakeCounter("romulus_audit_pages_total",
                                 "Pages of primary and secondary that were compared.");
  audit_mismatches = make.MakeCounter("romulus_audit_mismatches_total",
                                      "Pages among them of which the secondary's was another.");
  audit_passes =
      make.MakeCounter("romulus_audit_passes_total", "Whole passes of memory by this primary.");
  audit_disk_blocks =
      make.MakeCounter("romulus_audit_disk_blocks_total",
                       "64 KiB blocks of the disks of primary and secondary that were compared.");
  audit_disk_mismatches =
      make.MakeCounter("romulus_audit_disk_mismatches_total",
                       "Blocks among them of which the secondary's was another.");
  audit_disk_passes = make.MakeCounter("romulus_audit_disk_passes_total",
                                       "Whole passes of the disks by this primary.");
  arbiter_answers =
      make.Counters("romulus_arbiter_answers_total", "What the arbiter said to this node's claims.",
                    "verdict", {"yes", "no", "silent", "error"});
  beats_refused = make.Counters(
      "romulus_beats_refused_total",
      "What came on the second path and was no beat of the peer's, by what was wrong.", "kind",
      labels.beat_faults);
  tls_refusals = make.Counters("romulus_tls_refusals_total",
                               "Connections that TLS or this node refused for who was at the "
                               "other end, and calls of the control service, by why.",
                               "reason", labels.tls_refusals);
  switchovers = make.Counters("romulus_switchovers_total",
                              "Planned hand-overs, by how they ended for this node.", "result",
                              {"done", "refused", "unknown", "taken_over"});
  failovers =
      make.Counters("romulus_failovers_total", "Promotions of this node, by what caused them.",
                    "cause", {"heartbeat", "operator"});

  pause_seconds = make.MakeHistogram(
      "romulus_pause_seconds", "From the request to stop the vCPUs until they are told to run.",
      kPauseBuckets);
  phase_seconds = make.Histograms("romulus_pause_phase_seconds", "Parts of the pause, in order.",
                                  "phase", labels.phases, kPhaseBuckets);
  interval_seconds = make.MakeHistogram("romulus_epoch_interval_seconds",
                                        "How long the guest ran in an epoch.", kLatencyBuckets);
  ack_latency_seconds = make.MakeHistogram("romulus_ack_latency_seconds",
                                           "From cutting an epoch until its ack.", kLatencyBuckets);

  role = make.Gauges("romulus_role", "1 for the role that this node plays.", "role", labels.roles);
  mode = make.Gauges("romulus_mode", "1 for the mode that this node is in.", "mode", labels.modes);
  mode_timestamp_seconds = make.MakeGauge("romulus_mode_timestamp_seconds",
                                          "Since when it has its role and mode, in Unix time.");
  start_timestamp_seconds = make.MakeGauge("romulus_start_timestamp_seconds",
                                           "When this node began, or began anew, in Unix time.");
  build_info = make.MakeGauge("romulus_build_info", "1, with the version of this daemon.",
                              {{"version", labels.version}});
  term = make.MakeGauge("romulus_term", "Newest term that this node knows.");
  epoch_cut = make.MakeGauge("romulus_epoch_cut", "Number of the last epoch cut in this term.");
  epoch_acked = make.MakeGauge("romulus_epoch_acked",
                               "Number of the last epoch acked (primary) or held (secondary).");
  held_output_bytes =
      make.MakeGauge("romulus_held_output_bytes", "Console bytes that wait for their epoch's ack.");
  staging_used_bytes = make.MakeGauge("romulus_staging_used_bytes", "Staging memory in use.");
  unacked_epochs = make.MakeGauge("romulus_unacked_epochs", "Epochs cut and not acked.");
  sync_pages =
      make.MakeGauge("romulus_full_sync_pages", "Pages of the full sync under way, else 0.");
  sync_pages_done =
      make.MakeGauge("romulus_full_sync_pages_done", "Pages that the full sync has sent.");
  disk_sync_bytes = make.MakeGauge("romulus_full_sync_disk_bytes",
                                   "Bytes of the disks of the full sync under way, else 0.");
  disk_sync_bytes_done = make.MakeGauge("romulus_full_sync_disk_bytes_done",
                                        "Bytes of them that were sent or found to be there.");
  disk_log_bytes = make.MakeGauge("romulus_disk_log_bytes",
                                  "Disk writes of epochs that are not acked yet, in bytes.");
  events_unreadable_lines = make.MakeGauge(
      "romulus_events_unreadable_lines",
      "Lines of the event journal that could not be read when the daemon started, and were "
      "skipped.");
  tls_expiry =
      make.MakeGauge("romulus_tls_certificate_expiry_timestamp_seconds",
                     "When the certificate of this node expires, in Unix time; 0 without TLS.");
  disk_wait_seconds = make.MakeGauge(
      "romulus_disk_wait_seconds",
      "How long the oldest operation on a disk of this node has been under way; 0: none is.");
  audit_pass_seconds = make.MakeGauge("romulus_audit_pass_seconds",
                                      "How long the last whole pass of memory took; 0: none yet.");
  audit_last_pass_time_seconds = make.MakeGauge("romulus_audit_last_pass_time_seconds",
                                                "When it ended, in Unix time; 0: none yet.");
  audit_disk_pass_seconds =
      make.MakeGauge("romulus_audit_disk_pass_seconds",
                     "How long the last whole pass of the disks took; 0: none yet.");
  audit_last_disk_pass_time_seconds =
      make.MakeGauge("romulus_audit_last_disk_pass_time_seconds",
                     "When that one ended, in Unix time; 0: none yet.");
  peer_connected =
      make.MakeGauge("romulus_peer_connected", "1 while the stream to the peer is up.");
  console_released_bytes = make.MakeGauge("romulus_console_released_bytes",
                                          "Offset in the console stream up to which it has left.");
  console_queued_bytes = make.MakeGauge("romulus_console_queued_bytes",
                                        "Console bytes that were acked and wait for the console.");
  console_failing =
      make.MakeGauge("romulus_console_failing", "1 while the console cannot be written.");
  failover_detect_seconds =
      make.MakeGauge("romulus_failover_detect_seconds",
                     "Last promotion: from the primary's last word to the decision.");
  failover_activate_seconds =
      make.MakeGauge("romulus_failover_activate_seconds",
                     "Last promotion: from the decision until the guest ran.");
  failover_timestamp_seconds =
      make.MakeGauge("romulus_failover_timestamp_seconds",
                     "Last promotion: when, in Unix time; 0: there was none.");
  switchover_pause_seconds = make.MakeGauge(
      "romulus_switchover_pause_seconds",
      "Last switchover: from the request to stop the guest until it was known to run again.");
  switchover_timestamp_seconds =
      make.MakeGauge("romulus_switchover_timestamp_seconds",
                     "Last switchover, however it ended: when, in Unix time; 0: there was none.");
  MakeLimitInstruments(make);
  MakePathInstruments(make, labels);
  MakeDeviceInstruments(make, labels);
}

void Instruments::MakeLimitInstruments(Builder& make) {
  held_output_limit_bytes =
      make.MakeGauge("romulus_held_output_limit_bytes",
                     "Console bytes that may wait for an ack, and for the console, at most.");
  staging_limit_bytes =
      make.MakeGauge("romulus_staging_limit_bytes", "Staging memory that there is.");
  unacked_epochs_limit =
      make.MakeGauge("romulus_unacked_epochs_limit", "Epochs that may be unacked at most.");
  disk_log_limit_bytes = make.MakeGauge("romulus_disk_log_limit_bytes",
                                        "Disk writes that may wait for an ack at most, in bytes.");
  heartbeat_timeout_seconds = make.MakeGauge(
      "romulus_heartbeat_timeout_seconds", "Silence after which this node takes its peer as lost.");
}

void Instruments::MakePathInstruments(Builder& make, const Labels& labels) {
  arbiter_up = make.GaugesOfEach("romulus_arbiter_up",
                                 "1 while the arbiter, which is asked every five seconds, answers.",
                                 "arbiter", labels.arbiters);
  path_heard = make.GaugesOfEach("romulus_path_heard", "1 while the peer is heard on this path.",
                                 "path", labels.paths);
  path_silence_seconds =
      make.GaugesOfEach("romulus_path_silence_seconds",
                        "How long the peer has been silent on this path.", "path", labels.paths);
  path_gap_seconds = make.GaugesOfEach(
      "romulus_path_gap_seconds", "Between two signs of life of the peer on this path, averaged.",
      "path", labels.paths);
  path_jitter_seconds =
      make.GaugesOfEach("romulus_path_jitter_seconds",
                        "Mean distance of those gaps from their average.", "path", labels.paths);
  path_rtt_seconds = make.GaugesOfEach("romulus_path_rtt_seconds",
                                       "Round trip of heartbeats on this path; 0: not known.",
                                       "path", labels.paths);
}

void Instruments::MakeDeviceInstruments(Builder& make, const Labels& labels) {
  device_needs_reset = make.GaugesOfEach(
      "romulus_device_needs_reset",
      "1 while a virtio device waits for its driver, which broke a rule, to reset it.", "device",
      labels.devices);
  for (const std::string& device : labels.devices) {
    Labelled<Counter>& faults = device_faults.emplace_back();
    for (const std::string& fault : labels.device_faults) {
      faults.Add(*make.MakeCounter("romulus_device_faults_total",
                                   "What the drivers of virtio devices did wrong.",
                                   {{"device", device}, {"fault", fault}}));
    }
  }
  for (const std::string& disk : labels.disks) {
    const auto requests = [&](const char* kind) {
      return make.MakeCounter("romulus_disk_requests_total", "Requests done on the guest's disks.",
                              {{"disk", disk}, {"kind", kind}});
    };
    const auto bytes = [&](const char* kind) {
      return make.MakeCounter("romulus_disk_bytes_total", "Bytes read and written by them.",
                              {{"disk", disk}, {"kind", kind}});
    };
    disks.push_back(
        {.reads = requests("read"),
         .writes = requests("write"),
         .zeroes = requests("zeroes"),
         .flushes = requests("flush"),
         .read_bytes = bytes("read"),
         .write_bytes = bytes("write"),
         .errors = make.MakeCounter("romulus_disk_errors_total",
                                    "Requests that ended in an I/O error.", {{"disk", disk}})});
  }
  for (const std::string& nic : labels.nics) {
    const auto counter = [&](const char* name, const char* help, const char* direction) {
      return make.MakeCounter(name, help, {{"nic", nic}, {"direction", direction}});
    };
    const auto frames = [&](const char* direction) {
      return counter("romulus_nic_frames_total", "Frames to (in) and from (out) the guest.",
                     direction);
    };
    const auto bytes = [&](const char* direction) {
      return counter("romulus_nic_bytes_total", "Bytes of these frames.", direction);
    };
    const auto dropped = [&](const char* direction) {
      return counter("romulus_nic_dropped_frames_total",
                     "Frames that the guest was not there for (in) or the tap did not take (out).",
                     direction);
    };
    nics.push_back(
        {.frames_in = frames("in"),
         .frames_out = frames("out"),
         .bytes_in = bytes("in"),
         .bytes_out = bytes("out"),
         .dropped_in = dropped("in"),
         .dropped_out = dropped("out"),
         .bad_frames =
             make.MakeCounter("romulus_nic_bad_frames_total",
                              "Frames of the guest that no network could carry.", {{"nic", nic}}),
         .mac_clashes = make.MakeCounter("romulus_nic_mac_clashes_total",
                                         "Frames that came in from the card's own MAC address.",
                                         {{"nic", nic}}),
         .held_bytes =
             make.MakeGauge("romulus_nic_held_bytes",
                            "Bytes of frames that wait for their epoch's ack.", {{"nic", nic}}),
         .queued_bytes =
             make.MakeGauge("romulus_nic_queued_bytes",
                            "Bytes of frames that may leave and wait for the tap.", {{"nic", nic}}),
         .buffer_used_bytes = make.MakeGauge(
             "romulus_nic_buffer_used_bytes",
             "Bytes that both kinds of frames take, with what holds them.", {{"nic", nic}}),
         .buffer_limit_bytes =
             make.MakeGauge("romulus_nic_buffer_limit_bytes",
                            "Bytes that they may take before the card waits.", {{"nic", nic}})});
  }
}

Metrics::Impl::Impl(const prometheus::Labels& constant, const Labels& labels)
    : registry(std::make_shared<prometheus::Registry>()),
      instruments(*registry, constant, labels) {}

}  // namespace romulus::metrics

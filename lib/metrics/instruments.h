// The instruments behind Metrics: private to lib/metrics, the only place (with exposer.cc) that
// sees prometheus-cpp. Built once; the references stay valid as long as the registry lives.
#ifndef ROMULUS_METRICS_INSTRUMENTS_H_
#define ROMULUS_METRICS_INSTRUMENTS_H_

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <memory>
#include <string>
#include <vector>

#include "metrics/metrics.h"

namespace romulus::metrics {

// One instrument per label value, in the order of the labels; most have "other" at the end, which
// is what an index beyond the labels means. The others' indices are the caller's to check.
template <typename T>
class Labelled {
 public:
  void Add(T& instrument) { instruments_.push_back(&instrument); }
  T& at(size_t index) const {
    return *instruments_[index < instruments_.size() ? index : instruments_.size() - 1];
  }
  size_t size() const { return instruments_.size(); }

 private:
  std::vector<T*> instruments_;
};

// What is counted of each disk and each network card.
struct DiskInstruments {
  prometheus::Counter* reads;
  prometheus::Counter* writes;
  prometheus::Counter* zeroes;
  prometheus::Counter* flushes;
  prometheus::Counter* read_bytes;
  prometheus::Counter* write_bytes;
  prometheus::Counter* errors;
};
struct NicInstruments {
  prometheus::Counter* frames_in;
  prometheus::Counter* frames_out;
  prometheus::Counter* bytes_in;
  prometheus::Counter* bytes_out;
  prometheus::Counter* dropped_in;
  prometheus::Counter* dropped_out;
  prometheus::Counter* bad_frames;
  prometheus::Counter* mac_clashes;
  prometheus::Gauge* held_bytes;
  prometheus::Gauge* queued_bytes;
  prometheus::Gauge* buffer_used_bytes;
  prometheus::Gauge* buffer_limit_bytes;
};

struct Instruments {
  Instruments(prometheus::Registry& registry, const prometheus::Labels& constant,
              const Labels& labels);

  Labelled<prometheus::Counter> epochs;  // by cut reason
  prometheus::Counter* epochs_acked;
  prometheus::Counter* epochs_aborted;
  prometheus::Counter* epochs_committed;
  prometheus::Counter* pages;
  prometheus::Counter* pages_committed;
  Labelled<prometheus::Counter> encoded_pages;
  Labelled<prometheus::Counter> encoded_bytes;
  Labelled<prometheus::Counter> compression_in_bytes;
  Labelled<prometheus::Counter> compression_out_bytes;
  Labelled<prometheus::Counter> frame_errors;
  Labelled<prometheus::Counter> exits;
  prometheus::Counter* sent_bytes;
  prometheus::Counter* received_bytes;
  prometheus::Counter* full_syncs;
  prometheus::Counter* disk_records_committed;
  prometheus::Counter* disk_bytes_committed;
  prometheus::Counter* disk_failures;
  prometheus::Counter* audit_pages;
  prometheus::Counter* audit_mismatches;
  prometheus::Counter* audit_passes;
  prometheus::Counter* audit_disk_blocks;
  prometheus::Counter* audit_disk_mismatches;
  prometheus::Counter* audit_disk_passes;
  Labelled<prometheus::Counter> failovers;        // detected, operator
  Labelled<prometheus::Counter> arbiter_answers;  // failover::Verdict
  Labelled<prometheus::Counter> beats_refused;
  Labelled<prometheus::Counter> tls_refusals;
  Labelled<prometheus::Counter> switchovers;  // SwitchoverResult

  prometheus::Histogram* pause_seconds;
  Labelled<prometheus::Histogram> phase_seconds;
  prometheus::Histogram* interval_seconds;
  prometheus::Histogram* ack_latency_seconds;

  Labelled<prometheus::Gauge> role;
  Labelled<prometheus::Gauge> mode;
  prometheus::Gauge* mode_timestamp_seconds;
  prometheus::Gauge* start_timestamp_seconds;
  prometheus::Gauge* build_info;
  prometheus::Gauge* term;
  prometheus::Gauge* epoch_cut;
  prometheus::Gauge* epoch_acked;
  prometheus::Gauge* held_output_bytes;
  prometheus::Gauge* held_output_limit_bytes;
  prometheus::Gauge* staging_used_bytes;
  prometheus::Gauge* staging_limit_bytes;
  prometheus::Gauge* unacked_epochs;
  prometheus::Gauge* unacked_epochs_limit;
  prometheus::Gauge* sync_pages;
  prometheus::Gauge* sync_pages_done;
  prometheus::Gauge* disk_sync_bytes;
  prometheus::Gauge* disk_sync_bytes_done;
  prometheus::Gauge* disk_log_bytes;
  prometheus::Gauge* disk_log_limit_bytes;
  prometheus::Gauge* disk_wait_seconds;
  prometheus::Gauge* audit_pass_seconds;
  prometheus::Gauge* audit_last_pass_time_seconds;
  prometheus::Gauge* audit_disk_pass_seconds;
  prometheus::Gauge* audit_last_disk_pass_time_seconds;
  prometheus::Gauge* tls_expiry;
  prometheus::Gauge* events_unreadable_lines;
  prometheus::Gauge* peer_connected;
  prometheus::Gauge* heartbeat_timeout_seconds;
  Labelled<prometheus::Gauge> arbiter_up;
  Labelled<prometheus::Gauge> path_heard;
  Labelled<prometheus::Gauge> path_silence_seconds;
  Labelled<prometheus::Gauge> path_gap_seconds;
  Labelled<prometheus::Gauge> path_jitter_seconds;
  Labelled<prometheus::Gauge> path_rtt_seconds;
  prometheus::Gauge* console_released_bytes;
  prometheus::Gauge* console_queued_bytes;
  prometheus::Gauge* console_failing;
  prometheus::Gauge* failover_detect_seconds;
  prometheus::Gauge* failover_activate_seconds;
  prometheus::Gauge* failover_timestamp_seconds;
  prometheus::Gauge* switchover_pause_seconds;
  prometheus::Gauge* switchover_timestamp_seconds;

  Labelled<prometheus::Gauge> device_needs_reset;
  std::vector<Labelled<prometheus::Counter>> device_faults;  // by device, then fault
  std::vector<DiskInstruments> disks;
  std::vector<NicInstruments> nics;

 private:
  class Builder;
  void MakeLimitInstruments(Builder& make);
  void MakePathInstruments(Builder& make, const Labels& labels);
  void MakeDeviceInstruments(Builder& make, const Labels& labels);
};

struct Metrics::Impl {
  Impl(const prometheus::Labels& constant, const Labels& labels);

  std::shared_ptr<prometheus::Registry> registry;
  Instruments instruments;
};

}  // namespace romulus::metrics

#endif  // ROMULUS_METRICS_INSTRUMENTS_H_

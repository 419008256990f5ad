// Everything that Romulus counts, with its Prometheus name, unit and help text in one place
// (instruments.cc). The only user of prometheus-cpp; no header of it is visible here.
//
// Any thread may observe; an observation costs some atomic adds and, for a histogram, a short lock,
// so it is made off the pause path (by the sender, after the resume). Label values are given once
// at construction, in the order of the owner's enum, and observed by index: an index beyond the
// list is counted under "other". The object owns its registry and must outlive its Exposer.
#ifndef ROMULUS_METRICS_METRICS_H_
#define ROMULUS_METRICS_METRICS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace romulus::metrics {

// Names behind the enums of the stations that observe.
struct Labels {
  std::vector<std::string> phases;
  std::vector<std::string> cut_reasons;
  std::vector<std::string> encodings;
  std::vector<std::string> exit_kinds;
  std::vector<std::string> frame_errors;
  std::vector<std::string> roles;
  std::vector<std::string> modes;
  // Of the guest's virtio devices: all of them, what their drivers can do wrong, and of all devices
  // those that are disks and network cards.
  std::vector<std::string> devices = {};
  std::vector<std::string> device_faults = {};
  std::vector<std::string> disks = {};
  std::vector<std::string> nics = {};
  // How the other node can be heard, and what is no beat of its.
  std::vector<std::string> paths = {};
  std::vector<std::string> beat_faults = {};
  // The arbiter that keeps a record, if there is one.
  std::vector<std::string> arbiters = {};
  std::vector<std::string> tls_refusals = {};
  std::vector<std::string> compressions = {};
  std::string version = "unknown";  // of this build
};

// What the configuration allows at most: what is measured means little without it.
struct ConfiguredLimits {
  uint64_t held_output_bytes = 0;
  uint64_t held_frames_bytes = 0;  // of each network card
  uint64_t disk_log_bytes = 0;
  uint64_t staging_bytes = 0;
  uint64_t unacked_epochs = 0;
  uint64_t heartbeat_timeout_ns = 0;
};

// Totals so far of one of the guest's disks on this host.
struct DiskTotals {
  uint64_t reads = 0;
  uint64_t read_bytes = 0;
  uint64_t writes = 0;
  uint64_t write_bytes = 0;
  uint64_t zeroes = 0;  // discards and write zeroes
  uint64_t flushes = 0;
  uint64_t errors = 0;
};

// Of one of its network cards; the last three are of now.
struct NicTotals {
  uint64_t frames_in = 0;
  uint64_t bytes_in = 0;
  uint64_t frames_out = 0;
  uint64_t bytes_out = 0;
  uint64_t dropped_in = 0;
  uint64_t dropped_out = 0;
  uint64_t bad_frames = 0;
  uint64_t mac_clashes = 0;
  uint64_t held_bytes = 0;
  uint64_t queued_bytes = 0;
  uint64_t cap_bytes_used = 0;  // by both, with what holds them
};

// One way to hear the other node, of late. Times in nanoseconds.
struct PathSample {
  bool heard = false;
  uint64_t silence_ns = 0;
  uint64_t mean_gap_ns = 0;
  uint64_t jitter_ns = 0;
  uint64_t rtt_ns = 0;  // 0: not known
};

// How a switchover ended, as this node saw it.
enum class SwitchoverResult : uint8_t {
  kDone,       // this node gave the guest away
  kRefused,    // and kept it
  kUnknown,    // the stream ended before the other node answered
  kTakenOver,  // this node got it
};
inline constexpr size_t kSwitchoverResults = 4;

// One epoch as its checkpoint left it. Times in nanoseconds.
struct EpochSample {
  size_t cut_reason = 0;
  uint64_t pages = 0;
  uint64_t pause_ns = 0;
  uint64_t interval_ns = 0;
  std::span<const uint64_t> phase_ns;  // in the order of Labels::phases
};

class Metrics {
 public:
  // `vm` and `node` become labels of every series.
  Metrics(absl::string_view vm, absl::string_view node, Labels labels);
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  void EpochCut(const EpochSample& sample);
  void EpochAcked(uint64_t ack_latency_ns);
  void EpochAborted();
  void Encoded(size_t encoding, uint64_t pages, uint64_t bytes);
  void Sent(uint64_t bytes);  // of frames
  // By index in Labels::compressions.
  void Compressed(size_t method, uint64_t raw_bytes, uint64_t wire_bytes);

  // State sets: exactly one of the labels is 1.
  void SetRole(size_t role);
  void SetMode(size_t mode, uint64_t since_unix_ms);
  void SetTerm(uint64_t term);
  void SetEpoch(uint64_t cut, uint64_t acked);
  void SetHeldOutput(uint64_t bytes);
  void SetLimits(const ConfiguredLimits& limits);
  void SetStagingUsed(uint64_t bytes);
  void SetUnackedEpochs(uint64_t epochs);
  void SetSyncProgress(uint64_t pages_done, uint64_t pages_total);
  void SetDiskSyncProgress(uint64_t bytes_done, uint64_t bytes_total);
  void SetDiskLog(uint64_t bytes);
  // How long the oldest operation on a disk or its files has been under way.
  void SetDiskWait(uint64_t wait_ns);
  void FullSyncCompleted();
  void SetPeerConnected(bool connected);
  void SetConsoleReleased(uint64_t offset_bytes);
  // What was acked but the console has not taken yet; whether writing it fails.
  void SetConsoleQueue(uint64_t bytes, bool failing);
  // These are counted where they happen; the control loop, and only it, hands over the totals so
  // far. A total that falls changes nothing.
  void SetExits(size_t kind, uint64_t total);
  void SetFrameErrors(size_t kind, uint64_t total);
  void SetCommitted(uint64_t epochs, uint64_t pages);
  void SetReceived(uint64_t bytes);
  void SetDisksCommitted(uint64_t records, uint64_t bytes, uint64_t failures);
  // Of the audit; the last pass: how long it took and when it ended (0: none yet).
  void SetAudit(uint64_t pages, uint64_t mismatches);
  void SetAuditPasses(uint64_t passes, uint64_t last_pass_ns, uint64_t last_pass_unix_ms);
  // The same of disks, in blocks.
  void SetDiskAudit(uint64_t blocks, uint64_t mismatches);
  void SetDiskAuditPasses(uint64_t passes, uint64_t last_pass_ns, uint64_t last_pass_unix_ms);
  // By index in Labels::devices, disks, nics; faults in the order of Labels::device_faults.
  void SetDevice(size_t device, bool needs_reset, std::span<const uint64_t> faults);
  void SetDisk(size_t disk, const DiskTotals& totals);
  void SetNic(size_t nic, const NicTotals& totals);
  // By index in Labels::paths, beat_faults.
  void SetPath(size_t path, const PathSample& sample);
  void SetBeatsRefused(size_t fault, uint64_t total);
  // By index in Labels::tls_refusals.
  void SetTlsRefusals(size_t reason, uint64_t total);
  // When this node's certificate expires.
  void SetTlsExpiry(int64_t unix_s);
  // Of the event journal, when it was opened.
  void SetEventsUnreadable(uint64_t lines);
  // By failover::Verdict.
  void ArbiterAnswered(size_t verdict);
  // Of the one in Labels::arbiters: whether its last answer was one to go by.
  void SetArbiterUp(bool up);
  // detect_ns is 0 when an operator asked.
  void Failover(bool by_operator, uint64_t detect_ns, uint64_t activate_ns, uint64_t at_unix_ms);

  // By SwitchoverResult, totals so far; of the last one that moved the guest, how long it stood
  // still; when the last one of all ended (0: there was none). The control loop, as above.
  void SetSwitchovers(std::span<const uint64_t> totals, uint64_t last_pause_ns,
                      uint64_t last_unix_ms);

  // The text that /metrics serves.
  std::string Text() const;

 private:
  friend class Exposer;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace romulus::metrics

#endif  // ROMULUS_METRICS_METRICS_H_

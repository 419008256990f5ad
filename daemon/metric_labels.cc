#include "daemon/metric_labels.h"

#include "absl/strings/str_cat.h"
#include "codec/frame.h"
#include "codec/page_encoding.h"
#include "daemon/guest_devices.h"
#include "daemon/version.h"
#include "devices/virtio/fault.h"
#include "epoch/phases.h"
#include "kvm/exit.h"
#include "replica/fault.h"
#include "wire/beats.h"
#include "wire/tls.h"

namespace romulus::daemon {
namespace {

template <typename Names>
std::vector<std::string> Strings(const Names& names) {
  return std::vector<std::string>(names.begin(), names.end());
}

}  // namespace

std::vector<std::string> FrameErrorNames() {
  std::vector<std::string> names;
  for (size_t i = 1; i < codec::kFrameFaultCount; ++i) {
    names.push_back(std::string(codec::kFrameFaultNames[i]));
  }
  // kNone and kFraming say nothing that the names above do not say.
  for (size_t i = 2; i < static_cast<size_t>(replica::Fault::kDiskIo); ++i) {
    names.push_back(std::string(replica::kFaultNames[i]));
  }
  return names;
}

std::vector<uint64_t> FrameErrorCounts(const replica::ReplicaCounters& counters) {
  std::vector<uint64_t> counts;
  for (size_t i = 1; i < codec::kFrameFaultCount; ++i) counts.push_back(counters.frame_faults[i]);
  for (size_t i = 2; i < static_cast<size_t>(replica::Fault::kDiskIo); ++i) {
    counts.push_back(counters.faults[i]);
  }
  return counts;
}

metrics::Labels MetricLabels(const LoadedConfig& loaded) {
  const romulus::v1::Guest& guest = loaded.config.guest();
  metrics::Labels labels;
  labels.version = kVersion;
  if (loaded.peer() != nullptr) {
    labels.paths = {"stream"};
    if (loaded.self().has_heartbeat_address()) labels.paths.push_back("second");
    if (loaded.config.failover().arbiter().has_etcd()) labels.arbiters = {"etcd"};
  }
  labels.devices = VirtioDeviceNames(guest);
  for (size_t i = 0; i < devices::kVirtioFaults; ++i) {
    const auto fault = static_cast<devices::VirtioFault>(i);
    labels.device_faults.push_back(std::string(devices::VirtioFaultName(fault)));
  }
  for (const romulus::v1::Disk& disk : guest.disks()) labels.disks.push_back(disk.name());
  for (int i = 0; i < guest.nics_size(); ++i) labels.nics.push_back(absl::StrCat(i));
  labels.beat_faults = Strings(wire::kBeatFaultNames);
  labels.tls_refusals = Strings(wire::kTlsRefusalNames);
  labels.phases = Strings(epoch::kPhaseNames);
  labels.cut_reasons = Strings(epoch::kCutReasonNames);
  labels.encodings = Strings(codec::kPageEncodingNames);
  labels.compressions = Strings(codec::kCompressionNames);
  labels.exit_kinds = Strings(kvm::kExitNames);
  labels.frame_errors = FrameErrorNames();
  for (const failover::Role role : {failover::Role::kPrimary, failover::Role::kSecondary}) {
    labels.roles.push_back(std::string(failover::RoleName(role)));
  }
  for (size_t mode = 0; mode <= static_cast<size_t>(failover::Mode::kFinished); ++mode) {
    labels.modes.push_back(std::string(failover::ModeName(static_cast<failover::Mode>(mode))));
  }
  return labels;
}

metrics::ConfiguredLimits LimitsOf(const romulus::v1::Config& config) {
  const romulus::v1::Checkpoint& checkpoint = config.checkpoint();
  return {.held_output_bytes = uint64_t{checkpoint.held_output_kib()} << 10,
          .held_frames_bytes = uint64_t{checkpoint.held_frames_kib()} << 10,
          .disk_log_bytes = uint64_t{checkpoint.disk_log_mib()} << 20,
          .staging_bytes = uint64_t{checkpoint.staging_mib()} << 20,
          .unacked_epochs = checkpoint.max_unacked_epochs(),
          .heartbeat_timeout_ns = uint64_t{config.failover().heartbeat_timeout_ms()} * 1'000'000};
}

romulus::v1::Mode ModeToProto(failover::Mode mode) {
  switch (mode) {
    case failover::Mode::kSolo:
      return romulus::v1::MODE_SOLO;
    case failover::Mode::kSyncing:
      return romulus::v1::MODE_SYNCING;
    case failover::Mode::kProtected:
      return romulus::v1::MODE_PROTECTED;
    case failover::Mode::kDegraded:
      return romulus::v1::MODE_DEGRADED;
    case failover::Mode::kStandby:
      return romulus::v1::MODE_STANDBY;
    case failover::Mode::kPromoting:
      return romulus::v1::MODE_PROMOTING;
    case failover::Mode::kFenced:
      return romulus::v1::MODE_FENCED;
    case failover::Mode::kFinished:
      return romulus::v1::MODE_FINISHED;
  }
  return romulus::v1::MODE_UNSPECIFIED;
}

romulus::v1::Goodbye::Reason GoodbyeToProto(failover::GoodbyeReason reason) {
  using Goodbye = romulus::v1::Goodbye;
  switch (reason) {
    case failover::GoodbyeReason::kShutdown:
      return Goodbye::REASON_SHUTDOWN;
    case failover::GoodbyeReason::kGuestFinished:
      return Goodbye::REASON_GUEST_FINISHED;
    case failover::GoodbyeReason::kProtocol:
      return Goodbye::REASON_PROTOCOL;
    case failover::GoodbyeReason::kPromoted:
      return Goodbye::REASON_PROMOTED;
    case failover::GoodbyeReason::kUnprotect:
      return Goodbye::REASON_UNPROTECT;
    case failover::GoodbyeReason::kCap:
      return Goodbye::REASON_CAP;
    case failover::GoodbyeReason::kDisk:
      return Goodbye::REASON_DISK;
    case failover::GoodbyeReason::kHandOverFailed:
      return Goodbye::REASON_HAND_OVER_FAILED;
    case failover::GoodbyeReason::kReplicaWrong:
      return Goodbye::REASON_REPLICA_WRONG;
  }
  return Goodbye::REASON_UNSPECIFIED;
}

}  // namespace romulus::daemon

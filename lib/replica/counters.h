// What sessions count; the daemon owns one for all of them and exports it. Any thread.
#ifndef ROMULUS_REPLICA_COUNTERS_H_
#define ROMULUS_REPLICA_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstdint>

#include "codec/frame.h"
#include "replica/fault.h"

namespace romulus::replica {

struct ReplicaCounters {
  std::atomic<uint64_t> messages{0};
  std::atomic<uint64_t> message_bytes{0};
  std::array<std::atomic<uint64_t>, codec::kFrameKindEnd> frames{};           // good, by FrameKind
  std::array<std::atomic<uint64_t>, codec::kFrameFaultCount> frame_faults{};  // by FrameFault
  std::array<std::atomic<uint64_t>, kFaultCount> faults{};                    // by Fault
  std::atomic<uint64_t> epochs_committed{0};
  std::atomic<uint64_t> epochs_aborted{0};
  std::atomic<uint64_t> pages_committed{0};
  std::atomic<uint64_t> disk_records_committed{0};
  std::atomic<uint64_t> disk_bytes_committed{0};  // written by them
  std::atomic<uint64_t> disk_failures{0};         // this node's disks could not take what came
  std::atomic<uint64_t> audited_pages{0};         // compared here with what the primary's are
  std::atomic<uint64_t> audit_mismatches{0};      // of those, named as not equal
  std::atomic<uint64_t> audited_blocks{0};        // the same of blocks of disks
  std::atomic<uint64_t> audit_block_mismatches{0};
  std::atomic<uint64_t> acks_sent{0};
  std::atomic<uint64_t> streams_opened{0};
  std::atomic<uint64_t> streams_refused{0};    // by HelloPolicy
  std::atomic<uint64_t> frames_after_seal{0};  // ignored, the replica being promoted
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_COUNTERS_H_

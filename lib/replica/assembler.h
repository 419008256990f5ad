// Puts the epochs of one stream together: pages decoded into staging, disk writes gathered, order,
// counts and digests verified. All or nothing: an epoch comes out whole from Commit(), or not at
// all; nothing here writes guest memory or a disk. One thread at a time; borrows the memory, whose
// pages are what deltas refer to, so an epoch that came out must be applied before the next frame
// goes in.
#ifndef ROMULUS_REPLICA_ASSEMBLER_H_
#define ROMULUS_REPLICA_ASSEMBLER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/types.h"
#include "codec/audit_records.h"
#include "codec/disk_records.h"
#include "codec/frame.h"
#include "codec/machine_delta.h"
#include "codec/page_digest.h"
#include "epoch/staged_epoch.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"
#include "replica/epoch_key.h"
#include "replica/staged_pages.h"
#include "state/machine_state.h"

namespace romulus::v1 {
class EpochCommit;
}

namespace romulus::replica {

// One epoch, complete and verified.
struct AssembledEpoch {
  EpochKey key;
  uint64_t page_count = 0;  // also of pages that were written with equal bytes, not in `pages`
  StagedPages pages;
  std::vector<epoch::DiskWrite> disk_writes;  // in the order in which they were begun
  uint64_t disk_bytes = 0;                    // written by them
  codec::AuditHashes audit;  // to be compared once the epoch is in memory and on the disks
  state::MachineState machine;
  uint64_t console_offset = 0;  // of console_bytes[0] in the guest's console stream
  std::string console_bytes;
  uint64_t console_released = 0;   // how much of the stream the primary had released
  uint64_t sent_monotonic_ns = 0;  // the primary's clock, to be echoed
};

class Assembler {
 public:
  // `staging_cap_bytes`: most that one epoch's pages and disk writes may cost here (P6). `disks`:
  // those that are replicated.
  Assembler(const memory::GuestMemory* memory, uint64_t staging_cap_bytes,
            codec::DiskLayout disks = {});

  // A full sync ended: from now on epochs are taken, the first of any number.
  void Start();

  // Frames of kinds EpochPages, EpochDisks, EpochAudit, EpochCommit, EpochAbort. Numbers rise by
  // one within a term; a newer term begins between epochs, with epoch 1. After an abort the number
  // may be used again or not. An error (with its Fault) means that the stream is over: as after
  // Stop().
  absl::Status AddPages(const codec::Frame& frame);
  absl::Status AddDisks(const codec::Frame& frame);
  absl::Status AddAudit(const codec::Frame& frame);  // at most one in an epoch
  absl::StatusOr<AssembledEpoch> Commit(const codec::Frame& frame);
  absl::Status Abort(const codec::Frame& frame);

  // Forgets the open epoch; nothing is taken until Start().
  void Stop();
  // Memory of an epoch that was applied, to be used again.
  void Recycle(StagedPages&& spent);

  // What the open epoch costs.
  uint64_t staged_bytes() const {
    return staged_.bytes() + disk_staged_bytes_ + audit_staged_bytes_;
  }
  bool epoch_open() const { return open_; }

 private:
  absl::Status Enter(const codec::Frame& frame);
  absl::Status Stage(const codec::Frame& frame);
  absl::Status StageDisks(const codec::Frame& frame);
  absl::Status StageAudit(const codec::Frame& frame);
  absl::Status CheckCap() const;
  absl::Status CheckDigests(const v1::EpochCommit& commit) const;
  absl::StatusOr<state::MachineState> TakeMachine(const v1::EpochCommit& commit,
                                                  const codec::Dialect& dialect);
  absl::StatusOr<AssembledEpoch> Complete(const codec::Frame& frame);
  void CloseEpoch();

  const memory::GuestMemory* memory_;
  const uint64_t staging_cap_bytes_;
  const codec::DiskLayout disks_;
  bool started_ = false;
  bool first_ = true;  // no epoch seen since Start()
  EpochKey newest_;    // highest seen, committed or aborted
  EpochId committed_;  // highest committed of newest_.term

  codec::MachineDeltaReader machine_;

  bool open_ = false;
  EpochKey current_;
  StagedPages staged_;
  memory::PageSet seen_;
  uint64_t page_count_ = 0;
  codec::PagesDigest digest_;
  std::vector<epoch::DiskWrite> disk_writes_;
  uint64_t disk_bytes_ = 0;         // that they write
  uint64_t disk_staged_bytes_ = 0;  // that they cost
  codec::DiskDigest disk_digest_;
  std::optional<codec::AuditHashes> audit_;
  uint64_t audit_staged_bytes_ = 0;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_ASSEMBLER_H_

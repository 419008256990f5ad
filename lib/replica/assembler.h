// Puts the epochs of one stream together: pages decoded into staging, order, counts and digests
// verified. All or nothing: an epoch comes out whole from Commit(), or not at all; nothing here
// writes guest memory. One thread at a time; borrows the memory, whose pages are what deltas refer
// to, so an epoch that came out must be applied before the next frame goes in.
#ifndef ROMULUS_REPLICA_ASSEMBLER_H_
#define ROMULUS_REPLICA_ASSEMBLER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/types.h"
#include "codec/frame.h"
#include "codec/page_digest.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"
#include "replica/epoch_key.h"
#include "replica/staged_pages.h"
#include "state/machine_state.h"

namespace romulus::replica {

// One epoch, complete and verified.
struct AssembledEpoch {
  EpochKey key;
  uint64_t page_count = 0;  // also of pages that were written with equal bytes, not in `pages`
  StagedPages pages;
  state::MachineState machine;
  uint64_t console_offset = 0;  // of console_bytes[0] in the guest's console stream
  std::string console_bytes;
  uint64_t console_released = 0;   // how much of the stream the primary had released
  uint64_t sent_monotonic_ns = 0;  // the primary's clock, to be echoed
};

class Assembler {
 public:
  // `staging_cap_bytes`: most that one epoch may cost here (P6).
  Assembler(const memory::GuestMemory* memory, uint64_t staging_cap_bytes);

  // A full sync ended: from now on epochs are taken, the first of any number.
  void Start();

  // Frames of kinds EpochPages, EpochCommit, EpochAbort. Numbers rise by one within a term; a newer
  // term begins between epochs, with epoch 1. After an abort the number may be used again or not.
  // An error (with its Fault) means that the stream is over: as after Stop().
  absl::Status AddPages(const codec::Frame& frame);
  absl::StatusOr<AssembledEpoch> Commit(const codec::Frame& frame);
  absl::Status Abort(const codec::Frame& frame);

  // Forgets the open epoch; nothing is taken until Start().
  void Stop();
  // Memory of an epoch that was applied, to be used again.
  void Recycle(StagedPages&& spent);

  uint64_t staged_bytes() const { return staged_.bytes(); }
  bool epoch_open() const { return open_; }

 private:
  absl::Status Enter(const codec::Frame& frame);
  absl::Status Stage(const codec::Frame& frame);
  absl::StatusOr<AssembledEpoch> Complete(const codec::Frame& frame);
  void CloseEpoch();

  const memory::GuestMemory* memory_;
  const uint64_t staging_cap_bytes_;
  bool started_ = false;
  bool first_ = true;  // no epoch seen since Start()
  EpochKey newest_;    // highest seen, committed or aborted
  EpochId committed_;  // highest committed of newest_.term

  bool open_ = false;
  EpochKey current_;
  StagedPages staged_;
  memory::PageSet seen_;
  uint64_t page_count_ = 0;
  codec::PagesDigest digest_;
};

}  // namespace romulus::replica

#endif  // ROMULUS_REPLICA_ASSEMBLER_H_

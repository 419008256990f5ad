// Copies all guest memory, and the disks before and beside it, to the secondary while the guest
// runs: one pass over every page, then rounds over what was dirtied meanwhile, until little is
// left. Zero pages travel as names only, and are named again whenever they turn zero. A page torn
// by the running guest is harmless: it is dirty, so a later round or epoch 1 sends it again.
//
// Run() on one thread of the caller's choice; Cancel() from any. Owns nothing it is given.
#ifndef ROMULUS_WIRE_FULL_SYNC_H_
#define ROMULUS_WIRE_FULL_SYNC_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/types.h"
#include "codec/epoch_encoder.h"
#include "memory/guest_memory.h"
#include "memory/page_set.h"
#include "wire/disk_sync.h"

namespace romulus::wire {

class FrameSender;

// Owned by wire, implemented by the checkpoint loop.
class SyncSource {
 public:
  virtual ~SyncSource() = default;
  // Called once, before the first page is read: from then on dirty pages are tracked. (Not sooner:
  // the disks come first and take long, and tracking costs the guest time.)
  virtual absl::Status BeginTracking() { return absl::OkStatus(); }
  // All pages written since the last call (the first call: since tracking began), harvested in a
  // short pause.
  virtual absl::StatusOr<memory::PageSet> TakeDirty() = 0;
};

struct SyncProgress {
  uint64_t round = 0;                   // 0 is the pass over all memory
  uint64_t pages_done = 0;              // in this round
  uint64_t pages_total = 0;             // in this round
  uint64_t pages_sent = 0;              // all rounds, with their bytes
  uint64_t pages_zero = 0;              // all rounds, named only
  uint64_t bytes_sent = 0;              // frames, all rounds
  codec::CompressionStats compression;  // all rounds, with the disks
  std::vector<DiskProgress> disks;
};

struct FullSyncOptions {
  Term term{};
  uint64_t max_rounds = 16;           // after the first pass
  uint64_t target_dirty_pages = 256;  // a round this small is the last
  // A round that sends more than this share of the round before does not converge: it is the last.
  double give_up_ratio = 0.9;
  uint64_t progress_every_pages = 4096;
  std::function<void(const SyncProgress&)> on_progress{};  // on Run()'s thread; may be empty
  DiskSyncOptions disks{};
};

class FullSync {
 public:
  // All outlive this object. `disks` may be null: none is replicated. `disks_all_zero`,
  // `max_body_bytes`: see DiskSync.
  FullSync(const FullSyncOptions& options, const memory::GuestMemory* guest_memory,
           SyncSource* source, FrameSender* sender, DiskSyncSource* disks = nullptr,
           std::vector<uint32_t> disks_all_zero = {},
           size_t max_body_bytes = codec::kDefaultMaxBodyBytes);

  // SyncBegin, disks, pages, SyncEnd. What is dirtied after the last TakeDirty belongs to epoch 1,
  // as do the disk writes after SwitchToLogging. Errors: Cancelled; the sources'; the link's.
  absl::StatusOr<SyncProgress> Run();
  void Cancel();
  // The body of a DiskHashes frame; any thread. Errors: InvalidArgument, if nobody asked for it.
  absl::Status OnDiskHashes(absl::string_view body);

 private:
  absl::Status PassOverMemory();
  absl::Status MemoryRounds();
  absl::Status DirtyRound(uint64_t* pages);
  absl::Status Round(const memory::PageSet& dirty);
  absl::Status SendPages(std::span<const Gfn> pages);
  absl::Status SendRange(Gfn first, uint64_t count);
  absl::Status SendZeros(Gfn first, uint64_t count);
  void Count(const codec::EncodeStats& stats);
  void MeasureLink(uint64_t bytes, uint64_t send_ns);
  absl::Status Took(uint64_t pages);

  FullSyncOptions options_;
  const memory::GuestMemory* guest_memory_;
  SyncSource* source_;
  FrameSender* sender_;
  std::optional<DiskSync> disks_;
  SyncProgress progress_;
  uint64_t told_at_pages_ = 0;  // of the round, when on_progress was last called
  // Since the link was last judged.
  uint64_t measured_bytes_ = 0;
  uint64_t measured_ns_ = 0;
  bool link_is_fast_ = false;
  std::atomic<bool> cancelled_{false};
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_FULL_SYNC_H_

// The primary's half of the audit: walks over guest memory, a window behind the running guest for
// each epoch, so that a whole pass takes a configured time, and says which of the window's hashes
// are those of an epoch. The secondary compares them with its own copy at exactly that epoch
// (replica/replica_store.h).
//
// A hash that was taken at any moment between the cuts of epochs E and E+1 is that of the page in
// E+1 (and in E) if the page is not dirty in E+1: then nobody wrote it between the two cuts. A page
// that is dirty travels with E+1 itself, under that epoch's digest, and needs no other comparison.
// So nothing is hashed while the guest stands still; a page that changes under the reading is
// dirty, and its hash dropped; and a hash that is sent and wrong means that the tracking has lost a
// write, or that the replica has changed by itself: there are no false alarms to be told from them.
//
// An aborted checkpoint changes nothing: its pages are dirty in the next one, too.
//
// Checkpoint thread only, but progress() and IsBehind(), and BeginStream() while that thread rests.
// The memory and the clock outlive the auditor.
#ifndef ROMULUS_EPOCH_AUDITOR_H_
#define ROMULUS_EPOCH_AUDITOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/clock.h"
#include "base/types.h"
#include "epoch/staged_epoch.h"
#include "memory/guest_memory.h"
#include "memory/page_hash.h"
#include "memory/page_set.h"

namespace romulus::epoch {

struct AuditOptions {
  uint64_t pass_ns = 300'000'000'000;           // a whole pass of memory
  size_t max_pages_per_epoch = kMaxAuditPages;  // at most that; a pass takes longer if it must
};

// Of the passes on this stream, but for `passes` and what is said of the last one.
struct AuditProgress {
  uint64_t pages_done = 0;        // of the pass under way; sent, or travelled with their epoch
  uint64_t pages_total = 0;       // of memory
  uint64_t passes = 0;            // done since the guest came here
  uint64_t last_pass_ns = 0;      // how long the last one took
  uint64_t last_pass_end_ns = 0;  // by the clock; 0: none yet
};

class Auditor {
 public:
  Auditor(const memory::GuestMemory* guest_memory, const base::Clock* clock,
          const AuditOptions& options);

  // A new stream, before its first epoch is cut: a pass begins.
  void BeginStream();
  // Behind the running guest, between two cuts: hashes a few of the pages that are due, if any is.
  // True if there are more.
  bool HashSome();
  // In the pause: `dirty` is all that was written since the last cut that did not fail.
  void OnHarvest(const memory::PageSet& dirty);
  // The checkpoint has not failed: the hashes that are those of its epoch, ascending. The window is
  // done.
  std::vector<AuditRun> TakeRuns();

  // The pass could go on if an epoch were cut now, and late it would be otherwise: more than a part
  // of it (kAuditSlack) is due and not sent, or all of it is due. Any thread.
  bool IsBehind() const;
  // Any thread.
  AuditProgress progress() const;

 private:
  struct Hashed {
    Gfn gfn;
    memory::PageHash128 hash;
    bool valid = false;
  };

  uint64_t PagesDue() const;

  const memory::GuestMemory* const memory_;
  const base::Clock* const clock_;
  const AuditOptions options_;
  const uint64_t total_;
  const std::unique_ptr<std::byte[]> buffer_;
  std::vector<Hashed> window_;

  // Written by the checkpoint thread.
  std::atomic<uint64_t> pass_began_ns_{0};
  std::atomic<uint64_t> done_{0};
  std::atomic<uint64_t> passes_{0};
  std::atomic<uint64_t> last_pass_ns_{0};
  std::atomic<uint64_t> last_pass_end_ns_{0};
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_AUDITOR_H_

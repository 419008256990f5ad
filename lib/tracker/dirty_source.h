// One source of dirt: where to learn which pages the guest wrote. Ring and bitmap are two; logs of
// VFIO or vhost devices will be others. Called by whoever is at the checkpoint, unless said
// otherwise.
#ifndef ROMULUS_TRACKER_DIRTY_SOURCE_H_
#define ROMULUS_TRACKER_DIRTY_SOURCE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "memory/page_set.h"

namespace romulus::tracker {

class DirtySource {
 public:
  virtual ~DirtySource() = default;
  virtual absl::string_view name() const = 0;  // "ring", "bitmap"

  // Moves every page written since the last Harvest() into `into`. All vCPUs are out of the guest,
  // or entries that their CPU still buffers would be missed. Errors: Internal for entries that name
  // pages outside memory, errno of the ioctl; what was collected so far is in `into` even then.
  virtual absl::Status Harvest(memory::PageSet& into) = 0;
  // Makes KVM log the harvested pages again. Before any of those pages is read: a write between the
  // reading and the reset would be lost. Idempotent; to be repeated after an error.
  virtual absl::Status Reset() = 0;
  // How many dirty pages end an epoch. Before the next Reset(); any thread.
  virtual void SetBudget(uint64_t) {}
  // Whether the guest stands still by itself, as with a full ring, when so many pages are dirty;
  // nobody has to look and to stop it then. Any thread.
  virtual bool StopsItselfAt(uint64_t) const { return false; }
  // It could stop itself there, had its rings more ballast (vmm/ring_ballast.h). Once they are full
  // of it, and not before, Settle() takes what is needed.
  virtual bool LacksBallast() const { return false; }
  virtual absl::Status Settle() { return absl::OkStatus(); }
  // Whether it can tell anything by LikelyCount(). Any thread.
  virtual bool Tells() const { return true; }
  // A hint, taken without stopping anybody: whether about `pages` pages are dirty already. May be
  // wrong either way. Any thread.
  bool LikelyAtLeast(uint64_t pages) const { return LikelyCount(pages) >= pages; }
  // The same kind of hint: how many pages are dirty, `most` if more are. A source that cannot tell
  // says 0.
  virtual uint64_t LikelyCount(uint64_t most) const = 0;
  // The same kind of hint: whether nothing is dirty. A source that cannot tell says false. Where
  // the CPU buffers entries (PML), those of a guest that has not left it since are not seen.
  virtual bool LikelyNone() const = 0;
};

}  // namespace romulus::tracker

#endif  // ROMULUS_TRACKER_DIRTY_SOURCE_H_

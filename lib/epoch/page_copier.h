// Copies pages of a guest that stands still to staging. Of many pages several threads copy: while
// the guest stands its vCPUs' CPUs are free. The caller copies too, and never waits for a helper
// that has not begun; fewer pages are copied before any would have woken up.
#ifndef ROMULUS_EPOCH_PAGE_COPIER_H_
#define ROMULUS_EPOCH_PAGE_COPIER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/cond_var.h"
#include "epoch/staged_epoch.h"
#include "memory/guest_memory.h"

namespace romulus::epoch {

// How many threads may help: with the one that makes the checkpoint as many as there are CPUs,
// those of the caller and the vCPUs' own (`vcpu_cpus`, base/spare_cpu.h), but not many, as copying
// is soon bound by memory.
int CopyHelpers(std::span<const int> vcpu_cpus);

class PageCopier {
 public:
  // Where there are fewer pages nobody helps.
  static constexpr size_t kLeastShared = 768;

  // The threads run where the caller may. `memory` outlives this.
  PageCopier(const memory::GuestMemory* memory, int helpers);
  ~PageCopier();
  PageCopier(const PageCopier&) = delete;
  PageCopier& operator=(const PageCopier&) = delete;

  // Fills the chunks with the pages that `batches` name; all but the last batch are full. One call
  // at a time.
  void Copy(std::span<PageBatch> batches);

  // Pages that helpers have copied, ever. Any thread.
  uint64_t helped_pages() const { return helped_pages_.load(std::memory_order_relaxed); }

 private:
  // What one thread takes at a time, some 20 us: so long at most is a helper waited for.
  static constexpr size_t kPiecePages = 32;
  static_assert(StagingChunk::kPages % kPiecePages == 0);

  void HelperMain();
  // Copies pieces until all are taken; returns how many pages.
  size_t CopyPieces() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CopyPiece(std::span<PageBatch> batches, size_t piece) const;
  void AwaitHelpers() const;

  const memory::GuestMemory* const memory_;
  absl::Mutex mutex_;
  base::CondVar changed_;  // there are pieces, or stopping_
  std::span<PageBatch> batches_ ABSL_GUARDED_BY(mutex_);
  size_t next_piece_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t pieces_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<int> helping_{0};  // helpers with a piece; rises with mutex_ held only
  std::atomic<uint64_t> helped_pages_{0};
  std::vector<std::thread> helpers_;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_PAGE_COPIER_H_

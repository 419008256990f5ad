// Copies pages of a guest that stands still to staging. Of many pages several threads copy: while
// the guest stands its vCPUs' CPUs are free. The caller copies too, and waits for no helper that
// has not begun; for one that has, until it is done with its piece, however busy its CPU is. Fewer
// pages are copied before any helper would have woken up.
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

struct PageCopierOptions {
  int helpers = 0;
  size_t least_shared_pages = 768;  // where there are fewer nobody helps
};

// How many threads can help: one for each CPU that the caller may run on, as they do, but for that
// of the thread which makes the checkpoint, unless it is a vCPU's on a CPU of its own
// (`vcpu_cpus`, base/spare_cpu.h). Not many: copying is soon bound by memory.
int CopyHelpers(std::span<const int> vcpu_cpus);

class PageCopier {
 public:
  // The threads run where the caller may; where one cannot be started there are fewer. `memory`
  // outlives this.
  PageCopier(const memory::GuestMemory* memory, const PageCopierOptions& options);
  ~PageCopier();
  PageCopier(const PageCopier&) = delete;
  PageCopier& operator=(const PageCopier&) = delete;

  // Fills the chunks with the pages that `batches` name; all but the last batch are full. One call
  // at a time.
  void Copy(std::span<PageBatch> batches);

  // Pages that helpers have copied, ever. Any thread.
  uint64_t helped_pages() const { return helped_pages_.load(std::memory_order_relaxed); }

 private:
  // What one thread takes at a time: some 20 us.
  static constexpr size_t kPiecePages = 32;
  static_assert(StagingChunk::kPages % kPiecePages == 0);

  void HelperMain();
  // Copies pieces until all are taken; returns how many pages.
  size_t CopyPieces() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CopyPiece(std::span<PageBatch> batches, size_t piece) const;
  void AwaitHelpers() const;

  const memory::GuestMemory* const memory_;
  const size_t least_shared_pages_;
  absl::Mutex mutex_;
  base::CondVar changed_;  // there are more pieces, or stopping_
  std::span<PageBatch> batches_ ABSL_GUARDED_BY(mutex_);
  size_t next_piece_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t pieces_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<uint32_t> helping_{0};  // helpers with a piece; rises with mutex_ held only
  std::atomic<uint64_t> helped_pages_{0};
  std::vector<std::thread> helpers_;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_PAGE_COPIER_H_

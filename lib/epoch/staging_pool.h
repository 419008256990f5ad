// Bounded memory for copies of dirty pages (P6). The pool must outlive its chunks. Acquire from the
// checkpoint thread; chunks may be released on any thread.
#ifndef ROMULUS_EPOCH_STAGING_POOL_H_
#define ROMULUS_EPOCH_STAGING_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/cond_var.h"
#include "base/mapped_region.h"
#include "base/types.h"

namespace romulus::epoch {

class StagingPool;

// 64 pages of staging memory; goes back to its pool when destroyed. Move-only.
class StagingChunk {
 public:
  static constexpr size_t kPages = 64;
  static constexpr size_t kBytes = kPages * kPageSize;

  StagingChunk() = default;
  StagingChunk(StagingChunk&& other) noexcept;
  StagingChunk& operator=(StagingChunk&& other) noexcept;
  StagingChunk(const StagingChunk&) = delete;
  StagingChunk& operator=(const StagingChunk&) = delete;
  ~StagingChunk();

  std::byte* data() const { return data_; }

 private:
  friend class StagingPool;
  StagingChunk(StagingPool* pool, std::byte* data) : pool_(pool), data_(data) {}

  StagingPool* pool_ = nullptr;
  std::byte* data_ = nullptr;
};

class StagingPool {
 public:
  // Rounds down to whole chunks, at least two. Takes no memory yet. Errors: errno of mmap.
  static absl::StatusOr<std::unique_ptr<StagingPool>> Create(uint64_t cap_bytes);
  ~StagingPool();

  // Gives the pool its memory, so that no page fault falls into a pause: there it costs more than
  // the copy it serves. Takes its time (some 0.3 ms per MiB); chunks may be taken meanwhile. Ends
  // early when the pool is closed.
  void Populate();

  // nullopt if the pool is empty right now.
  std::optional<StagingChunk> TryAcquire();
  // Waits for a chunk. Errors: DeadlineExceeded; Cancelled after Close().
  absl::StatusOr<StagingChunk> Acquire(absl::Duration timeout);
  // Wakes every waiter with Cancelled; Reopen() undoes it.
  void Close();
  void Reopen();

  uint64_t cap_bytes() const { return memory_.size_bytes(); }
  uint64_t used_bytes() const;

 private:
  friend class StagingChunk;
  explicit StagingPool(base::MappedRegion memory);
  void Release(std::byte* data);

  base::MappedRegion memory_;
  mutable absl::Mutex mutex_;
  base::CondVar changed_;  // free_ has more, or closed_
  std::vector<std::byte*> free_ ABSL_GUARDED_BY(mutex_);
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_STAGING_POOL_H_

#include "epoch/staging_pool.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status.h"

namespace romulus::epoch {

StagingChunk::StagingChunk(StagingChunk&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), data_(std::exchange(other.data_, nullptr)) {}

StagingChunk& StagingChunk::operator=(StagingChunk&& other) noexcept {
  std::swap(pool_, other.pool_);
  std::swap(data_, other.data_);
  return *this;
}

StagingChunk::~StagingChunk() {
  if (data_ != nullptr) pool_->Release(data_);
}

absl::StatusOr<std::unique_ptr<StagingPool>> StagingPool::Create(uint64_t cap_bytes) {
  const uint64_t chunks = std::max<uint64_t>(2, cap_bytes / StagingChunk::kBytes);
  ROMULUS_ASSIGN_OR_RETURN(base::MappedRegion memory,
                           base::MappedRegion::MapAnonymous(chunks * StagingChunk::kBytes));
  return std::unique_ptr<StagingPool>(new StagingPool(std::move(memory)));
}

StagingPool::StagingPool(base::MappedRegion memory) : memory_(std::move(memory)) {
  absl::MutexLock lock(&mutex_);
  const size_t chunks = memory_.size_bytes() / StagingChunk::kBytes;
  free_.reserve(chunks);
  // Last in, first out: a small working set keeps using the same, cached chunks.
  for (size_t i = chunks; i > 0; --i) {
    free_.push_back(memory_.data() + (i - 1) * StagingChunk::kBytes);
  }
}

StagingPool::~StagingPool() {
  ROMULUS_CHECK(used_bytes() == 0);  // a chunk outlived its pool
}

void StagingPool::Populate() {
  constexpr size_t kStepBytes = 16 * StagingChunk::kBytes;
  for (size_t at = 0; at < memory_.size_bytes(); at += kStepBytes) {
    {
      absl::MutexLock lock(&mutex_);
      if (closed_) return;
    }
    memory_.Populate(at, std::min(kStepBytes, memory_.size_bytes() - at));
  }
}

std::optional<StagingChunk> StagingPool::TryAcquire() {
  absl::MutexLock lock(&mutex_);
  if (free_.empty()) return std::nullopt;
  std::byte* data = free_.back();
  free_.pop_back();
  return StagingChunk(this, data);
}

absl::StatusOr<StagingChunk> StagingPool::Acquire(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto ready = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return closed_ || !free_.empty();
  };
  if (!ready() && !changed_.AwaitUntil(&mutex_, base::CondVar::After(timeout), ready)) {
    return absl::DeadlineExceededError("no staging memory was given back in time");
  }
  if (closed_) return absl::CancelledError("staging is closed");
  std::byte* data = free_.back();
  free_.pop_back();
  return StagingChunk(this, data);
}

void StagingPool::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  changed_.SignalAll();
}

void StagingPool::Reopen() {
  absl::MutexLock lock(&mutex_);
  closed_ = false;
}

uint64_t StagingPool::used_bytes() const {
  absl::MutexLock lock(&mutex_);
  return memory_.size_bytes() - free_.size() * StagingChunk::kBytes;
}

void StagingPool::Release(std::byte* data) {
  absl::MutexLock lock(&mutex_);
  free_.push_back(data);
  changed_.Signal();
}

}  // namespace romulus::epoch

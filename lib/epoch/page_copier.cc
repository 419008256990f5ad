#include "epoch/page_copier.h"

#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <system_error>

#include "base/cpu_affinity.h"
#include "base/wait.h"

namespace romulus::epoch {
namespace {

constexpr int kMostHelpers = 3;
// A helper's piece takes no longer if it has its CPU.
constexpr std::chrono::microseconds kPieceTime(50);

size_t CountPages(std::span<const PageBatch> batches) {
  if (batches.empty()) return 0;
  return (batches.size() - 1) * StagingChunk::kPages + batches.back().gfns.size();
}

}  // namespace

int CopyHelpers(std::span<const int> vcpu_cpus) {
  const int beside_the_caller = base::CountCpus(vcpu_cpus) - 1;
  return std::min({beside_the_caller, base::CountCpus({}), kMostHelpers});
}

PageCopier::PageCopier(const memory::GuestMemory* memory, const PageCopierOptions& options)
    : memory_(memory), least_shared_pages_(options.least_shared_pages) {
  try {
    for (int i = 0; i < options.helpers; ++i) helpers_.emplace_back([this] { HelperMain(); });
  } catch (const std::system_error&) {
    // No more threads here (pthread_create(3), EAGAIN). Nobody needs these.
  }
}

PageCopier::~PageCopier() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.SignalAll();
  }
  for (std::thread& helper : helpers_) helper.join();
}

void PageCopier::Copy(std::span<PageBatch> batches) {
  const size_t pages = CountPages(batches);
  const size_t pieces = (pages + kPiecePages - 1) / kPiecePages;
  if (helpers_.empty() || pages < least_shared_pages_) {
    for (size_t piece = 0; piece < pieces; ++piece) CopyPiece(batches, piece);
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    batches_ = batches;
    next_piece_ = 0;
    pieces_ = pieces;
    changed_.Signal();
    CopyPieces();
  }
  AwaitHelpers();
}

void PageCopier::HelperMain() {
  ::pthread_setname_np(::pthread_self(), "page_copier");
  absl::MutexLock lock(&mutex_);
  while (!stopping_) {
    if (next_piece_ == pieces_) {
      changed_.Wait(&mutex_);
      continue;
    }
    // One wakes the next: the caller, who wakes the first, has pages to copy.
    if (pieces_ - next_piece_ > 1) changed_.Signal();
    helping_.fetch_add(1, std::memory_order_relaxed);
    const size_t pages = CopyPieces();
    helped_pages_.fetch_add(pages, std::memory_order_relaxed);
    // What was copied is to be seen by whoever sees this.
    if (helping_.fetch_sub(1, std::memory_order_release) == 1) helping_.notify_all();
  }
}

size_t PageCopier::CopyPieces() {
  size_t pages = 0;
  while (next_piece_ < pieces_) {
    const size_t piece = next_piece_++;
    const std::span<PageBatch> batches = batches_;
    pages += std::min(kPiecePages, CountPages(batches) - piece * kPiecePages);
    mutex_.Unlock();
    CopyPiece(batches, piece);
    mutex_.Lock();
  }
  return pages;
}

void PageCopier::CopyPiece(std::span<PageBatch> batches, size_t piece) const {
  constexpr size_t kPiecesPerChunk = StagingChunk::kPages / kPiecePages;
  PageBatch& batch = batches[piece / kPiecesPerChunk];
  const size_t first = piece % kPiecesPerChunk * kPiecePages;
  const size_t end = std::min(first + kPiecePages, batch.gfns.size());
  for (size_t i = first; i < end; ++i) {
    std::memcpy(batch.chunk.data() + i * kPageSize, memory_->Page(batch.gfns[i]).data(), kPageSize);
  }
}

void PageCopier::AwaitHelpers() const {
  base::WaitFor(helping_, kPieceTime, [](uint32_t helping) { return helping == 0; });
}

}  // namespace romulus::epoch

#include "disk/file_disk.h"

#include <utility>

#include "absl/status/status.h"

namespace romulus::disk {

using devices::BlockRequest;
using devices::BlockResult;

FileDisk::FileDisk(std::shared_ptr<File> file, base::Executor& device_loop,
                   const FileDiskOptions& options)
    : file_(std::move(file)), device_loop_(device_loop) {
  for (int i = 0; i < options.workers; ++i) workers_.emplace_back([this] { WorkerMain(); });
}

FileDisk::~FileDisk() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    queue_.clear();
  }
  queued_.SignalAll();
  for (std::thread& worker : workers_) worker.join();
}

void FileDisk::Submit(BlockRequest request, std::function<void(BlockResult)> done) {
  {
    absl::MutexLock lock(&mutex_);
    queue_.push_back({std::move(request), std::move(done)});
  }
  queued_.Signal();
}

void FileDisk::WorkerMain() {
  absl::MutexLock lock(&mutex_);
  for (;;) {
    while (queue_.empty() && !stopping_) queued_.Wait(&mutex_);
    if (stopping_) return;
    Work work = std::move(queue_.front());
    queue_.pop_front();
    mutex_.Unlock();
    BlockResult result = Do(work.request);
    device_loop_.Post([done = std::move(work.done), result = std::move(result)]() mutable {
      done(std::move(result));
    });
    mutex_.Lock();
  }
}

BlockResult FileDisk::Do(const BlockRequest& request) {
  BlockResult result;
  switch (request.kind) {
    case BlockRequest::Kind::kRead:
      result.data.resize(request.size_bytes);
      result.status = file_->Read(request.offset_bytes, result.data);
      ++counters_.reads;
      if (result.status.ok()) counters_.read_bytes += request.size_bytes;
      break;
    case BlockRequest::Kind::kWrite:
      result.status = file_->Write(request.offset_bytes, request.data);
      if (result.status.ok() && request.durable) result.status = file_->Sync();
      ++counters_.writes;
      if (result.status.ok()) counters_.write_bytes += request.size_bytes;
      break;
    case BlockRequest::Kind::kFlush:
      result.status = file_->Sync();
      ++counters_.flushes;
      break;
    case BlockRequest::Kind::kDiscard:
      result.status = file_->Zero(request.offset_bytes, request.size_bytes, /*unmap=*/true);
      ++counters_.zeroes;
      break;
    case BlockRequest::Kind::kWriteZeroes:
      result.status = file_->Zero(request.offset_bytes, request.size_bytes, request.may_unmap);
      ++counters_.zeroes;
      break;
  }
  if (!result.status.ok()) {
    ++counters_.errors;
    result.data.clear();
  }
  return result;
}

}  // namespace romulus::disk

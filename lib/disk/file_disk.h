// A guest's disk that is a file or a block device: requests are done by a few worker threads, one
// blocking system call each, and completed on the device loop.
//
// Threads rather than io_uring, because they are the same thing here and always there: io_uring
// (through Asio's random_access_file or directly) hands what may block, buffered writes on ext4,
// fsync and fallocate, to kernel threads of its own; Asio has no fsync, no fallocate, so threads
// would be needed beside it; and io_uring is forbidden where containers or
// kernel.io_uring_disabled say so, which makes the threads necessary anyway.
//
// Requests are done in any order: who needs overlapping ones in order wraps the disk in a
// epoch::LoggedDisk. What is under way is bounded by the device.
//
// Submit() on the device loop; counters() on any thread. The executor outlives the disk. Whoever
// destroys the disk waits for system calls under way; requests not begun by then are dropped, as
// are completions that the executor has not run.
#ifndef ROMULUS_DISK_FILE_DISK_H_
#define ROMULUS_DISK_FILE_DISK_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/cond_var.h"
#include "base/executor.h"
#include "devices/virtio/block_backend.h"
#include "disk/file.h"

namespace romulus::disk {

struct FileDiskOptions {
  int workers = 4;
};

// Requests done, and bytes of those that were done well.
struct FileDiskCounters {
  std::atomic<uint64_t> reads{0};
  std::atomic<uint64_t> read_bytes{0};
  std::atomic<uint64_t> writes{0};
  std::atomic<uint64_t> write_bytes{0};
  std::atomic<uint64_t> zeroes{0};  // discard and write zeroes
  std::atomic<uint64_t> flushes{0};
  std::atomic<uint64_t> errors{0};  // of all kinds: the guest was told of an I/O error
};

class FileDisk final : public devices::BlockBackend {
 public:
  FileDisk(std::shared_ptr<File> file, base::Executor& device_loop,
           const FileDiskOptions& options = {});
  ~FileDisk() override;

  uint64_t size_bytes() const override { return file_->size_bytes(); }
  bool read_only() const override { return file_->read_only(); }
  void Submit(devices::BlockRequest request,
              std::function<void(devices::BlockResult)> done) override;

  const std::shared_ptr<File>& file() const { return file_; }
  const FileDiskCounters& counters() const { return counters_; }

 private:
  struct Work {
    devices::BlockRequest request;
    std::function<void(devices::BlockResult)> done;
  };
  void WorkerMain();
  devices::BlockResult Do(const devices::BlockRequest& request);

  const std::shared_ptr<File> file_;
  base::Executor& device_loop_;
  FileDiskCounters counters_;

  absl::Mutex mutex_;
  base::CondVar queued_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<Work> queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> workers_;
};

}  // namespace romulus::disk

#endif  // ROMULUS_DISK_FILE_DISK_H_

// A guest's disk whose writes are in the DiskLog, in the order in which they reach it: a write that
// overlaps one under way waits for it, so that both copies of the disk end equal even for a guest
// that does not wait. Stands between the virtio block device and the disk, also while the log is
// off. Reads and flushes pass.
//
// A write waits before it is logged. That it then belongs to a later epoch than the one in which
// the guest began it is no harm: the guest has not been told that it is done, and a promoted
// device begins anew what was under way.
//
// Device loop only. Holds references to all three, and is destroyed when the loop runs nothing any
// more.
#ifndef ROMULUS_EPOCH_LOGGED_DISK_H_
#define ROMULUS_EPOCH_LOGGED_DISK_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <list>

#include "base/executor.h"
#include "devices/virtio/block_backend.h"
#include "epoch/disk_log.h"

namespace romulus::epoch {

class LoggedDisk final : public devices::BlockBackend {
 public:
  // A failed write larger than this is not read back: the copies are unequal then.
  static constexpr uint64_t kMaxMendBytes = 4u << 20;

  // `disk`: index in the configuration.
  LoggedDisk(uint32_t disk, devices::BlockBackend& inner, DiskLog& log,
             base::Executor& device_loop);

  uint64_t size_bytes() const override { return inner_.size_bytes(); }
  bool read_only() const override { return inner_.read_only(); }
  void Submit(devices::BlockRequest request,
              std::function<void(devices::BlockResult)> done) override;
  bool Full() const override { return log_.Full(); }
  void WhenRoom(std::function<void()> ready) override;

 private:
  using Done = std::function<void(devices::BlockResult)>;
  struct Waiting {
    devices::BlockRequest request;
    Done done;
  };
  struct Range {
    uint64_t begin = 0;
    uint64_t end = 0;
  };
  using Ranges = std::list<Range>;

  // Whether it overlaps a write under way, or one of the first `ahead` that wait.
  bool MustWait(const devices::BlockRequest& request, size_t ahead) const;
  void Begin(devices::BlockRequest request, Done done);
  void OnDone(Ranges::iterator range, const DiskLog::Ticket& ticket, devices::BlockResult result,
              const Done& done);
  void Finish(Ranges::iterator range, const DiskLog::Ticket& ticket, devices::BlockResult result,
              const Done& done);
  void BeginWaiting();

  const uint32_t disk_;
  devices::BlockBackend& inner_;
  DiskLog& log_;
  base::Executor& device_loop_;
  Ranges under_way_;
  std::deque<Waiting> waiting_;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_LOGGED_DISK_H_

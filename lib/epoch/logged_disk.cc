#include "epoch/logged_disk.h"

#include <algorithm>
#include <memory>
#include <utility>

namespace romulus::epoch {

using devices::BlockRequest;
using devices::BlockResult;

LoggedDisk::LoggedDisk(uint32_t disk, devices::BlockBackend& inner, DiskLog& log,
                       base::Executor& device_loop)
    : disk_(disk), inner_(inner), log_(log), device_loop_(device_loop) {}

void LoggedDisk::Submit(BlockRequest request, Done done) {
  switch (request.kind) {
    case BlockRequest::Kind::kRead:
      return inner_.Submit(std::move(request), std::move(done));
    case BlockRequest::Kind::kFlush:
      log_.Flush(disk_);
      return inner_.Submit(std::move(request), std::move(done));
    case BlockRequest::Kind::kWrite:
    case BlockRequest::Kind::kDiscard:
    case BlockRequest::Kind::kWriteZeroes:
      break;
  }
  if (MustWait(request, waiting_.size())) {
    waiting_.push_back({std::move(request), std::move(done)});
  } else {
    Begin(std::move(request), std::move(done));
  }
}

void LoggedDisk::WhenRoom(std::function<void()> ready) {
  log_.WhenRoom([&loop = device_loop_, ready = std::move(ready)] { loop.Post(ready); });
}

bool LoggedDisk::MustWait(const BlockRequest& request, size_t ahead) const {
  const uint64_t begin = request.offset_bytes;
  const uint64_t end = begin + request.size_bytes;
  const auto overlaps = [&](uint64_t other_begin, uint64_t other_end) {
    return begin < other_end && other_begin < end;
  };
  for (const Range& range : under_way_) {
    if (overlaps(range.begin, range.end)) return true;
  }
  return std::any_of(waiting_.begin(), waiting_.begin() + static_cast<ptrdiff_t>(ahead),
                     [&](const Waiting& other) {
                       const BlockRequest& earlier = other.request;
                       return overlaps(earlier.offset_bytes,
                                       earlier.offset_bytes + earlier.size_bytes);
                     });
}

void LoggedDisk::Begin(BlockRequest request, Done done) {
  const DiskLog::Ticket ticket = log_.Begin(disk_, request);
  const auto range = under_way_.insert(
      under_way_.end(), {request.offset_bytes, request.offset_bytes + request.size_bytes});
  inner_.Submit(std::move(request),
                [this, range, ticket, done = std::move(done)](BlockResult result) {
                  OnDone(range, ticket, std::move(result), done);
                });
}

void LoggedDisk::OnDone(Ranges::iterator range, const DiskLog::Ticket& ticket, BlockResult result,
                        const Done& done) {
  if (result.status.ok() || !log_.Failed(ticket)) {
    return Finish(range, ticket, std::move(result), done);
  }
  if (ticket.size_bytes > kMaxMendBytes) {
    log_.Unequal(ticket, result.status);
    return Finish(range, ticket, std::move(result), done);
  }
  // The range is still held: nobody writes there before the log has what is there now.
  BlockRequest look{.kind = BlockRequest::Kind::kRead,
                    .offset_bytes = ticket.offset_bytes,
                    .size_bytes = ticket.size_bytes,
                    .data = {}};
  inner_.Submit(std::move(look),
                [this, range, ticket, done, failed = std::move(result)](BlockResult found) mutable {
                  if (found.status.ok() && found.data.size() == ticket.size_bytes) {
                    log_.Mend(ticket, std::move(found.data));
                  }
                  Finish(range, ticket, std::move(failed), done);
                });
}

void LoggedDisk::Finish(Ranges::iterator range, const DiskLog::Ticket& ticket, BlockResult result,
                        const Done& done) {
  log_.Done(ticket);
  under_way_.erase(range);
  BeginWaiting();
  done(std::move(result));
}

void LoggedDisk::BeginWaiting() {
  for (size_t i = 0; i < waiting_.size();) {
    if (MustWait(waiting_[i].request, i)) {
      ++i;
      continue;
    }
    Waiting next = std::move(waiting_[i]);
    waiting_.erase(waiting_.begin() + static_cast<ptrdiff_t>(i));
    Begin(std::move(next.request), std::move(next.done));
  }
}

}  // namespace romulus::epoch

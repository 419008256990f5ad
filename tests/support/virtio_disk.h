// A disk in memory, whose requests are done when the test says so.
#ifndef ROMULUS_TESTS_SUPPORT_VIRTIO_DISK_H_
#define ROMULUS_TESTS_SUPPORT_VIRTIO_DISK_H_

#include <algorithm>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "devices/virtio/block_backend.h"

namespace romulus::devices::testing {

class MemoryDisk final : public BlockBackend {
 public:
  struct Pending {
    BlockRequest request;
    std::function<void(BlockResult)> done;
  };

  explicit MemoryDisk(size_t size, bool is_read_only = false)
      : bytes(size, '\0'), is_read_only_(is_read_only) {}
  uint64_t size_bytes() const override { return bytes.size(); }
  bool read_only() const override { return is_read_only_; }
  void Submit(BlockRequest request, std::function<void(BlockResult)> done) override {
    // What the device has promised.
    ROMULUS_CHECK(request.offset_bytes % kSectorBytes == 0);
    ROMULUS_CHECK(request.size_bytes % kSectorBytes == 0);
    ROMULUS_CHECK(request.offset_bytes <= bytes.size());
    ROMULUS_CHECK(request.size_bytes <= bytes.size() - request.offset_bytes);
    ROMULUS_CHECK(request.kind == BlockRequest::Kind::kFlush || request.size_bytes > 0);
    ROMULUS_CHECK(request.data.size() ==
                  (request.kind == BlockRequest::Kind::kWrite ? request.size_bytes : 0));
    ROMULUS_CHECK(!is_read_only_ || request.kind == BlockRequest::Kind::kRead ||
                  request.kind == BlockRequest::Kind::kFlush);
    ++submitted;
    pending.push_back({std::move(request), std::move(done)});
  }
  bool Full() const override { return full; }
  void WhenRoom(std::function<void()> ready) override {
    waiting_for_room.push_back(std::move(ready));
  }
  void MakeRoom() {
    full = false;
    for (const std::function<void()>& ready : std::exchange(waiting_for_room, {})) ready();
  }
  // Does the index-th of the pending requests.
  void Do(size_t index, absl::Status status = absl::OkStatus()) {
    Pending next = std::move(pending[index]);
    pending.erase(pending.begin() + static_cast<ptrdiff_t>(index));
    BlockResult result{.status = std::move(status), .data = {}};
    const BlockRequest& request = next.request;
    char* const at = bytes.data() + request.offset_bytes;
    if (result.status.ok()) {
      switch (request.kind) {
        case BlockRequest::Kind::kRead:
          result.data.resize(request.size_bytes);
          std::transform(at, at + request.size_bytes, result.data.begin(),
                         [](char c) { return static_cast<std::byte>(c); });
          break;
        case BlockRequest::Kind::kWrite:
          std::transform(request.data.begin(), request.data.end(), at,
                         [](std::byte b) { return static_cast<char>(b); });
          break;
        case BlockRequest::Kind::kDiscard:
        case BlockRequest::Kind::kWriteZeroes:
          std::fill(at, at + request.size_bytes, '\0');
          break;
        case BlockRequest::Kind::kFlush:
          ++flushes;
          break;
      }
    }
    next.done(std::move(result));
  }
  void DoAll() {
    while (!pending.empty()) Do(0);
  }

  std::string bytes;
  std::vector<Pending> pending;
  int submitted = 0;
  int flushes = 0;
  bool full = false;
  std::vector<std::function<void()>> waiting_for_room;

 private:
  const bool is_read_only_;
};

}  // namespace romulus::devices::testing

#endif  // ROMULUS_TESTS_SUPPORT_VIRTIO_DISK_H_

#include "devices/bus.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_format.h"

namespace romulus::devices {

absl::Status Bus::Map(absl::string_view owner, uint64_t start, uint64_t size, IoHandler* handler) {
  if (size == 0 || size - 1 > std::numeric_limits<uint64_t>::max() - start) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %s asks for 0x%x addresses at 0x%x", name_, owner, size, start));
  }
  const uint64_t last = start + (size - 1);
  for (const Range& range : ranges_) {
    if (start <= range.last && range.start <= last) {
      return absl::AlreadyExistsError(
          absl::StrFormat("%s: %s at [0x%x, 0x%x] overlaps %s at [0x%x, 0x%x]", name_, owner, start,
                          last, range.owner, range.start, range.last));
    }
  }
  const auto at =
      std::upper_bound(ranges_.begin(), ranges_.end(), start,
                       [](uint64_t address, const Range& range) { return address < range.start; });
  ranges_.insert(at, Range{start, last, handler, std::string(owner)});
  return absl::OkStatus();
}

const Bus::Range* Bus::Find(uint64_t address, size_t size) const {
  auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), address,
                       [](uint64_t value, const Range& range) { return value < range.start; });
  if (after == ranges_.begin()) return nullptr;
  const Range& range = *std::prev(after);
  if (address > range.last || size == 0 || size - 1 > range.last - address) return nullptr;
  return &range;
}

void Bus::Read(uint64_t address, std::span<std::byte> data) {
  if (const Range* range = Find(address, data.size()); range != nullptr) {
    range->handler->Read(address - range->start, data);
    return;
  }
  unmapped_reads_.fetch_add(1, std::memory_order_relaxed);
  std::fill(data.begin(), data.end(), std::byte{0xff});
}

void Bus::Write(uint64_t address, std::span<const std::byte> data) {
  if (const Range* range = Find(address, data.size()); range != nullptr) {
    range->handler->Write(address - range->start, data);
    return;
  }
  unmapped_writes_.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace romulus::devices

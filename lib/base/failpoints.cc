#include "base/failpoints.h"

namespace romulus::base {

void Failpoints::Arm(absl::string_view name, uint64_t count, uint64_t skip) {
  absl::MutexLock lock(&mutex_);
  Point& point = points_[std::string(name)];
  point.count = count;
  point.skip = skip;
  any_armed_.store(true, std::memory_order_release);
}

void Failpoints::Disarm(absl::string_view name) {
  absl::MutexLock lock(&mutex_);
  if (auto it = points_.find(name); it != points_.end()) it->second.count = 0;
}

bool Failpoints::Fires(absl::string_view name) {
  if (!any_armed_.load(std::memory_order_acquire)) return false;
  absl::MutexLock lock(&mutex_);
  auto it = points_.find(name);
  if (it == points_.end() || it->second.count == 0) return false;
  Point& point = it->second;
  if (point.skip > 0) {
    --point.skip;
    return false;
  }
  --point.count;
  ++point.fired;
  return true;
}

uint64_t Failpoints::Fired(absl::string_view name) const {
  absl::MutexLock lock(&mutex_);
  auto it = points_.find(name);
  return it == points_.end() ? 0 : it->second.fired;
}

}  // namespace romulus::base

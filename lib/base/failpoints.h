// Named places where a test makes the code fail. Owned by the composition root and injected; a null
// pointer means that nothing fails. Any thread.
#ifndef ROMULUS_BASE_FAILPOINTS_H_
#define ROMULUS_BASE_FAILPOINTS_H_

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"

namespace romulus::base {

class Failpoints {
 public:
  // The point fires `count` times after having been passed `skip` times.
  void Arm(absl::string_view name, uint64_t count = 1, uint64_t skip = 0);
  void Disarm(absl::string_view name);
  // True if the code at this point is to fail now.
  bool Fires(absl::string_view name);
  // How often the point has fired.
  uint64_t Fired(absl::string_view name) const;

 private:
  struct Point {
    uint64_t count = 0;
    uint64_t skip = 0;
    uint64_t fired = 0;
  };
  std::atomic<bool> any_armed_{false};  // keeps the unarmed case to one load
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Point> points_ ABSL_GUARDED_BY(mutex_);
};

inline bool Fires(Failpoints* failpoints, absl::string_view name) {
  return failpoints != nullptr && failpoints->Fires(name);
}

}  // namespace romulus::base

#endif  // ROMULUS_BASE_FAILPOINTS_H_

// How often vCPUs left the guest, by kind: index is kvm::Exit::index(), names are kvm::kExitNames.
// Any thread; relaxed, for metrics.
#ifndef ROMULUS_VMM_EXIT_COUNTERS_H_
#define ROMULUS_VMM_EXIT_COUNTERS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kvm/exit.h"

namespace romulus::vmm {

class ExitCounters {
 public:
  static constexpr size_t kKinds = kvm::kExitNames.size();

  void Count(const kvm::Exit& exit) {
    counts_[exit.index()].fetch_add(1, std::memory_order_relaxed);
  }
  std::array<uint64_t, kKinds> Read() const {
    std::array<uint64_t, kKinds> values;
    for (size_t i = 0; i < kKinds; ++i) values[i] = counts_[i].load(std::memory_order_relaxed);
    return values;
  }

 private:
  std::array<std::atomic<uint64_t>, kKinds> counts_{};
};

}  // namespace romulus::vmm

#endif  // ROMULUS_VMM_EXIT_COUNTERS_H_

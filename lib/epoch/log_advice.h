// Which of KVM's dirty logs makes the shorter pauses for a guest: the ring's cost follows the pages
// that are dirty, the bitmap's the memory that there is, with less for each dirty page. Pure.
#ifndef ROMULUS_EPOCH_LOG_ADVICE_H_
#define ROMULUS_EPOCH_LOG_ADVICE_H_

#include <cstdint>

namespace romulus::epoch {

enum class DirtyLog : uint8_t { kRing, kBitmap };

// Of the pause, what the log makes of it, as bench/epoch_rate and bench/memory_size have it of a
// kvm-pvm host. Elsewhere all three may be a few times less, which moves the answer little.
inline constexpr uint64_t kRingNsPerPage = 60;
inline constexpr uint64_t kBitmapNsPerPage = 23;
inline constexpr uint64_t kBitmapNsPerGib = 5'000;
// What stopping a vCPU from outside takes; a steered ring stops the only one of a guest for
// nothing.
inline constexpr uint64_t kKickNs = 54'000;
// The other log must be better by that part of its own cost, or the answer would change with every
// look.
inline constexpr uint64_t kAdviceMargin = 4;

struct LogLoad {
  uint64_t memory_bytes = 0;
  uint64_t pages_per_epoch = 0;
  bool ring_stops_itself = false;
};

// The one to use, where `now` is used.
constexpr DirtyLog BetterLog(const LogLoad& load, DirtyLog now) {
  const uint64_t ring = kRingNsPerPage * load.pages_per_epoch;
  const uint64_t bitmap = kBitmapNsPerPage * load.pages_per_epoch +
                          load.memory_bytes / (1u << 20) * kBitmapNsPerGib / 1024 +
                          (load.ring_stops_itself ? kKickNs : 0);
  const uint64_t ours = now == DirtyLog::kRing ? ring : bitmap;
  const uint64_t other = now == DirtyLog::kRing ? bitmap : ring;
  if (other + other / kAdviceMargin >= ours) return now;
  return now == DirtyLog::kRing ? DirtyLog::kBitmap : DirtyLog::kRing;
}

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_LOG_ADVICE_H_

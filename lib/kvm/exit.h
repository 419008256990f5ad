// Why KVM_RUN returned, as a variant of values. Spans point into the vCPU's kvm_run page: they are
// valid until the next Run() and belong to the thread that runs the vCPU.
#ifndef ROMULUS_KVM_EXIT_H_
#define ROMULUS_KVM_EXIT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "absl/strings/string_view.h"

namespace romulus::kvm {

// Port I/O of `data.size() / size_bytes` equal accesses (more than one for string instructions).
// For an input, data is filled in before the next Run().
struct ExitIo {
  uint16_t port = 0;
  uint8_t size_bytes = 0;  // 1, 2 or 4
  bool is_write = false;
  std::span<std::byte> data;
};
// Memory-mapped I/O; data is 1 to 8 bytes.
struct ExitMmio {
  uint64_t gpa = 0;
  bool is_write = false;
  std::span<std::byte> data;
};
struct ExitHlt {};
struct ExitShutdown {};  // triple fault
struct ExitSystemEvent {
  uint32_t type = 0;  // KVM_SYSTEM_EVENT_*
};
struct ExitDirtyRingFull {};
struct ExitInterrupted {};  // a signal or immediate_exit; nothing to handle
struct ExitInternalError {
  uint32_t suberror = 0;  // KVM_INTERNAL_ERROR_*
  uint32_t data_count = 0;
  std::array<uint64_t, 16> data{};
};
struct ExitFailEntry {
  uint64_t hardware_reason = 0;
  uint32_t cpu = 0;
};
struct ExitUnknown {
  uint32_t reason = 0;  // KVM_EXIT_*
};

using Exit = std::variant<ExitInterrupted, ExitIo, ExitMmio, ExitHlt, ExitShutdown, ExitSystemEvent,
                          ExitDirtyRingFull, ExitInternalError, ExitFailEntry, ExitUnknown>;

// Names by Exit::index(), for metrics and logs.
inline constexpr std::array<absl::string_view, std::variant_size_v<Exit>> kExitNames = {
    "interrupted",    "io",         "mmio",   "hlt", "shutdown", "system_event", "dirty_ring_full",
    "internal_error", "fail_entry", "unknown"};

}  // namespace romulus::kvm

#endif  // ROMULUS_KVM_EXIT_H_

// What comes on a connection of the second path is hostile until it is read here: one reader per
// connection says which messages are beats of the other node, and why one is not. Values; one
// thread per reader, time is given.
#ifndef ROMULUS_WIRE_BEATS_H_
#define ROMULUS_WIRE_BEATS_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "romulus/v1/heartbeats.pb.h"

namespace romulus::wire {

enum class BeatFault : uint8_t {
  kNone,
  kMalformed,    // no Beat, or a field that no node says
  kOversized,    // beyond kMaxBeatBytes
  kWrongVm,      // another VM's uuid
  kSameName,     // a node that is called as this one
  kUnknownNode,  // neither this one nor the other
  kReplayed,     // a sequence that does not rise, or another incarnation on one connection
  kFlood,        // far more of them than the interval allows
  kSilent,       // a connection on which nothing came
  kCrowded,      // a connection beyond the bound
};
inline constexpr size_t kBeatFaultCount = static_cast<size_t>(BeatFault::kCrowded) + 1;
inline constexpr std::array<absl::string_view, kBeatFaultCount> kBeatFaultNames = {
    "none",         "malformed", "oversized", "wrong_vm", "same_name",
    "unknown_node", "replayed",  "flood",     "silent",   "crowded"};
using BeatFaultCounters = std::array<std::atomic<uint64_t>, kBeatFaultCount>;

inline constexpr size_t kMaxBeatBytes = 1024;

struct BeatReaderOptions {
  std::string vm_uuid;
  std::string node_name;  // this one
  std::string peer_name;  // who may speak here
  uint64_t interval_ns = 50'000'000;
};

class BeatReader {
 public:
  explicit BeatReader(BeatReaderOptions options);

  // Errors, with fault(): InvalidArgument, PermissionDenied (somebody else's), ResourceExhausted
  // (a flood). After an error the connection is to be ended.
  absl::StatusOr<v1::Beat> Take(absl::string_view bytes, uint64_t now_ns);
  BeatFault fault() const { return fault_; }
  // A beat of the other node has come.
  bool proven() const { return incarnation_ != 0; }

 private:
  absl::Status Refuse(BeatFault fault, absl::Status why);
  bool MayCome(uint64_t now_ns);

  const BeatReaderOptions options_;
  BeatFault fault_ = BeatFault::kNone;
  uint64_t incarnation_ = 0;
  uint64_t sequence_ = 0;
  double allowance_;  // beats that may come at once
  uint64_t allowed_at_ns_ = 0;
};

}  // namespace romulus::wire

#endif  // ROMULUS_WIRE_BEATS_H_

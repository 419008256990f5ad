// The output rule (P1) in one object: what the guest says is held until the epoch that said it is
// acked. Console bytes form one stream whose byte 0 is the first that the guest ever wrote; its
// offset travels with the epochs, so that after a failover nothing is said twice or left out.
//
// WriteConsole comes from vCPU threads; for the rest see HeldOutput. Holds at most the cap and what
// the vCPUs write until they wait (P6): the machine's throttle asks OverCap() between exits.
#ifndef ROMULUS_EPOCH_OUTPUT_GATE_H_
#define ROMULUS_EPOCH_OUTPUT_GATE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "base/types.h"
#include "devices/sinks.h"
#include "epoch/held_output.h"
#include "epoch/staged_epoch.h"

namespace romulus::epoch {

// Where released bytes go (the daemon's console). Calls are in stream order, one at a time, from
// the thread that released them; an implementation queues and returns.
class ReleasedOutput {
 public:
  virtual ~ReleasedOutput() = default;
  virtual void Emit(uint64_t offset, absl::string_view bytes) = 0;
};

class OutputGate final : public devices::ConsoleSink, public HeldOutput {
 public:
  enum class Mode {
    kOpen,     // nothing protects the guest, or nothing can be rolled back: bytes leave at once
    kHolding,  // bytes wait for their epoch's ack
  };
  struct Options {
    uint64_t cap_bytes = 4u << 20;
    uint64_t start_offset = 0;  // of the console stream; not 0 after a promotion
  };

  // `out` outlives the gate. Starts open.
  OutputGate(const Options& options, ReleasedOutput* out);

  void WriteConsole(std::span<const std::byte> bytes) override;

  // CutAt() that returns a copy of the epoch's share, to travel with it. At BeginStream() what is
  // still held becomes part of the next Cut, because the new secondary knows none of it.
  ConsoleCut Cut(EpochId epoch);

  bool CutAt(EpochId epoch) override { return !Cut(epoch).bytes.empty(); }
  void UndoCut(EpochId epoch) override;
  void Release(EpochId epoch) override;
  void BeginStream() override;
  void Hold() override;
  void Open() override;
  void Discard() override;

  // Told, at most once per Cut, when bytes begin to wait; for the governor. Set before use.
  void SetOutputWaiting(std::function<void()> callback);
  // Told when OverCap() turns false.
  void SetRoom(std::function<void()> callback);

  bool OverCap() const { return over_cap_.load(std::memory_order_acquire); }
  uint64_t held_bytes() const override;
  uint64_t released_offset() const;
  uint64_t end_offset() const;  // of the stream: released and held

 private:
  struct Held {
    EpochId epoch;
    std::string bytes;
  };
  void EmitLocked(absl::string_view bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns true if the gate just stopped being over its cap.
  bool UpdateCapLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  ReleasedOutput* const out_;
  std::function<void()> output_waiting_;
  std::function<void()> room_;

  mutable absl::Mutex mutex_;
  Mode mode_ ABSL_GUARDED_BY(mutex_) = Mode::kOpen;
  std::deque<Held> held_ ABSL_GUARDED_BY(mutex_);    // cut, not acked
  std::string open_ ABSL_GUARDED_BY(mutex_);         // of the running epoch
  uint64_t held_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // held_ and open_
  uint64_t released_ ABSL_GUARDED_BY(mutex_);
  std::atomic<bool> over_cap_{false};
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_OUTPUT_GATE_H_

// The output rule (P1) for a network card: the frames that the guest sends in an epoch are held, in
// order, until that epoch is acked. Unlike the console's bytes they do not travel with the epochs:
// a frame that was acked but has not left when the host dies is lost, which networks may do, and is
// sent again by whoever it was important to.
//
// Bounded by cap_bytes (P6), in which each frame counts with what holds it, and released frames
// count until they have left: TakeFrame() refuses beyond it and SetRoom()'s callback tells when to
// try again. Nothing is dropped.
//
// TakeFrame and Emit come from the device thread, CutAt and UndoCut from the checkpoint thread with
// the guest paused, Release from whoever hears acks, the rest from the control loop. A cut, its
// undo and a release take the same short time however many frames they concern. Callbacks are set
// before use, run on the thread that caused them, without a lock, and must not block.
#ifndef ROMULUS_EPOCH_FRAME_GATE_H_
#define ROMULUS_EPOCH_FRAME_GATE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/cond_var.h"
#include "base/types.h"
#include "devices/sinks.h"
#include "epoch/held_output.h"

namespace romulus::epoch {

class FrameGate final : public devices::NetSink, public HeldOutput {
 public:
  // What a frame costs beside its bytes: its place in the queue and its allocation.
  static constexpr uint64_t kFrameOverheadBytes = 64;

  struct Options {
    uint64_t cap_bytes = 8u << 20;  // a frame that is alone is taken even if it is larger
  };
  enum class Mode {
    kOpen,       // nothing protects the guest: frames may leave at once
    kHolding,    // frames wait for their epoch's ack
    kDiscarded,  // holding, and what was there was thrown away
  };
  struct Totals {
    uint64_t held_frames = 0;  // wait for an ack
    uint64_t held_bytes = 0;
    uint64_t queued_bytes = 0;  // released, and have not left
    uint64_t cap_bytes_used = 0;
  };

  explicit FrameGate(const Options& options) : options_(options) {}

  bool TakeFrame(std::span<const std::byte> header_and_frame) override;

  bool CutAt(EpochId epoch) override;
  void UndoCut(EpochId epoch) override;
  void Release(EpochId epoch) override;
  void BeginStream() override;
  void Hold() override;
  void Open() override;
  // When it returns no frame is on its way through Emit() any more.
  void Discard() override;
  uint64_t held_bytes() const override;
  bool AwaitEmitted(absl::Duration timeout) override;

  // Hands released frames to `write`, in order and at most `max_frames`, until there are none or it
  // returns false: that frame comes first the next time. Returns whether frames are left. `write`
  // must not call the gate.
  bool Emit(int max_frames, const std::function<bool(std::span<const std::byte>)>& write);

  // Runs `emit`, by which this host says something of its own, unless what the guest says is
  // discarded; Discard() waits for it, too. Returns whether it ran. It must not call the gate.
  bool EmitOwn(const std::function<void()>& emit);

  // At most once per cut, when the first frame of an epoch begins to wait; for the governor.
  void SetOutputWaiting(std::function<void()> callback) { output_waiting_ = std::move(callback); }
  // Emit() has something to do.
  void SetReleased(std::function<void()> callback) { released_ = std::move(callback); }
  // TakeFrame() has refused a frame, and there is room again.
  void SetRoom(std::function<void()> callback) { room_ = std::move(callback); }

  Mode mode() const;
  Totals totals() const;

 private:
  using Frame = std::vector<std::byte>;
  struct Share {  // of the queue: that of an epoch, or what may leave
    uint64_t frames = 0;
    uint64_t bytes = 0;
    void Add(const Share& other) {
      frames += other.frames;
      bytes += other.bytes;
    }
  };
  struct CutShare {
    EpochId epoch;
    Share share;
  };
  static uint64_t Cost(const Share& share) {
    return share.bytes + share.frames * kFrameOverheadBytes;
  }
  uint64_t UsedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Returns true if a refused frame may be offered again.
  bool RoomLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Share HeldLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  std::function<void()> output_waiting_;
  std::function<void()> released_;
  std::function<void()> room_;

  // Held while a frame leaves, so that Discard() can wait for that. Before mutex_.
  mutable absl::Mutex emit_mutex_;
  std::optional<Frame> next_ ABSL_GUARDED_BY(emit_mutex_);  // taken off the queue, not written

  mutable absl::Mutex mutex_;
  base::CondVar none_left_;  // of what was released
  Mode mode_ ABSL_GUARDED_BY(mutex_) = Mode::kOpen;
  // All frames, oldest first: those that may leave, those of each cut, those of the running epoch.
  std::deque<Frame> frames_ ABSL_GUARDED_BY(mutex_);
  Share free_ ABSL_GUARDED_BY(mutex_);  // and next_
  std::deque<CutShare> cuts_ ABSL_GUARDED_BY(mutex_);
  Share cut_ ABSL_GUARDED_BY(mutex_);  // the sum of cuts_
  Share open_ ABSL_GUARDED_BY(mutex_);
  bool refused_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace romulus::epoch

#endif  // ROMULUS_EPOCH_FRAME_GATE_H_

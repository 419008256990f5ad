#include "epoch/frame_gate.h"

#include <utility>

namespace romulus::epoch {

bool FrameGate::TakeFrame(std::span<const std::byte> header_and_frame) {
  bool first_waiting = false;
  bool may_leave = false;
  {
    absl::MutexLock lock(&mutex_);
    const Share frame{.frames = 1, .bytes = header_and_frame.size()};
    if (UsedLocked() != 0 && UsedLocked() + Cost(frame) > options_.cap_bytes) {
      refused_ = true;
      return false;
    }
    frames_.emplace_back(header_and_frame.begin(), header_and_frame.end());
    if (mode_ == Mode::kOpen) {
      may_leave = true;
      free_.Add(frame);
    } else {
      first_waiting = open_.frames == 0;
      open_.Add(frame);
    }
  }
  if (may_leave && released_) released_();
  if (first_waiting && output_waiting_) output_waiting_();
  return true;
}

bool FrameGate::CutAt(EpochId epoch) {
  absl::MutexLock lock(&mutex_);
  mode_ = Mode::kHolding;
  cuts_.push_back({epoch, open_});
  cut_.Add(open_);
  return std::exchange(open_, {}).frames != 0;
}

void FrameGate::UndoCut(EpochId epoch) {
  absl::MutexLock lock(&mutex_);
  if (cuts_.empty() || cuts_.back().epoch != epoch) return;
  const Share undone = cuts_.back().share;
  cuts_.pop_back();
  cut_.frames -= undone.frames;
  cut_.bytes -= undone.bytes;
  open_.Add(undone);
}

void FrameGate::Release(EpochId epoch) {
  bool may_leave = false;
  {
    absl::MutexLock lock(&mutex_);
    while (!cuts_.empty() && cuts_.front().epoch <= epoch) {
      const Share acked = cuts_.front().share;
      cuts_.pop_front();
      cut_.frames -= acked.frames;
      cut_.bytes -= acked.bytes;
      free_.Add(acked);
      may_leave |= acked.frames != 0;
    }
  }
  if (may_leave && released_) released_();
}

void FrameGate::BeginStream() {
  absl::MutexLock lock(&mutex_);
  open_.Add(std::exchange(cut_, {}));
  cuts_.clear();
}

void FrameGate::Hold() {
  absl::MutexLock lock(&mutex_);
  if (mode_ == Mode::kOpen) mode_ = Mode::kHolding;
}

void FrameGate::Open() {
  bool may_leave = false;
  {
    absl::MutexLock lock(&mutex_);
    mode_ = Mode::kOpen;
    free_.Add(std::exchange(cut_, {}));
    free_.Add(std::exchange(open_, {}));
    cuts_.clear();
    may_leave = free_.frames != 0;
  }
  if (may_leave && released_) released_();
}

void FrameGate::Discard() {
  bool room = false;
  {
    absl::MutexLock emitting(&emit_mutex_);
    absl::MutexLock lock(&mutex_);
    mode_ = Mode::kDiscarded;
    next_.reset();
    frames_.clear();
    cuts_.clear();
    free_ = cut_ = open_ = {};
    none_left_.SignalAll();
    room = RoomLocked();
  }
  if (room && room_) room_();
}

bool FrameGate::AwaitEmitted(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return none_left_.AwaitUntil(&mutex_, base::CondVar::After(timeout),
                               [this]()
                                   ABSL_NO_THREAD_SAFETY_ANALYSIS { return free_.frames == 0; });
}

bool FrameGate::Emit(int max_frames, const std::function<bool(std::span<const std::byte>)>& write) {
  for (int emitted = 0;; ++emitted) {
    bool room = false;
    {
      absl::MutexLock emitting(&emit_mutex_);
      if (!next_) {
        absl::MutexLock lock(&mutex_);
        if (free_.frames == 0) return false;
        if (emitted == max_frames) return true;
        next_ = std::move(frames_.front());
        frames_.pop_front();
      }
      if (emitted == max_frames || !write(*next_)) return true;
      absl::MutexLock lock(&mutex_);
      if (--free_.frames == 0) none_left_.SignalAll();
      free_.bytes -= next_->size();
      next_.reset();
      room = RoomLocked();
    }
    if (room && room_) room_();
  }
}

bool FrameGate::EmitOwn(const std::function<void()>& emit) {
  absl::MutexLock emitting(&emit_mutex_);
  if (mode() == Mode::kDiscarded) return false;
  emit();
  return true;
}

FrameGate::Mode FrameGate::mode() const {
  absl::MutexLock lock(&mutex_);
  return mode_;
}

uint64_t FrameGate::held_bytes() const { return totals().held_bytes; }

FrameGate::Totals FrameGate::totals() const {
  absl::MutexLock lock(&mutex_);
  const Share held = HeldLocked();
  return {.held_frames = held.frames,
          .held_bytes = held.bytes,
          .queued_bytes = free_.bytes,
          .cap_bytes_used = UsedLocked()};
}

FrameGate::Share FrameGate::HeldLocked() const {
  Share held = cut_;
  held.Add(open_);
  return held;
}

uint64_t FrameGate::UsedLocked() const { return Cost(free_) + Cost(cut_) + Cost(open_); }

// Half the cap: a guest that is let go for every single frame would be woken for every single
// frame.
bool FrameGate::RoomLocked() {
  if (!refused_ || UsedLocked() > options_.cap_bytes / 2) return false;
  refused_ = false;
  return true;
}

}  // namespace romulus::epoch

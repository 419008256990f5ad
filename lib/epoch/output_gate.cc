#include "epoch/output_gate.h"

#include <utility>

#include "base/check.h"

namespace romulus::epoch {

OutputGate::OutputGate(const Options& options, ReleasedOutput* out)
    : options_(options), out_(out), released_(options.start_offset) {}

void OutputGate::WriteConsole(std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  bool first_waiting = false;
  {
    absl::MutexLock lock(&mutex_);
    // SAFETY: char may alias anything; the span's length goes with it.
    const absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (mode_ == Mode::kOpen) {
      EmitLocked(text);
    } else {
      first_waiting = open_.empty();
      open_.append(text.data(), text.size());
      held_bytes_ += text.size();
      UpdateCapLocked();
    }
  }
  if (first_waiting && output_waiting_) output_waiting_();
}

ConsoleCut OutputGate::Cut(EpochId epoch) {
  absl::MutexLock lock(&mutex_);
  mode_ = Mode::kHolding;
  uint64_t before = 0;
  for (const Held& held : held_) before += held.bytes.size();
  ConsoleCut cut{released_ + before, open_};
  held_.push_back({epoch, std::move(open_)});
  open_.clear();
  return cut;
}

void OutputGate::UndoCut(EpochId epoch) {
  absl::MutexLock lock(&mutex_);
  if (held_.empty() || held_.back().epoch != epoch) return;
  open_.insert(0, held_.back().bytes);
  held_.pop_back();
}

void OutputGate::Release(EpochId epoch) {
  bool room = false;
  {
    absl::MutexLock lock(&mutex_);
    while (!held_.empty() && held_.front().epoch <= epoch) {
      EmitLocked(held_.front().bytes);
      held_bytes_ -= held_.front().bytes.size();
      held_.pop_front();
    }
    room = UpdateCapLocked();
  }
  if (room && room_) room_();
}

void OutputGate::BeginStream() {
  absl::MutexLock lock(&mutex_);
  std::string all;
  for (Held& held : held_) all += held.bytes;
  held_.clear();
  open_.insert(0, all);
}

void OutputGate::Hold() {
  absl::MutexLock lock(&mutex_);
  mode_ = Mode::kHolding;
}

void OutputGate::Open() {
  bool room = false;
  {
    absl::MutexLock lock(&mutex_);
    for (const Held& held : held_) EmitLocked(held.bytes);
    EmitLocked(open_);
    held_.clear();
    open_.clear();
    held_bytes_ = 0;
    mode_ = Mode::kOpen;
    room = UpdateCapLocked();
  }
  if (room && room_) room_();
}

void OutputGate::Discard() {
  absl::MutexLock lock(&mutex_);
  held_.clear();
  open_.clear();
  held_bytes_ = 0;
  mode_ = Mode::kHolding;
  UpdateCapLocked();
}

void OutputGate::SetOutputWaiting(std::function<void()> callback) {
  output_waiting_ = std::move(callback);
}

void OutputGate::SetRoom(std::function<void()> callback) { room_ = std::move(callback); }

uint64_t OutputGate::held_bytes() const {
  absl::MutexLock lock(&mutex_);
  return held_bytes_;
}

uint64_t OutputGate::released_offset() const {
  absl::MutexLock lock(&mutex_);
  return released_;
}

uint64_t OutputGate::end_offset() const {
  absl::MutexLock lock(&mutex_);
  return released_ + held_bytes_;
}

void OutputGate::EmitLocked(absl::string_view bytes) {
  if (bytes.empty()) return;
  out_->Emit(released_, bytes);
  released_ += bytes.size();
}

bool OutputGate::UpdateCapLocked() {
  const bool over = held_bytes_ >= options_.cap_bytes;
  return over_cap_.exchange(over, std::memory_order_acq_rel) && !over;
}

}  // namespace romulus::epoch

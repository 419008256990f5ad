// The device's side of the transport: turns on the device thread, completions, pause and resume.
#include <bit>
#include <utility>

#include "devices/virtio/mmio.h"

namespace romulus::devices {

// --- what the device asks of its host (under the lock) -------------------------------------------

bool VirtioMmio::Running() const {
  return (status_ & (virtio::kDriverOk | virtio::kNeedsReset)) == virtio::kDriverOk;
}

std::optional<Chain> VirtioMmio::Pop(int queue) {
  if (!Running() || chains_left_ == 0) return std::nullopt;
  VirtQueue& source = queues_[static_cast<size_t>(queue)].queue;
  absl::StatusOr<std::optional<Chain>> chain = source.Pop();
  if (!chain.ok()) {
    Fail(*source.fault());
    return std::nullopt;
  }
  if (chain->has_value()) --chains_left_;
  return *std::move(chain);
}

bool VirtioMmio::Holds(int queue, const Chain& chain) {
  return Running() && queues_[static_cast<size_t>(queue)].queue.Holds(chain);
}

void VirtioMmio::Push(int queue, const Chain& chain, uint32_t written_bytes) {
  if (Running()) queues_[static_cast<size_t>(queue)].queue.Push(chain, written_bytes);
}

void VirtioMmio::PushTogether(int queue, std::span<const UsedChain> used) {
  if (Running()) queues_[static_cast<size_t>(queue)].queue.PushTogether(used);
}

uint32_t VirtioMmio::QueueSize(int queue) {
  return queues_[static_cast<size_t>(queue)].queue.setup().size;
}

void VirtioMmio::Fail(VirtioFault fault) {
  faults_.Count(fault);
  if (status_ == 0) return;  // no driver that could be told: somebody probes
  const uint32_t before = std::exchange(status_, status_ | virtio::kNeedsReset);
  if ((before & (virtio::kNeedsReset | virtio::kDriverOk)) == virtio::kDriverOk) {
    interrupt_.Raise(VirtioInterrupt::kConfigChange);  // 2.1.2
  }
}

void VirtioMmio::ConfigChanged() {
  ++config_generation_;
  if ((status_ & virtio::kDriverOk) != 0) interrupt_.Raise(VirtioInterrupt::kConfigChange);
}

std::function<void()> VirtioMmio::Bind(std::function<void()> work) {
  return [anchor = anchor_, work = std::move(work)]() mutable {
    absl::MutexLock lock(&anchor->mutex);
    if (anchor->transport != nullptr) anchor->transport->RunBound(std::move(work));
  };
}

// --- turns ---------------------------------------------------------------------------------------

void VirtioMmio::Kick(int queue) {
  pending_.fetch_or(uint64_t{1} << queue);
  PostTurn();
}

void VirtioMmio::KickAll() {
  for (size_t i = 0; i < queues_.size(); ++i) {
    if (queues_[i].queue.ready()) pending_.fetch_or(uint64_t{1} << i);
  }
  PostTurn();
}

void VirtioMmio::PostTurn() {
  if (turn_posted_.exchange(true)) return;
  executor_.Post([anchor = anchor_] {
    absl::MutexLock lock(&anchor->mutex);
    if (anchor->transport != nullptr) anchor->transport->TakeTurn();
  });
}

void VirtioMmio::TakeTurn() {
  absl::MutexLock lock(&mutex_);
  // Before pending_ is taken: who kicks later posts a turn of its own.
  turn_posted_.store(false);
  if (quiet_.load()) return;
  for (const std::function<void()>& work : std::exchange(held_, {})) work();
  for (uint64_t queues = pending_.exchange(0); queues != 0; queues &= queues - 1) {
    if (quiet_.load()) {  // since this turn began: the rest is for Resume()
      pending_.fetch_or(queues);
      break;
    }
    RunQueue(std::countr_zero(queues));
  }
  SignalUsed();
}

void VirtioMmio::RunQueue(int index) {
  VirtQueue& queue = queues_[static_cast<size_t>(index)].queue;
  if (!Running() || !queue.ready()) return;
  queue.SetNotifications(false);
  chains_left_ = kChainsPerTurn;
  const Progress progress = device_->Process(index);
  const bool out_of_chains = chains_left_ == 0;
  chains_left_ = 0;
  if (!Running()) return;
  if (progress == Progress::kAgain || (progress == Progress::kDrained && out_of_chains)) {
    Kick(index);
  } else if (progress == Progress::kDrained && queue.SetNotifications(true)) {
    Kick(index);
  }
}

void VirtioMmio::RunBound(std::function<void()> work) {
  absl::MutexLock lock(&mutex_);
  if (quiet_.load()) {
    held_.push_back(std::move(work));
    return;
  }
  work();
  SignalUsed();
}

void VirtioMmio::SignalUsed() {
  if (!Running()) return;
  bool wanted = false;
  for (QueueSlot& slot : queues_) wanted |= slot.queue.NeedsInterrupt();
  if (wanted) interrupt_.Raise(VirtioInterrupt::kUsedBuffer);
}

// --- pause ---------------------------------------------------------------------------------------

absl::Status VirtioMmio::Quiesce() {
  quiet_.store(true);
  // What has begun ends first: the work on one queue, at most kChainsPerTurn chains.
  absl::MutexLock lock(&mutex_);
  return absl::OkStatus();
}

void VirtioMmio::Resume() {
  absl::MutexLock lock(&mutex_);
  quiet_.store(false);
  if (std::exchange(restored_, false) && Running()) KickAll();
  if (!held_.empty() || pending_.load() != 0) PostTurn();
}

}  // namespace romulus::devices

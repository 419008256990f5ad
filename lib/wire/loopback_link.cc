#include "wire/loopback_link.h"

#include <array>
#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"

namespace romulus::wire {
namespace {

constexpr LoopbackEnd Other(LoopbackEnd end) {
  return end == LoopbackEnd::kPrimary ? LoopbackEnd::kSecondary : LoopbackEnd::kPrimary;
}

}  // namespace

struct LoopbackNetwork::State {
  struct Item {
    bool close = false;
    std::string frames;
    absl::Status why;
  };
  struct Side {
    LinkListener* listener = nullptr;
    std::deque<Item> waiting;
    bool sending_ended = false;  // Close() was called, or the end heard OnClosed
    absl::Status ended_why;      // set with sending_ended
    bool told_closed = false;
    bool taken = false;
  };

  Side& side(LoopbackEnd end) { return sides[static_cast<size_t>(end)]; }

  // Delivers the next item for `to`. Messages are delivered without the lock.
  bool Step(LoopbackEnd to) {
    Item item;
    LinkListener* listener;
    {
      absl::MutexLock lock(&mutex);
      Side& receiver = side(to);
      if (receiver.waiting.empty()) return false;
      item = std::move(receiver.waiting.front());
      receiver.waiting.pop_front();
      if (receiver.told_closed) return true;
      if (item.close) {
        receiver.told_closed = true;
        if (!receiver.sending_ended) receiver.ended_why = item.why;
        receiver.sending_ended = true;
      }
      listener = receiver.listener;
    }
    if (listener == nullptr) return true;
    if (item.close) {
      listener->OnClosed(item.why);
    } else {
      listener->OnMessage(item.frames);
    }
    return true;
  }

  void Close(LoopbackEnd end, const absl::Status& why) {
    bool at_once = false;
    {
      absl::MutexLock lock(&mutex);
      if (side(end).sending_ended) return;
      side(end).sending_ended = true;
      side(end).ended_why = why;
      side(end).waiting.clear();
      side(end).waiting.push_back({true, "", why});
      side(Other(end))
          .waiting.push_back(
              {true, "", absl::UnavailableError(absl::StrCat("peer closed: ", why.message()))});
      at_once = deliver_at_once;
    }
    if (at_once) {
      Step(end);
      Step(Other(end));
    }
  }

  absl::Mutex mutex;
  std::array<Side, 2> sides;
  bool deliver_at_once = false;
};

class LoopbackNetwork::End final : public Link {
 public:
  End(std::shared_ptr<State> state, LoopbackEnd end) : state_(std::move(state)), end_(end) {}
  ~End() override {
    state_->Close(end_, absl::CancelledError("link destroyed"));
    // As every link: its listener hears nothing after the destructor.
    while (state_->Step(end_)) {
    }
    absl::MutexLock lock(&state_->mutex);
    state_->side(end_).listener = nullptr;
  }
  absl::Status Send(std::string frames) override {
    bool at_once = false;
    {
      absl::MutexLock lock(&state_->mutex);
      const State::Side& own = state_->side(end_);
      if (own.sending_ended) {
        return absl::UnavailableError(absl::StrCat("link closed: ", own.ended_why.message()));
      }
      state_->side(Other(end_)).waiting.push_back({false, std::move(frames), absl::OkStatus()});
      at_once = state_->deliver_at_once;
    }
    if (at_once) state_->Step(Other(end_));
    return absl::OkStatus();
  }
  void Close(const absl::Status& why) override {
    state_->Close(end_, why.ok() ? absl::CancelledError("closed") : why);
  }

 private:
  const std::shared_ptr<State> state_;
  const LoopbackEnd end_;
};

LoopbackNetwork::LoopbackNetwork() : state_(std::make_shared<State>()) {}
LoopbackNetwork::~LoopbackNetwork() = default;

std::unique_ptr<Link> LoopbackNetwork::TakeLink(LoopbackEnd end) {
  absl::MutexLock lock(&state_->mutex);
  if (std::exchange(state_->side(end).taken, true)) return nullptr;
  return std::make_unique<End>(state_, end);
}

void LoopbackNetwork::SetListener(LoopbackEnd end, LinkListener* listener) {
  absl::MutexLock lock(&state_->mutex);
  state_->side(end).listener = listener;
}

bool LoopbackNetwork::Step(LoopbackEnd to) { return state_->Step(to); }

size_t LoopbackNetwork::Pump(size_t max_steps) {
  size_t steps = 0;
  bool moved = true;
  while (moved && steps < max_steps) {
    moved = false;
    for (LoopbackEnd to : {LoopbackEnd::kSecondary, LoopbackEnd::kPrimary}) {
      if (steps < max_steps && Step(to)) {
        ++steps;
        moved = true;
      }
    }
  }
  return steps;
}

size_t LoopbackNetwork::InFlight(LoopbackEnd to) const {
  absl::MutexLock lock(&state_->mutex);
  return state_->side(to).waiting.size();
}

bool LoopbackNetwork::Drop(LoopbackEnd to, size_t index) {
  absl::MutexLock lock(&state_->mutex);
  auto& waiting = state_->side(to).waiting;
  if (index >= waiting.size()) return false;
  waiting.erase(waiting.begin() + static_cast<std::ptrdiff_t>(index));
  return true;
}

bool LoopbackNetwork::Duplicate(LoopbackEnd to, size_t index) {
  absl::MutexLock lock(&state_->mutex);
  auto& waiting = state_->side(to).waiting;
  if (index >= waiting.size()) return false;
  const State::Item copy = waiting[index];
  waiting.insert(waiting.begin() + static_cast<std::ptrdiff_t>(index), copy);
  return true;
}

bool LoopbackNetwork::Swap(LoopbackEnd to, size_t index, size_t other) {
  absl::MutexLock lock(&state_->mutex);
  auto& waiting = state_->side(to).waiting;
  if (index >= waiting.size() || other >= waiting.size()) return false;
  std::swap(waiting[index], waiting[other]);
  return true;
}

bool LoopbackNetwork::Edit(LoopbackEnd to, size_t index,
                           const std::function<void(std::string&)>& edit) {
  absl::MutexLock lock(&state_->mutex);
  auto& waiting = state_->side(to).waiting;
  if (index >= waiting.size() || waiting[index].close) return false;
  edit(waiting[index].frames);
  return true;
}

bool LoopbackNetwork::Truncate(LoopbackEnd to, size_t index, size_t keep_bytes) {
  bool cut = false;
  Edit(to, index, [&](std::string& frames) {
    if (frames.size() <= keep_bytes) return;
    frames.resize(keep_bytes);
    cut = true;
  });
  return cut;
}

bool LoopbackNetwork::FlipBit(LoopbackEnd to, size_t index, size_t bit) {
  bool flipped = false;
  Edit(to, index, [&](std::string& frames) {
    if (bit / 8 >= frames.size()) return;
    frames[bit / 8] =
        static_cast<char>(static_cast<unsigned char>(frames[bit / 8]) ^ (1u << (bit % 8)));
    flipped = true;
  });
  return flipped;
}

void LoopbackNetwork::Cut(const absl::Status& why) {
  absl::MutexLock lock(&state_->mutex);
  for (State::Side& side : state_->sides) {
    side.waiting.clear();
    if (!side.sending_ended) side.ended_why = why;
    side.sending_ended = true;
    if (!side.told_closed) side.waiting.push_back({true, "", why});
  }
}

void LoopbackNetwork::DeliverAtOnce() {
  absl::MutexLock lock(&state_->mutex);
  state_->deliver_at_once = true;
}

}  // namespace romulus::wire

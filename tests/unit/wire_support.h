// What the wire tests share: links that record, block or fail, staged epochs, listeners that wait.
#ifndef ROMULUS_TESTS_UNIT_WIRE_SUPPORT_H_
#define ROMULUS_TESTS_UNIT_WIRE_SUPPORT_H_

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/check.h"
#include "codec/frame.h"
#include "epoch/staged_epoch.h"
#include "wire/epoch_sender.h"
#include "wire/link.h"

namespace romulus::wire {

constexpr absl::Duration kPatience =
    absl::Seconds(60);  // for what must happen; a test fails after it

struct SeenFrame {
  codec::FrameKind kind;
  Term term;
  EpochId epoch;
  std::string body;
};

// Takes messages; may be told to block as a link without flow-control room does, or to fail.
class FakeLink final : public Link {
 public:
  absl::Status Send(std::string frames) override {
    return SendWithin(absl::InfiniteDuration(), std::move(frames));
  }
  absl::Status SendWithin(absl::Duration timeout, std::string frames) override {
    absl::MutexLock lock(&mutex_);
    ++waiting_;
    const bool may = mutex_.AwaitWithTimeout(
        absl::Condition(
            +[](FakeLink* link) { return !link->blocked_ || link->closed_; }, this),
        timeout);
    --waiting_;
    if (!may) return absl::DeadlineExceededError("no room");
    if (closed_) return absl::UnavailableError("closed");
    messages_.push_back(std::move(frames));
    return absl::OkStatus();
  }
  void Close(const absl::Status&) override {
    absl::MutexLock lock(&mutex_);
    closed_ = true;
  }
  void Block(bool blocked) {
    absl::MutexLock lock(&mutex_);
    blocked_ = blocked;
  }
  void AwaitBlockedSender() {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(
        mutex_.AwaitWithTimeout(absl::Condition(
                                    +[](int* waiting) { return *waiting > 0; }, &waiting_),
                                kPatience));
  }
  size_t messages() const {
    absl::MutexLock lock(&mutex_);
    return messages_.size();
  }
  // All frames so far; a numbering gap or any other fault ends the process.
  std::vector<SeenFrame> Frames() const {
    absl::MutexLock lock(&mutex_);
    return FramesLocked();
  }
  std::vector<SeenFrame> AwaitFrames(codec::FrameKind kind, size_t count) const {
    struct Want {
      const FakeLink* link;
      codec::FrameKind kind;
      size_t count;
    } want{this, kind, count};
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(
                                              +[](Want* w) {
                                                size_t seen = 0;
                                                for (const SeenFrame& frame :
                                                     w->link->FramesLocked())
                                                  seen += frame.kind == w->kind;
                                                return seen >= w->count;
                                              },
                                              &want),
                                          kPatience));
    return FramesLocked();
  }

 private:
  std::vector<SeenFrame> FramesLocked() const {
    std::vector<SeenFrame> frames;
    codec::FrameReader reader;
    for (const std::string& message : messages_) {
      absl::string_view rest = message;
      while (!rest.empty()) {
        const absl::StatusOr<codec::Frame> frame = reader.Next(&rest);
        ROMULUS_CHECK(frame.ok());
        frames.push_back({frame->kind, frame->term, frame->epoch, std::string(frame->body)});
      }
    }
    return frames;
  }

  mutable absl::Mutex mutex_;
  bool blocked_ = false;
  bool closed_ = false;
  int waiting_ = 0;
  std::vector<std::string> messages_;
};

class RecordingAcks final : public AckListener {
 public:
  void OnEpochAcked(const EpochAck& ack) override {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(closed_ == 0);
    acks_.push_back(ack);
  }
  void OnEpochSent(const EpochSent& sent) override {
    absl::MutexLock lock(&mutex_);
    sent_.push_back(sent);
  }
  void OnSenderClosed(const absl::Status& why) override {
    absl::MutexLock lock(&mutex_);
    ++closed_;
    why_ = why;
  }
  std::vector<EpochAck> acks() const {
    absl::MutexLock lock(&mutex_);
    return acks_;
  }
  std::vector<EpochSent> AwaitSent(size_t count) const {
    absl::MutexLock lock(&mutex_);
    auto enough = [this, count] { return sent_.size() >= count; };
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience));
    return sent_;
  }
  void AwaitAcked(EpochId epoch) const {
    absl::MutexLock lock(&mutex_);
    auto enough = [this, epoch] { return !acks_.empty() && acks_.back().epoch >= epoch; };
    ROMULUS_CHECK(mutex_.AwaitWithTimeout(absl::Condition(&enough), kPatience));
  }
  int closed() const {
    absl::MutexLock lock(&mutex_);
    return closed_;
  }
  absl::Status AwaitClosed() const {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(
        mutex_.AwaitWithTimeout(absl::Condition(
                                    +[](const int* closed) { return *closed > 0; }, &closed_),
                                kPatience));
    return why_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::vector<EpochAck> acks_;
  std::vector<EpochSent> sent_;
  int closed_ = 0;
  absl::Status why_;
};

// A batch of pages filled with `fill`.
inline epoch::PageBatch Batch(epoch::StagingPool& pool, const std::vector<Gfn>& gfns, int fill) {
  epoch::PageBatch batch;
  batch.gfns = gfns;
  auto chunk = pool.TryAcquire();
  ROMULUS_CHECK(chunk.has_value());
  batch.chunk = std::move(*chunk);
  std::memset(batch.chunk.data(), fill, gfns.size() * kPageSize);
  return batch;
}

inline epoch::StagedEpoch Epoch(Term term, uint64_t number, uint64_t page_count = 0) {
  epoch::StagedEpoch epoch;
  epoch.term = term;
  epoch.epoch = EpochId(number);
  epoch.page_count = page_count;
  epoch.machine.Put("vcpu.regs", 0, 1, "registers of " + std::to_string(number));
  return epoch;
}

}  // namespace romulus::wire

#endif  // ROMULUS_TESTS_UNIT_WIRE_SUPPORT_H_

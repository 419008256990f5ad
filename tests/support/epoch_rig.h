// The epoch library on a fake guest: memory, tracker, staging and gate, wired as the daemon wires
// them.
#ifndef ROMULUS_TESTS_SUPPORT_EPOCH_RIG_H_
#define ROMULUS_TESTS_SUPPORT_EPOCH_RIG_H_

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/failpoints.h"
#include "epoch/checkpoint.h"
#include "support/fake_guest.h"

namespace romulus::testing {

class ReleasedText final : public epoch::ReleasedOutput {
 public:
  void Emit(uint64_t, absl::string_view bytes) override {
    absl::MutexLock lock(&mutex_);
    text_.append(bytes.data(), bytes.size());
  }
  std::string text() const {
    absl::MutexLock lock(&mutex_);
    return text_;
  }

 private:
  mutable absl::Mutex mutex_;
  std::string text_;
};

// Keeps what was handed over; acks nothing by itself.
class RecordingSink final : public epoch::EpochSink {
 public:
  void StagePages(Term, EpochId epoch, epoch::PageBatch batch) override {
    if (on_stage) on_stage();
    absl::MutexLock lock(&mutex_);
    // As a sender would: the bytes leave and the staging memory is free again.
    for (Gfn gfn : batch.gfns) staged_.emplace_back(epoch, gfn);
  }
  void Submit(epoch::StagedEpoch epoch) override {
    absl::MutexLock lock(&mutex_);
    submitted_.push_back(std::move(epoch));
  }
  void Abort(Term, EpochId epoch) override {
    absl::MutexLock lock(&mutex_);
    aborted_.push_back(epoch);
  }

  size_t submitted() const {
    absl::MutexLock lock(&mutex_);
    return submitted_.size();
  }
  void AwaitSubmitted(size_t count) const {
    absl::MutexLock lock(&mutex_);
    auto enough = [this, count] { return submitted_.size() >= count; };
    mutex_.Await(absl::Condition(&enough));
  }
  std::vector<epoch::StagedEpoch> TakeSubmitted() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(submitted_, {});
  }
  std::vector<EpochId> aborted() const {
    absl::MutexLock lock(&mutex_);
    return aborted_;
  }
  size_t staged_pages() const {
    absl::MutexLock lock(&mutex_);
    return staged_.size();
  }

  std::function<void()> on_stage;

 private:
  mutable absl::Mutex mutex_;
  std::vector<epoch::StagedEpoch> submitted_;
  std::vector<std::pair<EpochId, Gfn>> staged_;
  std::vector<EpochId> aborted_;
};

struct EpochRig {
  explicit EpochRig(uint64_t staging_bytes = 1 << 20)
      : memory(*memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(8))) {
    auto owned = std::make_unique<FakeDirtySource>(memory->layout().gfn_end());
    source = owned.get();
    guest = std::make_unique<FakeGuest>(memory.get(), source);
    tracker = std::make_unique<tracker::Tracker>(std::move(owned), memory.get(), &failpoints);
    staging = *epoch::StagingPool::Create(staging_bytes);
    gate = std::make_unique<epoch::OutputGate>(epoch::OutputGate::Options{}, &released);
  }
  epoch::CheckpointParts Parts() {
    return {guest.get(), memory.get(), tracker.get(), staging.get(),
            gate.get(),  &clock,       &failpoints};
  }
  void Say(absl::string_view text) { gate->WriteConsole(base::AsBytes(text)); }

  base::MonotonicClock clock;
  base::Failpoints failpoints;
  std::unique_ptr<memory::GuestMemory> memory;
  FakeDirtySource* source = nullptr;
  std::unique_ptr<FakeGuest> guest;
  std::unique_ptr<tracker::Tracker> tracker;
  std::unique_ptr<epoch::StagingPool> staging;
  ReleasedText released;
  std::unique_ptr<epoch::OutputGate> gate;
};

// The GFNs of an epoch, in the order of its batches.
inline std::vector<uint64_t> Pages(const epoch::StagedEpoch& epoch) {
  std::vector<uint64_t> gfns;
  for (const epoch::PageBatch& batch : epoch.batches) {
    for (Gfn gfn : batch.gfns) gfns.push_back(gfn.value());
  }
  return gfns;
}

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_EPOCH_RIG_H_

// A guest without KVM: tests write its memory through Touch() and the fake source reports it. No
// threads.
#ifndef ROMULUS_TESTS_SUPPORT_FAKE_GUEST_H_
#define ROMULUS_TESTS_SUPPORT_FAKE_GUEST_H_

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "base/check.h"
#include "memory/guest_memory.h"
#include "tracker/dirty_source.h"
#include "vmm/guest.h"

namespace romulus::testing {

// What the fake guest wrote and nobody harvested yet.
class FakeDirtySource final : public tracker::DirtySource {
 public:
  explicit FakeDirtySource(Gfn gfn_end) : dirty_(gfn_end) {}
  absl::string_view name() const override { return "fake"; }
  absl::Status Harvest(memory::PageSet& into) override {
    absl::MutexLock lock(&mutex_);
    into.InsertAll(dirty_);
    dirty_.Clear();
    ++harvests_;
    return absl::OkStatus();
  }
  absl::Status Reset() override { return absl::OkStatus(); }
  uint64_t LikelyCount(uint64_t most) const override {
    absl::MutexLock lock(&mutex_);
    return std::min<uint64_t>(most, dirty_.size());
  }
  bool LikelyNone() const override { return !LikelyAtLeast(1); }
  bool StopsItselfAt(uint64_t pages) const override { return stops_itself && pages > 1; }
  void Add(Gfn gfn) {
    absl::MutexLock lock(&mutex_);
    dirty_.Insert(gfn);
  }
  int harvests() const {
    absl::MutexLock lock(&mutex_);
    return harvests_;
  }
  bool Tells() const override { return tells; }
  std::atomic<bool> stops_itself{false};
  std::atomic<bool> tells{true};

 private:
  mutable absl::Mutex mutex_;
  memory::PageSet dirty_ ABSL_GUARDED_BY(mutex_);
  int harvests_ ABSL_GUARDED_BY(mutex_) = 0;
};

class FakeGuest final : public vmm::Guest {
 public:
  FakeGuest(memory::GuestMemory* memory, FakeDirtySource* source)
      : memory_(memory), source_(source) {}

  absl::StatusOr<std::unique_ptr<vmm::PausedGuest>> Pause(
      const vmm::PauseOptions& options) override {
    if (fail_pause) return absl::InternalError("pause failed");
    if (!options.if_free) {
      mutex_.Lock();
    } else if (!mutex_.TryLock()) {
      return absl::UnavailableError("somebody else pauses");
    }
    paused_ = true;
    ++pauses;
    return std::make_unique<Paused>(this, options.capture_state);
  }
  absl::Status Start() override { return absl::OkStatus(); }
  void Stop() override {}
  int vcpu_count() const override { return 1; }

  // The guest writes one byte; waits while paused, as a vCPU would.
  void Touch(Gfn gfn, std::byte value) {
    absl::MutexLock lock(&mutex_);
    auto span = memory_->WritableSpan(GpaOf(gfn), 1);
    (*span)[0] = value;  // not through Write(): the VMM's log must not see it
    source_->Add(gfn);
  }
  // A device writes, which is quiet while the guest is paused: only the VMM's log sees it.
  void DeviceWrite(Gfn gfn, std::byte value) {
    absl::MutexLock lock(&mutex_);
    ROMULUS_CHECK(memory_->WriteObject(GpaOf(gfn), value).ok());
  }
  // The guest writes, and the kernel loses it.
  void TouchUnseen(Gfn gfn, std::byte value) {
    absl::MutexLock lock(&mutex_);
    (*memory_->WritableSpan(GpaOf(gfn), 1))[0] = value;
  }
  bool paused() const { return paused_; }

  std::atomic<bool> fail_pause{false};
  std::atomic<int> pauses{0};
  std::atomic<int> resumes{0};
  std::function<void()> on_resume;  // a vCPU runs, before who resumed it does anything else

 private:
  class Paused final : public vmm::PausedGuest {
   public:
    Paused(FakeGuest* guest, bool capture) : guest_(guest), capture_(capture) {}
    ~Paused() override { Resume(); }
    absl::StatusOr<state::MachineState> TakeState() override {
      if (!capture_) return absl::FailedPreconditionError("not captured");
      state::MachineState state;
      state.Put("fake.cpu", 0, 1, "state");
      return state;
    }
    void Resume() override {
      if (std::exchange(resumed_, true)) return;
      guest_->paused_ = false;
      ++guest_->resumes;
      if (guest_->on_resume) guest_->on_resume();
      guest_->mutex_.Unlock();
    }

   private:
    FakeGuest* guest_;
    bool capture_;
    bool resumed_ = false;
  };

  memory::GuestMemory* memory_;
  FakeDirtySource* source_;
  absl::Mutex mutex_;  // held while paused
  std::atomic<bool> paused_{false};
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_FAKE_GUEST_H_

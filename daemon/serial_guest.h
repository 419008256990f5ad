// A vmm::Guest whose pauses happen one after the other, whoever asks: the checkpoint loop, an
// operator, the switching of dirty logging. The machine's contract leaves that order to its user.
// Any thread; borrows the machine.
#ifndef ROMULUS_DAEMON_SERIAL_GUEST_H_
#define ROMULUS_DAEMON_SERIAL_GUEST_H_

#include <memory>
#include <mutex>
#include <utility>

#include "vmm/machine.h"

namespace romulus::daemon {

class SerialGuest final : public vmm::Guest {
 public:
  explicit SerialGuest(vmm::Machine* machine) : machine_(machine) {}

  absl::StatusOr<std::unique_ptr<vmm::PausedGuest>> Pause(
      const vmm::PauseOptions& options) override {
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    if (!options.if_free) {
      lock.lock();
    } else if (!lock.try_lock()) {
      return absl::UnavailableError("somebody else pauses the guest");
    }
    absl::StatusOr<std::unique_ptr<vmm::PausedGuest>> paused = machine_->Pause(options);
    if (!paused.ok()) return paused.status();
    return std::make_unique<Paused>(std::move(lock), *std::move(paused));
  }
  absl::Status Start() override { return machine_->Start(); }
  void Stop() override {
    std::lock_guard<std::mutex> lock(mutex_);
    machine_->Stop();
  }
  int vcpu_count() const override { return machine_->vcpu_count(); }

  absl::Status SetDirtyLogging(bool enabled) {
    std::lock_guard<std::mutex> lock(mutex_);
    return machine_->SetDirtyLogging(enabled);
  }

 private:
  class Paused final : public vmm::PausedGuest {
   public:
    Paused(std::unique_lock<std::mutex> lock, std::unique_ptr<vmm::PausedGuest> inner)
        : lock_(std::move(lock)), inner_(std::move(inner)) {}
    absl::StatusOr<state::MachineState> TakeState() override { return inner_->TakeState(); }
    absl::Status FillRings() override { return inner_->FillRings(); }
    void Resume() override {
      inner_->Resume();
      if (lock_.owns_lock()) lock_.unlock();
    }

   private:
    std::unique_lock<std::mutex> lock_;  // released last
    std::unique_ptr<vmm::PausedGuest> inner_;
  };

  vmm::Machine* const machine_;
  std::mutex mutex_;
};

}  // namespace romulus::daemon

#endif  // ROMULUS_DAEMON_SERIAL_GUEST_H_

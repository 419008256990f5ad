// The guest's home on a simulated node: what daemon/guest_host is on a real one, of the same parts.
// Memory and staging are lent by Pools, which outlives all schedules: to map them anew for each
// would cost more than the schedule.
#ifndef ROMULUS_TESTS_SIM_HOST_H_
#define ROMULUS_TESTS_SIM_HOST_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/failpoints.h"
#include "epoch/checkpoint_loop.h"
#include "epoch/output_gate.h"
#include "replica/replica_store.h"
#include "sim/guest.h"
#include "sim/oracle.h"
#include "tracker/tracker.h"

namespace romulus::sim {

class Pools {
 public:
  // Zeroed.
  std::shared_ptr<memory::GuestMemory> Memory();
  std::shared_ptr<epoch::StagingPool> Staging();

 private:
  std::vector<std::shared_ptr<memory::GuestMemory>> memories_;
  std::vector<std::shared_ptr<epoch::StagingPool>> stagings_;
};

class Host final : public epoch::ReleasedOutput,
                   public devices::ConsoleSink,
                   public epoch::CheckpointListener {
 public:
  struct Parts {
    int node = 0;
    Pools* pools = nullptr;
    Oracle* oracle = nullptr;
    const base::Clock* clock = nullptr;
    // The loop's words; posted by the owner.
    std::function<void(EpochId, const absl::Status&)> on_checkpoint_failed;
    std::function<void(const absl::Status&)> on_gave_up;
  };
  // Boot() or Restore() follows.
  Host(Parts parts, std::shared_ptr<memory::GuestMemory> memory);
  ~Host() override;

  void Boot(uint64_t life);
  absl::Status Restore(state::MachineState state, const replica::PromotableEpoch& taken);
  absl::Status Start();
  void Stop();
  bool assembled() const { return loop_ != nullptr; }

  // A vCPU's turn, if it may run.
  void Step(uint64_t input, bool many);
  void SetPausedByOperator(bool paused) { operator_paused_ = paused; }

  // An ack came: lets out what it covers.
  void Acked(Term term, EpochId epoch);
  void OpenOutput() { gate_->Open(); }
  void HoldOutput() { gate_->Hold(); }
  void DiscardOutput() { gate_->Discard(); }
  uint64_t released_offset() const { return gate_->released_offset(); }

  epoch::CheckpointLoop& loop() { return *loop_; }
  memory::GuestMemory& memory() { return *memory_; }
  SimGuest& guest() { return guest_; }
  base::Failpoints& failpoints() { return failpoints_; }
  bool staging_exhausted() const { return staging_->used_bytes() == staging_->cap_bytes(); }

 private:
  void Assemble(uint64_t console_offset);
  void Emit(uint64_t offset, absl::string_view bytes) override;
  void WriteConsole(std::span<const std::byte> bytes) override { gate_->WriteConsole(bytes); }
  void OnCheckpointFailed(EpochId epoch, epoch::CutReason, const absl::Status& why) override {
    parts_.on_checkpoint_failed(epoch, why);
  }
  void OnGaveUp(const absl::Status& why) override { parts_.on_gave_up(why); }

  const Parts parts_;
  base::Failpoints failpoints_;
  std::shared_ptr<memory::GuestMemory> memory_;
  std::unique_ptr<testing::FakeDirtySource> source_;  // until the tracker has it
  SimGuest guest_;
  std::shared_ptr<epoch::StagingPool> staging_;
  // Taken away, so that an epoch of more pages than the other holds must leave in parts.
  epoch::StagingChunk taken_chunk_;
  std::unique_ptr<epoch::OutputGate> gate_;
  std::unique_ptr<tracker::Tracker> tracker_;
  std::unique_ptr<epoch::CheckpointLoop> loop_;
  bool operator_paused_ = false;
  std::optional<replica::EpochKey> releasing_;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_HOST_H_

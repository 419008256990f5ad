// What benches that run a guest and ship its epochs have in common.
#ifndef ROMULUS_BENCH_RIG_H_
#define ROMULUS_BENCH_RIG_H_

#include <atomic>
#include <iostream>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/status.h"
#include "epoch/checkpoint_loop.h"
#include "support/machine_rig.h"
#include "wire/grpc_link.h"
#include "wire/handshake.h"
#include "wire/primary_session.h"

namespace romulus::bench {

class Failures final : public epoch::CheckpointListener {
 public:
  void OnCheckpointFailed(EpochId, epoch::CutReason, const absl::Status& why) override {
    ++count;
    std::cerr << "checkpoint failed: " << why << "\n";
  }
  void OnGaveUp(const absl::Status&) override {}
  std::atomic<uint64_t> count{0};
};

class NoNews final : public wire::PrimarySessionListener {
 public:
  void OnSignOfLife(uint64_t) override {}
  void OnPeerGoodbye(const v1::Goodbye& goodbye) override {
    std::cerr << "secondary says goodbye: " << goodbye.detail() << "\n";
  }
  void OnBroken(const absl::Status& why) override {
    std::cerr << "the stream is broken: " << why << "\n";
  }
  void OnSessionClosed(const absl::Status&) override {}
};

class LoopSyncSource final : public wire::SyncSource {
 public:
  explicit LoopSyncSource(epoch::CheckpointLoop* loop) : loop_(loop) {}
  absl::StatusOr<memory::PageSet> TakeDirty() override { return loop_->TakeDirty(); }

 private:
  epoch::CheckpointLoop* loop_;
};

// The rig's rings are emptied by whoever listens; in a bench that is the loop.
class BenchRig final : public testing::MachineRig {
 public:
  static absl::StatusOr<std::unique_ptr<BenchRig>> Create(
      const testing::MachineRigOptions& options) {
    auto rig = std::unique_ptr<BenchRig>(new BenchRig);
    ROMULUS_RETURN_IF_ERROR(rig->Init(options));
    return rig;
  }
  uint64_t NextAlarmNs() override {
    epoch::CheckpointLoop* const to = loop.load();
    return to == nullptr ? 0 : to->NextAlarmNs();
  }
  void OnAlarm() override {
    if (epoch::CheckpointLoop* to = loop.load()) to->OnAlarm();
  }
  void OnDirtyRingFull() override {
    if (epoch::CheckpointLoop* to = loop.load()) to->OnDirtyRingFull();
  }
  std::atomic<epoch::CheckpointLoop*> loop{nullptr};
};

// A stream of term 1 to a secondary (loopback_secondary.h), accepted. All pointers outlive it.
// Errors: of the connection, or why it was refused.
inline absl::StatusOr<std::unique_ptr<wire::PrimarySession>> OpenSession(
    const std::string& address, const memory::MemoryLayout& layout, uint32_t vcpus,
    const base::Clock* clock, wire::PrimarySessionListener* listener, wire::AckListener* acks,
    uint64_t previous_cache_bytes = codec::EncoderOptions().previous_cache_bytes) {
  wire::PrimarySessionOptions options;
  options.hello.machine = {.vm_name = "bench",
                           .vm_uuid = "bench",
                           .vcpu_count = vcpus,
                           .memory = layout.regions(),
                           .machine_digest = 0};
  options.hello.node_name = "bench-primary";
  options.hello.current_term = Term(1);
  options.hello.stream_term = Term(1);
  options.hello.max_frame_bytes = codec::kDefaultMaxBodyBytes;
  options.gfn_end = layout.gfn_end();
  options.encoder.previous_cache_bytes = previous_cache_bytes;
  ROMULUS_ASSIGN_OR_RETURN(
      std::unique_ptr<wire::PrimarySession> session,
      wire::PrimarySession::Open(
          options,
          [&](wire::LinkListener* link) { return wire::ConnectGrpcLink(address, {}, link); }, clock,
          listener, acks));
  ROMULUS_ASSIGN_OR_RETURN(const v1::HelloReply reply, session->Handshake(absl::Seconds(10)));
  ROMULUS_RETURN_IF_ERROR(wire::StatusOf(reply));
  return session;
}

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_RIG_H_

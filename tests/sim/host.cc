#include "sim/host.h"

#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "base/check.h"
#include "base/status.h"

namespace romulus::sim {
namespace {

constexpr uint64_t kStagingBytes = 2 * epoch::StagingChunk::kBytes;

// One that nobody uses.
template <typename T>
std::shared_ptr<T> Idle(const std::vector<std::shared_ptr<T>>& all) {
  for (const std::shared_ptr<T>& one : all) {
    if (one.use_count() == 1) return one;
  }
  return nullptr;
}

}  // namespace

std::shared_ptr<memory::GuestMemory> Pools::Memory() {
  std::shared_ptr<memory::GuestMemory> memory = Idle(memories_);
  if (memory == nullptr) {
    memory = *memory::GuestMemory::Create(*memory::MemoryLayout::ForMib(memory::kMinMemoryMib));
    memories_.push_back(memory);
  }
  // Written, not only zero: so that the same holes are found in it each time (SEEK_DATA).
  std::memset(memory->WritableSpan(Gpa(0), kPages * kPageSize)->data(), 0, kPages * kPageSize);
  return memory;
}

std::shared_ptr<epoch::StagingPool> Pools::Staging() {
  std::shared_ptr<epoch::StagingPool> staging = Idle(stagings_);
  if (staging == nullptr) {
    staging = *epoch::StagingPool::Create(kStagingBytes);
    stagings_.push_back(staging);
  }
  staging->Reopen();
  return staging;
}

Host::Host(Parts parts, std::shared_ptr<memory::GuestMemory> memory)
    : parts_(std::move(parts)),
      memory_(std::move(memory)),
      source_(std::make_unique<testing::FakeDirtySource>(memory_->layout().gfn_end())),
      guest_(memory_.get(), source_.get()) {}

Host::~Host() { Stop(); }

void Host::Boot(uint64_t life) {
  guest_.Boot(life);
  Assemble(/*console_offset=*/0);
}

absl::Status Host::Restore(state::MachineState state, const replica::PromotableEpoch& taken) {
  ROMULUS_RETURN_IF_ERROR(guest_.Restore(std::move(state)));
  Assemble(taken.console_offset);
  gate_->WriteConsole(base::AsBytes(taken.console_tail));
  return absl::OkStatus();
}

void Host::Assemble(uint64_t console_offset) {
  staging_ = parts_.pools->Staging();
  taken_chunk_ = *staging_->TryAcquire();
  gate_ = std::make_unique<epoch::OutputGate>(
      epoch::OutputGate::Options{.cap_bytes = 4096, .start_offset = console_offset}, this);
  tracker_ = std::make_unique<tracker::Tracker>(std::move(source_), memory_.get(), &failpoints_);
  epoch::CheckpointParts parts;
  parts.guest = &guest_;
  parts.memory = memory_.get();
  parts.tracker = tracker_.get();
  parts.staging = staging_.get();
  parts.gate = gate_.get();
  parts.clock = parts_.clock;
  parts.failpoints = &failpoints_;
  epoch::CheckpointLoopOptions options;
  options.governor = {.max_dirty_pages = kPages / 2,
                      .max_interval_ns = 80 * kMillisecond,
                      .min_interval_ns = 10 * kMillisecond,
                      .idle_interval_ns = 240 * kMillisecond};
  options.max_unacked_epochs = 3;
  options.max_failures = 3;
  loop_ = std::make_unique<epoch::CheckpointLoop>(parts, options, this);
  loop_->SetObserver([this](const epoch::StagedEpoch& staged) {
    parts_.oracle->Cut({staged.term, staged.epoch}, guest_.cpu(), *memory_);
  });
  gate_->SetOutputWaiting([this] { loop_->OnOutputWaiting(); });
}

absl::Status Host::Start() { return guest_.Start(); }

void Host::Stop() {
  if (loop_ != nullptr) loop_->Stop();
  guest_.Stop();
}

void Host::Step(uint64_t input, bool many) {
  if (!guest_.runs() || operator_paused_ || gate_->OverCap()) return;
  guest_.Step(input, many, *this);
}

void Host::Acked(Term term, EpochId epoch) {
  releasing_ = replica::EpochKey{term, epoch};
  loop_->OnAcked(epoch);
  releasing_.reset();
}

void Host::Emit(uint64_t offset, absl::string_view bytes) {
  parts_.oracle->Said(parts_.node, guest_.cpu().life, offset, bytes, releasing_);
}

}  // namespace romulus::sim

// The ledger guest on real KVM under a Checkpoint, and a replica in the same process fed through
// the real codec: everything but the network. For oracle tests and benches.
#ifndef ROMULUS_TESTS_SUPPORT_MACHINE_RIG_H_
#define ROMULUS_TESTS_SUPPORT_MACHINE_RIG_H_

#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/failpoints.h"
#include "base/status.h"
#include "codec/epoch_encoder.h"
#include "codec/frame.h"
#include "epoch/checkpoint.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"
#include "replica/replica_store.h"
#include "support/epoch_rig.h"
#include "tracker/bitmap_source.h"
#include "tracker/ring_source.h"
#include "tracker/tracker.h"
#include "vmm/machine.h"

namespace romulus::testing {

struct MachineRigOptions {
  std::string kernel;  // ledger.elf
  std::string initrd = {};
  std::string command_line;
  int vcpus = 1;
  uint64_t memory_mib = 16;
  vmm::DirtyLogMode dirty_log = vmm::DirtyLogMode::kRing;
  uint32_t ring_entries = 4096;
  // Steered rings, as the daemon has them where KVM lets it.
  bool steer = false;
  uint64_t max_hot_pages = 0;
  std::vector<int> vcpu_cpus = {};
  uint64_t staging_bytes = 8u << 20;
};

class MachineRig : public vmm::GuestListener {
 public:
  static absl::StatusOr<std::unique_ptr<MachineRig>> Create(const MachineRigOptions& options) {
    auto rig = std::unique_ptr<MachineRig>(new MachineRig);
    ROMULUS_RETURN_IF_ERROR(rig->Init(options));
    return rig;
  }
  ~MachineRig() override {
    if (machine != nullptr) machine->Stop();
  }

  void OnDirtyRingFull() override {
    ring_full.store(true);
    ring_full.notify_all();
  }
  void OnGuestStopped(vmm::GuestStop, const absl::Status& detail) override {
    absl::MutexLock lock(&mutex_);
    stop_detail_ = detail.ToString();
    stopped = true;
  }
  std::string stop_detail() const {
    absl::MutexLock lock(&mutex_);
    return stop_detail_;
  }

  epoch::CheckpointParts Parts() {
    return {machine.get(), memory.get(), tracker.get(), staging.get(),
            gate.get(),    &clock,       &failpoints};
  }
  // Steps and page writes of all vCPUs so far, from the guest's progress pages; it never goes back.
  uint64_t Progress() const {
    uint64_t sum = 0;
    for (int vcpu = 0; vcpu < options.vcpus; ++vcpu) {
      const uint64_t page = kProgress + static_cast<uint64_t>(vcpu) * kPageSize;
      sum += memory->ReadObject<uint64_t>(Gpa(page + 0x10)).value_or(0);
      sum += memory->ReadObject<uint64_t>(Gpa(page + 0x18)).value_or(0);
    }
    return sum;
  }
  // Lets the guest run until it has made so many more writes, wants its ring emptied, or ended.
  void AwaitProgress(uint64_t writes) {
    const uint64_t goal = Progress() + writes;
    while (Progress() < goal && !ring_full && !stopped) std::this_thread::yield();
  }

  // As a promotion: a new machine, which KVM knows nothing about, goes on from what a pause left.
  // Without a dirty log: what Parts() named is gone then.
  absl::Status MoveToNewMachine() {
    ROMULUS_ASSIGN_OR_RETURN(auto paused, machine->Pause({.capture_state = true}));
    ROMULUS_ASSIGN_OR_RETURN(state::MachineState state, paused->TakeState());
    machine->Stop();  // it stands still: no instruction is executed twice
    paused = nullptr;
    spec_.cpuid = machine->cpuid();
    machine = nullptr;
    ROMULUS_ASSIGN_OR_RETURN(machine, vmm::Machine::Restore(*system, spec_, std::move(state)));
    return machine->Start();
  }

  static constexpr uint64_t kProgress = 0x200000;

  MachineRigOptions options;
  base::MonotonicClock clock;
  base::Failpoints failpoints;
  std::unique_ptr<kvm::System> system;
  std::shared_ptr<memory::GuestMemory> memory;
  ReleasedText released;
  std::unique_ptr<epoch::OutputGate> gate;
  std::unique_ptr<epoch::StagingPool> staging;
  std::unique_ptr<vmm::Machine> machine;
  std::unique_ptr<tracker::Tracker> tracker;
  std::atomic<bool> ring_full{false};
  std::atomic<bool> stopped{false};

 protected:
  MachineRig() = default;
  absl::Status Init(const MachineRigOptions& wanted) {
    options = wanted;
    ROMULUS_ASSIGN_OR_RETURN(system, kvm::System::Open());
    ROMULUS_ASSIGN_OR_RETURN(const memory::MemoryLayout layout,
                             memory::MemoryLayout::ForMib(options.memory_mib));
    ROMULUS_ASSIGN_OR_RETURN(std::unique_ptr<memory::GuestMemory> owned,
                             memory::GuestMemory::Create(layout));
    memory = std::move(owned);
    gate = std::make_unique<epoch::OutputGate>(epoch::OutputGate::Options{}, &released);
    ROMULUS_ASSIGN_OR_RETURN(staging, epoch::StagingPool::Create(options.staging_bytes));
    vmm::MachineSpec& spec = spec_;
    spec.vcpu_count = options.vcpus;
    spec.memory = memory;
    spec.dirty_log = options.dirty_log;
    spec.ring_entries = options.ring_entries;
    spec.vcpu_cpus = options.vcpu_cpus;
    spec.boot.kernel_path = options.kernel;
    spec.boot.initrd_path = options.initrd;
    spec.boot.command_line = options.command_line;
    spec.console = gate.get();
    spec.listener = this;
    ROMULUS_ASSIGN_OR_RETURN(machine, vmm::Machine::Boot(*system, spec));
    if (options.dirty_log == vmm::DirtyLogMode::kNone) return absl::OkStatus();
    std::unique_ptr<tracker::DirtySource> source;
    if (options.dirty_log == vmm::DirtyLogMode::kRing) {
      std::vector<kvm::DirtyRing*> rings;
      for (int i = 0; i < options.vcpus; ++i) rings.push_back(machine->dirty_ring(i));
      source = std::make_unique<tracker::RingSource>(
          &machine->vm(), rings, layout,
          tracker::RingSourceOptions{.steer = options.steer,
                                     .max_hot_pages = options.max_hot_pages});
    } else {
      const bool manual = system->capabilities().manual_dirty_log_protect != 0;
      source = std::make_unique<tracker::BitmapSource>(&machine->vm(), layout, manual);
    }
    tracker = std::make_unique<tracker::Tracker>(std::move(source), memory.get(), &failpoints);
    return absl::OkStatus();
  }

 private:
  vmm::MachineSpec spec_;
  mutable absl::Mutex mutex_;
  std::string stop_detail_ ABSL_GUARDED_BY(mutex_);
};

// A secondary without a network: messages of the encoder go straight into a replica store.
class InProcessReplica {
 public:
  explicit InProcessReplica(const memory::MemoryLayout& layout)
      : memory_(*memory::GuestMemory::Create(layout)),
        store_(memory_, {}, nullptr),
        encoder_(*codec::EpochEncoder::Create(layout.gfn_end(), &writer_, {})) {}

  // All memory of a guest that stands still.
  absl::Status FullSync(const memory::GuestMemory& source, Term term) {
    ROMULUS_ASSIGN_OR_RETURN(stream_, store_.OpenStream(term));
    encoder_->StartStream(codec::kDefaultMaxBodyBytes);
    writer_.SetDialect(codec::Dialect(codec::kNewestProtocol));
    reader_.SetDialect(codec::Dialect(codec::kNewestProtocol));
    const auto send = [this](std::string message) { return Deliver(message); };
    const uint64_t pages = source.layout().page_count();
    ROMULUS_RETURN_IF_ERROR(encoder_->BeginSync(term, pages, send));
    for (uint64_t i = 0; i < pages; ++i) {
      const Gfn gfn = source.layout().GfnAt(i);
      ROMULUS_RETURN_IF_ERROR(encoder_->AddSyncPage(gfn, source.Page(gfn), send));
    }
    return encoder_->EndSync(1, send);
  }

  absl::Status Commit(const epoch::StagedEpoch& staged) {
    ROMULUS_RETURN_IF_ERROR(encoder_->Finish(staged, 0, staged.console_released,
                                             [this](std::string m) { return Deliver(m); }));
    if (store_.status().newest.epoch != staged.epoch) return absl::InternalError("not committed");
    return absl::OkStatus();
  }

  // OK if every byte is the same; else names the first pages that differ.
  absl::Status CompareWith(const memory::GuestMemory& source) const {
    std::string differing;
    int count = 0;
    for (const memory::Region& region : source.layout().regions()) {
      const auto ours = *memory_->ReadableSpan(region.gpa, region.size_bytes);
      const auto theirs = *source.ReadableSpan(region.gpa, region.size_bytes);
      if (std::memcmp(ours.data(), theirs.data(), ours.size()) == 0) continue;
      for (uint64_t at = 0; at < region.size_bytes; at += kPageSize) {
        if (std::memcmp(ours.data() + at, theirs.data() + at, kPageSize) == 0) continue;
        if (++count <= 8) {
          absl::StrAppend(&differing, " ", GfnOf(Gpa(region.gpa.value() + at)).value());
        }
      }
    }
    if (count == 0) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(count, " pages differ, first GFNs:", differing));
  }

  replica::ReplicaStore& store() { return store_; }
  codec::EncodeStats TakeStats() { return encoder_->TakeStats(); }
  // Of all epochs but the last.
  const replica::AuditFindings& findings() const { return findings_; }

 private:
  absl::Status Deliver(const std::string& message) {
    absl::string_view rest = message;
    while (!rest.empty()) {
      ROMULUS_ASSIGN_OR_RETURN(const codec::Frame frame, reader_.Next(&rest));
      ROMULUS_RETURN_IF_ERROR(Take(frame));
    }
    return absl::OkStatus();
  }
  absl::Status Take(const codec::Frame& frame) {
    switch (frame.kind) {
      case codec::FrameKind::kSyncBegin:
        return store_.BeginSync(stream_, frame.term, memory_->layout().page_count());
      case codec::FrameKind::kSyncPages:
        return store_.SyncPages(stream_, frame);
      case codec::FrameKind::kSyncEnd:
        return store_.EndSync(stream_, frame.term);
      case codec::FrameKind::kEpochPages:
        return store_.StagePages(stream_, frame);
      case codec::FrameKind::kEpochAudit:
        return store_.StageAudit(stream_, frame);
      case codec::FrameKind::kEpochAbort:
        return store_.Abort(stream_, frame);
      case codec::FrameKind::kEpochCommit: {
        ROMULUS_ASSIGN_OR_RETURN(replica::CommitResult commit, store_.Commit(stream_, frame));
        findings_.Add(std::move(commit.audit));
        return store_.ApplyCommitted(stream_);
      }
      default:
        return absl::InternalError("a frame that no encoder writes");
    }
  }

  std::shared_ptr<memory::GuestMemory> memory_;
  replica::ReplicaStore store_;
  codec::FrameWriter writer_;
  codec::FrameReader reader_;
  std::unique_ptr<codec::EpochEncoder> encoder_;
  replica::ReplicaStore::StreamId stream_ = 0;
  replica::AuditFindings findings_;
};

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_MACHINE_RIG_H_

// tests/guests/hostile on real KVM against one device of each type: it breaks every rule, and each
// device must say so, live on, and work again once it is reset (P7). The guest itself asserts that;
// this test gives it devices and reads its verdict.
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "devices/virtio/block.h"
#include "devices/virtio/console.h"
#include "devices/virtio/net.h"
#include "devices/virtio/rng.h"
#include "kvm/vmm_rig.h"
#include "support/thread_executor.h"
#include "support/virtio_disk.h"
#include "vmm/machine.h"

namespace romulus::testing {
namespace {

// A disk in memory whose requests end on the loop. Reads of 8 KiB, which the guest has in flight
// when it resets the device, take their time.
class LoopDisk final : public devices::BlockBackend {
 public:
  explicit LoopDisk(base::Executor& loop) : loop_(loop), slow_thread_([this] { EndSlowOnes(); }) {}
  ~LoopDisk() override {
    {
      std::lock_guard lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    slow_thread_.join();
    absl::Notification idle;  // what was posted is done
    loop_.Post([&idle] { idle.Notify(); });
    idle.WaitForNotification();
  }
  uint64_t size_bytes() const override { return disk_.size_bytes(); }
  bool read_only() const override { return false; }
  void Submit(devices::BlockRequest request,
              std::function<void(devices::BlockResult)> done) override {
    const bool slow =
        request.kind == devices::BlockRequest::Kind::kRead && request.size_bytes == 8192;
    disk_.Submit(std::move(request), std::move(done));
    if (!slow) return loop_.Post([this] { disk_.DoAll(); });
    {
      std::lock_guard lock(mutex_);
      has_slow_ones_ = true;
    }
    changed_.notify_all();
  }

 private:
  void EndSlowOnes() {
    std::unique_lock lock(mutex_);
    while (!ended_) {
      changed_.wait(lock, [this] { return has_slow_ones_ || ended_; });
      changed_.wait_for(lock, std::chrono::milliseconds(10), [this] { return ended_; });
      if (std::exchange(has_slow_ones_, false)) loop_.Post([this] { disk_.DoAll(); });
    }
  }

  base::Executor& loop_;
  devices::testing::MemoryDisk disk_{1u << 20};  // the loop's thread alone
  std::mutex mutex_;
  std::condition_variable changed_;
  bool has_slow_ones_ = false;
  bool ended_ = false;
  std::thread slow_thread_;
};

class Nowhere final : public devices::VirtioConsoleSink,
                      public devices::NetSink,
                      public devices::NetSource {
 public:
  size_t TakeConsole(std::span<const std::byte> bytes) override { return bytes.size(); }
  bool TakeFrame(std::span<const std::byte>) override { return true; }
  void Plug(devices::NetPlug*) override {}
  devices::NetOffloads offloads() const override { return {}; }
  void SetGuestOffloads(const devices::NetOffloads&) override {}
  size_t ReadFrame(std::span<std::byte>) override { return 0; }
};

class HostileGuestTest : public VmmTest {
 protected:
  vmm::MachineSpec HostileSpec(Witness& witness, const std::string& options) {
    vmm::MachineSpec spec = Spec(witness, 1, "");
    spec.boot.kernel_path = HOSTILE_ELF;
    spec.boot.command_line = options;
    spec.device_loop = &loop_;
    spec.virtio = {
        {"virtio.block", [this] { return std::make_unique<devices::VirtioBlock>(disk_, "disk"); }},
        {"virtio.net",
         [this] {
           const auto mac = devices::ParseCardMac("52:54:00:00:00:01");
           EXPECT_TRUE(mac.ok());
           return std::make_unique<devices::VirtioNet>(*mac, 1500, nowhere_, nowhere_, counters_);
         }},
        {"virtio.console",
         [this] { return std::make_unique<devices::VirtioConsole>(nowhere_, 80, 25); }},
        {"virtio.rng", [this] { return std::make_unique<devices::VirtioRng>(entropy_); }},
    };
    return spec;
  }

  devices::HostEntropy entropy_;
  devices::NetCardCounters counters_;
  Nowhere nowhere_;
  ThreadExecutor loop_;
  LoopDisk disk_{loop_};
};

TEST_F(HostileGuestTest, P7_DevicesOutliveEveryBrokenRule) {
  constexpr int kRounds = 400;
  Witness witness;
  ASSERT_OK_AND_ASSIGN(
      const std::unique_ptr<vmm::Machine> machine,
      vmm::Machine::Boot(*system_,
                         HostileSpec(witness, absl::StrCat("kicks=100 rounds=", kRounds))));
  ASSERT_OK(machine->Start());
  // A line a round: each has the whole patience.
  for (size_t lines = 1; lines <= kRounds; ++lines) {
    ASSERT_TRUE(witness.AwaitLines(lines)) << witness.text();
  }
  ASSERT_TRUE(witness.AwaitStop()) << witness.text();
  const std::string text = witness.text();
  EXPECT_EQ(witness.stop(), vmm::GuestStop::kPowerOff) << witness.detail();
  EXPECT_FALSE(absl::StrContains(text, "HOSTILE ")) << text;
  EXPECT_TRUE(absl::StrContains(text, absl::StrCat("hostile: done rounds ", kRounds, " "))) << text;
  // Somebody sees what the guest does.
  for (const vmm::VirtioFacts& facts : machine->virtio_facts()) {
    uint64_t faults = 0;
    for (const uint64_t count : facts.faults) faults += count;
    EXPECT_GT(faults, 0u) << facts.name;
    EXPECT_FALSE(facts.needs_reset) << facts.name;  // it was reset
  }
  machine->Stop();
}

}  // namespace
}  // namespace romulus::testing

// The simulated guest: a counter that writes pages and speaks. All that it is lies in its memory
// and in one machine section, and every byte that it says follows from both and from what came in
// from outside (a fresh number each step): so two guests that went on from one state soon say
// different things, and a copy that is not exactly one state is seen at once.
//
// A page's whole content follows from its first word (0: all zero), so a snapshot is a word a page.
#ifndef ROMULUS_TESTS_SIM_GUEST_H_
#define ROMULUS_TESTS_SIM_GUEST_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "devices/sinks.h"
#include "memory/guest_memory.h"
#include "support/fake_guest.h"
#include "vmm/guest.h"

namespace romulus::sim {

// Pages that the guest uses, from GFN 0 on. More than one staging chunk holds.
inline constexpr uint64_t kPages = 72;

struct Cpu {
  uint64_t life = 0;  // which boot of the guest this is
  uint64_t counter = 0;
  uint64_t hash = 0;  // of all that it ever did
  uint64_t said = 0;  // bytes of console

  friend bool operator==(const Cpu&, const Cpu&) = default;
};

struct Snapshot {
  Cpu cpu;
  std::array<uint64_t, kPages> pages{};
};

uint64_t Mix(uint64_t a, uint64_t b);
void ExpandPage(uint64_t gfn, uint64_t word, std::byte* into);
Snapshot TakeSnapshot(const Cpu& cpu, const memory::GuestMemory& memory);
// Empty if `memory` is what the snapshot says; else which page is not. `whole`: byte by byte.
std::string Difference(const Snapshot& want, const memory::GuestMemory& memory, bool whole);

class SimGuest final : public vmm::Guest {
 public:
  SimGuest(memory::GuestMemory* memory, testing::FakeDirtySource* source)
      : memory_(memory), source_(source) {}

  absl::StatusOr<std::unique_ptr<vmm::PausedGuest>> Pause(
      const vmm::PauseOptions& options) override;
  absl::Status Start() override;
  void Stop() override { runs_ = false; }
  int vcpu_count() const override { return 1; }

  void Boot(uint64_t life) { cpu_ = {.life = life}; }
  absl::Status Restore(state::MachineState state);
  // Runs a little; `input` is new to it. `many`: writes more pages than a staging chunk holds.
  void Step(uint64_t input, bool many, devices::ConsoleSink& console);

  bool runs() const { return runs_ && !paused_; }
  const Cpu& cpu() const { return cpu_; }

 private:
  class Paused;
  void WritePage(uint64_t gfn, uint64_t word);

  memory::GuestMemory* memory_;
  testing::FakeDirtySource* source_;
  Cpu cpu_;
  bool runs_ = false;
  bool paused_ = false;
};

}  // namespace romulus::sim

#endif  // ROMULUS_TESTS_SIM_GUEST_H_

#include "sim/guest.h"

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status.h"

namespace romulus::sim {
namespace {

constexpr char kSection[] = "sim.cpu";
constexpr size_t kWords = kPageSize / sizeof(uint64_t);

}  // namespace

// The finalizer of splitmix64.
uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15 + b;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

void ExpandPage(uint64_t gfn, uint64_t word, std::byte* into) {
  std::memset(into, 0, kPageSize);
  if (word == 0) return;
  std::memcpy(into, &word, sizeof(word));
  const auto put = [&](size_t at, uint64_t value) {
    std::memcpy(into + at * sizeof(value), &value, sizeof(value));
  };
  const uint64_t kind = word % 16;
  if (kind == 15) {
    for (size_t at = 1; at < kWords; ++at) put(at, Mix(word, gfn * kWords + at));
    return;
  }
  for (uint64_t i = 0; i < kind; ++i) {
    const uint64_t value = Mix(word, gfn * kWords + i);
    put(1 + value % (kWords - 1), value);
  }
}

Snapshot TakeSnapshot(const Cpu& cpu, const memory::GuestMemory& memory) {
  Snapshot snapshot{.cpu = cpu};
  for (uint64_t gfn = 0; gfn < kPages; ++gfn) {
    std::memcpy(&snapshot.pages[gfn], memory.Page(Gfn(gfn)).data(), sizeof(uint64_t));
  }
  return snapshot;
}

std::string Difference(const Snapshot& want, const memory::GuestMemory& memory, bool whole) {
  for (uint64_t gfn = 0; gfn < kPages; ++gfn) {
    const std::byte* const have = memory.Page(Gfn(gfn)).data();
    uint64_t word;
    std::memcpy(&word, have, sizeof(word));
    if (word != want.pages[gfn]) {
      return absl::StrCat("page ", gfn, " is ", absl::Hex(word), ", not ",
                          absl::Hex(want.pages[gfn]));
    }
    if (!whole) continue;
    std::byte page[kPageSize];
    ExpandPage(gfn, word, page);
    if (std::memcmp(page, have, kPageSize) != 0) {
      return absl::StrCat("page ", gfn, " is not all of version ", absl::Hex(word));
    }
  }
  return "";
}

class SimGuest::Paused final : public vmm::PausedGuest {
 public:
  explicit Paused(SimGuest* guest) : guest_(guest) { guest_->paused_ = true; }
  ~Paused() override { Resume(); }
  absl::StatusOr<state::MachineState> TakeState() override {
    state::MachineState state;
    state.PutStruct(kSection, 0, 1, guest_->cpu_);
    return state;
  }
  void Resume() override { guest_->paused_ = false; }

 private:
  SimGuest* guest_;
};

absl::StatusOr<std::unique_ptr<vmm::PausedGuest>> SimGuest::Pause(const vmm::PauseOptions&) {
  ROMULUS_CHECK(!paused_);
  return std::make_unique<Paused>(this);
}

absl::Status SimGuest::Start() {
  runs_ = true;
  return absl::OkStatus();
}

absl::Status SimGuest::Restore(state::MachineState state) {
  ROMULUS_ASSIGN_OR_RETURN(cpu_, state.TakeStruct<Cpu>(kSection, 0, 1));
  return state.ExpectEmpty();
}

void SimGuest::WritePage(uint64_t gfn, uint64_t word) {
  // Past the VMM's log, as a guest writes.
  ExpandPage(gfn, word, memory_->WritableSpan(GpaOf(Gfn(gfn)), kPageSize)->data());
  source_->Add(Gfn(gfn));
  cpu_.hash = Mix(cpu_.hash ^ gfn, word);
}

void SimGuest::Step(uint64_t input, bool many, devices::ConsoleSink& console) {
  ++cpu_.counter;
  cpu_.hash = Mix(cpu_.hash, input);
  const uint64_t count = many ? kPages - 2 : 1 + input % 3;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t word = Mix(cpu_.hash, i);
    const uint64_t gfn = many ? 1 + i : 1 + word % (kPages - 1);
    WritePage(gfn, word % 8 == 0 ? 0 : word);
  }
  WritePage(0, cpu_.hash);
  std::string line(3 + cpu_.hash % 6, '\0');
  for (size_t i = 0; i < line.size(); ++i) {
    line[i] = static_cast<char>(Mix(cpu_.hash, cpu_.said + i));
  }
  cpu_.said += line.size();
  // SAFETY: bytes of a string.
  console.WriteConsole(std::as_bytes(std::span(line.data(), line.size())));
}

}  // namespace romulus::sim

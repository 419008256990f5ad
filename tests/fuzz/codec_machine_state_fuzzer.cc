// Any bytes as a machine state: refused, or equal to itself after another trip.
#include <cstdint>
#include <cstdlib>

#include "state/machine_state.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using romulus::state::MachineState;
  absl::StatusOr<MachineState> state =
      MachineState::Parse(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!state.ok()) return 0;
  absl::StatusOr<MachineState> again = MachineState::Parse(state->Serialize());
  if (!again.ok() || !(*again == *state)) std::abort();
  for (const romulus::state::Section& section : state->sections()) {
    if (!again->Take(section.kind, section.instance, section.version).ok()) std::abort();
  }
  if (!again->ExpectEmpty().ok()) std::abort();
  return 0;
}

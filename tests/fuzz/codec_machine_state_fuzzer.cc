// Any bytes as a machine state: what protobuf reads in them or refused as it does, and equal to
// itself after another trip.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "romulus/v1/machine_state.pb.h"
#include "state/machine_state.h"

namespace {

bool IsSame(const romulus::v1::MachineState& proto,
            const std::vector<romulus::state::Section>& sections) {
  if (static_cast<size_t>(proto.sections_size()) != sections.size()) return false;
  for (int i = 0; i < proto.sections_size(); ++i) {
    const romulus::v1::Section& one = proto.sections(i);
    const romulus::state::Section section{one.kind(), one.instance(), one.version(), one.payload()};
    if (!(section == sections[static_cast<size_t>(i)])) return false;
  }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using romulus::state::MachineState;
  absl::StatusOr<MachineState> state =
      MachineState::Parse(absl::string_view(reinterpret_cast<const char*>(data), size));
  if (!state.ok()) return 0;
  romulus::v1::MachineState proto;
  if (!proto.ParseFromArray(data, static_cast<int>(size))) std::abort();
  if (!IsSame(proto, state->sections())) std::abort();
  absl::StatusOr<MachineState> again = MachineState::Parse(state->Serialize());
  if (!again.ok() || !(*again == *state)) std::abort();
  for (const romulus::state::Section& section : state->sections()) {
    if (!again->Take(section.kind, section.instance, section.version).ok()) std::abort();
  }
  if (!again->ExpectEmpty().ok()) std::abort();
  return 0;
}

// Any bytes as a machine state: what protobuf reads in them or refused as it does, and equal to
// itself after another trip.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>
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

bool NamesOneTwice(const romulus::v1::MachineState& proto) {
  std::set<std::pair<std::string, uint32_t>> names;
  for (const romulus::v1::Section& section : proto.sections()) {
    if (!names.emplace(section.kind(), section.instance()).second) return true;
  }
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using romulus::state::MachineState;
  absl::StatusOr<MachineState> state =
      MachineState::Parse(absl::string_view(reinterpret_cast<const char*>(data), size));
  romulus::v1::MachineState proto;
  const bool is_one = proto.ParseFromArray(data, static_cast<int>(size)) &&
                      static_cast<size_t>(proto.sections_size()) <= romulus::state::kMaxSections &&
                      !NamesOneTwice(proto);
  if (state.ok() != is_one) std::abort();
  if (!is_one) return 0;
  if (!IsSame(proto, state->sections())) std::abort();
  absl::StatusOr<MachineState> again = MachineState::Parse(state->Serialize());
  if (!again.ok() || !(*again == *state)) std::abort();
  for (const romulus::state::Section& section : state->sections()) {
    if (!again->Take(section.kind, section.instance, section.version).ok()) std::abort();
  }
  if (!again->ExpectEmpty().ok()) std::abort();
  return 0;
}

#include "state/machine_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "romulus/v1/machine_state.pb.h"

namespace romulus::state {
namespace {

std::string Name(absl::string_view kind, uint32_t instance) {
  return absl::StrCat(kind, "[", instance, "]");
}

auto Find(auto& sections, absl::string_view kind, uint32_t instance) {
  return std::find_if(sections.begin(), sections.end(),
                      [&](const Section& s) { return s.kind == kind && s.instance == instance; });
}

}  // namespace

void MachineState::Put(absl::string_view kind, uint32_t instance, uint32_t version,
                       std::string payload) {
  ROMULUS_CHECK(!Has(kind, instance));
  sections_.push_back({std::string(kind), instance, version, std::move(payload)});
}

absl::StatusOr<Section> MachineState::Take(absl::string_view kind, uint32_t instance,
                                           uint32_t version) {
  auto it = Find(sections_, kind, instance);
  if (it == sections_.end()) {
    return absl::NotFoundError(absl::StrCat("machine state has no section ", Name(kind, instance)));
  }
  if (it->version != version) {
    return absl::FailedPreconditionError(absl::StrCat("machine state section ",
                                                      Name(kind, instance), " has version ",
                                                      it->version, ", want ", version));
  }
  Section section = std::move(*it);
  sections_.erase(it);
  return section;
}

bool MachineState::Has(absl::string_view kind, uint32_t instance) const {
  return Find(sections_, kind, instance) != sections_.end();
}

absl::Status MachineState::ExpectEmpty() const {
  if (sections_.empty()) return absl::OkStatus();
  std::string names;
  for (const Section& s : sections_) absl::StrAppend(&names, " ", Name(s.kind, s.instance));
  return absl::FailedPreconditionError(
      absl::StrCat("machine state has sections that nothing here understands:", names));
}

size_t MachineState::payload_bytes() const {
  size_t sum = 0;
  for (const Section& s : sections_) sum += s.payload.size();
  return sum;
}

void MachineState::Append(MachineState&& other) {
  for (Section& s : other.sections_) Put(s.kind, s.instance, s.version, std::move(s.payload));
  other.sections_.clear();
}

std::string MachineState::Serialize() const {
  v1::MachineState proto;
  for (const Section& s : sections_) {
    v1::Section& out = *proto.add_sections();
    out.set_kind(s.kind);
    out.set_instance(s.instance);
    out.set_version(s.version);
    out.set_payload(s.payload);
  }
  return proto.SerializeAsString();
}

absl::StatusOr<MachineState> MachineState::Parse(absl::string_view bytes) {
  if (bytes.size() > kMaxSerializedBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("machine state of ", bytes.size(), " bytes is over the limit"));
  }
  v1::MachineState proto;
  if (!proto.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("machine state does not parse");
  }
  if (static_cast<size_t>(proto.sections_size()) > kMaxSections) {
    return absl::InvalidArgumentError("machine state has too many sections");
  }
  MachineState state;
  for (v1::Section& s : *proto.mutable_sections()) {
    if (state.Has(s.kind(), s.instance())) {
      return absl::InvalidArgumentError(
          absl::StrCat("machine state names ", Name(s.kind(), s.instance()), " twice"));
    }
    state.Put(s.kind(), s.instance(), s.version(), std::move(*s.mutable_payload()));
  }
  return state;
}

absl::Status MachineState::WrongSize(const Section& section, size_t want_bytes) {
  return absl::InvalidArgumentError(
      absl::StrCat("machine state section ", Name(section.kind, section.instance), " has ",
                   section.payload.size(), " bytes, want ", want_bytes));
}

}  // namespace romulus::state

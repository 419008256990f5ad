#include "state/machine_state.h"

#include <algorithm>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "google/protobuf/io/coded_stream.h"
#include "romulus/v1/machine_state.pb.h"

namespace romulus::state {
namespace {

using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;

// Protobuf's wire types (https://protobuf.dev/programming-guides/encoding/).
constexpr uint32_t kVarint = 0;
constexpr uint32_t kLengthDelimited = 2;

constexpr uint32_t Tag(int field, uint32_t wire_type) {
  return (static_cast<uint32_t>(field) << 3) | wire_type;
}

constexpr uint32_t kSectionTag = Tag(v1::MachineState::kSectionsFieldNumber, kLengthDelimited);
constexpr uint32_t kKindTag = Tag(v1::Section::kKindFieldNumber, kLengthDelimited);
constexpr uint32_t kInstanceTag = Tag(v1::Section::kInstanceFieldNumber, kVarint);
constexpr uint32_t kVersionTag = Tag(v1::Section::kVersionFieldNumber, kVarint);
constexpr uint32_t kPayloadTag = Tag(v1::Section::kPayloadFieldNumber, kLengthDelimited);

// The most that a section has beside its kind and its payload: five tags of a byte, five numbers.
constexpr size_t kMostBeside = 5 * (1 + 5);

// Of a field, as they travel: what has its default value does not.
size_t SizeOf(uint32_t number) {
  return number == 0 ? 0 : 1 + CodedOutputStream::VarintSize32(number);
}
size_t SizeOf(absl::string_view text) {
  return text.empty() ? 0
                      : 1 + CodedOutputStream::VarintSize32(static_cast<uint32_t>(text.size())) +
                            text.size();
}

uint8_t* WriteNumber(uint32_t tag, uint32_t number, uint8_t* to) {
  if (number == 0) return to;
  to = CodedOutputStream::WriteTagToArray(tag, to);
  return CodedOutputStream::WriteVarint32ToArray(number, to);
}
// All of a string but itself.
uint8_t* WriteHead(uint32_t tag, absl::string_view text, uint8_t* to) {
  return WriteNumber(tag, static_cast<uint32_t>(text.size()), to);
}

bool IsAscii(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), absl::ascii_isascii);
}

uint64_t KeyOf(absl::string_view kind, uint32_t instance) { return absl::HashOf(kind, instance); }

std::string Name(absl::string_view kind, uint32_t instance) {
  return absl::StrCat(kind, "[", instance, "]");
}

}  // namespace

absl::string_view MachineState::KindOf(const Place& place) const {
  return absl::string_view(wire_).substr(place.kind_at, place.kind_bytes);
}

absl::string_view MachineState::PayloadOf(const Place& place) const {
  return absl::string_view(wire_).substr(place.end - place.payload_bytes, place.payload_bytes);
}

std::vector<MachineState::Place>::const_iterator MachineState::Find(uint64_t key,
                                                                    absl::string_view kind,
                                                                    uint32_t instance) const {
  return std::find_if(places_.begin(), places_.end(), [&](const Place& place) {
    return place.key == key && place.instance == instance && KindOf(place) == kind;
  });
}

void MachineState::Reserve(size_t sections, size_t serialized_bytes) {
  places_.reserve(sections);
  wire_.reserve(serialized_bytes + kMostBeside);  // more than it takes, while it is written
}

void MachineState::Put(absl::string_view kind, uint32_t instance, uint32_t version,
                       absl::string_view payload) {
  ROMULUS_CHECK(TryPut(kind, instance, version, payload));
}

bool MachineState::TryPut(absl::string_view kind, uint32_t instance, uint32_t version,
                          absl::string_view payload) {
  const uint64_t key = KeyOf(kind, instance);
  if (Find(key, kind, instance) != places_.end()) return false;
  const size_t size = SizeOf(kind) + SizeOf(instance) + SizeOf(version) + SizeOf(payload);
  const size_t begin = wire_.size();
  ROMULUS_CHECK(begin + kMostBeside + size <= UINT32_MAX);

  wire_.resize(begin + kMostBeside + kind.size());
  // SAFETY: bytes may be written as any type of their size.
  auto* const data = reinterpret_cast<uint8_t*>(wire_.data());
  const auto at = [data](const uint8_t* to) { return static_cast<uint32_t>(to - data); };
  uint8_t* to = CodedOutputStream::WriteTagToArray(kSectionTag, data + begin);
  to = CodedOutputStream::WriteVarint32ToArray(static_cast<uint32_t>(size), to);
  to = WriteHead(kKindTag, kind, to);
  const uint32_t kind_at = at(to);
  if (!kind.empty()) {  // which may be at no address at all
    to = CodedOutputStream::WriteRawToArray(kind.data(), static_cast<int>(kind.size()), to);
  }
  to = WriteNumber(kInstanceTag, instance, to);
  to = WriteNumber(kVersionTag, version, to);
  to = WriteHead(kPayloadTag, payload, to);
  wire_.resize(at(to));
  wire_.append(payload.data(), payload.size());

  const Place place{.key = key,
                    .begin = static_cast<uint32_t>(begin),
                    .end = static_cast<uint32_t>(wire_.size()),
                    .kind_at = kind_at,
                    .kind_bytes = static_cast<uint32_t>(kind.size()),
                    .payload_bytes = static_cast<uint32_t>(payload.size()),
                    .instance = instance,
                    .version = version};
  places_.push_back(place);
  return true;
}

absl::StatusOr<Section> MachineState::Take(absl::string_view kind, uint32_t instance,
                                           uint32_t version) {
  const auto found = Find(KeyOf(kind, instance), kind, instance);
  if (found == places_.end()) {
    return absl::NotFoundError(absl::StrCat("machine state has no section ", Name(kind, instance)));
  }
  if (found->version != version) {
    return absl::FailedPreconditionError(absl::StrCat("machine state section ",
                                                      Name(kind, instance), " has version ",
                                                      found->version, ", want ", version));
  }
  Section section{std::string(kind), instance, version, std::string(PayloadOf(*found))};
  const uint32_t begin = found->begin;
  const uint32_t bytes = found->end - begin;
  wire_.erase(begin, bytes);
  for (auto rest = places_.erase(found); rest != places_.end(); ++rest) {
    rest->begin -= bytes;
    rest->end -= bytes;
    rest->kind_at -= bytes;
  }
  return section;
}

bool MachineState::Has(absl::string_view kind, uint32_t instance) const {
  return Find(KeyOf(kind, instance), kind, instance) != places_.end();
}

absl::Status MachineState::ExpectEmpty() const {
  if (places_.empty()) return absl::OkStatus();
  std::string names;
  for (const Place& place : places_) {
    absl::StrAppend(&names, " ", Name(KindOf(place), place.instance));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("machine state has sections that nothing here understands:", names));
}

std::vector<Section> MachineState::sections() const {
  std::vector<Section> all;
  for (const Place& place : places_) {
    all.push_back(
        {std::string(KindOf(place)), place.instance, place.version, std::string(PayloadOf(place))});
  }
  return all;
}

std::string MachineState::Serialize() && {
  places_.clear();
  return std::exchange(wire_, {});
}

// A peer sends one with each epoch, and protobuf's objects take memory for each section. So it is
// read as what it most likely is; that it was that is known when what was put is the same again.
bool MachineState::PutOwn(absl::string_view bytes) {
  // SAFETY: bytes may be read as any type of their size.
  CodedInputStream in(reinterpret_cast<const uint8_t*>(bytes.data()),
                      static_cast<int>(bytes.size()));
  const auto read = [&in, bytes](uint32_t tag, absl::string_view& text) {
    uint32_t size = 0;
    if (!in.ExpectTag(tag)) return true;
    if (!in.ReadVarint32(&size)) return false;
    text = bytes.substr(std::min(bytes.size(), static_cast<size_t>(in.CurrentPosition())), size);
    return size <= kMaxSerializedBytes && in.Skip(static_cast<int>(size));
  };
  const auto read_number = [&in](uint32_t tag, uint32_t& number) {
    return !in.ExpectTag(tag) || in.ReadVarint32(&number);
  };
  wire_.reserve(bytes.size() + kMostBeside);
  while (static_cast<size_t>(in.CurrentPosition()) < bytes.size()) {
    absl::string_view kind;
    absl::string_view payload;
    uint32_t instance = 0;
    uint32_t version = 0;
    uint32_t size = 0;
    const bool is_read = in.ExpectTag(kSectionTag) && in.ReadVarint32(&size) &&
                         read(kKindTag, kind) && read_number(kInstanceTag, instance) &&
                         read_number(kVersionTag, version) && read(kPayloadTag, payload);
    // A string of protobuf's is UTF-8, which ASCII is.
    if (!is_read || places_.size() == kMaxSections || !IsAscii(kind)) return false;
    if (!TryPut(kind, instance, version, payload)) return false;
  }
  return wire_ == bytes;
}

absl::StatusOr<MachineState> MachineState::Parse(absl::string_view bytes) {
  if (bytes.size() > kMaxSerializedBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("machine state of ", bytes.size(), " bytes is over the limit"));
  }
  if (MachineState own; own.PutOwn(bytes)) return own;
  v1::MachineState proto;
  if (!proto.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::InvalidArgumentError("machine state does not parse");
  }
  if (static_cast<size_t>(proto.sections_size()) > kMaxSections) {
    return absl::InvalidArgumentError("machine state has too many sections");
  }
  MachineState state;
  for (const v1::Section& s : proto.sections()) {
    if (!state.TryPut(s.kind(), s.instance(), s.version(), s.payload())) {
      return absl::InvalidArgumentError(
          absl::StrCat("machine state names ", Name(s.kind(), s.instance()), " twice"));
    }
  }
  return state;
}

absl::Status MachineState::WrongSize(const Section& section, size_t want_bytes) {
  return absl::InvalidArgumentError(
      absl::StrCat("machine state section ", Name(section.kind, section.instance), " has ",
                   section.payload.size(), " bytes, want ", want_bytes));
}

}  // namespace romulus::state

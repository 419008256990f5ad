#include "state/machine_state.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/xxh3.h"
#include "google/protobuf/io/coded_stream.h"
#include "romulus/v1/machine_state.pb.h"

namespace romulus::state {
namespace {

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

// Tags and numbers between the strings of a section. What has its default value does not travel.
class Numbers {
 public:
  Numbers& AddTag(uint32_t tag) {
    end_ = CodedOutputStream::WriteTagToArray(tag, end_);
    return *this;
  }
  Numbers& Add(size_t number) {
    end_ = CodedOutputStream::WriteVarint64ToArray(number, end_);
    return *this;
  }
  Numbers& AddField(uint32_t tag, uint32_t value) {
    return value == 0 ? *this : AddTag(tag).Add(value);
  }
  // Of a string that follows.
  Numbers& AddField(uint32_t tag, absl::string_view text) {
    return text.empty() ? *this : AddTag(tag).Add(text.size());
  }
  absl::string_view view() const {
    return {reinterpret_cast<const char*>(bytes_.data()),
            static_cast<size_t>(end_ - bytes_.data())};
  }

 private:
  static constexpr size_t kMostOfOne = 15;  // a tag, at most 5 bytes, and a number of 64 bits
  std::array<uint8_t, 3 * kMostOfOne> bytes_;
  uint8_t* end_ = bytes_.data();
};

uint64_t KeyOf(absl::string_view kind, uint32_t instance) {
  return XXH3_64bits_withSeed(kind.data(), kind.size(), instance);
}

std::string Name(absl::string_view kind, uint32_t instance) {
  return absl::StrCat(kind, "[", instance, "]");
}

}  // namespace

absl::string_view MachineState::KindOf(const Place& place) const {
  return absl::string_view(wire_).substr(place.kind_at, place.kind_bytes);
}

absl::string_view MachineState::PayloadOf(const Place& place) const {
  return absl::string_view(wire_).substr(place.end() - place.payload_bytes, place.payload_bytes);
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
  wire_.reserve(serialized_bytes);
}

void MachineState::Put(absl::string_view kind, uint32_t instance, uint32_t version,
                       absl::string_view payload) {
  const uint64_t key = KeyOf(kind, instance);
  ROMULUS_CHECK(Find(key, kind, instance) == places_.end());
  Numbers before_kind;
  before_kind.AddField(kKindTag, kind);
  Numbers before_payload;
  before_payload.AddField(kInstanceTag, instance)
      .AddField(kVersionTag, version)
      .AddField(kPayloadTag, payload);
  const size_t size =
      before_kind.view().size() + kind.size() + before_payload.view().size() + payload.size();
  Numbers before_section;
  before_section.AddTag(kSectionTag).Add(size);

  Place place{.key = key,
              .begin = wire_.size(),
              .bytes = before_section.view().size() + size,
              .kind_bytes = kind.size(),
              .payload_bytes = payload.size(),
              .instance = instance,
              .version = version};
  const auto append = [this](absl::string_view text) { wire_.append(text.data(), text.size()); };
  append(before_section.view());
  append(before_kind.view());
  place.kind_at = wire_.size();
  append(kind);
  append(before_payload.view());
  append(payload);
  places_.push_back(place);
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
  const size_t begin = found->begin;
  const size_t bytes = found->bytes;
  wire_.erase(begin, bytes);
  for (auto rest = places_.erase(found); rest != places_.end(); ++rest) {
    rest->begin -= bytes;
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
  state.Reserve(static_cast<size_t>(proto.sections_size()), bytes.size());
  for (const v1::Section& s : proto.sections()) {
    if (state.Has(s.kind(), s.instance())) {
      return absl::InvalidArgumentError(
          absl::StrCat("machine state names ", Name(s.kind(), s.instance()), " twice"));
    }
    state.Put(s.kind(), s.instance(), s.version(), s.payload());
  }
  return state;
}

absl::Status MachineState::WrongSize(const Section& section, size_t want_bytes) {
  return absl::InvalidArgumentError(
      absl::StrCat("machine state section ", Name(section.kind, section.instance), " has ",
                   section.payload.size(), " bytes, want ", want_bytes));
}

}  // namespace romulus::state

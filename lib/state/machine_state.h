// How anything saves and restores itself: sections {kind, instance, version, payload}. A value; one
// thread at a time. Whoever restores takes its sections out; one that nobody took is an error, so a
// state from another version cannot be half understood.
//
// Sections lie one behind the other as they travel, romulus.v1.MachineState in protobuf's wire
// format: a state is put together while the guest stands still, so that a section is a copy of its
// payload, not memory of its own, and nothing is left to do for whoever sends it.
#ifndef ROMULUS_STATE_MACHINE_STATE_H_
#define ROMULUS_STATE_MACHINE_STATE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/bytes.h"

namespace romulus::state {

inline constexpr size_t kMaxSections = 4096;
inline constexpr size_t kMaxSerializedBytes = 16u << 20;

struct Section {
  std::string kind;
  uint32_t instance = 0;
  uint32_t version = 0;
  std::string payload;

  friend bool operator==(const Section&, const Section&) = default;
};

class MachineState {
 public:
  // Memory for so many sections of so many bytes when serialized, all together: putting no more
  // takes none.
  void Reserve(size_t sections, size_t serialized_bytes);

  // Appends a section. (kind, instance) must be new, and all together shorter than 4 GiB.
  void Put(absl::string_view kind, uint32_t instance, uint32_t version, absl::string_view payload);

  // A trivially copyable struct as payload, as it lies in memory (little-endian hosts only).
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void PutStruct(absl::string_view kind, uint32_t instance, uint32_t version, const T& value) {
    Put(kind, instance, version, base::AsText(std::as_bytes(std::span(&value, 1))));
  }

  // Removes and returns the section. Errors: NotFound; FailedPrecondition on another version.
  absl::StatusOr<Section> Take(absl::string_view kind, uint32_t instance, uint32_t version);

  // Take() of a struct. Errors: also InvalidArgument if the payload has another size.
  template <typename T>
  requires std::is_trivially_copyable_v<T> absl::StatusOr<T> TakeStruct(absl::string_view kind,
                                                                        uint32_t instance,
                                                                        uint32_t version) {
    absl::StatusOr<Section> section = Take(kind, instance, version);
    if (!section.ok()) return section.status();
    if (section->payload.size() != sizeof(T)) return WrongSize(*section, sizeof(T));
    T value;
    std::memcpy(&value, section->payload.data(), sizeof(T));
    return value;
  }

  bool Has(absl::string_view kind, uint32_t instance) const;
  // OK if every section was taken; else names the ones left.
  absl::Status ExpectEmpty() const;

  size_t section_count() const { return places_.size(); }
  // Copies, in their order.
  std::vector<Section> sections() const;

  // romulus.v1.MachineState on the wire.
  const std::string& Serialize() const& { return wire_; }
  std::string Serialize() &&;
  // Errors: InvalidArgument on anything but a well-formed state within the limits above.
  static absl::StatusOr<MachineState> Parse(absl::string_view bytes);

  friend bool operator==(const MachineState& a, const MachineState& b) {
    return a.wire_ == b.wire_;
  }

 private:
  // Where a section is in wire_: all of it from `begin` on, the tag before it too; its kind; its
  // payload, which is the end of it.
  struct Place {
    uint64_t key = 0;  // a hash of kind and instance: few others have the same
    uint32_t begin = 0;
    uint32_t end = 0;
    uint32_t kind_at = 0;
    uint32_t kind_bytes = 0;
    uint32_t payload_bytes = 0;
    uint32_t instance = 0;
    uint32_t version = 0;
  };

  // False, and nothing put, if it is there already.
  bool TryPut(absl::string_view kind, uint32_t instance, uint32_t version,
              absl::string_view payload);
  // Puts what Serialize() may have given. False if it has not: whatever was put is of no use.
  bool PutOwn(absl::string_view bytes);
  static absl::Status WrongSize(const Section& section, size_t want_bytes);

  absl::string_view KindOf(const Place& place) const;
  absl::string_view PayloadOf(const Place& place) const;
  // `key`: of both.
  std::vector<Place>::const_iterator Find(uint64_t key, absl::string_view kind,
                                          uint32_t instance) const;

  std::string wire_;
  std::vector<Place> places_;  // ascending
};

}  // namespace romulus::state

#endif  // ROMULUS_STATE_MACHINE_STATE_H_

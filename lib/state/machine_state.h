// How anything saves and restores itself: sections {kind, instance, version, payload}. A value; one
// thread at a time. Whoever restores takes its sections out; one that nobody took is an error, so a
// state from another version cannot be half understood.
#ifndef ROMULUS_STATE_MACHINE_STATE_H_
#define ROMULUS_STATE_MACHINE_STATE_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

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
  // Appends a section. (kind, instance) must be new.
  void Put(absl::string_view kind, uint32_t instance, uint32_t version, std::string payload);

  // A trivially copyable struct as payload, as it lies in memory (little-endian hosts only).
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void PutStruct(absl::string_view kind, uint32_t instance, uint32_t version, const T& value) {
    std::string payload(sizeof(T), '\0');
    std::memcpy(payload.data(), &value, sizeof(T));
    Put(kind, instance, version, std::move(payload));
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

  const std::vector<Section>& sections() const { return sections_; }
  size_t payload_bytes() const;
  void Append(MachineState&& other);

  // romulus.v1.MachineState on the wire.
  std::string Serialize() const;
  // Errors: InvalidArgument on anything but a well-formed state within the limits above.
  static absl::StatusOr<MachineState> Parse(absl::string_view bytes);

  friend bool operator==(const MachineState&, const MachineState&) = default;

 private:
  static absl::Status WrongSize(const Section& section, size_t want_bytes);

  std::vector<Section> sections_;
};

}  // namespace romulus::state

#endif  // ROMULUS_STATE_MACHINE_STATE_H_

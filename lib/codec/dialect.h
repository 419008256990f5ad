// Which version of the replication protocol a stream speaks, and what may be said in it: the one
// place that knows. Two builds agree on the newest version that both speak (wire/handshake.h).
// What the protocol gained since an older one is kept out of a stream of that one, both ways: what
// is sent leaves without it, and what came with it, which such a peer never sends, is read as if it
// were not there.
//
//   frame kinds            each with its first version: dialect.cc
//   fields, enum values    each with its first version: romulus/v1/replication.proto (`since`)
//   compression of bodies  kCompressionSince: frame.cc, epoch_encoder.cc
//   page records           sparse ones: whoever writes and reads them asks version()
//                          (page_encoding.h), as for the machine state's delta (machine_delta.h)
//   audit records          groups of pages: whoever writes and reads them (audit_records.h)
//   other records in binary bodies, sections of the machine state
//                          none has changed so far
//
// Values; any thread.
#ifndef ROMULUS_CODEC_DIALECT_H_
#define ROMULUS_CODEC_DIALECT_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace google::protobuf {
class MessageLite;
}

namespace romulus::codec {

enum class FrameKind : uint8_t;

// 2: disks; 3: lineage; 4: hand-over; 5: audit; 6: REASON_REPLICA_WRONG, machine state deltas; 7:
// sparse page records, compressed bodies, and what of the link heartbeats tell; 8: an
// audit's hashes by groups of pages. The oldest is the
// previous release's newest, so that an upgrade can go host by host (docs/upgrade.md).
inline constexpr uint32_t kOldestProtocol = 5;
inline constexpr uint32_t kNewestProtocol = 8;
// Bulk bodies may be compressed (codec/frame.h).
inline constexpr uint32_t kCompressionSince = 7;

// What one build speaks. An inverted one is nothing: it has no version in common with any.
struct ProtocolRange {
  uint32_t oldest = kOldestProtocol;
  uint32_t newest = kNewestProtocol;

  bool Contains(uint32_t version) const { return oldest <= version && version <= newest; }
};

// The newest version that both speak; 0: there is none.
constexpr uint32_t NewestCommon(const ProtocolRange& a, const ProtocolRange& b) {
  const uint32_t newest = std::min(a.newest, b.newest);
  return newest >= std::max(a.oldest, b.oldest) ? newest : 0;
}

// "5", "5 to 7": for people.
std::string RangeText(const ProtocolRange& range);

class Dialect {
 public:
  // Before a version is agreed on: what all understand.
  constexpr Dialect() = default;
  explicit constexpr Dialect(uint32_t version) : version_(version) {}

  uint32_t version() const { return version_; }
  bool Has(FrameKind kind) const;

  // Appends `body`, without what is newer than this dialect.
  void Serialize(const google::protobuf::MessageLite& body, std::string* into) const;
  // False if `bytes` do not parse. What is newer than this dialect is not in *into.
  bool Parse(absl::string_view bytes, google::protobuf::MessageLite* into) const;

  friend bool operator==(const Dialect&, const Dialect&) = default;

 private:
  uint32_t version_ = kOldestProtocol;
};

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_DIALECT_H_

// A fuzz input as a row of well-formed frames, so that what lies behind the checksum is reached
// too: per frame {u8 kind, u8 term, u16 epoch, u16 body length} (little-endian) and the body.
#ifndef ROMULUS_TESTS_FUZZ_REPLICA_SCRIPT_H_
#define ROMULUS_TESTS_FUZZ_REPLICA_SCRIPT_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"
#include "codec/frame.h"

namespace romulus::replica {

inline void AppendScriptFrame(const codec::Frame& frame, std::string* script) {
  const uint8_t kind = static_cast<uint8_t>(frame.kind);
  const uint8_t term = static_cast<uint8_t>(frame.term.value());
  const uint16_t epoch = static_cast<uint16_t>(frame.epoch.value());
  const uint16_t size = static_cast<uint16_t>(std::min<size_t>(frame.body.size(), 0xffff));
  char head[6];
  std::memcpy(head, &kind, 1);
  std::memcpy(head + 1, &term, 1);
  std::memcpy(head + 2, &epoch, 2);
  std::memcpy(head + 4, &size, 2);
  script->append(head, sizeof(head));
  script->append(frame.body.data(), size);
}

// Takes the next frame off *script and appends it to *message; false at the end.
inline bool TakeScriptFrame(absl::string_view* script, codec::FrameWriter* writer,
                            std::string* message) {
  if (script->size() < 6) return false;
  uint8_t kind, term;
  uint16_t epoch, size;
  std::memcpy(&kind, script->data(), 1);
  std::memcpy(&term, script->data() + 1, 1);
  std::memcpy(&epoch, script->data() + 2, 2);
  std::memcpy(&size, script->data() + 4, 2);
  script->remove_prefix(6);
  const absl::string_view body = script->substr(0, size);
  script->remove_prefix(body.size());
  writer->Append(static_cast<codec::FrameKind>(kind), Term(term), EpochId(epoch), body, message);
  return true;
}

}  // namespace romulus::replica

#endif  // ROMULUS_TESTS_FUZZ_REPLICA_SCRIPT_H_

// A fuzz input as a row of well-formed frames, so that what lies behind the checksum is reached
// too: per frame {u8 kind, u8 term, u16 epoch, u16 body length} (little-endian) and the body. With
// kScriptPacked on its kind the body is compressed already, behind {u8 method, u32 raw length};
// with kScriptPack it is compressed for it, by LZ4. For writers of the newest dialect.
#ifndef ROMULUS_TESTS_FUZZ_REPLICA_SCRIPT_H_
#define ROMULUS_TESTS_FUZZ_REPLICA_SCRIPT_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/strings/string_view.h"
#include "codec/frame.h"

namespace romulus::replica {

inline constexpr uint8_t kScriptPack = 0x40;
inline constexpr uint8_t kScriptPacked = 0x80;

// Appends the frame with a compressed body; false: nothing was done.
inline bool AppendPacked(uint8_t kind, Term term, EpochId epoch, absl::string_view body,
                         codec::FrameWriter* writer, std::string* message) {
  const auto named = static_cast<codec::FrameKind>(kind & 0x3f);
  codec::Packed packed;
  std::string bytes;
  if (!codec::MayBeCompressed(named)) return false;
  if ((kind & kScriptPacked) != 0) {
    if (body.size() < 5) return false;
    std::memcpy(&packed.method, body.data(), 1);
    std::memcpy(&packed.raw_bytes, body.data() + 1, 4);
    bytes = std::string(body.substr(5));
  } else if ((kind & kScriptPack) != 0) {
    packed = {codec::Compression::kLz4, static_cast<uint32_t>(body.size())};
    bytes.resize(body.size());
    codec::Compressor compressor;
    bytes.resize(compressor.Compress(packed.method, body, bytes.data(), bytes.size()));
  }
  if (bytes.empty()) return false;
  const size_t begin = codec::FrameWriter::Begin(named, term, epoch, message);
  message->append(bytes);
  writer->End(begin, message, packed);
  return true;
}

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
  if (AppendPacked(kind, Term(term), EpochId(epoch), body, writer, message)) return true;
  writer->Append(static_cast<codec::FrameKind>(kind), Term(term), EpochId(epoch), body, message);
  return true;
}

}  // namespace romulus::replica

#endif  // ROMULUS_TESTS_FUZZ_REPLICA_SCRIPT_H_

// Frames: what travels on a replication link. A message on the link is one or more frames back to
// back; each is a fixed header and a body:
//
//   offset  size  field (little-endian)
//        0     4  magic "RMLF"
//        4     2  format version
//        6     1  kind
//        7     1  compression of the body: 0, or codec/compression.h's number of the method
//        8     8  term
//       16     8  epoch, 0 where none is meant
//       24     8  sequence: 1 for the first frame of a direction of the stream, then one more each
//       32     4  body length, bytes, as it travels
//       36     4  length of the body before it was compressed; 0: it was not
//       40     8  checksum: XXH3-64 of the body as it travels, seeded with XXH3-64 of header
//                  bytes 0..39
//
// Only bulk bodies (MayBeCompressed) are ever compressed, from protocol version kCompressionSince
// on; before it bytes 7 and 36..39 are 0.
// The sequence number catches frames lost, doubled and swapped; the checksum, bytes changed.
// Writer and reader are values of one stream direction each; one thread at a time.
#ifndef ROMULUS_CODEC_FRAME_H_
#define ROMULUS_CODEC_FRAME_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/types.h"
#include "codec/compression.h"
#include "codec/dialect.h"

namespace google::protobuf {
class MessageLite;
}

namespace romulus::codec {

inline constexpr uint32_t kFrameMagic = 0x464c4d52;  // "RMLF"
inline constexpr uint16_t kFrameVersion = 1;
inline constexpr size_t kFrameHeaderBytes = 48;
// Pages are cut into bodies of about kPageBodyBytes; the rest is room for a machine state and the
// console bytes of one epoch. Hello and HelloReply say what each side accepts.
inline constexpr size_t kPageBodyBytes = 256u << 10;
inline constexpr size_t kDefaultMaxBodyBytes = 4u << 20;

// Numbers are permanent. Bodies: page records (codec/page_encoding.h) for the two *Pages kinds,
// disk records or hashes (codec/disk_records.h) for EpochDisks, DiskBlocks and DiskHashes, hashes
// of pages and blocks (codec/audit_records.h) for EpochAudit, the romulus.v1 message of the same
// name for the others.
enum class FrameKind : uint8_t {
  kHello = 1,
  kHelloReply = 2,
  kHeartbeat = 3,
  kSyncBegin = 4,
  kSyncPages = 5,
  kSyncEnd = 6,
  kEpochPages = 7,
  kEpochCommit = 8,
  kEpochAbort = 9,
  kAck = 10,
  kGoodbye = 11,
  kEpochDisks = 12,
  kDiskSyncBegin = 13,
  kDiskBlocks = 14,
  kDiskHashRequest = 15,
  kDiskHashes = 16,
  kDiskSyncEnd = 17,
  kHandOver = 18,
  kHandOverRefusal = 19,
  kEpochAudit = 20,
};
inline constexpr size_t kFrameKindEnd = 21;
inline constexpr std::array<absl::string_view, kFrameKindEnd> kFrameKindNames = {
    "invalid",      "hello",           "hello_reply", "heartbeat",
    "sync_begin",   "sync_pages",      "sync_end",    "epoch_pages",
    "epoch_commit", "epoch_abort",     "ack",         "goodbye",
    "epoch_disks",  "disk_sync_begin", "disk_blocks", "disk_hash_request",
    "disk_hashes",  "disk_sync_end",   "hand_over",   "hand_over_refusal",
    "epoch_audit"};
constexpr absl::string_view FrameKindName(FrameKind kind) {
  return static_cast<size_t>(kind) < kFrameKindEnd ? kFrameKindNames[static_cast<size_t>(kind)]
                                                   : kFrameKindNames[0];
}

// Pages and disk blocks: what there is much of.
constexpr bool MayBeCompressed(FrameKind kind) {
  return kind == FrameKind::kSyncPages || kind == FrameKind::kEpochPages ||
         kind == FrameKind::kEpochDisks || kind == FrameKind::kDiskBlocks;
}

// Why a reader refused its input; a metric label.
enum class FrameFault : uint8_t {
  kNone,
  kTruncated,
  kMagic,
  kVersion,
  kKind,
  kFlags,
  kOversize,
  kChecksum,
  kSequenceGap,
  kSequenceRepeat,
  kTermRange,    // beyond kMaxPeerTerm
  kCompression,  // a body that is not what its compression makes of so many bytes
};
inline constexpr size_t kFrameFaultCount = 12;
inline constexpr std::array<absl::string_view, kFrameFaultCount> kFrameFaultNames = {
    "none",     "truncated", "magic",        "version",         "kind",       "flags",
    "oversize", "checksum",  "sequence_gap", "sequence_repeat", "term_range", "compression"};
constexpr absl::string_view FrameFaultName(FrameFault fault) {
  return kFrameFaultNames[static_cast<size_t>(fault)];
}

struct Frame {
  FrameKind kind = FrameKind::kHello;
  Term term;
  EpochId epoch;
  uint64_t sequence = 0;
  // Into the message that was read; if it was compressed, into the reader, until it reads the next.
  absl::string_view body;
  Dialect dialect = {};                          // of the reader
  Compression compression = Compression::kNone;  // as it travelled
};

// How a body was compressed.
struct Packed {
  Compression method = Compression::kNone;
  uint32_t raw_bytes = 0;  // before it was; 0 for kNone
};

class FrameWriter {
 public:
  // Appends one frame to a message. Frames get their sequence numbers, and must be sent, in the
  // order of the calls of Append() and End().
  void Append(FrameKind kind, Term term, EpochId epoch, absl::string_view body,
              std::string* message);
  // The same with a protobuf message as body, as it is said in the dialect.
  void Append(FrameKind kind, Term term, EpochId epoch, const google::protobuf::MessageLite& body,
              std::string* message);

  // For bodies built in place: Begin() returns where in *message the frame starts; append the body;
  // End(). Frames may be written to other messages in between. `packed`: what the body then is, of
  // a kind that may be, in a dialect that has it.
  static size_t Begin(FrameKind kind, Term term, EpochId epoch, std::string* message);
  void End(size_t begin, std::string* message, const Packed& packed = {});

  // Of the frames to come.
  void SetDialect(Dialect dialect) { dialect_ = dialect; }
  const Dialect& dialect() const { return dialect_; }
  // The next frame begins a new stream, in no agreed dialect.
  void Reset() { *this = FrameWriter(); }
  uint64_t last_sequence() const { return sequence_; }

 private:
  uint64_t sequence_ = 0;
  Dialect dialect_;
};

class FrameReader {
 public:
  explicit FrameReader(size_t max_body_bytes = kDefaultMaxBodyBytes)
      : max_body_bytes_(max_body_bytes) {}

  // Takes the first frame off *rest, which holds the remains of one message; call until it is
  // empty. Nothing past *rest is read. Errors (InvalidArgument, ResourceExhausted for an oversized
  // body, also one that is oversized only before it was compressed) say what is wrong and are
  // final: the stream is over and every later call fails the same way. A kind that the dialect does
  // not have is unknown.
  absl::StatusOr<Frame> Next(absl::string_view* rest);

  // Of the frames to come.
  void SetDialect(Dialect dialect) { dialect_ = dialect; }
  // Of a peer that has no frames whose bodies may be compressed.
  void TakeNoCompressedBodies() { takes_compressed_ = false; }

  FrameFault fault() const { return fault_; }
  uint64_t last_sequence() const { return sequence_; }

 private:
  absl::Status Fail(FrameFault fault, absl::Status status);
  char* RoomForBody(size_t bytes);

  size_t max_body_bytes_;
  uint64_t sequence_ = 0;
  Dialect dialect_;
  bool takes_compressed_ = true;
  FrameFault fault_ = FrameFault::kNone;
  absl::Status failure_;
  // Of bodies that come compressed; nothing before the first.
  Decompressor decompressor_;
  std::unique_ptr<char[]> body_;
  size_t body_room_ = 0;
};

// The frame's body as a protobuf message, as its dialect has it. Errors: InvalidArgument, naming
// the kind.
absl::Status ParseBody(const Frame& frame, google::protobuf::MessageLite* into);

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_FRAME_H_

#include "codec/frame.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/xxh3.h"

namespace romulus::codec {
namespace {

struct Header {
  uint32_t magic = kFrameMagic;
  uint16_t version = kFrameVersion;
  uint8_t kind = 0;
  uint8_t compression = 0;
  uint64_t term = 0;
  uint64_t epoch = 0;
  uint64_t sequence = 0;
  uint32_t body_bytes = 0;
  uint32_t raw_bytes = 0;
  uint64_t checksum = 0;
};
static_assert(sizeof(Header) == kFrameHeaderBytes);
static_assert(offsetof(Header, compression) == 7 && offsetof(Header, sequence) == 24 &&
              offsetof(Header, raw_bytes) == 36 && offsetof(Header, checksum) == 40);

// The header's hash is the seed of the body's, so that both are covered without being copied
// together.
uint64_t Checksum(const char* header, absl::string_view body) {
  return XXH3_64bits_withSeed(body.data(), body.size(),
                              XXH3_64bits(header, offsetof(Header, checksum)));
}

}  // namespace

size_t FrameWriter::Begin(FrameKind kind, Term term, EpochId epoch, std::string* message) {
  Header header;
  header.kind = static_cast<uint8_t>(kind);
  header.term = term.value();
  header.epoch = epoch.value();
  char raw[sizeof(Header)];
  std::memcpy(raw, &header, sizeof(Header));
  const size_t begin = message->size();
  message->append(raw, sizeof(Header));
  return begin;
}

void FrameWriter::End(size_t begin, std::string* message, const Packed& packed) {
  ROMULUS_CHECK(message->size() >= begin + sizeof(Header));
  char* header = message->data() + begin;
  const absl::string_view body = absl::string_view(*message).substr(begin + sizeof(Header));
  ROMULUS_CHECK(body.size() <= UINT32_MAX);
  ++sequence_;
  std::memcpy(header + offsetof(Header, sequence), &sequence_, sizeof(sequence_));
  const uint32_t body_bytes = static_cast<uint32_t>(body.size());
  std::memcpy(header + offsetof(Header, body_bytes), &body_bytes, sizeof(body_bytes));
  if (packed.method != Compression::kNone) {
    FrameKind kind;
    std::memcpy(&kind, header + offsetof(Header, kind), sizeof(kind));
    ROMULUS_CHECK(dialect_.version() >= kCompressionSince && MayBeCompressed(kind));
    std::memcpy(header + offsetof(Header, compression), &packed.method, sizeof(packed.method));
    std::memcpy(header + offsetof(Header, raw_bytes), &packed.raw_bytes, sizeof(packed.raw_bytes));
  }
  const uint64_t checksum = Checksum(header, body);
  std::memcpy(header + offsetof(Header, checksum), &checksum, sizeof(checksum));
}

void FrameWriter::Append(FrameKind kind, Term term, EpochId epoch, absl::string_view body,
                         std::string* message) {
  const size_t begin = Begin(kind, term, epoch, message);
  message->append(body.data(), body.size());
  End(begin, message);
}

void FrameWriter::Append(FrameKind kind, Term term, EpochId epoch,
                         const google::protobuf::MessageLite& body, std::string* message) {
  const size_t begin = Begin(kind, term, epoch, message);
  dialect_.Serialize(body, message);
  End(begin, message);
}

absl::Status FrameReader::Fail(FrameFault fault, absl::Status status) {
  fault_ = fault;
  failure_ = status;
  return status;
}

char* FrameReader::RoomForBody(size_t bytes) {
  if (body_room_ < bytes) {
    body_.reset();  // never both
    body_ = std::make_unique_for_overwrite<char[]>(bytes);
    body_room_ = bytes;
  }
  return body_.get();
}

absl::StatusOr<Frame> FrameReader::Next(absl::string_view* rest) {
  if (!failure_.ok()) return failure_;
  const auto fail = [this](FrameFault fault, const std::string& what) {
    return Fail(fault, absl::InvalidArgumentError(
                           absl::StrCat("frame ", sequence_ + 1, " of the stream: ", what)));
  };
  if (rest->size() < sizeof(Header)) {
    return fail(FrameFault::kTruncated,
                absl::StrCat("truncated: ", rest->size(), " of ", sizeof(Header), " header bytes"));
  }
  Header header;
  std::memcpy(&header, rest->data(), sizeof(Header));
  if (header.magic != kFrameMagic) {
    return fail(FrameFault::kMagic,
                absl::StrFormat("bad magic %#x, want %#x", header.magic, kFrameMagic));
  }
  if (header.version != kFrameVersion) {
    return fail(FrameFault::kVersion,
                absl::StrCat("format version ", header.version, ", want ", kFrameVersion));
  }
  // The length bounds all reading that follows, so it is looked at before the checksum can be.
  if (header.body_bytes > max_body_bytes_) {
    return Fail(FrameFault::kOversize,
                absl::ResourceExhaustedError(
                    absl::StrCat("frame ", sequence_ + 1, " of the stream: oversized body of ",
                                 header.body_bytes, " bytes, at most ", max_body_bytes_)));
  }
  if (header.body_bytes > rest->size() - sizeof(Header)) {
    return fail(FrameFault::kTruncated, absl::StrCat("truncated: ", rest->size() - sizeof(Header),
                                                     " of ", header.body_bytes, " body bytes"));
  }
  const absl::string_view body = rest->substr(sizeof(Header), header.body_bytes);
  if (Checksum(rest->data(), body) != header.checksum) {
    return fail(FrameFault::kChecksum, "checksum does not match");
  }
  if (header.kind == 0 || header.kind >= kFrameKindEnd) {
    return fail(FrameFault::kKind, absl::StrCat("unknown kind ", header.kind));
  }
  if (const auto named = static_cast<FrameKind>(header.kind); !dialect_.Has(named)) {
    return fail(FrameFault::kKind,
                absl::StrCat("kind ", FrameKindName(named), " is unknown to protocol version ",
                             dialect_.version()));
  }
  const auto kind = static_cast<FrameKind>(header.kind);
  const bool compressed = header.compression != 0 && header.compression < kCompressionEnd &&
                          MayBeCompressed(kind) && dialect_.version() >= kCompressionSince &&
                          takes_compressed_;
  if (!compressed && (header.compression != 0 || header.raw_bytes != 0)) {
    return fail(FrameFault::kFlags,
                absl::StrFormat("a %s body of compression %u, from %u bytes, has no place here",
                                FrameKindName(kind), header.compression, header.raw_bytes));
  }
  if (compressed && header.raw_bytes > max_body_bytes_) {
    return Fail(FrameFault::kOversize,
                absl::ResourceExhaustedError(absl::StrCat(
                    "frame ", sequence_ + 1, " of the stream: oversized body of ", header.raw_bytes,
                    " bytes when decompressed, at most ", max_body_bytes_)));
  }
  if (compressed && header.raw_bytes <= header.body_bytes) {
    return fail(FrameFault::kCompression, absl::StrCat("compressed to ", header.body_bytes,
                                                       " bytes from ", header.raw_bytes));
  }
  if (header.sequence != sequence_ + 1) {
    return fail(
        header.sequence <= sequence_ ? FrameFault::kSequenceRepeat : FrameFault::kSequenceGap,
        absl::StrCat("sequence number ", header.sequence,
                     header.sequence <= sequence_ ? " was here before" : " leaves a gap"));
  }
  if (Term(header.term) > kMaxPeerTerm) {
    return fail(FrameFault::kTermRange, absl::StrCat("term ", header.term, " is out of range"));
  }
  Frame frame;
  frame.kind = kind;
  frame.body = body;
  if (compressed) {
    frame.compression = static_cast<Compression>(header.compression);
    char* const raw = RoomForBody(header.raw_bytes);
    if (absl::Status status =
            decompressor_.Decompress(frame.compression, body, raw, header.raw_bytes);
        !status.ok()) {
      return fail(FrameFault::kCompression, std::string(status.message()));
    }
    frame.body = absl::string_view(raw, header.raw_bytes);
  }
  sequence_ = header.sequence;
  rest->remove_prefix(sizeof(Header) + header.body_bytes);
  frame.term = Term(header.term);
  frame.epoch = EpochId(header.epoch);
  frame.sequence = header.sequence;
  frame.dialect = dialect_;
  return frame;
}

absl::Status ParseBody(const Frame& frame, google::protobuf::MessageLite* into) {
  if (!frame.dialect.Parse(frame.body, into)) {
    return absl::InvalidArgumentError(
        absl::StrCat("body of ", FrameKindName(frame.kind), " frame does not parse"));
  }
  return absl::OkStatus();
}

}  // namespace romulus::codec

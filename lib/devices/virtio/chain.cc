#include "devices/virtio/chain.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace romulus::devices {
namespace {

// Calls `use(gpa, size_bytes)` for each piece of [offset, offset + size_bytes), until one fails.
// Returns how many bytes there were.
template <typename Use>
absl::StatusOr<uint64_t> ForEachPiece(std::span<const Segment> segments, uint64_t offset,
                                      uint64_t size_bytes, Use use) {
  uint64_t done = 0;
  for (const Segment& segment : segments) {
    if (done == size_bytes) break;
    if (offset >= segment.size_bytes) {
      offset -= segment.size_bytes;
      continue;
    }
    const uint64_t piece = std::min<uint64_t>(segment.size_bytes - offset, size_bytes - done);
    ROMULUS_RETURN_IF_ERROR(use(Gpa(segment.gpa.value() + offset), piece, done));
    offset = 0;
    done += piece;
  }
  return done;
}

}  // namespace

absl::StatusOr<size_t> Gather(const memory::GuestMemory& memory, std::span<const Segment> segments,
                              uint64_t offset, std::span<std::byte> into) {
  return ForEachPiece(segments, offset, into.size(), [&](Gpa gpa, uint64_t size, uint64_t done) {
    return memory.Read(gpa, into.subspan(done, size));
  });
}

absl::StatusOr<size_t> Scatter(memory::GuestMemory& memory, std::span<const Segment> segments,
                               uint64_t offset, std::span<const std::byte> from) {
  return ForEachPiece(segments, offset, from.size(), [&](Gpa gpa, uint64_t size, uint64_t done) {
    return memory.Write(gpa, from.subspan(done, size));
  });
}

absl::StatusOr<std::vector<Segment>> Slice(std::span<const Segment> segments, uint64_t offset,
                                           uint64_t size_bytes) {
  std::vector<Segment> pieces;
  ROMULUS_ASSIGN_OR_RETURN(
      const uint64_t found,
      ForEachPiece(segments, offset, size_bytes, [&](Gpa gpa, uint64_t size, uint64_t) {
        pieces.push_back({gpa, static_cast<uint32_t>(size)});
        return absl::OkStatus();
      }));
  if (found != size_bytes) {
    return absl::OutOfRangeError(
        absl::StrCat("the chain ends ", size_bytes - found, " bytes too early"));
  }
  return pieces;
}

// SAFETY: the spans come from GuestMemory's checked accessors, one region each, and the mapping
// lives as long as `memory`. The guest may write the bytes at any time: nobody here looks at them.
absl::StatusOr<std::vector<std::span<const std::byte>>> ReadableSpans(
    const memory::GuestMemory& memory, std::span<const Segment> segments) {
  std::vector<std::span<const std::byte>> spans;
  spans.reserve(segments.size());
  for (const Segment& segment : segments) {
    ROMULUS_ASSIGN_OR_RETURN(const std::span<const std::byte> span,
                             memory.ReadableSpan(segment.gpa, segment.size_bytes));
    spans.push_back(span);
  }
  return spans;
}

// SAFETY: as above; the caller marks what it wrote.
absl::StatusOr<std::vector<std::span<std::byte>>> WritableSpans(memory::GuestMemory& memory,
                                                                std::span<const Segment> segments) {
  std::vector<std::span<std::byte>> spans;
  spans.reserve(segments.size());
  for (const Segment& segment : segments) {
    ROMULUS_ASSIGN_OR_RETURN(const std::span<std::byte> span,
                             memory.WritableSpan(segment.gpa, segment.size_bytes));
    spans.push_back(span);
  }
  return spans;
}

absl::Status MarkWritten(memory::GuestMemory& memory, std::span<const Segment> segments,
                         uint64_t size_bytes) {
  return ForEachPiece(
             segments, 0, size_bytes,
             [&](Gpa gpa, uint64_t size, uint64_t) { return memory.MarkWritten(gpa, size); })
      .status();
}

}  // namespace romulus::devices

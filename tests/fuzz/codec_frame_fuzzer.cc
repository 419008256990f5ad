// Any bytes as messages of a stream: the reader ends with a fault or at the end, never past it.
// What is compressed comes in a stream that has it.
#include <cstdint>
#include <cstdlib>

#include "codec/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace romulus::codec;
  const absl::string_view all(reinterpret_cast<const char*>(data), size);
  absl::string_view rest = all;
  FrameReader reader(1 << 20);
  reader.SetDialect(Dialect(kNewestProtocol));
  uint64_t frames = 0;
  while (!rest.empty()) {
    const size_t before = rest.size();
    const absl::StatusOr<Frame> frame = reader.Next(&rest);
    if (frame.ok() != (reader.fault() == FrameFault::kNone)) std::abort();
    if (!frame.ok()) break;
    if (frame->sequence != ++frames || rest.size() + kFrameHeaderBytes > before) std::abort();
    if (frame->compression != Compression::kNone) {
      if (frame->body.empty() || frame->body.size() > 1 << 20) std::abort();
      if (!MayBeCompressed(frame->kind)) std::abort();
      continue;
    }
    if (frame->body.data() < all.data() || frame->body.data() + frame->body.size() > rest.data()) {
      std::abort();
    }
    // A frame that was read is written the same way again.
    std::string again;
    FrameWriter writer;
    for (uint64_t i = 1; i < frames; ++i) {
      std::string skipped;
      writer.Append(FrameKind::kAck, romulus::Term(), romulus::EpochId(), "", &skipped);
    }
    writer.Append(frame->kind, frame->term, frame->epoch, frame->body, &again);
    if (again != all.substr(all.size() - before, before - rest.size())) std::abort();
  }
  return 0;
}

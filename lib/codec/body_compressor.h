// The sender's half of compression: makes the bodies of bulk frames smaller in place, by a method
// that the configuration names or that pays (codec/compression_choice.h), and only if they get
// smaller by an eighth. Costs one look while it is off. One thread at a time.
#ifndef ROMULUS_CODEC_BODY_COMPRESSOR_H_
#define ROMULUS_CODEC_BODY_COMPRESSOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "codec/compression.h"
#include "codec/compression_choice.h"
#include "codec/frame.h"

namespace romulus::codec {

enum class CompressionPolicy : uint8_t { kOff, kAuto, kLz4, kZstd };

// Bodies that were compressed, by Compression: their bytes before and after. Those that would not
// have become smaller by an eighth are kNone's.
struct CompressionStats {
  std::array<uint64_t, kCompressionEnd> raw_bytes{};
  std::array<uint64_t, kCompressionEnd> wire_bytes{};

  CompressionStats& operator+=(const CompressionStats& other);
  // Since `earlier`, which is part of this.
  CompressionStats operator-(const CompressionStats& earlier) const;
};

class BodyCompressor {
 public:
  // Smaller bodies are sent as they are.
  static constexpr size_t kMinBodyBytes = 512;

  // `clock` outlives the compressor; without one nothing is measured, and kAuto is kOff.
  BodyCompressor(CompressionPolicy policy, const base::Clock* clock)
      : policy_(policy == CompressionPolicy::kAuto && clock == nullptr ? CompressionPolicy::kOff
                                                                       : policy),
        clock_(clock) {}

  // The body of a frame, which is all that *message has from `begin` on. What comes back belongs
  // into the frame's header. Only for a stream whose dialect has compression.
  Packed Shrink(size_t begin, std::string* message) {
    if (policy_ == CompressionPolicy::kOff) return {};
    return TryToShrink(begin, message);
  }
  // kAuto: what the link achieves; 0: not known.
  void SetLinkRate(uint64_t bytes_per_second) {
    if (policy_ == CompressionPolicy::kAuto) choice_.SetLinkRate(bytes_per_second);
  }
  // In use: the one of the configuration, or the one that pays.
  Compression method() const;
  // Since the last call.
  CompressionStats TakeStats();

 private:
  Packed TryToShrink(size_t begin, std::string* message);

  const CompressionPolicy policy_;
  const base::Clock* const clock_;
  CompressionChoice choice_;
  Compressor compressor_;
  CompressionStats stats_;
  std::unique_ptr<char[]> scratch_;
  size_t scratch_bytes_ = 0;
};

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_BODY_COMPRESSOR_H_

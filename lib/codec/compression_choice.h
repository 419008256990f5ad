// Which compression pays on this link, from what was measured: the link's rate, and what each
// method takes and saves on the bodies themselves. A byte costs on its way, in seconds,
//
//   1/rate                        as it is
//   1/speed + ratio/rate          compressed
//
// and a method is taken up if it is clearly cheaper than the next simpler one (nothing, LZ4, zstd),
// given up when it hardly is any more. While the rate is not known, or so high that the nodes are
// what is slow, nothing is compressed, not even to try.
//
// Knows no clock. Values; one thread at a time.
#ifndef ROMULUS_CODEC_COMPRESSION_CHOICE_H_
#define ROMULUS_CODEC_COMPRESSION_CHOICE_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "codec/compression.h"

namespace romulus::codec {

class CompressionChoice {
 public:
  // A link of so many bytes/s, or more, is never compressed for: 3.2 Gbit/s.
  static constexpr uint64_t kThickBytesPerSecond = 400'000'000;

  // 0: not known.
  void SetLinkRate(uint64_t bytes_per_second);
  // For the next body: the method that pays; now and then another one, to measure it.
  Compression Next();
  // What became of a body that was given to `method`, not kNone: `wire_bytes` were sent for
  // `raw_bytes` (as many, if it did not get smaller), which took `ns`.
  void Took(Compression method, size_t raw_bytes, size_t wire_bytes, uint64_t ns);

  // The method that pays.
  Compression current() const { return current_; }

 private:
  // Of late; older bodies count less and less.
  struct Measured {
    double raw_bytes = 0;
    double wire_bytes = 0;
    double ns = 0;
  };
  bool Known(Compression method) const;
  double CostOf(Compression method) const;  // ns for each byte
  void Decide();

  uint64_t rate_ = 0;
  std::array<Measured, kCompressionEnd> measured_{};
  Compression current_ = Compression::kNone;
  Compression tried_ = Compression::kZstd;  // last
  uint32_t until_trial_ = 0;
};

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_COMPRESSION_CHOICE_H_

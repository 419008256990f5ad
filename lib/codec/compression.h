// Bodies of frames made smaller for thin links: LZ4 or zstd (level 1), behind the coding of pages.
// Each body stands for itself. Contexts are made when they are first needed, and kept.
#ifndef ROMULUS_CODEC_COMPRESSION_H_
#define ROMULUS_CODEC_COMPRESSION_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace romulus::codec {

// Numbers are permanent: they travel in the header of a frame (codec/frame.h).
enum class Compression : uint8_t { kNone = 0, kLz4 = 1, kZstd = 2 };
inline constexpr size_t kCompressionEnd = 3;
inline constexpr std::array<absl::string_view, kCompressionEnd> kCompressionNames = {"none", "lz4",
                                                                                     "zstd"};
constexpr absl::string_view CompressionName(Compression method) {
  return kCompressionNames[static_cast<size_t>(method)];
}

// One thread at a time.
class Compressor {
 public:
  // Writes `raw`, not empty, compressed to `into` and returns how many bytes that took; 0 if it
  // does not fit into `room`. `method` is not kNone.
  size_t Compress(Compression method, absl::string_view raw, char* into, size_t room);

 private:
  struct FreeZstd {
    void operator()(ZSTD_CCtx_s* context) const;
  };
  std::unique_ptr<char[]> lz4_;
  std::unique_ptr<ZSTD_CCtx_s, FreeZstd> zstd_;
};

// One thread at a time.
class Decompressor {
 public:
  // Writes the `raw_bytes` bytes that `packed` stands for to `into`, and never more. Total on any
  // input. Errors: InvalidArgument if it is not exactly one body of that size.
  absl::Status Decompress(Compression method, absl::string_view packed, char* into,
                          size_t raw_bytes);

 private:
  struct FreeZstd {
    void operator()(ZSTD_DCtx_s* context) const;
  };
  std::unique_ptr<ZSTD_DCtx_s, FreeZstd> zstd_;
};

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_COMPRESSION_H_

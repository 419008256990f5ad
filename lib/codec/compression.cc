#include "codec/compression.h"

#include <lz4.h>
#include <zstd.h>

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace romulus::codec {
namespace {

constexpr int kLz4Acceleration = 1;
constexpr int kZstdLevel = 1;

bool FitsLz4(size_t bytes) { return bytes <= LZ4_MAX_INPUT_SIZE; }

absl::Status Bad(Compression method, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat(CompressionName(method), ": ", what));
}

absl::Status CheckZstdFrame(absl::string_view packed, size_t raw_bytes) {
  // One frame of the present format, which says its size: neither several behind each other, nor
  // one to be skipped, nor one of the formats before zstd 0.8, for which the library may have
  // decoders that few look at.
  uint32_t magic = 0;
  if (packed.size() < sizeof(magic)) return Bad(Compression::kZstd, "truncated");
  std::memcpy(&magic, packed.data(), sizeof(magic));
  if (magic != ZSTD_MAGICNUMBER) return Bad(Compression::kZstd, "bad magic");
  if (ZSTD_getFrameContentSize(packed.data(), packed.size()) != raw_bytes) {
    return Bad(Compression::kZstd, "another size than announced");
  }
  if (ZSTD_findFrameCompressedSize(packed.data(), packed.size()) != packed.size()) {
    return Bad(Compression::kZstd, "not one whole frame");
  }
  return absl::OkStatus();
}

}  // namespace

void Compressor::FreeZstd::operator()(ZSTD_CCtx_s* context) const { ZSTD_freeCCtx(context); }
void Decompressor::FreeZstd::operator()(ZSTD_DCtx_s* context) const { ZSTD_freeDCtx(context); }

size_t Compressor::Compress(Compression method, absl::string_view raw, char* into, size_t room) {
  ROMULUS_CHECK(method != Compression::kNone);
  if (method == Compression::kLz4) {
    if (!FitsLz4(raw.size()) || !FitsLz4(room)) return 0;
    // From new, as from malloc: aligned for anything.
    if (lz4_ == nullptr) lz4_ = std::make_unique<char[]>(static_cast<size_t>(LZ4_sizeofState()));
    const int taken =
        LZ4_compress_fast_extState(lz4_.get(), raw.data(), into, static_cast<int>(raw.size()),
                                   static_cast<int>(room), kLz4Acceleration);
    return taken > 0 ? static_cast<size_t>(taken) : 0;
  }
  if (zstd_ == nullptr) zstd_.reset(ZSTD_createCCtx());
  if (zstd_ == nullptr) return 0;
  const size_t taken =
      ZSTD_compressCCtx(zstd_.get(), into, room, raw.data(), raw.size(), kZstdLevel);
  return ZSTD_isError(taken) != 0 ? 0 : taken;
}

absl::Status Decompressor::Decompress(Compression method, absl::string_view packed, char* into,
                                      size_t raw_bytes) {
  switch (method) {
    case Compression::kLz4: {
      if (!FitsLz4(packed.size()) || !FitsLz4(raw_bytes)) return Bad(method, "oversized");
      const int written = LZ4_decompress_safe(packed.data(), into, static_cast<int>(packed.size()),
                                              static_cast<int>(raw_bytes));
      if (written < 0) return Bad(method, "malformed, or more than announced");
      if (static_cast<size_t>(written) != raw_bytes) return Bad(method, "less than announced");
      return absl::OkStatus();
    }
    case Compression::kZstd: {
      if (absl::Status one = CheckZstdFrame(packed, raw_bytes); !one.ok()) return one;
      if (zstd_ == nullptr) zstd_.reset(ZSTD_createDCtx());
      if (zstd_ == nullptr) return absl::ResourceExhaustedError("zstd: no memory for a context");
      const size_t written =
          ZSTD_decompressDCtx(zstd_.get(), into, raw_bytes, packed.data(), packed.size());
      if (ZSTD_isError(written) != 0) return Bad(method, ZSTD_getErrorName(written));
      if (written != raw_bytes) return Bad(method, "less than announced");
      return absl::OkStatus();
    }
    case Compression::kNone:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown compression ", static_cast<unsigned>(method)));
}

}  // namespace romulus::codec

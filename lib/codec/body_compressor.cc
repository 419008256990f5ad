#include "codec/body_compressor.h"

#include <cstring>
#include <utility>

namespace romulus::codec {

CompressionStats& CompressionStats::operator+=(const CompressionStats& other) {
  for (size_t i = 0; i < kCompressionEnd; ++i) {
    raw_bytes[i] += other.raw_bytes[i];
    wire_bytes[i] += other.wire_bytes[i];
  }
  return *this;
}

CompressionStats CompressionStats::operator-(const CompressionStats& earlier) const {
  CompressionStats since;
  for (size_t i = 0; i < kCompressionEnd; ++i) {
    since.raw_bytes[i] = raw_bytes[i] - earlier.raw_bytes[i];
    since.wire_bytes[i] = wire_bytes[i] - earlier.wire_bytes[i];
  }
  return since;
}

Compression BodyCompressor::method() const {
  switch (policy_) {
    case CompressionPolicy::kLz4:
      return Compression::kLz4;
    case CompressionPolicy::kZstd:
      return Compression::kZstd;
    case CompressionPolicy::kAuto:
      return choice_.current();
    case CompressionPolicy::kOff:
      break;
  }
  return Compression::kNone;
}

CompressionStats BodyCompressor::TakeStats() { return std::exchange(stats_, CompressionStats{}); }

Packed BodyCompressor::TryToShrink(size_t begin, std::string* message) {
  const size_t raw_bytes = message->size() - begin;
  if (raw_bytes < kMinBodyBytes || raw_bytes > UINT32_MAX) return {};
  const bool measures = policy_ == CompressionPolicy::kAuto;
  const Compression method = measures ? choice_.Next() : this->method();
  if (method == Compression::kNone) return {};
  const size_t room = raw_bytes - raw_bytes / 8;
  if (scratch_bytes_ < room) {
    scratch_ = std::make_unique_for_overwrite<char[]>(room);
    scratch_bytes_ = room;
  }
  const uint64_t begin_ns = measures ? clock_->NowNs() : 0;
  const size_t taken = compressor_.Compress(
      method, absl::string_view(*message).substr(begin, raw_bytes), scratch_.get(), room);
  const size_t wire_bytes = taken == 0 ? raw_bytes : taken;
  if (taken != 0) {
    std::memcpy(message->data() + begin, scratch_.get(), taken);
    message->resize(begin + taken);
  }
  if (measures) choice_.Took(method, raw_bytes, wire_bytes, clock_->NowNs() - begin_ns);
  const Compression used = taken == 0 ? Compression::kNone : method;
  stats_.raw_bytes[static_cast<size_t>(used)] += raw_bytes;
  stats_.wire_bytes[static_cast<size_t>(used)] += wire_bytes;
  if (taken == 0) return {};
  return {method, static_cast<uint32_t>(raw_bytes)};
}

}  // namespace romulus::codec

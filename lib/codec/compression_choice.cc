#include "codec/compression_choice.h"

namespace romulus::codec {
namespace {

// A method is known once it had so many bytes, and what it did counts half after so many more.
constexpr double kKnownBytes = 64 << 10;
constexpr double kHalveBytes = 8 << 20;
// Of so many bodies one is for measuring a method that is not in use.
constexpr uint32_t kBodiesPerTrial = 32;
// Share of the simpler method's cost below which a method is taken up, and above which it is given
// up.
constexpr double kTakeUp = 0.8;
constexpr double kGiveUp = 0.95;

constexpr Compression kMethods[] = {Compression::kLz4, Compression::kZstd};  // by what they cost

}  // namespace

bool CompressionChoice::Known(Compression method) const {
  return measured_[static_cast<size_t>(method)].raw_bytes >= kKnownBytes;
}

double CompressionChoice::CostOf(Compression method) const {
  const double wire_ns = 1e9 / static_cast<double>(rate_);
  if (method == Compression::kNone) return wire_ns;
  const Measured& measured = measured_[static_cast<size_t>(method)];
  return (measured.ns + measured.wire_bytes * wire_ns) / measured.raw_bytes;
}

void CompressionChoice::SetLinkRate(uint64_t bytes_per_second) {
  if (bytes_per_second == rate_) return;
  rate_ = bytes_per_second;
  Decide();
}

void CompressionChoice::Decide() {
  Compression pays = Compression::kNone;
  // A link about as thick as that does not change its mind with each report.
  const uint64_t thick =
      current_ == Compression::kNone ? kThickBytesPerSecond / 5 * 4 : kThickBytesPerSecond;
  if (rate_ != 0 && rate_ < thick) {
    for (const Compression method : kMethods) {
      if (!Known(method)) continue;
      const double below = current_ >= method ? kGiveUp : kTakeUp;
      if (CostOf(method) < below * CostOf(pays)) pays = method;
    }
  }
  current_ = pays;
}

Compression CompressionChoice::Next() {
  if (rate_ == 0 || rate_ >= kThickBytesPerSecond) return Compression::kNone;
  for (const Compression method : kMethods) {
    if (!Known(method)) return tried_ = method;
  }
  if (until_trial_ > 0) {
    --until_trial_;
    return current_;
  }
  until_trial_ = kBodiesPerTrial - 1;
  // The other one; the two in turn if neither is in use.
  const Compression before = current_ == Compression::kNone ? tried_ : current_;
  return tried_ = before == Compression::kLz4 ? Compression::kZstd : Compression::kLz4;
}

void CompressionChoice::Took(Compression method, size_t raw_bytes, size_t wire_bytes, uint64_t ns) {
  Measured& measured = measured_[static_cast<size_t>(method)];
  if (measured.raw_bytes >= kHalveBytes) {
    measured.raw_bytes /= 2;
    measured.wire_bytes /= 2;
    measured.ns /= 2;
  }
  measured.raw_bytes += static_cast<double>(raw_bytes);
  measured.wire_bytes += static_cast<double>(wire_bytes);
  measured.ns += static_cast<double>(ns);
  Decide();
}

}  // namespace romulus::codec

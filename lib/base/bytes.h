// Bounded little-endian reading and writing of byte strings that may come from anywhere. The reader
// never goes past its end: a short read turns it bad and yields zeros, and ok() says so once at the
// end. Values; one thread at a time.
#ifndef ROMULUS_BASE_BYTES_H_
#define ROMULUS_BASE_BYTES_H_

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "absl/strings/string_view.h"

namespace romulus::base {

static_assert(std::endian::native == std::endian::little, "x86_64 and arm64 hosts only");

inline std::span<const std::byte> AsBytes(absl::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

inline absl::string_view AsText(std::span<const std::byte> bytes) {
  // SAFETY: anything may be looked at as chars.
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename T>
  requires std::is_trivially_copyable_v<T> T Read() {
    T value{};
    if (std::span<const std::byte> raw = Take(sizeof(T)); raw.size() == sizeof(T)) {
      std::memcpy(&value, raw.data(), sizeof(T));
    }
    return value;
  }
  // The next `count` bytes, or an empty span (and !ok()) if there are fewer.
  std::span<const std::byte> Take(size_t count) {
    if (count > bytes_.size() || !ok_) {
      ok_ = false;
      bytes_ = {};
      return {};
    }
    std::span<const std::byte> taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  size_t remaining() const { return bytes_.size(); }
  bool ok() const { return ok_; }

 private:
  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

class ByteWriter {
 public:
  explicit ByteWriter(std::string* out) : out_(out) {}
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  void Write(const T& value) {
    char raw[sizeof(T)];
    std::memcpy(raw, &value, sizeof(T));
    out_->append(raw, sizeof(T));
  }
  void Append(std::span<const std::byte> bytes) {
    const size_t at = out_->size();
    out_->resize(at + bytes.size());
    if (!bytes.empty()) std::memcpy(out_->data() + at, bytes.data(), bytes.size());
  }

 private:
  std::string* out_;
};

}  // namespace romulus::base

#endif  // ROMULUS_BASE_BYTES_H_
